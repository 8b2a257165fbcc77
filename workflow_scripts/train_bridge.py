"""Train one bridge (rule train_bridge)."""

from pathlib import Path

from telepathy.devices import choose_compute, use_threads
from telepathy.methods.bridge import BridgeData, train_bridge
from telepathy.models.loading import load_language_model
from telepathy.tasks.spec import load_task
from telepathy.workflow import job_log

with job_log(snakemake):
    use_threads(snakemake.threads)
    data = BridgeData(
        task=load_task(snakemake.input.task),
        examples=Path(snakemake.input.examples),
        features=Path(snakemake.input.features),
        limits=snakemake.params.limits,
    )
    train_bridge(
        data,
        load_language_model(snakemake.input.receiver, choose_compute(**snakemake.params.compute)),
        snakemake.params.settings,
        k=int(snakemake.wildcards.k),
        seed=int(snakemake.wildcards.seed),
        target=snakemake.output[0],
        checkpoints=snakemake.params.checkpoints,
    )
