# What people open: the paper and the page of a study.
import shutil

from telepathy.config import schema


def about_of(wildcards):
    """The study as the configuration describes it, for documents."""
    entry = study_of(config, wildcards.study)
    names = names_of(wildcards)
    kinds = schema()["$defs"]["method"]
    for name, method in names["methods"].items():
        kind = method_settings(config, name)["kind"]
        method.update(kind=kind, what=kinds[kind]["description"])
    facts = ("title", "kind", "stands_for", "citation", "licence")
    return {
        "study": wildcards.study,
        "title": entry["title"],
        "seeds": entry["seeds"],
        **{
            role: {key: config["models"][entry[role]].get(key) for key in ("title", "licence")}
            for role in ("sender", "receiver")
        },
        "methods": names["methods"],
        "tasks": {
            task: {key: content_of(task).get(key) for key in facts}
            | {"soft_tokens": entry["tasks"][task]["soft_tokens"]}
            for task in names["tasks"]
        },
    }


def tables_of(study, ending):
    """A study's tables in one format."""
    paths = [path for path in study_targets(study) if "/tables/" in path]
    return [f"{os.path.splitext(path)[0]}{ending}" for path in paths]


SECTIONS = ("table4_speed", "table8_claims", "table9_costs")
"""Tables that the page shows in a section of their own, from the csv behind them."""


def drawn(study, ending):
    """A study's figures in one format."""
    return [f"results/{study}/figures/{name}{ending}" for name in figures_of(study)]


def documents_of(study):
    """Documents of a study; the PDF only where LaTeX is, so that a machine without it makes all the rest."""
    made = ["report.html", "paper.tex"] + (["paper.pdf"] if shutil.which("pdflatex") else [])
    return [f"results/{study}/{name}" for name in made] + drawn(study, ".pdf")


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
        library=library_sources("write_paper"),
        templates=in_project("telepathy/report/templates/paper.tex.jinja"),
    output:
        "results/{study}/paper.tex",
    log:
        "logs/{study}/write_paper.log",
    conda:
        "../envs/telepathy.yaml"
    params:
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
        library=library_sources("compile_paper"),
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
        library=library_sources("write_page"),
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
        about=about_of,
    script:
        "../workflow_scripts/write_page.py"
