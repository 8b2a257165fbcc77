# What jobs ask for. Training and encoding use all GPUs of the study's `gpus`, the other jobs one.
from telepathy.config import memory_needed

USE_ALL_GPUS = ("train_bridge", "train_adapter", "encode_task")


def gpus(wildcards):
    """GPUs of a job that shares its work among several processes, one a GPU."""
    return study_of(config, wildcards.study).get("gpus", 0)


def one_gpu(wildcards):
    """GPUs of a job that runs a model in one process."""
    return min(1, gpus(wildcards))


def gpus_by_rule(wildcards):
    """GPUs of a job of every rule that asks for them."""
    asking = [rule.name for rule in workflow.rules if "gpu" in rule.resources]
    return {name: (gpus if name in USE_ALL_GPUS else one_gpu)(wildcards) for name in sorted(asking)}


def threads_of(wildcards):
    """CPU threads of a job that runs a model."""
    return study_of(config, wildcards.study).get("threads", 1)


def memory(wildcards, attempt):
    """MiB for the study's larger model in 16 bit with room to work, more at each attempt."""
    study = study_of(config, wildcards.study)
    largest = max(
        config["models"][study[role]].get("parameters", 1e9) for role in ("sender", "receiver")
    )
    return int(memory_needed(largest) * attempt)


def memory_of_all(wildcards, attempt):
    """MiB for a job of several processes, each of which loads the model."""
    return memory(wildcards, attempt) * max(1, gpus(wildcards))


def memory_of_training(wildcards, attempt):
    """MiB where activations and gradients are held too: jobs on the small models have held up to 1,600 more."""
    return memory_of_all(wildcards, attempt) + 2000 * attempt * max(1, gpus(wildcards))


def minutes(small, large):
    """Run time for CPU-sized and for GPU-sized studies, more at each attempt."""

    def runtime(wildcards, attempt):
        return (large if gpus(wildcards) else small) * attempt

    return runtime
