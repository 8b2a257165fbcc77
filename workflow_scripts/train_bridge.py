"""Train one bridge (rule train_bridge)."""

from pathlib import Path

from telepathy.methods.bridge import BridgeData, train_bridge
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
            function=train_bridge,
            role="receiver",
            folder=snakemake.input.receiver,
            compute=snakemake.params.compute,
            data=BridgeData(
                task=load_task(snakemake.input.task),
                examples=Path(snakemake.input.examples),
                features=Path(snakemake.input.features),
                limits=snakemake.params.limits,
            ),
            settings=snakemake.params.settings,
            k=int(snakemake.wildcards.k),
            seed=int(snakemake.wildcards.seed),
            target=snakemake.output[0],
            checkpoints=snakemake.params.checkpoints,
        )
