# Methods of the user's own: classes in the files that config.yaml names under plugins (docs/own_bridge.md).


rule run_own_method:
    input:
        models=lambda wildcards: [
            model_folder(role)(wildcards) for role in settings_of(wildcards)["models"]
        ],
        examples="resources/tasks/{task}",
        task=yaml_of,
    output:
        predictions=f"results/{RUN}/predictions.parquet",
        metrics=f"results/{RUN}/metrics.json",
    log:
        f"logs/{{study}}/run_own_method/{JOB}.log",
    benchmark:
        f"results/{{study}}/costs/run_own_method/{JOB}.jsonl"
    wildcard_constraints:
        method=methods_of("own"),
    conda:
        "../envs/telepathy.yaml"
    threads: threads_of
    resources:
        gpu=one_gpu,
        mem_mb=memory,
        runtime=minutes(60, 60),
    params:
        library=library_version("run_own_method"),
        settings=settings_of,
        limits=limits_of,
        compute=COMPUTE,
    script:
        "../workflow_scripts/run_own_method.py"
