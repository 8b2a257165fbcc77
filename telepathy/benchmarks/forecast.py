"""What a study will cost, from a rehearsal of it: the time that jobs take to begin, and that of their work."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from telepathy.benchmarks.plan import CPU_RULES, WORK
from telepathy.files import read_json, write_csv
from telepathy.gpu_memory import gpu_memory_said

COLUMNS = [
    "study",
    "rule",
    "kind",
    "jobs",
    *WORK,
    "measured_jobs",
    "measured_seconds",
    "start_seconds",
    "seconds_a_job",
    "max_memory_mb",
    "max_gpu_memory_mb",
    "gpu_hours",
    "device",
    "status",
]


def forecast_costs(
    study: str,
    planned: Sequence[Mapping[str, Any]],
    rehearsed: Sequence[Mapping[str, Any]],
    costs: str | Path,
    logs: str | Path,
    metrics: Iterable[str | Path],
    target: str | Path,
) -> pd.DataFrame:
    """Forecast the GPU-hours of a study by rule and kind of method, and write ``forecast.csv``.

    Seconds of the rehearsed jobs are fitted by those that a job takes to begin (``start_seconds``: imports,
    loading models), those of each example, of each word of a prompt besides the text, and of each further position
    of a receiver (see `telepathy.benchmarks.plan`). What the rehearsed jobs cannot tell apart counts as work, so that
    a forecast of larger jobs errs on the long side. Texts are taken to be as long as the rehearsed ones, in the mean.

    Args:
        study: the study that is forecast.
        planned: its jobs and their work by rule and kind (`telepathy.benchmarks.plan.summed_jobs`).
        rehearsed: every job of the rehearsal (`planned_jobs`, as records).
        costs: folder of the rehearsal's benchmark files, ``<rule>/<job>.jsonl``.
        logs: folder of its log files, ``<rule>/<job>.log``, which say how much of a GPU's memory a job held.
        metrics: ``metrics.json`` files of the rehearsal, which say what it ran on.
        target: csv file to write.

    Returns:
        A row a rule and kind, and ``total``. ``status`` is ``measured`` where the rehearsal ran such jobs
        on a GPU, ``no gpu`` where jobs ask for none, else ``unmeasured``: then there are no GPU-hours, and
        the total is unmeasured too. Memory is that of the largest job: its resident set, and what it held on a GPU.
    """
    devices = {read_json(path)["provenance"]["compute"]["device"] for path in metrics}
    device = "cuda" if "cuda" in devices else "cpu"
    measured = _measured(rehearsed, Path(costs), Path(logs))
    rows = [{"study": study, "device": device, **_row(entry, measured, device)} for entry in planned]
    open_rows = [row for row in rows if row["status"] == "unmeasured"]
    total: dict[str, Any] = {"study": study, "rule": "total", "kind": "", "device": device}
    total |= {"jobs": sum(row["jobs"] for row in rows), "status": "unmeasured" if open_rows else "measured"}
    total["gpu_hours"] = None if open_rows else sum(row["gpu_hours"] or 0.0 for row in rows)
    table = pd.DataFrame([*rows, total]).reindex(columns=COLUMNS).round(4)
    table = table.astype(dict.fromkeys([*WORK, "measured_jobs"], "Int64"))
    write_csv(target, table)
    return table


def _measured(rehearsed: Sequence[Mapping[str, Any]], costs: Path, logs: Path) -> pd.DataFrame:
    """Seconds, memory and work of the rehearsal's jobs that have a benchmark file."""
    found = []
    for job in rehearsed:
        file = costs / job["rule"] / f"{job['job']}.jsonl"
        if file.is_file():
            cost = json.loads(file.read_text().splitlines()[-1])
            held = gpu_memory_said(logs / job["rule"] / f"{job['job']}.log")
            found.append({**job, "seconds": float(cost["s"]), "memory": cost["max_rss"], "gpu_memory": held})
    table = pd.DataFrame(found, columns=["rule", "kind", "job", *WORK, "seconds", "memory", "gpu_memory"])
    numbers = ["memory", "gpu_memory"]
    return table.assign(**table[numbers].apply(pd.to_numeric, errors="coerce"))


def _row(entry: Mapping[str, Any], measured: pd.DataFrame, device: str) -> dict[str, Any]:
    mine = measured[(measured["rule"] == entry["rule"]) & (measured["kind"] == entry["kind"])]
    row: dict[str, Any] = {**entry, "measured_jobs": len(mine), "gpu_hours": None, "status": "unmeasured"}
    if mine.empty:
        return row
    seconds = float(mine["seconds"].sum())
    row |= {"measured_seconds": seconds, "max_memory_mb": mine["memory"].max()}
    row["max_gpu_memory_mb"] = mine["gpu_memory"].max()
    if entry["rule"] in CPU_RULES:
        return {**row, "status": "no gpu"}
    if device == "cuda":
        start, *rates = _start_and_rates(mine[list(WORK)].to_numpy(float), mine["seconds"].to_numpy(float))
        work = sum(rate * entry[name] for rate, name in zip(rates, WORK, strict=True))
        hours = (start * entry["jobs"] + work) / 3600
        row |= {"start_seconds": start, "seconds_a_job": 3600 * hours / entry["jobs"]}
        row |= {"gpu_hours": hours, "status": "measured"}
    return row


def _start_and_rates(work: np.ndarray, seconds: np.ndarray) -> list[float]:
    """Seconds that a job takes to begin, and for one of each column of its work: least squares, none below zero."""
    columns = np.column_stack([np.ones(len(work)), work])
    scale = columns.max(axis=0)
    kept = [place for place in range(len(scale)) if scale[place]]
    while np.linalg.matrix_rank(columns[:, kept] / scale[kept]) < len(kept):
        kept.pop(0)
    found = np.zeros(len(scale))
    found[kept] = nnls(columns[:, kept] / scale[kept], seconds)[0] / scale[kept]
    return found.tolist()
