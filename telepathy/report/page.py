"""One self-contained HTML page of a study: scorecard, tables, figures, and every run down to its predictions."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from telepathy.analysis.predictions import read_predictions
from telepathy.files import atomic_path, read_json
from telepathy.report.document import captions
from telepathy.report.facts import About, claim_rows, headline, origins, scorecard
from telepathy.report.text import method_title, plain

ROWS = 300
"""Most examples of a task that the page holds."""
CHARACTERS = 700
"""Most characters of an example that the page holds."""
TEMPLATES = Path(__file__).parent / "templates"
ANSWERS = ("id", "label", "answer")
"""Columns of an example that are no part of what a model reads."""


def write_page(
    target: str | Path,
    about: About,
    files: Mapping[str, str | Path],
    runs: Sequence[str | Path],
    examples: Mapping[str, str | Path],
    tables: Sequence[str | Path],
    figures: Sequence[str | Path],
) -> None:
    """Write ``report.html``, which opens from disk and loads nothing.

    Texts of examples and models reach the page as data and are shown as text; a content security policy lets no
    script run but the page's own.

    Args:
        target: file to write.
        about: the study.
        files: paths of ``statistics``, ``claims``, ``costs``, ``summary`` and, if anything was timed, ``latency``.
        runs: ``predictions.parquet`` of every run; ``metrics.json`` lies beside it.
        examples: task -> folder of the cached task.
        tables: HTML fragments of the study's tables.
        figures: SVG files of the study's figures.
    """
    script, style = ((TEMPLATES / name).read_text() for name in ("page.js", "page.css"))
    claims = pd.read_csv(files["claims"])
    costs = pd.read_csv(files["costs"])
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html.jinja").render(
        about=about,
        script=script,
        style=style,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=_inert(_explorer(runs, examples, about)),
        headline=headline(pd.read_csv(files["statistics"]), about),
        counts=scorecard(claims),
        claims=claim_rows(claims),
        tables=[{"name": Path(path).stem, "html": Path(path).read_text()} for path in tables],
        figures=_pictures(figures),
        runs=_run_rows(files["summary"], about),
        origins=origins([Path(path).with_name("metrics.json") for path in runs]),
        latency=pd.read_csv(files["latency"]).to_dict("records") if "latency" in files else [],
        costs=costs.to_dict("records"),
        seconds=float(costs["seconds"].sum()),
    )
    with atomic_path(target) as partial:
        partial.write_text(text, encoding="utf-8")


def _inert(value: Any) -> str:
    """JSON that cannot end the script element that holds it."""
    finite = json.loads(json.dumps(value), parse_constant=lambda _: None)  # JSON has no NaN
    text = json.dumps(finite, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _pictures(figures: Sequence[str | Path]) -> list[dict[str, str]]:
    texts = captions([Path(path).stem for path in figures])
    return [
        {
            "name": Path(path).stem,
            "caption": texts[Path(path).stem],
            "data": base64.b64encode(Path(path).read_bytes()).decode(),
        }
        for path in figures
    ]


def _run_rows(summary: str | Path, about: About) -> list[dict[Any, Any]]:
    rows: list[dict[Any, Any]] = []
    for row in pd.read_csv(summary).to_dict("records"):
        task = about["tasks"].get(row["task"], {}).get("title", row["task"])
        title = method_title(about, row["method"])
        rows.append(row | {"title": title, "task_title": task, "run": _name(row)})
    return rows


def _name(run: Mapping[Any, Any]) -> str:
    return f"{run['task']}/{run['method']}/k{run['soft_tokens']}/seed{run['seed']}"


def _explorer(runs: Sequence[str | Path], examples: Mapping[str, str | Path], about: About) -> list[dict[str, Any]]:
    """What the page's script shows: a record a task of the study that has runs."""
    found = []
    for task, entry in about["tasks"].items():
        files = [Path(path) for path in runs if Path(path).parts[-5] == task]
        if files:
            found.append({"task": task, "title": plain(entry["title"]), **_task(files, Path(examples[task]), about)})
    return found


def _task(files: list[Path], examples: Path, about: About) -> dict[str, Any]:
    frames = {file: read_predictions(file).set_index("id") for file in files}
    first = frames[files[0]]
    ids = first.index[:ROWS]
    texts = pd.read_parquet(examples / "test.parquet").set_index("id").reindex(ids)
    fields: list[dict[Any, Any]] = texts.reset_index().to_dict("records")
    # Answers repeat: they are kept once, and runs hold their places.
    answers: dict[str, int] = {}
    order = list(about["methods"])
    rows = [_run(file, frame.reindex(ids), about, answers) for file, frame in frames.items()]
    return {
        "total": len(first),
        "examples": [
            {"id": plain(key), "text": _text(row), "label": plain(label, 100)}
            for key, label, row in zip(ids, first.loc[ids, "label"], fields)
        ],
        "runs": sorted(rows, key=lambda row: (order.index(row["method"]), row["soft_tokens"], row["seed"])),
        "answers": list(answers),
    }


def _text(row: Mapping[Any, Any]) -> str:
    fields = {name: value for name, value in row.items() if name not in ANSWERS}
    if len(fields) == 1:
        return plain(next(iter(fields.values())), CHARACTERS, lines=True)
    return "\n".join(f"{name}: {plain(_joined(value), CHARACTERS, lines=True)}" for name, value in fields.items())


def _joined(value: Any) -> Any:
    return " | ".join(map(str, value)) if isinstance(value, np.ndarray) else value


def _run(file: Path, frame: pd.DataFrame, about: About, answers: dict[str, int]) -> dict[str, Any]:
    content = read_json(file.with_name("metrics.json"))
    run = {"task": content["run"]["task"], "method": content["run"]["method"], "seed": content["run"]["seed"]}
    run["soft_tokens"] = content["run"]["k"]
    given = ["" if pd.isna(value) else plain(value, 100) for value in frame["prediction"]]
    written = [plain(value, 300) for value in frame["text"]] if "text" in frame else None
    return {
        **run,
        "name": _name(run),
        "title": method_title(about, run["method"], run["soft_tokens"]) + f", seed {run['seed']}",
        "group": about["methods"].get(run["method"], {}).get("group", ""),
        "accuracy": content["metrics"]["accuracy"],
        "answers": [answers.setdefault(value, len(answers)) for value in given],
        "right": [bool(value) for value in frame["prediction"] == frame["label"]],
        "written": written,
        "metrics": content["metrics"],
        "provenance": content["provenance"],
    }
