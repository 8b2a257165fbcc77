"""Extract what one trained bridge sends (rule inspect_bridge)."""

from pathlib import Path

from telepathy.analysis.inspection import inspect_bridge
from telepathy.devices import choose_compute, seed_everything, use_threads
from telepathy.methods.bridge import BridgeData
from telepathy.models.loading import load_language_model
from telepathy.tasks.spec import load_task
from telepathy.workflow import job_log

with job_log(snakemake):
    use_threads(snakemake.threads)
    seed_everything(0)
    data = BridgeData(
        task=load_task(snakemake.input.task),
        examples=Path(snakemake.input.examples),
        features=Path(snakemake.input.features),
        limits=snakemake.params.limits,
    )
    compute = choose_compute(**snakemake.params.compute)
    inspect_bridge(
        data,
        load_language_model(snakemake.input.sender, compute),
        load_language_model(snakemake.input.receiver, compute),
        snakemake.input.bridge,
        dict(snakemake.params.run),
        table=snakemake.output.table,
        facts=snakemake.output.facts,
    )
