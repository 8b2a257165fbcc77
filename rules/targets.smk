# Helpers of all rules, continued: what a study makes.


def study_runs(study):
    """The study's rows of the run table."""
    study_of(config, study)  # refuses an unknown study by name
    return list(runs[runs["study"] == study].itertuples())


def results_of(study, name="metrics.json"):
    """One file of every run of a study."""
    return [
        f"results/{run.study}/runs/{run.task}/{run.method}/k{run.k}/seed{run.seed}/{name}"
        for run in study_runs(study)
    ]


def tasks_of_kinds(study, kinds):
    """Tasks of a study that are of some kinds, with their titles, in the study's order."""
    found = {}
    for task in study_of(config, study)["tasks"]:
        content = content_of(task)
        if content.get("kind") in kinds and any(run.task == task for run in study_runs(study)):
            found[task] = content["title"]
    return found


TABLES = {
    "table1_classification": ("labels",),
    "table2_reasoning": ("boolean", "multiple_choice", "number"),
}


def study_targets(study):
    """Everything that a study makes."""
    tables = [table for table, kinds in TABLES.items() if tasks_of_kinds(study, kinds)]
    return [
        f"results/{study}/summary.csv",
        f"results/{study}/costs.csv",
        *(f"results/{study}/tables/{table}.tex" for table in tables),
    ]


def titles_of(study):
    """Methods that a study runs, with their titles, in the order of config.yaml."""
    used = {run.method for run in study_runs(study)}
    return {
        name: method_settings(config, name).get("title", name)
        for name in config["methods"]
        if name in used
    }


def shared_costs(study):
    """Benchmark files of the fetch rules that a study needs."""
    entry = study_of(config, study)
    files = [f"resources/costs/fetch_model/{entry[role]}.jsonl" for role in ("sender", "receiver")]
    for task in entry["tasks"]:
        files += [f"resources/costs/{rule}/{task}.jsonl" for rule in ("fetch_data", "cache_task")]
    return files


def unknown_method(wildcards):
    """Refuse a target of a method that config.yaml does not have; Snakemake only says that no rule makes it."""
    method_settings(config, wildcards.method)
