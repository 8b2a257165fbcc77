"""Train a soft prompt or LoRA on the receiver (rule train_adapter)."""

from telepathy.devices import choose_compute, use_threads
from telepathy.methods.tuning import train_adapter
from telepathy.models.loading import load_language_model
from telepathy.tasks.spec import load_task
from telepathy.workflow import job_log

with job_log(snakemake):
    use_threads(snakemake.threads)
    train_adapter(
        load_task(snakemake.input.task),
        snakemake.input.examples,
        snakemake.params.limits,
        load_language_model(snakemake.input.receiver, choose_compute(**snakemake.params.compute)),
        snakemake.params.settings,
        k=int(snakemake.wildcards.k),
        seed=int(snakemake.wildcards.seed),
        target=snakemake.output[0],
        checkpoints=snakemake.params.checkpoints,
    )
