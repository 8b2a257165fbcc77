"""Write what a run leaves behind: predictions, metrics and their provenance."""

from pathlib import Path
from typing import Any

import pandas as pd

from telepathy.devices import Compute
from telepathy.files import read_json, sha256_of, write_json, write_parquet
from telepathy.provenance import provenance
from telepathy.scoring.answers import score_predictions
from telepathy.tasks.spec import Task


def write_run(
    predictions: pd.DataFrame,
    task: Task,
    examples: Path,
    models: list[dict[str, Any]],
    compute: Compute,
    snakemake: Any,
    **more: Any,
) -> None:
    """Write ``predictions.parquet`` and ``metrics.json`` of one run; neither holds anything that a rerun changes.

    Args:
        predictions: as the scorer gives them.
        task: of the run.
        examples: folder of the cached task; its ``source.json`` says where the data came from.
        models: sources of the models that took part.
        compute: device and precision.
        snakemake: the job, for wildcards, settings and output paths.
        more: further facts about the run, for its metrics.
    """
    wildcards = snakemake.wildcards
    run = {"study": wildcards.study, "task": wildcards.task, "method": wildcards.method}
    run |= {"k": int(wildcards.k), "seed": int(wildcards.seed)}
    metrics = {**score_predictions(task, predictions), **more}
    origin = provenance(
        compute,
        task,
        read_json(examples / "source.json"),
        models,
        settings=snakemake.params.settings,
        examples=snakemake.params.limits,
    )
    write_parquet(snakemake.output.predictions, predictions)
    written = Path(snakemake.output.predictions)
    hashes = {written.name: sha256_of(written)}
    write_json(snakemake.output.metrics, {"run": run, "metrics": metrics, "provenance": origin, "files": hashes})
    print(f"accuracy {metrics['accuracy']:.4f} on {metrics['n']} examples, {metrics['unparsed']} unparsed", flush=True)
