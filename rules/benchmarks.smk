# How fast: latency of every arm, and our training and evaluation against the plain way.


rule measure_latency:
    input:
        unpack(benchmark_inputs),
    output:
        report("results/{study}/latency.csv", category="{study}", labels={"file": "latency"}),
    log:
        "logs/{study}/measure_latency/all.log",
    benchmark:
        "results/{study}/costs/measure_latency/all.jsonl"
    conda:
        "../envs/telepathy.yaml"
    threads: whole_machine
    resources:
        gpu=one_gpu,
        mem_mb=memory,
        runtime=minutes(30, 60),
    params:
        library=library_version("measure_latency"),
        settings=benchmark_of,
        compute=COMPUTE,
        threads=threads_of,
    script:
        "../workflow_scripts/measure_latency.py"


rule render_speed_table:
    input:
        latency="results/{study}/latency.csv",
        templates=TEMPLATES,
    output:
        tex=report(
            "results/{study}/tables/table4_speed.tex",
            category="{study}",
            labels={"file": "table4_speed"},
        ),
        csv="results/{study}/tables/table4_speed.csv",
        html="results/{study}/tables/table4_speed.html",
    log:
        "logs/{study}/render_speed_table.log",
    conda:
        "../envs/telepathy.yaml"
    params:
        library=library_version("render_speed_table"),
        title=lambda wildcards: study_of(config, wildcards.study)["title"],
    script:
        "../workflow_scripts/render_speed_table.py"


rule measure_speed:
    input:
        unpack(benchmark_inputs),
        features=lambda wildcards: features_folder(benchmarked(wildcards)),
        costs="results/{study}/costs.csv",
    output:
        report("results/{study}/speed.csv", category="{study}", labels={"file": "speed"}),
    log:
        "logs/{study}/measure_speed.log",
    conda:
        "../envs/telepathy.yaml"
    threads: whole_machine
    resources:
        gpu=one_gpu,
        mem_mb=memory,
        runtime=minutes(30, 60),
    params:
        library=library_version("measure_speed"),
        settings=lambda wildcards: settings_of(benchmarked(wildcards)),
        limits=lambda wildcards: limits_of(benchmarked(wildcards)),
        compute=COMPUTE,
        threads=threads_of,
    script:
        "../workflow_scripts/measure_speed.py"


rule forecast_costs:
    input:
        metrics=lambda wildcards: results_of(wildcards.study),
        timed=lambda wildcards: speed_files(wildcards.study, ["latency.csv"]),
        inspected=lambda wildcards: inspections("json")(wildcards),
    output:
        report("results/{study}/forecast.csv", category="{study}", labels={"file": "forecast"}),
    log:
        "logs/{study}/forecast_costs.log",
    conda:
        "../envs/telepathy.yaml"
    params:
        library=library_version("forecast_costs"),
        forecast=lambda wildcards: study_of(config, wildcards.study)["forecast"],
        planned=lambda wildcards: summed_jobs(config, study_of(config, wildcards.study)["forecast"]),
        rehearsed=lambda wildcards: planned_jobs(config, wildcards.study).to_dict("records"),
        costs="results/{study}/costs",
        logs="logs/{study}",
    script:
        "../workflow_scripts/forecast_costs.py"
