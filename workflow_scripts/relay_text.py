"""Let the sender write and the receiver answer (rule relay_text)."""

from pathlib import Path

from telepathy.analysis.results import write_run
from telepathy.devices import choose_compute, seed_everything, use_threads
from telepathy.methods.relay import RelayConfig, text_relay
from telepathy.methods.trained import take
from telepathy.models.loading import load_language_model
from telepathy.tasks.data import load_split
from telepathy.tasks.spec import load_task
from telepathy.workflow import job_log

with job_log(snakemake):
    use_threads(snakemake.threads)
    seed_everything(0)
    task = load_task(snakemake.input.task)
    examples = Path(snakemake.input.examples)
    compute = choose_compute(**snakemake.params.compute)
    sender, receiver = (load_language_model(snakemake.input[role], compute) for role in ("sender", "receiver"))
    frame = load_split(examples, "test", snakemake.params.limits.get("test"))
    predictions = text_relay(sender, receiver, task, frame, RelayConfig(**take(RelayConfig, snakemake.params.settings)))
    empty = int((predictions["message"] == "").sum())
    write_run(predictions, task, examples, [sender.source, receiver.source], compute, snakemake, empty_messages=empty)
