"""Train a soft prompt or LoRA on the receiver (rule train_adapter)."""

from telepathy.methods.tuning import train_adapter
from telepathy.models.loading import with_model
from telepathy.parallel import launch
from telepathy.tasks.spec import load_task
from telepathy.workflow import job_log

if __name__ == "__main__":  # the processes that share the job import this file
    with job_log(snakemake):
        launch(
            with_model,
            snakemake.resources.gpu,
            snakemake.threads,
            snakemake.params.compute["device"],
            function=train_adapter,
            role="receiver",
            folder=snakemake.input.receiver,
            compute=snakemake.params.compute,
            task=load_task(snakemake.input.task),
            examples=snakemake.input.examples,
            limits=snakemake.params.limits,
            settings=snakemake.params.settings,
            k=int(snakemake.wildcards.k),
            seed=int(snakemake.wildcards.seed),
            target=snakemake.output[0],
            checkpoints=snakemake.params.checkpoints,
        )
