"""Answer the test examples from prompts alone (rule prompt_model)."""

from pathlib import Path

from telepathy.analysis.results import write_run
from telepathy.devices import choose_compute, seed_everything, use_threads
from telepathy.methods.prompted import answer_prompts
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
    limits = snakemake.params.limits
    train, test = (load_split(examples, split, limits.get(split)) for split in ("train", "test"))
    model = load_language_model(snakemake.input.model, choose_compute(**snakemake.params.compute))
    predictions, shown = answer_prompts(model, task, train, test, snakemake.params.settings, seed)
    write_run(predictions, task, examples, [model.source], model.compute, snakemake, **shown)
