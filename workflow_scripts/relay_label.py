"""Let the sender send only its label (rule relay_label)."""

from pathlib import Path

from telepathy.analysis.predictions import read_predictions
from telepathy.analysis.results import write_run
from telepathy.devices import choose_compute
from telepathy.methods.relay import label_relay
from telepathy.tasks.data import load_split
from telepathy.tasks.spec import load_task
from telepathy.workflow import job_log

with job_log(snakemake):
    task = load_task(snakemake.input.task)
    examples = Path(snakemake.input.examples)
    frame = load_split(examples, "test", snakemake.params.limits.get("test"))
    predictions = label_relay(None, task, frame, read_predictions(snakemake.input.sent))
    write_run(predictions, task, examples, [], choose_compute("cpu"), snakemake)
