"""The scorecard: each claim of the publication beside what was reproduced, with a verdict by a declared rule.

The rules, in their order; the first that applies gives the verdict.

Not tested: there is no such task (and no stand-in), method or benchmark in the study; or the claim is a
number, the study has other models, data or hardware (scale ``different``), and the claim has no direction.

Numbers on the same scale (the publication's models and data). An accuracy agrees if it lies within the
equivalence margin of the reproduced 95 % interval; a latency, rate or speed-up if it lies within 10 % of it
(more than the claimed speed-up agrees too).
Reproduced: it agrees with the method done right. Artefact of the protocol: it agrees only with the method
run with the publication's settings. Not reproduced: neither.

Numbers on another scale are tested for their direction. ``above_majority``: the 95 % interval lies above the
share of the most frequent answer. ``at_majority``: it does not. Reproduced: so it is with the method done
right. Artefact of the protocol: a claim of ``at_majority`` holds only for the publication's settings. A speed-up
is above 1 with its whole interval.

Sentences, on any scale, by p values that are adjusted by Holm within the study's families. ``beats``: the
differences to all methods named are above zero and significant; an artefact if that is so only for the
publication's versions of them. ``fails``: significantly below the better zero-shot model, or not above the
majority share. ``falls``: the slope over the number of soft tokens is below zero and significant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from telepathy.analysis.rows import read_statistics
from telepathy.files import read_yaml, write_csv

FOLDER = Path(__file__).parent
COLUMNS = [
    "id",
    "source",
    "task",
    "published_task",
    "method",
    "soft_tokens",
    "metric",
    "published",
    "published_std",
    "reproduced",
    "low",
    "high",
    "same_protocol",
    "verdict",
    "reason",
    "scale",
    "statement",
    "caveat",
]
REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
ARTEFACT, NOT_TESTED = "artefact of the protocol", "not tested"
VERDICTS = [REPRODUCED, NOT_REPRODUCED, ARTEFACT, NOT_TESTED]
SPEED_TOLERANCE = 0.1
"""Share by which a published latency, rate or speed-up may lie outside of the reproduced interval."""

Claim = Mapping[str, Any]
Found = dict[str, Any]


@cache
def publication() -> dict[str, Any]:
    """What ``claims.yaml`` says: the publication's models, and its claims."""
    return read_yaml(FOLDER / "claims.yaml")


