"""Time our training and evaluation against the plain way (rule measure_speed)."""

from pathlib import Path

from telepathy.benchmarks.speed import SpeedConfig, measure_speed
from telepathy.devices import choose_compute, seed_everything, use_threads
from telepathy.inference import Telepathy
from telepathy.methods.bridge import BridgeData
from telepathy.methods.trained import take
from telepathy.models.loading import load_language_model
from telepathy.tasks.spec import load_task
from telepathy.workflow import job_log

with job_log(snakemake):
    use_threads(snakemake.params.threads)
    seed_everything(0)
    compute = choose_compute(**snakemake.params.compute)
    sender, receiver = (load_language_model(snakemake.input[role], compute) for role in ("sender", "receiver"))
    data = BridgeData(
        task=load_task(snakemake.input.task),
        examples=Path(snakemake.input.examples),
        features=Path(snakemake.input.features),
        limits=snakemake.params.limits,
    )
    measure_speed(
        Telepathy.from_pretrained(snakemake.input.bridge, sender=sender, receiver=receiver, task=data.task),
        data,
        SpeedConfig(**take(SpeedConfig, snakemake.params.settings)),
        snakemake.input.costs,
        snakemake.output[0],
    )
