# Helpers of the rules for documents: what a study's paper and page are made from.
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