@cache
def published_runs() -> pd.DataFrame:
    """Counts of the publication's single runs: dataset, method, soft_tokens, seed, correct, total."""
    return pd.read_csv(FOLDER / "published_runs.csv")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a study has to say about claims.

    Attributes:
        statistics: rows of ``statistics.csv``.
        latency: rows of ``latency.csv``, or None.
        tasks: task of the publication -> the study's own or the one that stands in for it.
        soft_tokens: the study's task -> its own number of soft tokens.
        same_models: whether sender and receiver are the publication's.
        margin: of equivalence, in points.
    """

    statistics: pd.DataFrame
    latency: pd.DataFrame | None
    tasks: Mapping[str, str]
    soft_tokens: Mapping[str, int]
    same_models: bool
    margin: float

    def scale(self, published_task: str) -> str:
        """Whether a task's numbers may be compared with the publication's: ``same`` or ``different``."""
        return "same" if self.same_models and self.tasks.get(published_task) == published_task else "different"

    def rows(self, statistic: str, task: str, method: str) -> pd.DataFrame:
        """Rows of one statistic of a method on a task."""
        table = self.statistics
        return table[(table["statistic"] == statistic) & (table["task"] == task) & (table["method"] == method)]

    def accuracy(self, task: str, method: str, count: int | None) -> Found | None:
        """Mean accuracy of a method; at any number of soft tokens where it has none, else at ``count``."""
        rows = self.rows("accuracy", task, method)
        rows = rows[rows["soft_tokens"].isin([0, self.soft_tokens[task] if count is None else count])]
        return None if rows.empty else _first(rows)

    def majority(self, task: str) -> float:
        """Share of the most frequent answer, in percent."""
        table = self.statistics
        return float(table[(table["statistic"] == "majority") & (table["task"] == task)]["estimate"].iloc[0])

    def differences(self, task: str, method: str, versus: Sequence[str]) -> list[Found]:
        """Declared comparisons of a method with others, the least favourable first; empty if one is missing."""
        rows = self.rows("difference", task, method)
        rows = rows[~rows["family"].str.startswith("best of ") & rows["p_adjusted"].notna()]
        found = [rows[rows["versus"] == name].head(1) for name in versus]
        if any(one.empty for one in found):
            return []
        return sorted(map(_first, found), key=lambda row: row["estimate"])


def score_claims(
    statistics: str | Path,
    target: str | Path,
    tasks: Mapping[str, str],
    soft_tokens: Mapping[str, int],
    models: Mapping[str, str],
    margin: float,
    latency: str | Path | None = None,
) -> pd.DataFrame:
    """Write ``claims.csv``: one row a claim, a sentence one row a task, in the order of ``claims.yaml``.

    Args:
        statistics: path of ``statistics.csv``.
        target: csv to write.
        tasks: the study's task -> the publication's task that it is or stands in for.
        soft_tokens: the study's task -> its own number of soft tokens.
        models: names of the study's ``sender`` and ``receiver``.
        margin: of equivalence, in points.
        latency: path of ``latency.csv``, if the study has one.

    Returns:
        The table; accuracies in percent, differences in points, latencies in milliseconds.
    """
    evidence = Evidence(
        statistics=read_statistics(statistics),
        latency=None if latency is None else pd.read_csv(latency),
        tasks=_preferred(tasks),
        soft_tokens=soft_tokens,
        same_models=dict(models) == publication()["models"],
        margin=margin,
    )
    rows = [_scored(claim, evidence) for claim in _expanded(publication()["claims"])]
    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
    table["soft_tokens"] = table["soft_tokens"].astype("Int64")
    table = table.round({"reproduced": 4, "low": 4, "high": 4, "same_protocol": 4})
    write_csv(target, table)
    return table


def _preferred(tasks: Mapping[str, str]) -> dict[str, str]:
    """The publication's task -> the study's; the task itself goes before one that stands in for it."""
    stand_ins = sorted(tasks.items(), key=lambda pair: pair[0] == pair[1])
    return {published: own for own, published in stand_ins}


def _expanded(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """A sentence about several tasks is a claim about each."""
    found: list[dict[str, Any]] = []
    for claim in claims:
        if "tasks" in claim:
            found += [{**claim, "id": f"{claim['id']}-{task}", "task": task} for task in claim["tasks"]]
        else:
            found.append(dict(claim))
    return found


def _scored(claim: Claim, evidence: Evidence) -> Found:
    task = evidence.tasks.get(claim.get("task", ""))
    row = {key: claim.get(key) for key in ("id", "source", "method", "soft_tokens", "metric", "caveat")}
    row |= {"task": task, "published_task": claim.get("task"), "published": claim.get("value")}
    row |= {"published_std": claim.get("std", _published_std(claim)), "statement": _sentence(claim)}
    row["scale"] = evidence.scale(claim.get("task", ""))
    if claim["metric"] in ("latency_ms", "examples_per_s", "speedup"):
        return row | _speed(claim, evidence)
    if task is None:
        return row | _untested(f"the study has no {claim['task']} and no task that stands in for it")
    if "test" in claim:
        return row | {"beats": _beats, "fails": _fails, "falls": _falls}[claim["test"]](claim, task, evidence)
    return row | _accuracy(claim, task, evidence)


def _published_std(claim: Claim) -> float | None:
    """Standard deviation over the publication's own seeds, where it kept their counts."""
    runs = published_runs()
    runs = runs[(runs["dataset"] == claim.get("task")) & (runs["method"] == claim["method"])]
    if "soft_tokens" in claim:
        runs = runs[runs["soft_tokens"] == claim["soft_tokens"]]
    if claim["metric"] != "accuracy" or runs["correct"].nunique() < 2:
        return None
    return round(float((100 * runs["correct"] / runs["total"]).std(ddof=1)), 1)


def _sentence(claim: Claim) -> str:
    if "statement" in claim:
        return f"{claim['statement'].rstrip('.')} ({claim['task']})." if "task" in claim else claim["statement"]
    what = claim["method"].replace("_", " ")
    what += f" with {claim['soft_tokens']} soft tokens" if "soft_tokens" in claim else ""
    what += f" against {claim['versus'].replace('_', ' ')}" if "versus" in claim else ""
    what += f" on {claim['task']}" if "task" in claim else ""
    what += f", batch {claim['batch_size']}" if "batch_size" in claim else ""
    unit = {"accuracy": "accuracy {} %", "latency_ms": "{} ms", "examples_per_s": "{} examples/s"}
    return f"{what}: {unit.get(claim['metric'], '{} times as fast').format(claim['value'])}"


