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
    "table1_classification": {"kinds": ["labels"], "groups": ["main"]},
    "table2_reasoning": {
        "kinds": ["boolean", "multiple_choice", "number"],
        "groups": ["main", "variant", "control"],
    },
    "table3_baselines": {"kinds": ["labels"], "groups": ["main", "variant", "control"]},
    "table6_ablations": {"kinds": ["labels"], "groups": ["ablation"]},
}


def study_targets(study):
    """Everything that a study makes."""
    tables = [
        name
        for name, wanted in TABLES.items()
        if tasks_of_kinds(study, wanted["kinds"]) and titles_of(study, wanted["groups"])
    ]
    return [
        f"results/{study}/summary.csv",
        f"results/{study}/costs.csv",
        *(f"results/{study}/tables/{table}.tex" for table in tables),
        *speed_files(study),
        *forecast_files(study),
    ]


def titles_of(study, groups):
    """Methods of some groups that a study runs, with their titles, in the order of config.yaml."""
    used = {run.method for run in study_runs(study)}
    settings = {name: method_settings(config, name) for name in config["methods"] if name in used}
    names = [name for name in settings if settings[name]["group"] in groups]
    if names and groups == ["ablation"] and "bridge" in used:
        names = ["bridge", *names]  # what was changed stands beside what it was changed from
    return {name: settings[name].get("title", name) for name in names}


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


def sent_predictions(wildcards):
    """Predictions of the method whose labels a relay sends."""
    method = settings_of(wildcards)["sent_by"]
    return f"results/{wildcards.study}/runs/{wildcards.task}/{method}/k0/seed0/predictions.parquet"
