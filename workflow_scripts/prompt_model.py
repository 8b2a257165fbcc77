"""Answer the test examples from prompts alone (rule prompt_model)."""

from pathlib import Path

from telepathy.analysis.results import write_run
from telepathy.devices import choose_compute, seed_everything, use_threads
from telepathy.methods.prompted import zero_shot
from telepathy.models.loading import load_language_model
from telepathy.tasks.data import load_split
from telepathy.tasks.spec import load_task
from telepathy.workflow import job_log

with job_log(snakemake):
    use_threads(snakemake.threads)
    seed_everything(int(snakemake.wildcards.seed))
    task = load_task(snakemake.input.task)
    examples = Path(snakemake.input.examples)
    model = load_language_model(snakemake.input.model, choose_compute(**snakemake.params.compute))
    predictions = zero_shot(model, task, load_split(examples, "test", snakemake.params.limits.get("test")))
    write_run(predictions, task, examples, [model.source], model.compute, snakemake)
