# A study's best bridges as folders that others can load: snakemake results/<study>/export/<task>


rule export_bridge:
    input:
        bridges=lambda wildcards: trained_bridges(wildcards, "bridge"),
        metrics=lambda wildcards: trained_bridges(wildcards, "metrics.json"),
        template=in_project("telepathy/bridges/model_card.md.jinja"),
    output:
        directory("results/{study}/export/{task}"),
    log:
        "logs/{study}/export_bridge/{task}.log",
    conda:
        "../envs/telepathy.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        library=library_version("export_bridge"),
        licences=licences_of,
    script:
        "../workflow_scripts/export_bridge.py"


rule export_study:
    input:
        export_targets(config["study"]),
