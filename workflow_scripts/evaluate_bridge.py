"""Answer the test examples with one trained bridge (rule evaluate_bridge)."""

from pathlib import Path

from telepathy.analysis.results import write_run
from telepathy.devices import choose_compute, seed_everything, use_threads
from telepathy.methods.bridge import BridgeData, evaluate_bridge
from telepathy.models.loading import load_language_model
from telepathy.tasks.spec import load_task
from telepathy.workflow import job_log

with job_log(snakemake):
    use_threads(snakemake.threads)
    seed = int(snakemake.wildcards.seed)
    seed_everything(seed)
    task = load_task(snakemake.input.task)
    examples = Path(snakemake.input.examples)
    data = BridgeData(
        task=task, examples=examples, features=Path(snakemake.input.features), limits=snakemake.params.limits
    )
    receiver = load_language_model(snakemake.input.receiver, choose_compute(**snakemake.params.compute))
    control = snakemake.params.settings.get("control")
    predictions = evaluate_bridge(data, receiver, snakemake.input.bridge, control, seed)
    write_run(predictions, task, examples, [data.sender_source, receiver.source], receiver.compute, snakemake)
