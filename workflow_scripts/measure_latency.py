"""Time every arm of a study's benchmark (rule measure_latency)."""

from functools import partial

from telepathy.benchmarks.latency import LatencyConfig, measure_latency
from telepathy.devices import choose_compute, seed_everything, use_threads
from telepathy.inference import Telepathy
from telepathy.methods.trained import take
from telepathy.models.loading import load_language_model
from telepathy.workflow import job_log

with job_log(snakemake):
    use_threads(snakemake.params.threads)
    seed_everything(0)
    compute = choose_compute(**snakemake.params.compute)
    load = partial(
        Telepathy.from_pretrained,
        snakemake.input.bridge,
        sender=load_language_model(snakemake.input.sender, compute),
        receiver=load_language_model(snakemake.input.receiver, compute),
        task=snakemake.input.task,
    )
    measure_latency(
        lambda compiled: load(compiled=compiled),
        snakemake.input.examples,
        LatencyConfig(**take(LatencyConfig, snakemake.params.settings)),
        snakemake.output[0],
    )
