# Methods that the bridge is compared with.


rule prompt_model:
    input:
        model=model_folder("model"),
        examples="resources/tasks/{task}",
        task=yaml_of,
        library=library_sources("prompt_model"),
    output:
        predictions=f"results/{RUN}/predictions.parquet",
        metrics=f"results/{RUN}/metrics.json",
    log:
        f"logs/{{study}}/prompt_model/{JOB}.log",
    benchmark:
        f"results/{{study}}/costs/prompt_model/{JOB}.jsonl"
    wildcard_constraints:
        method=methods_of("zero_shot"),
    conda:
        "../envs/telepathy.yaml"
    threads: threads_of
    resources:
        gpu=gpus,
        mem_mb=memory,
        runtime=minutes(60, 60),
    params:
        settings=settings_of,
        limits=limits_of,
        compute={"device": config["device"], "dtype": config["dtype"]},
    script:
        "../workflow_scripts/prompt_model.py"


# Never runs: its input function names the methods that there are.
rule refuse_unknown_method:
    input:
        unknown_method,
    output:
        predictions=f"results/{RUN}/predictions.parquet",
        metrics=f"results/{RUN}/metrics.json",
    wildcard_constraints:
        method=f"(?!(?:{'|'.join(config['methods'])})/)[a-z][a-z0-9_]*",