def _untested(reason: str) -> Found:
    return {"verdict": NOT_TESTED, "reason": reason}


def _range(row: Mapping[str, Any]) -> str:
    if pd.isna(row["low"]):
        return f"{row['estimate']:.1f}"
    return f"{row['estimate']:.1f} ({row['low']:.1f} to {row['high']:.1f})"


def _first(rows: pd.DataFrame) -> Found:
    return {str(key): value for key, value in rows.iloc[0].items()}


def _values(row: Mapping[str, Any], other: Mapping[str, Any] | None = None) -> Found:
    same = None if other is None else other["estimate"]
    return {"reproduced": row["estimate"], "low": row["low"], "high": row["high"], "same_protocol": same}


def _accuracy(claim: Claim, task: str, evidence: Evidence) -> Found:
    same = evidence.scale(claim["task"]) == "same"
    count = claim.get("soft_tokens") if same else None
    right = evidence.accuracy(task, claim["method"], count)
    variant = publication()["as_published"].get(claim["method"], "")
    published = evidence.accuracy(task, variant, count)
    if right is None:
        wanted = f" with {count} soft tokens" if count else ""
        return _untested(f"the study has no run of {claim['method']}{wanted} on {task}")
    values = _values(right, published)
    if same:
        return values | _agrees(claim["value"], right, published, evidence.margin)
    if "direction" not in claim:
        return values | _untested("other models and data, and the number says nothing about them")
    judged = _directed(claim["direction"], right, published, evidence.majority(task))
    if right["soft_tokens"] not in (0, claim.get("soft_tokens", right["soft_tokens"])):
        judged["reason"] += f"; with {right['soft_tokens']:.0f} soft tokens"
    return values | judged


def _agrees(value: float, right: Found, published: Found | None, margin: float) -> Found:
    found = f"{_range(right)} against {value:g}, margin {margin:g}"
    if right["low"] - margin <= value <= right["high"] + margin:
        return {"verdict": REPRODUCED, "reason": found}
    if published is not None and published["low"] - margin <= value <= published["high"] + margin:
        return {"verdict": ARTEFACT, "reason": f"{found}; with the publication's settings {_range(published)}"}
    return {"verdict": NOT_REPRODUCED, "reason": found}


def _directed(direction: str, right: Found, published: Found | None, majority: float) -> Found:
    above = right["low"] > majority
    found = f"direction only: {_range(right)} is {'' if above else 'not '}above the majority share {majority:.1f}"
    if above == (direction == "above_majority"):
        return {"verdict": REPRODUCED, "reason": found}
    if direction == "at_majority" and published is not None and published["low"] <= majority:
        return {"verdict": ARTEFACT, "reason": f"{found}; with the publication's settings {_range(published)}"}
    return {"verdict": NOT_REPRODUCED, "reason": found}


def _said(row: Found) -> str:
    return f"{row['method']} minus {row['versus']} {_range(row)}, p {row['p_adjusted']:.2g}"


def _above_zero(rows: Sequence[Found]) -> bool:
    return bool(rows) and all(row["estimate"] > 0 and row["p_adjusted"] < 0.05 for row in rows)


def _beats(claim: Claim, task: str, evidence: Evidence) -> Found:
    right = evidence.differences(task, claim["method"], claim["versus"])
    published = evidence.differences(task, claim["method"], claim.get("as_published", []))
    if not right:
        return _untested(f"the study does not compare {claim['method']} with {' and '.join(claim['versus'])} on {task}")
    values = _values(right[0], published[0] if published else None)
    reason = "; ".join(map(_said, [*right, *published]))
    if _above_zero(right):
        return {**values, "verdict": REPRODUCED, "reason": reason}
    return {**values, "verdict": ARTEFACT if _above_zero(published) else NOT_REPRODUCED, "reason": reason}


def _fails(claim: Claim, task: str, evidence: Evidence) -> Found:
    right = evidence.differences(task, claim["method"], claim["versus"])
    own = evidence.accuracy(task, claim["method"], None)
    if not right or own is None:
        return _untested(f"the study does not compare {claim['method']} with {' and '.join(claim['versus'])} on {task}")
    majority = evidence.majority(task)
    below = right[0]["estimate"] < 0 and right[0]["p_adjusted"] < 0.05
    low = own["low"] <= majority
    where = f"{_range(own)} is {'not ' if low else ''}above the majority share {majority:.1f}"
    verdict = REPRODUCED if below or low else NOT_REPRODUCED
    return {**_values(right[0]), "verdict": verdict, "reason": f"{_said(right[0])}; {where}"}


