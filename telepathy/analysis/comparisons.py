"""Which methods a study compares; light on imports, because the Snakefile uses it."""

from collections.abc import Iterator
from typing import Any

from telepathy.config import Config, method_settings, runs_table, schema, study_of


def statistics_settings(config: Config, study: str) -> dict[str, Any]:
    """``comparisons``, ``equivalence_margin`` and ``bootstrap_draws`` of a study, the schema's defaults filled in."""
    entry, keys = study_of(config, study), schema()["$defs"]["study"]["properties"]
    names = ("comparisons", "equivalence_margin", "bootstrap_draws")
    return {name: entry.get(name, keys[name]["default"]) for name in names}


def comparisons_of(config: Config, study: str) -> list[dict[str, Any]]:
    """Every pair of methods that a study's ``comparisons`` name, a task at a time.

    A method stands at the task's own number of soft tokens where it was run with that, else at its smallest.

    Returns:
        Entries with ``task``, ``method``, ``soft_tokens``, ``versus``, ``versus_soft_tokens`` and ``family``.
    """
    runs = runs_table(config).query("study == @study")
    tasks = study_of(config, study)["tasks"]
    groups = {method: method_settings(config, method)["group"] for method in runs["method"].unique()}
    found = []
    for block in statistics_settings(config, study)["comparisons"]:
        for task, entry in tasks.items():
            counts = _counts(runs[runs["task"] == task], entry["soft_tokens"])
            for method, versus in _pairs(block, counts, groups):
                pair = {"task": task, "method": method, "soft_tokens": counts[method]}
                pair |= {"versus": versus, "versus_soft_tokens": counts[versus]}
                found.append({**pair, "family": block.get("family", "main")})
    return found


def _counts(runs: Any, wanted: int) -> dict[str, int]:
    """Number of soft tokens at which each method of a task is compared."""
    grouped = runs.groupby("method", sort=False)["k"]
    return {str(name): wanted if wanted in set(counts) else int(min(counts)) for name, counts in grouped}


def _pairs(block: dict[str, Any], counts: dict[str, int], groups: dict[str, str]) -> Iterator[tuple[str, str]]:
    wanted = block.get("groups", [] if "versus" in block else ["main"])
    for versus in counts:
        named = versus in block.get("versus", [])
        if block["method"] in counts and versus != block["method"] and (named or groups[versus] in wanted):
            yield block["method"], versus
