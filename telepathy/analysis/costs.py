"""What a study cost: Snakemake's benchmark files, a row a job and a row a rule."""

import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from telepathy.files import write_csv


def summarise_costs(files: Iterable[Path], target: str | Path) -> pd.DataFrame:
    """Sum benchmark files ``<rule>/<job>.jsonl`` into a row a rule.

    Columns: ``rule``, ``jobs``, ``seconds`` (wall time summed over jobs), ``cpu_seconds``,
    ``max_memory_mb`` (largest resident set of a job). Snakemake looks at CPU time and memory every half second at
    first and every 30 seconds later, so up to 30 seconds of each job are missing in them.
    """
    jobs = [{"rule": file.parent.name, **_last(file)} for file in files]
    frame = pd.DataFrame(jobs, columns=["rule", "s", "cpu_time", "max_rss"])
    frame[["s", "cpu_time", "max_rss"]] = frame[["s", "cpu_time", "max_rss"]].apply(pd.to_numeric, errors="coerce")
    table = frame.groupby("rule", as_index=False).agg(
        jobs=("s", "size"), seconds=("s", "sum"), cpu_seconds=("cpu_time", "sum"), max_memory_mb=("max_rss", "max")
    )
    write_csv(target, table.round(1).sort_values("seconds", ascending=False))
    return table


def _last(file: Path) -> dict:
    return json.loads(file.read_text().splitlines()[-1])
