# Methods that train the receiver itself: prompt tuning and LoRA.


rule train_adapter:
    input:
        receiver=model_folder("receiver"),
        examples="resources/tasks/{task}",
        task=yaml_of,
    output:
        directory(f"results/{RUN}/adapter"),
    log:
        f"logs/{{study}}/train_adapter/{JOB}.log",
    benchmark:
        f"results/{{study}}/costs/train_adapter/{JOB}.jsonl"
    wildcard_constraints:
        method=methods_of("prompt_tuning", "lora"),
    conda:
        "../envs/telepathy.yaml"
    threads: threads_of
    resources:
        gpu=gpus,
        mem_mb=memory_of_training,
        runtime=minutes(90, 120),
    params:
        library=library_version("train_adapter"),
        settings=settings_of,
        limits=limits_of,
        compute=COMPUTE,
        checkpoints=f"resources/checkpoints/{RUN}",
    script:
        "../workflow_scripts/train_adapter.py"


rule evaluate_adapter:
    input:
        adapter=f"results/{RUN}/adapter",
        receiver=model_folder("receiver"),
        examples="resources/tasks/{task}",
        task=yaml_of,
    output:
        predictions=f"results/{RUN}/predictions.parquet",
        metrics=f"results/{RUN}/metrics.json",
    log:
        f"logs/{{study}}/evaluate_adapter/{JOB}.log",
    benchmark:
        f"results/{{study}}/costs/evaluate_adapter/{JOB}.jsonl"
    wildcard_constraints:
        method=methods_of("prompt_tuning", "lora"),
    conda:
        "../envs/telepathy.yaml"
    threads: threads_of
    resources:
        gpu=one_gpu,
        mem_mb=memory,
        runtime=minutes(60, 60),
    params:
        library=library_version("evaluate_adapter"),
        settings=settings_of,
        limits=limits_of,
        compute=COMPUTE,
    script:
        "../workflow_scripts/evaluate_adapter.py"
