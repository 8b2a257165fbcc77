"""What a document says of a study, taken from its files: headline, scorecard, provenance."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from telepathy.files import read_json
from telepathy.report.text import method_title, plain

About = Mapping[str, Any]
"""A study as the configuration describes it: ``study``, ``title``, ``sender``, ``receiver``, ``seeds``,
``methods`` (name -> title, group, kind, what) and ``tasks`` (name -> title, kind, stands_for, …)."""

VERDICTS = ("reproduced", "not reproduced", "artefact of the protocol", "not tested")


PLAIN = ("bridge", "zero_shot", "text_relay")
"""Kinds of methods that the publication's claim is about; a summary names these."""


def headline(statistics: pd.DataFrame, about: About) -> list[dict[str, Any]]:
    """What the bridge reached on each task, and its differences to other methods.

    Args:
        statistics: rows of ``statistics.csv``.
        about: the study.

    Returns:
        A row a task of the study that has an accuracy: ``task``, ``title``, ``n``; ``accuracies``, a row a main
        method and token count (``title``, ``estimate``, ``low``, ``high``, ``seeds``, and ``plain`` for the kinds in
        `PLAIN`); ``differences`` of the bridge (``method``, ``versus``, ``estimate``, ``low``, ``high``,
        ``significant``, True only where the statistics say so).
    """
    found = []
    for task, entry in about["tasks"].items():
        rows = statistics[statistics["task"] == task]
        accuracies = rows[rows["statistic"] == "accuracy"].to_dict("records")
        main = [row for row in accuracies if about["methods"].get(row["method"], {}).get("group") == "main"]
        if accuracies:
            fact = {"task": task, "title": entry["title"], "n": int(max(row["n"] for row in accuracies))}
            fact["accuracies"] = [_accuracy(row, about) for row in _in_order(main, about)]
            found.append({**fact, "differences": _differences(rows, about)})
    return found


def _in_order(rows: Iterable[Mapping[Any, Any]], about: About) -> list[Mapping[Any, Any]]:
    places = list(about["methods"])
    return sorted(rows, key=lambda row: (places.index(row["method"]), row["soft_tokens"]))


def _accuracy(row: Mapping[Any, Any], about: About) -> dict[str, Any]:
    kept = {name: row[name] for name in ("estimate", "low", "high")}
    kept["plain"] = about["methods"][row["method"]]["kind"] in PLAIN
    return {"title": method_title(about, row["method"], row["soft_tokens"]), "seeds": row["seeds"], **kept}


def _differences(rows: pd.DataFrame, about: About) -> list[dict[str, Any]]:
    # Families "best of <table>" say which cells of a table are bold; they are no comparison that was declared.
    declared = ~rows["family"].fillna("").astype(str).str.startswith("best of ")
    chosen = rows[(rows["statistic"] == "difference") & (rows["method"] == "bridge") & declared]
    return [
        {
            "method": method_title(about, row["method"], row["soft_tokens"]),
            "versus": method_title(about, row["versus"], row["versus_soft_tokens"]),
            "significant": str(row["significant"]) in ("True", "1.0"),
            **{name: row[name] for name in ("estimate", "low", "high")},
        }
        for row in chosen.to_dict("records")
    ]


def scorecard(claims: pd.DataFrame) -> dict[str, int]:
    """How many claims have each verdict, all verdicts named, in a fixed order."""
    counts = claims["verdict"].value_counts()
    known = {verdict: int(counts.get(verdict, 0)) for verdict in VERDICTS}
    return known | {str(name): int(count) for name, count in sorted(counts.items()) if name not in known}


def claim_rows(claims: pd.DataFrame) -> list[dict[str, str]]:
    """Claims as texts for a document, those that were tested first."""
    places = {verdict: place for place, verdict in enumerate(VERDICTS)}
    rows = claims.assign(_place=claims["verdict"].map(places)).sort_values("_place", kind="stable")
    return [
        {
            "statement": plain(_text(row["statement"]) or row["id"]),
            "published": _number(row["published"], row["published_std"]),
            "reproduced": _number(row["reproduced"]),
            "interval": _interval(row["low"], row["high"]),
            "verdict": plain(row["verdict"]),
            "scale": _text(row["scale"]),
            "reason": ". Caveat: ".join(filter(None, [_text(row["reason"]), _text(row["caveat"])])),
        }
        for row in rows.to_dict("records")
    ]


def _text(value: Any) -> str:
    return "" if pd.isna(value) else plain(value)


def _number(value: Any, spread: Any = None) -> str:
    text = "" if pd.isna(value) else f"{float(value):.1f}"
    return text if spread is None or pd.isna(spread) or not text else f"{text} ± {float(spread):.1f}"


def _interval(low: Any, high: Any) -> str:
    return "" if pd.isna(low) or pd.isna(high) else f"{float(low):.1f} to {float(high):.1f}"


def origins(metrics: Iterable[str | Path]) -> dict[str, Any]:
    """What the runs of a study were made from, each thing once.

    Args:
        metrics: ``metrics.json`` of every run.

    Returns:
        ``code``, ``compute`` and ``python`` (lists, several if the runs differ), ``packages`` (name -> versions),
        ``models`` and ``data`` (name -> origin: what was fetched and its hashes).
    """
    found: dict[str, Any] = {"code": {}, "compute": {}, "python": {}, "packages": {}, "models": {}, "data": {}}
    for origin in (read_json(path)["provenance"] for path in metrics):
        for name in ("code", "compute"):
            found[name][_line(origin[name])] = True
        found["python"][origin["python"]] = True
        for package, version in origin["packages"].items():
            found["packages"].setdefault(package, {})[version] = True
        for model in origin["models"]:
            found["models"][str(model.get("name", model.get("path", "?")))] = _line(_without_files(model))
        found["data"][origin["task"]["name"]] = _line(origin["task"]["source"])
    once = {name: sorted(found[name]) for name in ("code", "compute", "python")}
    packages = {name: sorted(versions) for name, versions in sorted(found["packages"].items())}
    return {**once, "packages": packages, **{name: dict(sorted(found[name].items())) for name in ("models", "data")}}


def _without_files(model: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in model.items() if key not in ("files", "name")}


def _line(value: Any) -> str:
    """A nested value as one readable line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_line(part)}" for key, part in sorted(value.items()))
    return " + ".join(map(_line, value)) if isinstance(value, list) else plain(value)
