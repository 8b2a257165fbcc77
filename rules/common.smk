# Helpers of all rules: the run table, and callables for inputs, settings and resources.
import gc
import os
import sys
from functools import cache

gc.freeze()  # what is imported stays; and of a DAG's many objects few are garbage before it is built
gc.set_threshold(100_000)
sys.path.insert(0, str(workflow.basedir))

from telepathy.config import (
    benchmark_settings,
    bridge_settings,
    check_config,
    encoded_layers,
    method_settings,
    model_of,
    runs_table,
    study_of,
    task_file,
)
from telepathy.files import read_yaml
from telepathy.workflow import library_sources, prepare_jobs, version_of


def in_project(path):
    """Path of a project's file from the working directory."""
    return os.path.relpath(os.path.join(workflow.basedir, path))


check_config(config)
prepare_jobs(map(in_project, config["plugins"]), main=workflow.is_main_process)
runs = runs_table(config)


wildcard_constraints:
    study="[a-z][a-z0-9_]*",
    task="[a-z][a-z0-9]*",
    method="[a-z][a-z0-9_]*",
    model="[a-z0-9][a-z0-9.-]*",
    k="[0-9]+",
    seed="[0-9]+",


RUN = "{study}/runs/{task}/{method}/k{k}/seed{seed}"
JOB = "{task}_{method}_k{k}_seed{seed}"


def library_version(script):
    """Hash of the library files and plugins that a script uses: after an edit of one Snakemake runs it again."""
    return version_of(map(in_project, library_sources(script, config["plugins"])))


def methods_of(*kinds):
    """Regular expression of the methods of some kinds; matches nothing where there is none."""
    names = sorted(
        name for name in config["methods"] if method_settings(config, name)["kind"] in kinds
    )
    return "|".join(names) or "(?!)"


@cache
def resolved(study, task, method):
    """Resolved settings of a method and of the bridge that it uses; the same for all its seeds and counts."""
    return (
        method_settings(config, method, study, task),
        bridge_settings(config, method, study, task),
    )


def settings_of(wildcards):
    """Resolved settings of a run's method, without those that only tables read."""
    settings, _ = resolved(wildcards.study, wildcards.task, wildcards.method)
    return {key: value for key, value in settings.items() if key not in ("title", "group")}


COMPUTE = {"device": config["device"], "dtype": config["dtype"]}


def limits_of(wildcards):
    """Examples of each split that the study uses."""
    return study_of(config, wildcards.study)["tasks"][wildcards.task].get("examples", {})


def yaml_of(wildcards):
    """The YAML of the run's task."""
    return in_project(task_file(config, wildcards.task))


@cache
def content_of(task):
    """What a task's YAML says."""
    return read_yaml(in_project(task_file(config, task)))


def bridge_settings_of(wildcards):
    """Resolved settings of a run's bridge; a control uses that of another method."""
    return resolved(wildcards.study, wildcards.task, wildcards.method)[1]


def bridge_of(wildcards):
    """Trained bridge of a run."""
    method = settings_of(wildcards).get("of", wildcards.method)
    return f"results/{RUN}/bridge".format(**{**dict(wildcards.items()), "method": method})


def model_folder(role):
    """Folder of the model that a setting (sender_is, receiver_is, model) names, or of a role."""

    def folder(wildcards):
        settings = bridge_settings_of(wildcards)
        name = model_of(config, wildcards.study, settings.get(role, role))
        return f"resources/models/{name}"

    return folder


def features_folder(wildcards):
    """Feature store of the model that a run reads."""
    role = bridge_settings_of(wildcards).get("sender_is", "sender")
    model = model_of(config, wildcards.study, role)
    return f"resources/features/{wildcards.study}/{model}/{wildcards.task}"