def _falls(claim: Claim, task: str, evidence: Evidence) -> Found:
    rows = evidence.rows("trend", task, claim["method"])
    if rows.empty:
        return _untested(f"the study has {claim['method']} with one number of soft tokens on {task}")
    row = _first(rows)
    falls = row["estimate"] < 0 and row["p_adjusted"] < 0.05
    reason = f"{_range(row)} {row['note']}, p {row['p_adjusted']:.2g}"
    return {**_values(row), "verdict": REPRODUCED if falls else NOT_REPRODUCED, "reason": reason}


def _speed(claim: Claim, evidence: Evidence) -> Found:
    if evidence.latency is None:
        return {"scale": "different", **_untested("the study has no latency benchmark")}
    if "task" in claim and evidence.tasks.get(claim["task"]) not in set(evidence.latency["task"]):
        return {"scale": "different", **_untested(f"the study's benchmark times another task than {claim['task']}")}
    ratio = claim["metric"] == "speedup"
    measure = _speedup if ratio else _measured
    right, published = (measure(claim, evidence.latency, protocol) for protocol in ("equal_work", "as_published"))
    if right is None:
        return {"scale": "different", **_untested("the benchmark has no such row")}
    same = evidence.same_models and publication()["hardware"] in str(right["hardware"])
    found = {"scale": "same" if same else "different", **_values(right, published)}
    if same and "value" in claim:
        return found | _as_fast(claim["value"], right, published, ratio)
    if not ratio:
        return found | _untested("other models and hardware")
    return found | _faster(right, published)


def _as_fast(value: float, right: Mapping[str, Any], published: Mapping[str, Any] | None, ratio: bool) -> Found:
    def agrees(row: Mapping[str, Any]) -> bool:
        low, high = row["low"] * (1 - SPEED_TOLERANCE), row["high"] * (1 + SPEED_TOLERANCE)
        return value <= high and (ratio or value >= low)

    reason = f"{_range(right)} against {value:g}, tolerance {SPEED_TOLERANCE:.0%}"
    if agrees(right):
        return {"verdict": REPRODUCED, "reason": reason}
    if published is not None and agrees(published):
        return {"verdict": ARTEFACT, "reason": f"{reason}; by the publication's protocol {_range(published)}"}
    return {"verdict": NOT_REPRODUCED, "reason": reason}


def _faster(right: Mapping[str, Any], published: Mapping[str, Any] | None) -> Found:
    reason = f"times as fast at equal work: {_range(right)}"
    reason += "" if published is None else f"; by the publication's protocol {_range(published)}"
    if right["low"] > 1:
        return {"verdict": REPRODUCED, "reason": reason}
    artefact = published is not None and published["low"] > 1
    return {"verdict": ARTEFACT if artefact else NOT_REPRODUCED, "reason": reason}


def _arm(latency: pd.DataFrame, method: str, protocol: str, batch: int | None) -> Found | None:
    """The benchmark's row of a method: eager before compiled, the smallest batch where none is asked for."""
    rows = latency[latency["protocol"] == protocol]
    rows = rows[rows["median_ms"].notna() & (rows["arm"] == publication()["arms"].get(method))]
    rows = rows if batch is None else rows[rows["batch_size"] == batch]
    rows = rows.sort_values(["batch_size", "mode"], ascending=[True, False], kind="stable")
    return None if rows.empty else _first(rows)


def _measured(claim: Claim, latency: pd.DataFrame, protocol: str) -> Found | None:
    row = _arm(latency, claim["method"], protocol, claim.get("batch_size", 1))
    if row is None:
        return None
    values = {"estimate": row["median_ms"], "low": row["low_ms"], "high": row["high_ms"]}
    if claim["metric"] == "examples_per_s":
        rate = 1000 * row["batch_size"]
        values = {"estimate": row["examples_per_s"], "low": rate / row["high_ms"], "high": rate / row["low_ms"]}
    return {**values, "hardware": row["hardware"]}


def _speedup(claim: Claim, latency: pd.DataFrame, protocol: str) -> Found | None:
    """How many times as fast the first method is at batch 1; the interval's ends are the worst of both intervals."""
    first, second = (_arm(latency, claim[side], protocol, 1) for side in ("method", "versus"))
    if first is None or second is None:
        return None
    values = {"estimate": second["median_ms"] / first["median_ms"], "hardware": first["hardware"]}
    return {**values, "low": second["low_ms"] / first["high_ms"], "high": second["high_ms"] / first["low_ms"]}
