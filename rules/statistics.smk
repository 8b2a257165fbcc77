# From predictions to what may be said about them: statistics, and the claims of the publication.

from telepathy.analysis.comparisons import comparisons_of, statistics_settings


rule compute_statistics:
    input:
        predictions=lambda wildcards: results_of(wildcards.study, "predictions.parquet"),
    output:
        report("results/{study}/statistics.csv", category="{study}", labels={"file": "statistics"}),
    log:
        "logs/{study}/compute_statistics.log",
    conda:
        "../envs/telepathy.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        library=library_version("compute_statistics"),
        comparisons=lambda wildcards: comparisons_of(config, wildcards.study),
        columns=lambda wildcards: table_methods(wildcards.study),
        margin=lambda wildcards: statistics_settings(config, wildcards.study)["equivalence_margin"],
        draws=lambda wildcards: statistics_settings(config, wildcards.study)["bootstrap_draws"],
    script:
        "../workflow_scripts/compute_statistics.py"


rule score_claims:
    input:
        statistics="results/{study}/statistics.csv",
        latency=lambda wildcards: latency_of(wildcards.study),
        claims=in_project("telepathy/analysis/claims.yaml"),
        runs=in_project("telepathy/analysis/published_runs.csv"),
    output:
        report("results/{study}/claims.csv", category="{study}", labels={"file": "claims"}),
    log:
        "logs/{study}/score_claims.log",
    conda:
        "../envs/telepathy.yaml"
    params:
        library=library_version("score_claims"),
        tasks=lambda wildcards: published_tasks(wildcards.study),
        soft_tokens=lambda wildcards: own_soft_tokens(wildcards.study),
        models=lambda wildcards: {
            role: model_of(config, wildcards.study, role) for role in ("sender", "receiver")
        },
        margin=lambda wildcards: statistics_settings(config, wildcards.study)["equivalence_margin"],
    script:
        "../workflow_scripts/score_claims.py"
