"""Fit a linear probe on sender states and answer the test examples with it (rule probe_sender)."""

from pathlib import Path

from telepathy.analysis.results import write_run
from telepathy.devices import choose_compute, seed_everything, use_threads
from telepathy.methods.bridge import BridgeData
from telepathy.methods.probe import probe_sender
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
    predictions, chosen = probe_sender(data, snakemake.params.settings)
    write_run(predictions, data.task, data.examples, [data.sender_source], choose_compute("cpu"), snakemake, **chosen)
