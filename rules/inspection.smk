# Look into one trained bridge a task: extract what it sends, then draw it without any model.


rule inspect_bridge:
    input:
        bridge=shown_folder,
        sender=lambda wildcards: model_folder("sender_is")(shown_bridge(wildcards)),
        receiver=lambda wildcards: model_folder("receiver_is")(shown_bridge(wildcards)),
        features=lambda wildcards: features_folder(shown_bridge(wildcards)),
        examples="resources/tasks/{task}",
        task=yaml_of,
    output:
        table="results/{study}/inspection/{task}.parquet",
        facts="results/{study}/inspection/{task}.json",
    log:
        "logs/{study}/inspect_bridge/{task}.log",
    benchmark:
        "results/{study}/costs/inspect_bridge/{task}.jsonl"
    conda:
        "../envs/telepathy.yaml"
    threads: threads_of
    resources:
        gpu=one_gpu,
        mem_mb=memory,
        runtime=minutes(30, 30),
    params:
        library=library_version("inspect_bridge"),
        limits=limits_of,
        compute=COMPUTE,
        run=lambda wildcards: {
            name: getattr(shown_bridge(wildcards), name)
            for name in ("task", "method", "k", "seed")
        },
    script:
        "../workflow_scripts/inspect_bridge.py"


rule draw_soft_tokens:
    input:
        tables=inspections("parquet"),
    output:
        **picture("soft_tokens"),
    log:
        "logs/{study}/draw_soft_tokens.log",
    conda:
        "../envs/telepathy.yaml"
    params:
        library=library_version("draw_soft_tokens"),
        names=names_of,
    script:
        "../workflow_scripts/draw_soft_tokens.py"


rule draw_attention:
    input:
        facts=inspections("json"),
    output:
        **picture("attention"),
    log:
        "logs/{study}/draw_attention.log",
    conda:
        "../envs/telepathy.yaml"
    params:
        library=library_version("draw_attention"),
        names=names_of,
    script:
        "../workflow_scripts/draw_attention.py"


rule draw_words:
    input:
        facts=inspections("json"),
    output:
        **picture("words"),
    log:
        "logs/{study}/draw_words.log",
    conda:
        "../envs/telepathy.yaml"
    params:
        library=library_version("draw_words"),
        names=names_of,
    script:
        "../workflow_scripts/draw_words.py"
