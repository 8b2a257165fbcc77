"""Answer the test examples with a soft prompt or LoRA (rule evaluate_adapter)."""

from pathlib import Path

from telepathy.analysis.results import write_run
from telepathy.devices import choose_compute, seed_everything, use_threads
from telepathy.methods.adapters import load_adapter
from telepathy.models.loading import load_language_model
from telepathy.tasks.data import load_split
from telepathy.tasks.spec import load_task
from telepathy.workflow import job_log

with job_log(snakemake):
    use_threads(snakemake.threads)
    seed_everything(0)
    task = load_task(snakemake.input.task)
    examples = Path(snakemake.input.examples)
    receiver = load_language_model(snakemake.input.receiver, choose_compute(**snakemake.params.compute))
    adapted, _ = load_adapter(receiver, task, snakemake.input.adapter)
    predictions = adapted.answer(load_split(examples, "test", snakemake.params.limits.get("test")))
    write_run(predictions, task, examples, [receiver.source], receiver.compute, snakemake)
