# One rule a figure, as PDF for paper and SVG for the screen; none loads a model.


rule draw_accuracy:
    input:
        statistics="results/{study}/statistics.csv",
        summary="results/{study}/summary.csv",
    output:
        **picture("accuracy"),
    log:
        "logs/{study}/draw_accuracy.log",
    conda:
        "../envs/telepathy.yaml"
    params:
        library=library_version("draw_accuracy"),
        names=names_of,
    script:
        "../workflow_scripts/draw_accuracy.py"


rule draw_tokens:
    input:
        statistics="results/{study}/statistics.csv",
    output:
        **picture("tokens"),
    log:
        "logs/{study}/draw_tokens.log",
    conda:
        "../envs/telepathy.yaml"
    params:
        library=library_version("draw_tokens"),
        names=names_of,
    script:
        "../workflow_scripts/draw_tokens.py"


rule draw_confusion:
    input:
        predictions=lambda wildcards: results_of(wildcards.study, "predictions.parquet"),
    output:
        **picture("confusion"),
    log:
        "logs/{study}/draw_confusion.log",
    conda:
        "../envs/telepathy.yaml"
    params:
        library=library_version("draw_confusion"),
        names=names_of,
        labels=lambda wildcards: labels_of(wildcards.study),
    script:
        "../workflow_scripts/draw_confusion.py"


rule draw_training:
    input:
        bridges=lambda wildcards: bridges_of(wildcards.study),
    output:
        **picture("training"),
    log:
        "logs/{study}/draw_training.log",
    conda:
        "../envs/telepathy.yaml"
    params:
        library=library_version("draw_training"),
        names=names_of,
    script:
        "../workflow_scripts/draw_training.py"


rule draw_pareto:
    input:
        latency="results/{study}/latency.csv",
        statistics="results/{study}/statistics.csv",
    output:
        **picture("pareto"),
    log:
        "logs/{study}/draw_pareto.log",
    conda:
        "../envs/telepathy.yaml"
    params:
        library=library_version("draw_pareto"),
        names=names_of,
        task=lambda wildcards: study_of(config, wildcards.study)["benchmark"]["task"],
        soft_tokens=lambda wildcards: own_soft_tokens(wildcards.study)[
            study_of(config, wildcards.study)["benchmark"]["task"]
        ],
    script:
        "../workflow_scripts/draw_pareto.py"


rule draw_latency:
    input:
        latency="results/{study}/latency.csv",
    output:
        **picture("latency_breakdown"),
    log:
        "logs/{study}/draw_latency.log",
    conda:
        "../envs/telepathy.yaml"
    params:
        library=library_version("draw_latency"),
    script:
        "../workflow_scripts/draw_latency.py"
