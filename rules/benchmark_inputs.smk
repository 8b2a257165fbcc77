# Helpers of the benchmark rules: what is timed, with which files.
from types import SimpleNamespace

from telepathy.benchmarks.plan import planned_jobs, summed_jobs
from telepathy.errors import TelepathyError


def benchmark_of(wildcards):
    """What a study times, every default filled in."""
    return benchmark_settings(config, wildcards.study)


def benchmark_inputs(wildcards):
    """The trained bridge that is timed, its models and its task."""
    entry, settings = study_of(config, wildcards.study), benchmark_of(wildcards)
    if not settings:
        raise TelepathyError(
            f"The study {wildcards.study} times nothing: give it the key benchmark in config.yaml."
        )
    task, method = settings["task"], settings["method"]
    trained = resolved(wildcards.study, task, method)[1]
    k, seed = entry["tasks"][task]["soft_tokens"], entry["seeds"][0]
    return {
        "bridge": f"results/{wildcards.study}/runs/{task}/{method}/k{k}/seed{seed}/bridge",
        "sender": f"resources/models/{entry[trained['sender_is']]}",
        "receiver": f"resources/models/{entry[trained['receiver_is']]}",
        "examples": f"resources/tasks/{task}",
        "task": in_project(task_file(config, task)),
    }


def benchmarked(wildcards):
    """The timed bridge as wildcards of its runs."""
    settings = benchmark_of(wildcards)
    return SimpleNamespace(study=wildcards.study, task=settings["task"], method=settings["method"])


def whole_machine(wildcards):
    """All cores of one machine, so that nothing else runs while time is taken; on a cluster the study's threads.

    A job's own Snakemake, started by the cluster, must come to the same number as the one that asked for it.
    """
    cores = workflow.resource_settings.cores if workflow.is_main_process else None
    return max(threads_of(wildcards), cores or 1)


def speed_files(study, names=("latency.csv", "tables/table4_speed.tex")):
    """Files on speed, of a study that times something."""
    return [f"results/{study}/{name}" for name in names if benchmark_settings(config, study)]


def forecast_files(study):
    """The forecast that a rehearsal makes of another study."""
    return [f"results/{study}/forecast.csv"] if "forecast" in study_of(config, study) else []
