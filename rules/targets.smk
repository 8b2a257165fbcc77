# Helpers of all rules, continued: what a study makes.


@cache
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
PUBLISHED = ["summary", "statistics", "claims", "costs"]
TEMPLATES = [
    in_project(f"telepathy/report/templates/table.{kind}.jinja") for kind in ("tex", "html")
]
GROUPS = ["main", "variant", "control", "ablation"]


def result_tables(study):
    """Tables of a study besides those of accuracies: soft tokens and seeds (where there are several), and three more."""
    counts, seeds = {}, {}
    for run in study_runs(study):
        counts.setdefault((run.task, run.method), set()).add(run.k)
        seeds.setdefault((run.task, run.method, run.k), set()).add(run.seed)
    tokens = ["table5_tokens"] if max(map(len, counts.values())) > 1 else []
    spread = ["table10_seeds"] if max(map(len, seeds.values())) > 1 else []
    return [*tokens, "table7_statistics", "table8_claims", "table9_costs", *spread]


def probes_of(study):
    """Each bridge of a study with the linear probe of the same sender, the first in config.yaml."""
    found = methods_run(study)
    probes = {}
    for name in reversed(found):
        if found[name]["kind"] == "linear_probe":
            probes[found[name].get("sender_is", "sender")] = name
    senders = {
        name: content.get("sender_is", "sender")
        for name, content in found.items()
        if content["kind"] == "bridge"
    }
    return {name: probes[sender] for name, sender in senders.items() if sender in probes}


def task_titles(study):
    """Tasks of a study with their titles."""
    return {task: content_of(task)["title"] for task in study_of(config, study)["tasks"]}


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
        f"results/{study}/statistics.csv",
        f"results/{study}/claims.csv",
        *(f"results/{study}/tables/{table}.tex" for table in [*tables, *result_tables(study)]),
        *speed_files(study),
        *forecast_files(study),
    ]


def table_methods(study):
    """Methods of every accuracy table of a study; the best of each column is found among them."""
    return {table: list(titles_of(study, wanted["groups"])) for table, wanted in TABLES.items()}


@cache
def methods_run(study):
    """Settings of the methods that a study runs, before its own changes, in the order of config.yaml."""
    used = {run.method for run in study_runs(study)}
    return {name: method_settings(config, name) for name in config["methods"] if name in used}


def titles_of(study, groups):
    """Methods of some groups that a study runs, with their titles, in the order of config.yaml."""
    settings = methods_run(study)
    names = [name for name in settings if settings[name]["group"] in groups]
    if names and groups == ["ablation"] and "bridge" in settings:
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


def latency_of(study):
    """The latency benchmark of a study that has one."""
    return [path for path in study_targets(study) if path == f"results/{study}/latency.csv"]


def published_tasks(study):
    """Tasks of a study, each with the task of the publication that it is or stands in for."""
    return {
        task: content_of(task).get("stands_for", task) for task in study_of(config, study)["tasks"]
    }


def own_soft_tokens(study):
    """Number of soft tokens of each task of a study."""
    tasks = study_of(config, study)["tasks"]
    return {task: entry["soft_tokens"] for task, entry in tasks.items()}
