# The only rules that use the network; every other job runs offline.


rule fetch_model:
    input:
        local_model,
    output:
        directory("resources/models/{model}"),
    log:
        "logs/fetch_model/{model}.log",
    benchmark:
        "resources/costs/fetch_model/{model}.jsonl"
    conda:
        "../envs/telepathy.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 6000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        library=library_version("fetch_model"),
        source=lookup("models/{model}/source", within=config),
        downloads="resources/downloads",
        pins="resources/pins/models",
    script:
        "../workflow_scripts/fetch_model.py"


rule fetch_data:
    input:
        local_data,
    output:
        directory("resources/raw/{task}"),
    log:
        "logs/fetch_data/{task}.log",
    benchmark:
        "resources/costs/fetch_data/{task}.jsonl"
    conda:
        "../envs/telepathy.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        library=library_version("fetch_data"),
        source=lambda wildcards: content_of(wildcards.task)["source"],
        downloads="resources/downloads",
        pins="resources/pins/tasks",
    script:
        "../workflow_scripts/fetch_data.py"


rule cache_task:
    input:
        raw="resources/raw/{task}",
        task=yaml_of,
    output:
        directory("resources/tasks/{task}"),
    log:
        "logs/cache_task/{task}.log",
    benchmark:
        "resources/costs/cache_task/{task}.jsonl"
    conda:
        "../envs/telepathy.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        library=library_version("cache_task"),
    script:
        "../workflow_scripts/cache_task.py"
