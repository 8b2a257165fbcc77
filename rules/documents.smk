# What people open: the paper and the page of a study.


rule write_paper:
    input:
        statistics="results/{study}/statistics.csv",
        claims="results/{study}/claims.csv",
        costs="results/{study}/costs.csv",
        metrics=lambda wildcards: results_of(wildcards.study),
        captions=lambda wildcards: [
            in_project(f"telepathy/report/captions/{name}.rst")
            for name in figures_of(wildcards.study)
        ],
        templates=in_project("telepathy/report/templates/paper.tex.jinja"),
    output:
        "results/{study}/paper.tex",
    log:
        "logs/{study}/write_paper.log",
    conda:
        "../envs/telepathy.yaml"
    params:
        library=library_version("write_paper"),
        about=about_of,
        tables=lambda wildcards: tables_of(wildcards.study, ""),
        figures=lambda wildcards: figures_of(wildcards.study),
    script:
        "../workflow_scripts/write_paper.py"


rule compile_paper:
    input:
        source="results/{study}/paper.tex",
        tables=lambda wildcards: tables_of(wildcards.study, ".tex"),
        figures=lambda wildcards: drawn(wildcards.study, ".pdf"),
    output:
        report(
            "results/{study}/paper.pdf",
            caption="../telepathy/report/captions/paper.rst",
            category="{study}",
            labels={"file": "paper"},
        ),
    log:
        "logs/{study}/compile_paper.log",
    conda:
        "../envs/telepathy.yaml"
    params:
        library=library_version("compile_paper"),
    script:
        "../workflow_scripts/compile_paper.py"


rule write_page:
    input:
        csv=lambda wildcards: [
            f"results/{wildcards.study}/{name}.csv"
            for name in ("statistics", "claims", "costs", "summary")
        ]
        + latency_of(wildcards.study),
        predictions=lambda wildcards: results_of(wildcards.study, "predictions.parquet"),
        metrics=lambda wildcards: results_of(wildcards.study),
        examples=lambda wildcards: [
            f"resources/tasks/{task}" for task in study_of(config, wildcards.study)["tasks"]
        ],
        tables=lambda wildcards: [
            path
            for path in tables_of(wildcards.study, ".html")
            if not any(name in path for name in SECTIONS)
        ],
        figures=lambda wildcards: drawn(wildcards.study, ".svg"),
        captions=lambda wildcards: [
            in_project(f"telepathy/report/captions/{Path(path).stem}.rst")
            for path in drawn(wildcards.study, ".svg")
        ],
        templates=[
            in_project(f"telepathy/report/templates/page.{ending}")
            for ending in ("html.jinja", "css", "js")
        ],
    output:
        report(
            "results/{study}/report.html",
            caption="../telepathy/report/captions/page.rst",
            category="{study}",
            labels={"file": "report"},
        ),
    log:
        "logs/{study}/write_page.log",
    conda:
        "../envs/telepathy.yaml"
    params:
        library=library_version("write_page"),
        about=about_of,
    script:
        "../workflow_scripts/write_page.py"
