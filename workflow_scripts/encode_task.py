"""Encode one task with one model (rule encode_task)."""

from telepathy.devices import choose_compute, seed_everything, use_threads
from telepathy.features import encode_task
from telepathy.models.loading import layer_index, load_language_model
from telepathy.tasks.data import load_split
from telepathy.tasks.spec import load_task
from telepathy.workflow import job_log

with job_log(snakemake):
    use_threads(snakemake.threads)
    seed_everything(0)
    model = load_language_model(snakemake.input.model, choose_compute(**snakemake.params.compute))
    layers, pooled = snakemake.params.layers
    limits = snakemake.params.limits
    encode_task(
        model,
        load_task(snakemake.input.task),
        {split: load_split(snakemake.input.examples, split, limits.get(split)) for split in ("train", "dev", "test")},
        snakemake.output[0],
        layers=[layer_index(layer, model.depth) for layer in layers],
        pooled_layers=[layer_index(layer, model.depth) for layer in pooled],
    )
