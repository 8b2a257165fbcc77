# Helpers of all rules, continued: data and models of the user's own, and what of a study is exported.


def local_data(wildcards):
    """The user's own files from which a task is made: an edit of them makes it anew."""
    source = content_of(wildcards.task)["source"]
    if {"package", "hub", "generator"} & set(source):
        return []
    entries = source["files"].values()
    return [
        os.path.expanduser(entry if isinstance(entry, str) else entry["file"]) for entry in entries
    ]


def local_model(wildcards):
    """The user's own folder or file from which a model is made."""
    source = config["models"].get(wildcards.model, {}).get("source", {})
    return [os.path.expanduser(source["path"])] if "path" in source else []


def forward_bridges(study, task):
    """Runs of a task whose bridge goes from the study's sender to its receiver."""
    ours = [run for run in study_runs(study) if run.task == task and run.kind == "bridge"]
    roles = {run.method: resolved(study, task, run.method)[0] for run in ours}
    return [
        run
        for run in ours
        if (roles[run.method]["sender_is"], roles[run.method]["receiver_is"])
        == ("sender", "receiver")
    ]


def trained_bridges(wildcards, name):
    """One file of every run that can be exported."""
    study, task = wildcards.study, wildcards.task
    return [
        f"results/{study}/runs/{task}/{run.method}/k{run.k}/seed{run.seed}/{name}"
        for run in forward_bridges(study, task)
    ]


def export_targets(study):
    """Exported bridges of a study, one a task."""
    tasks = study_of(config, study)["tasks"]
    return [f"results/{study}/export/{task}" for task in tasks if forward_bridges(study, task)]


def licences_of(wildcards):
    """Terms of both models and of the data."""
    names = [model_of(config, wildcards.study, role) for role in ("sender", "receiver")]
    models = [config["models"][name] for name in names]
    data = content_of(wildcards.task)
    terms = {entry["title"]: entry.get("licence", "unknown") for entry in models}
    return {**terms, data["title"]: data["licence"]}
