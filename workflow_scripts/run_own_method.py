"""Answer the test examples with a method of a plugin (rule run_own_method)."""

from pathlib import Path

from telepathy.analysis.results import write_run
from telepathy.devices import choose_compute, seed_everything, use_threads
from telepathy.methods.own import run_own_method
from telepathy.models.loading import load_language_model
from telepathy.tasks.data import load_split
from telepathy.tasks.spec import load_task
from telepathy.workflow import job_log

with job_log(snakemake):
    use_threads(snakemake.threads)
    seed = int(snakemake.wildcards.seed)
    seed_everything(seed)
    task = load_task(snakemake.input.task)
    examples = Path(snakemake.input.examples)
    settings, limits = snakemake.params.settings, snakemake.params.limits
    compute = choose_compute(**snakemake.params.compute)
    models = {
        role: load_language_model(folder, compute) for role, folder in zip(settings["models"], snakemake.input.models)
    }
    splits = {split: load_split(examples, split, limits.get(split)) for split in ("train", "dev", "test")}
    predictions = run_own_method(settings, task, splits, models, seed)
    write_run(predictions, task, examples, [lm.source for lm in models.values()], compute, snakemake)
