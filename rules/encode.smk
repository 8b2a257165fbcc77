# Run the sender once over every text; all seeds, token counts and probes read the stored states.


rule encode_task:
    input:
        model="resources/models/{model}",
        examples="resources/tasks/{task}",
        task=yaml_of,
    output:
        directory("resources/features/{study}/{model}/{task}"),
    log:
        "logs/{study}/encode_task/{model}_{task}.log",
    benchmark:
        "results/{study}/costs/encode_task/{model}_{task}.jsonl"
    conda:
        "../envs/telepathy.yaml"
    threads: threads_of
    resources:
        gpu=gpus,
        mem_mb=memory_of_all,
        runtime=minutes(60, 120),
    params:
        library=library_version("encode_task"),
        layers=lambda wildcards: encoded_layers(
            config, wildcards.study, wildcards.task, wildcards.model
        ),
        limits=limits_of,
        compute=COMPUTE,
    script:
        "../workflow_scripts/encode_task.py"
