"""Encode one task with one model (rule encode_task)."""

from telepathy.features import encode_cached_task
from telepathy.models.loading import with_model
from telepathy.parallel import launch
from telepathy.tasks.spec import load_task
from telepathy.workflow import job_log

if __name__ == "__main__":  # the processes that share the job import this file
    with job_log(snakemake):
        layers, pooled = snakemake.params.layers
        launch(
            with_model,
            snakemake.resources.gpu,
            snakemake.threads,
            snakemake.params.compute["device"],
            function=encode_cached_task,
            role="sender",
            folder=snakemake.input.model,
            compute=snakemake.params.compute,
            task=load_task(snakemake.input.task),
            examples=snakemake.input.examples,
            limits=snakemake.params.limits,
            target=snakemake.output[0],
            layers=layers,
            pooled_layers=pooled,
        )
