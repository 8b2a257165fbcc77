# Train a bridge per (task, method, k, seed) and answer the test examples with it.


rule train_bridge:
    input:
        receiver=model_folder("receiver_is"),
        features=features_folder,
        examples="resources/tasks/{task}",
        task=yaml_of,
    output:
        directory(f"results/{RUN}/bridge"),
    log:
        f"logs/{{study}}/train_bridge/{JOB}.log",
    benchmark:
        f"results/{{study}}/costs/train_bridge/{JOB}.jsonl"
    wildcard_constraints:
        method=methods_of("bridge"),
    conda:
        "../envs/telepathy.yaml"
    threads: threads_of
    resources:
        gpu=gpus,
        mem_mb=memory_of_training,
        runtime=minutes(60, 90),
    params:
        library=library_version("train_bridge"),
        settings=settings_of,
        limits=limits_of,
        compute=COMPUTE,
        checkpoints=f"resources/checkpoints/{RUN}",
    script:
        "../workflow_scripts/train_bridge.py"


rule evaluate_bridge:
    input:
        bridge=bridge_of,
        receiver=model_folder("receiver_is"),
        features=features_folder,
        examples="resources/tasks/{task}",
        task=yaml_of,
    output:
        predictions=f"results/{RUN}/predictions.parquet",
        metrics=f"results/{RUN}/metrics.json",
    log:
        f"logs/{{study}}/evaluate_bridge/{JOB}.log",
    benchmark:
        f"results/{{study}}/costs/evaluate_bridge/{JOB}.jsonl"
    wildcard_constraints:
        method=methods_of("bridge", "control"),
    conda:
        "../envs/telepathy.yaml"
    threads: threads_of
    resources:
        gpu=one_gpu,
        mem_mb=memory,
        runtime=minutes(30, 30),
    params:
        library=library_version("evaluate_bridge"),
        settings=settings_of,
        limits=limits_of,
        compute=COMPUTE,
    script:
        "../workflow_scripts/evaluate_bridge.py"
