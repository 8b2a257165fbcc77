# Tables of what was concluded and what it cost; those of accuracies are in report.smk.


rule render_token_table:
    input:
        statistics="results/{study}/statistics.csv",
        templates=TEMPLATES,
    output:
        tex=report(
            "results/{study}/tables/table5_tokens.tex",
            category="{study}",
            labels={"file": "table5_tokens"},
        ),
        csv="results/{study}/tables/table5_tokens.csv",
        html="results/{study}/tables/table5_tokens.html",
    log:
        "logs/{study}/render_token_table.log",
    conda:
        "../envs/telepathy.yaml"
    params:
        library=library_version("render_token_table"),
        tasks=lambda wildcards: task_titles(wildcards.study),
        methods=lambda wildcards: titles_of(wildcards.study, GROUPS),
    script:
        "../workflow_scripts/render_token_table.py"


rule render_seed_table:
    input:
        summary="results/{study}/summary.csv",
        templates=TEMPLATES,
    output:
        tex=report(
            "results/{study}/tables/table10_seeds.tex",
            category="{study}",
            labels={"file": "table10_seeds"},
        ),
        csv="results/{study}/tables/table10_seeds.csv",
        html="results/{study}/tables/table10_seeds.html",
    log:
        "logs/{study}/render_seed_table.log",
    conda:
        "../envs/telepathy.yaml"
    params:
        library=library_version("render_seed_table"),
        tasks=lambda wildcards: task_titles(wildcards.study),
        methods=lambda wildcards: titles_of(wildcards.study, GROUPS),
        probes=lambda wildcards: probes_of(wildcards.study),
    script:
        "../workflow_scripts/render_seed_table.py"


rule render_statistics_table:
    input:
        statistics="results/{study}/statistics.csv",
        templates=TEMPLATES,
    output:
        tex=report(
            "results/{study}/tables/table7_statistics.tex",
            category="{study}",
            labels={"file": "table7_statistics"},
        ),
        csv="results/{study}/tables/table7_statistics.csv",
        html="results/{study}/tables/table7_statistics.html",
    log:
        "logs/{study}/render_statistics_table.log",
    conda:
        "../envs/telepathy.yaml"
    params:
        library=library_version("render_statistics_table"),
        tasks=lambda wildcards: task_titles(wildcards.study),
        methods=lambda wildcards: titles_of(wildcards.study, GROUPS),
        margin=lambda wildcards: statistics_settings(config, wildcards.study)["equivalence_margin"],
    script:
        "../workflow_scripts/render_statistics_table.py"


rule render_claims_table:
    input:
        claims="results/{study}/claims.csv",
        templates=TEMPLATES,
    output:
        tex=report(
            "results/{study}/tables/table8_claims.tex",
            category="{study}",
            labels={"file": "table8_claims"},
        ),
        csv="results/{study}/tables/table8_claims.csv",
        html="results/{study}/tables/table8_claims.html",
    log:
        "logs/{study}/render_claims_table.log",
    conda:
        "../envs/telepathy.yaml"
    params:
        library=library_version("render_claims_table"),
        margin=lambda wildcards: statistics_settings(config, wildcards.study)["equivalence_margin"],
    script:
        "../workflow_scripts/render_claims_table.py"


rule render_costs_table:
    input:
        costs="results/{study}/costs.csv",
        templates=TEMPLATES,
    output:
        tex=report(
            "results/{study}/tables/table9_costs.tex",
            category="{study}",
            labels={"file": "table9_costs"},
        ),
        csv="results/{study}/tables/table9_costs.csv",
        html="results/{study}/tables/table9_costs.html",
    log:
        "logs/{study}/render_costs_table.log",
    conda:
        "../envs/telepathy.yaml"
    params:
        library=library_version("render_costs_table"),
        gpus=gpus_by_rule,
    script:
        "../workflow_scripts/render_costs_table.py"
