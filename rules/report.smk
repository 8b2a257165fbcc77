# From runs to what people read: summary, costs, tables.


rule summarise_runs:
    input:
        metrics=lambda wildcards: results_of(wildcards.study),
    output:
        report("results/{study}/summary.csv", category="{study}", labels={"file": "summary"}),
    log:
        "logs/{study}/summarise_runs.log",
    conda:
        "../envs/telepathy.yaml"
    params:
        library=library_version("summarise_runs"),
    script:
        "../workflow_scripts/summarise_runs.py"


rule summarise_costs:
    input:
        summary="results/{study}/summary.csv",
        latency=lambda wildcards: speed_files(wildcards.study, ["latency.csv"]),
    output:
        report("results/{study}/costs.csv", category="{study}", labels={"file": "costs"}),
    log:
        "logs/{study}/summarise_costs.log",
    conda:
        "../envs/telepathy.yaml"
    params:
        library=library_version("summarise_costs"),
        shared=lambda wildcards: shared_costs(wildcards.study),
        folder="results/{study}/costs",
    script:
        "../workflow_scripts/summarise_costs.py"


rule render_accuracy_table:
    input:
        summary="results/{study}/summary.csv",
        statistics="results/{study}/statistics.csv",
        templates=TEMPLATES,
    output:
        tex=report(
            "results/{study}/tables/{table}.tex", category="{study}", labels={"file": "{table}"}
        ),
        csv="results/{study}/tables/{table}.csv",
        html="results/{study}/tables/{table}.html",
    log:
        "logs/{study}/render_accuracy_table/{table}.log",
    wildcard_constraints:
        table="|".join(TABLES),
    conda:
        "../envs/telepathy.yaml"
    params:
        library=library_version("render_accuracy_table"),
        tasks=lambda wildcards: tasks_of_kinds(wildcards.study, TABLES[wildcards.table]["kinds"]),
        methods=lambda wildcards: titles_of(wildcards.study, TABLES[wildcards.table]["groups"]),
        kinds=lambda wildcards: TABLES[wildcards.table]["kinds"],
        title=lambda wildcards: study_of(config, wildcards.study)["title"],
    script:
        "../workflow_scripts/render_accuracy_table.py"


# Only where it is asked for by path: the csv files of a study that a repository keeps.
rule publish_results:
    input:
        results=[f"results/{{study}}/{name}.csv" for name in PUBLISHED],
    output:
        [f"docs/results/{{study}}/{name}.csv" for name in PUBLISHED],
    log:
        "logs/{study}/publish_results.log",
    conda:
        "../envs/telepathy.yaml"
    params:
        library=library_version("publish_results"),
    script:
        "../workflow_scripts/publish_results.py"
