# Methods that the bridge is compared with and that train nothing in a language model.


rule prompt_model:
    input:
        model=model_folder("model"),
        examples="resources/tasks/{task}",
        task=yaml_of,
    output:
        predictions=f"results/{RUN}/predictions.parquet",
        metrics=f"results/{RUN}/metrics.json",
    log:
        f"logs/{{study}}/prompt_model/{JOB}.log",
    benchmark:
        f"results/{{study}}/costs/prompt_model/{JOB}.jsonl"
    wildcard_constraints:
        method=methods_of("zero_shot", "few_shot"),
    conda:
        "../envs/telepathy.yaml"
    threads: threads_of
    resources:
        gpu=one_gpu,
        mem_mb=memory,
        runtime=minutes(60, 60),
    params:
        library=library_version("prompt_model"),
        settings=settings_of,
        limits=limits_of,
        compute=COMPUTE,
    script:
        "../workflow_scripts/prompt_model.py"


rule probe_sender:
    input:
        features=features_folder,
        examples="resources/tasks/{task}",
        task=yaml_of,
    output:
        predictions=f"results/{RUN}/predictions.parquet",
        metrics=f"results/{RUN}/metrics.json",
    log:
        f"logs/{{study}}/probe_sender/{JOB}.log",
    benchmark:
        f"results/{{study}}/costs/probe_sender/{JOB}.jsonl"
    wildcard_constraints:
        method=methods_of("linear_probe"),
    conda:
        "../envs/telepathy.yaml"
    threads: threads_of
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        library=library_version("probe_sender"),
        settings=settings_of,
        limits=limits_of,
    script:
        "../workflow_scripts/probe_sender.py"


rule relay_text:
    input:
        sender=model_folder("sender"),
        receiver=model_folder("receiver"),
        examples="resources/tasks/{task}",
        task=yaml_of,
    output:
        predictions=f"results/{RUN}/predictions.parquet",
        metrics=f"results/{RUN}/metrics.json",
    log:
        f"logs/{{study}}/relay_text/{JOB}.log",
    benchmark:
        f"results/{{study}}/costs/relay_text/{JOB}.jsonl"
    wildcard_constraints:
        method=methods_of("text_relay"),
    conda:
        "../envs/telepathy.yaml"
    threads: threads_of
    resources:
        gpu=one_gpu,
        mem_mb=memory,
        runtime=minutes(60, 60),
    params:
        library=library_version("relay_text"),
        settings=settings_of,
        limits=limits_of,
        compute=COMPUTE,
    script:
        "../workflow_scripts/relay_text.py"


rule relay_label:
    input:
        sent=sent_predictions,
        examples="resources/tasks/{task}",
        task=yaml_of,
    output:
        predictions=f"results/{RUN}/predictions.parquet",
        metrics=f"results/{RUN}/metrics.json",
    log:
        f"logs/{{study}}/relay_label/{JOB}.log",
    benchmark:
        f"results/{{study}}/costs/relay_label/{JOB}.jsonl"
    wildcard_constraints:
        method=methods_of("label_relay"),
    conda:
        "../envs/telepathy.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        library=library_version("relay_label"),
        settings=settings_of,
        limits=limits_of,
    script:
        "../workflow_scripts/relay_label.py"


# Never runs: its input function names the methods that there are.
rule refuse_unknown_method:
    input:
        unknown_method,
    output:
        predictions=f"results/{RUN}/predictions.parquet",
        metrics=f"results/{RUN}/metrics.json",
    wildcard_constraints:
        method=f"(?!(?:{'|'.join(config['methods'])})/)[a-z][a-z0-9_]*",
