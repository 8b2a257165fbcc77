# Helpers of the rules for figures and documents: what a study has to show, and under which titles.
from telepathy.errors import TelepathyError
from telepathy.tasks.spec import load_task


def picture(name):
    """Files of one figure; its caption is shared by `snakemake --report`, the paper and the page."""
    return {
        "pdf": f"results/{{study}}/figures/{name}.pdf",
        "svg": report(
            f"results/{{study}}/figures/{name}.svg",
            caption=f"../telepathy/report/captions/{name}.rst",
            category="{study}",
            subcategory="figures",
            labels={"file": name},
        ),
    }


def names_of(wildcards):
    """Titles of the study's methods (with their group) and tasks, in the order of the configuration."""
    settings = methods_run(wildcards.study)
    tasks = study_of(config, wildcards.study)["tasks"]
    return {
        "methods": {
            name: {"title": entry.get("title", name), "group": entry["group"]}
            for name, entry in settings.items()
        },
        "tasks": {task: content_of(task)["title"] for task in tasks},
    }


LABELLED = ["labels", "boolean", "multiple_choice"]


def labels_of(study):
    """Names of the labels of every task of a study that has any."""
    kinds = tasks_of_kinds(study, LABELLED)
    tasks = {task: load_task(in_project(task_file(config, task))) for task in kinds}
    return {task: content.label_names for task, content in tasks.items()}


def bridges_of(study):
    """Folders of all trained bridges of a study."""
    return [
        f"results/{run.study}/runs/{run.task}/{run.method}/k{run.k}/seed{run.seed}/bridge"
        for run in study_runs(study)
        if run.kind == "bridge"
    ]


def bridges_on(study, task):
    """Runs of the plain bridge on one task, the one that is looked into first: least k, first seed."""
    found = [run for run in study_runs(study) if (run.task, run.method) == (task, "bridge")]
    return sorted(found, key=lambda run: run.k)


def shown_bridge(wildcards):
    """The run that is looked into."""
    found = bridges_on(wildcards.study, wildcards.task)
    if not found:
        raise TelepathyError(
            f"The study {wildcards.study} trains no bridge on {wildcards.task}: add the method bridge to its runs."
        )
    return found[0]


def shown_folder(wildcards):
    """Trained weights of the run that is looked into."""
    run = shown_bridge(wildcards)
    return f"results/{run.study}/runs/{run.task}/{run.method}/k{run.k}/seed{run.seed}/bridge"


def inspected_tasks(study):
    """Tasks with a set of labels on which the study trains the plain bridge."""
    return [task for task in tasks_of_kinds(study, ["labels"]) if bridges_on(study, task)]


def inspections(ending):
    """Input function: what was extracted of every inspected bridge."""

    def files(wildcards):
        folder = f"results/{wildcards.study}/inspection"
        return [f"{folder}/{task}.{ending}" for task in inspected_tasks(wildcards.study)]

    return files


def figures_of(study):
    """Names of the figures that a study can fill."""
    names = ["accuracy"]
    bridges = [run for run in study_runs(study) if run.kind == "bridge"]
    pairs = [(run.task, run.method, run.k) for run in bridges]
    if len({pair[:2] for pair in pairs}) < len(set(pairs)):
        names += ["tokens"]
    names += ["confusion"] if tasks_of_kinds(study, LABELLED) else []
    names += ["training"] if bridges else []
    names += ["soft_tokens", "attention", "words"] if inspected_tasks(study) else []
    return names + (
        ["pareto", "latency_breakdown"] if "benchmark" in study_of(config, study) else []
    )
