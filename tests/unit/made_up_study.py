"""A small made-up study on disk, in the formats that the rules write; tests of figures and documents read it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from telepathy.analysis.claims import COLUMNS as CLAIMS
from telepathy.analysis.statistics import compute_statistics
from telepathy.analysis.summary import summarise
from telepathy.files import sha256_of, write_csv, write_json, write_parquet
from telepathy.report.result_tables import write_claims_table, write_costs_table, write_statistics_table
from telepathy.report.tables import write_accuracy_table

LABELS = {"moods": ["negative", "positive"], "sums": []}
METHODS = {
    "bridge": {"title": "Bridge", "group": "main"},
    "zero_shot_receiver": {"title": "Zero-shot receiver", "group": "main"},
    "text_relay": {"title": "Text relay, summary", "group": "main"},
    "control_zeroed": {"title": "Control: states zeroed", "group": "control"},
}
TABLES = ["table1_classification", "table7_statistics", "table8_claims", "table9_costs"]
RUNS = [
    ("moods", "bridge", 8, 1, 0.9),
    ("moods", "bridge", 8, 2, 0.8),
    ("moods", "bridge", 24, 1, 0.85),
    ("moods", "zero_shot_receiver", 0, 0, 0.6),
    ("moods", "text_relay", 0, 0, 0.7),
    ("moods", "control_zeroed", 8, 1, 0.5),
    ("sums", "bridge", 24, 1, 0.0),
    ("sums", "zero_shot_receiver", 0, 0, 0.1),
]
HOSTILE = "</script><script>document.title='owned'</script>\x00\x1b[31m & <b>bold</b> \\input{x} 50% $x_1$ ünïcödé 漢字"


@dataclass
class Study:
    """A folder ``results/<study>`` and what rules would pass beside it."""

    folder: Path
    examples: dict[str, Path] = field(default_factory=dict)
    names: dict[str, Any] = field(default_factory=dict)
    runs: list = field(default_factory=list)

    def run(self, task: str, method: str, k: int, seed: int) -> Path:
        """Folder of one run."""
        return self.folder / "runs" / task / method / f"k{k}" / f"seed{seed}"

    def files(self, name: str) -> list[Path]:
        """One file of every run."""
        return [self.run(*run[:4]) / name for run in self.runs]


def make_study(root: Path, runs: list = RUNS, n: int = 40, seeds: int = 0) -> Study:
    """Write a study whose runs have the accuracies that ``runs`` says (task, method, k, seed, accuracy)."""
    study = Study(root / "results" / "mini", runs=list(runs))
    used = {run[1] for run in runs}
    tasks = {"moods": "Moods & more", "sums": "Sums"}
    study.names = {
        "methods": {name: entry for name, entry in METHODS.items() if name in used},
        "tasks": {task: title for task, title in tasks.items() if task in {run[0] for run in runs}},
    }
    for task in study.names["tasks"]:
        study.examples[task] = _examples(root, task, n)
    for task, method, k, seed, accuracy in runs:
        _run(study, task, method, k, seed, accuracy, n)
    summarise(study.files("metrics.json"), study.folder / "summary.csv")
    versus = [
        name for name in ("zero_shot_receiver", "text_relay", "control_zeroed") if name in used and "bridge" in used
    ]
    compute_statistics(
        study.files("predictions.parquet"),
        study.folder / "statistics.csv",
        comparisons=[_pair(name) for name in versus],
        columns={"table1_classification": list(study.names["methods"])},
        margin=2.0,
        draws=200,
    )
    write_csv(study.folder / "claims.csv", claims())
    write_csv(study.folder / "latency.csv", latency())
    costs = {"rule": ["train_bridge", "encode_task"], "jobs": [4, 2], "seconds": [120.5, 30.2]}
    write_csv(
        study.folder / "costs.csv", pd.DataFrame({**costs, "cpu_seconds": [110.0, 28.0], "max_memory_mb": [900, 800]})
    )
    return study


def _examples(root: Path, task: str, n: int) -> Path:
    folder = root / "tasks" / task
    texts = [f"Text {row} of {task}" for row in range(n)]
    texts[1] = HOSTILE
    labels = LABELS[task]
    gold = {"label": [labels[row % 2] for row in range(n)]} if labels else {"answer": [str(row) for row in range(n)]}
    field_name = "text" if labels else "question"
    frame = pd.DataFrame({"id": [f"test-{row}" for row in range(n)], field_name: texts, **gold})
    write_parquet(folder / "test.parquet", frame)
    return folder


def _run(study: Study, task: str, method: str, k: int, seed: int, accuracy: float, n: int) -> None:
    examples = pd.read_parquet(study.examples[task] / "test.parquet")
    gold = examples["label" if LABELS[task] else "answer"].tolist()
    order = np.random.default_rng([len(method), k, seed]).permutation(n)
    right = set(order[: round(accuracy * n)].tolist())
    wrong = {"negative": "positive", "positive": "negative"}
    said = [gold[row] if row in right else wrong.get(gold[row], "-1") for row in range(n)]
    frame = pd.DataFrame({"id": examples["id"], "label": gold, "prediction": said})
    if not LABELS[task]:
        frame["text"] = [f"It is {answer}." for answer in said]
    folder = study.run(task, method, k, seed)
    write_parquet(folder / "predictions.parquet", frame)
    hashes = {"predictions.parquet": sha256_of(folder / "predictions.parquet")}
    correct = sum(one == other for one, other in zip(gold, said))
    metrics = {
        "n": n,
        "correct": correct,
        "accuracy": correct / n,
        "majority": 0.5 if LABELS[task] else 1 / n,
        "unparsed": 0,
    }
    model = {"name": "tiny", "sha256": "0" * 64, "files": {"model.safetensors": "1" * 64}}
    origin = {
        "code": {"version": "0.1.0", "commit": "abc123", "dirty": False},
        "compute": {"device": "cpu", "dtype": "float32", "hardware": "Test CPU", "threads": 1},
        "models": [model],
        "packages": {"torch": "2.13.0"},
        "python": "3.11.7",
        "settings": {"kind": method, "note": HOSTILE},
        "examples": {"test": n},
        "task": {"name": task, "version": 1, "prompt": "00ff", "source": {"package": "made==up"}},
    }
    run = {"study": "mini", "task": task, "method": method, "k": k, "seed": seed}
    write_json(folder / "metrics.json", {"run": run, "metrics": metrics, "provenance": origin, "files": hashes})
    if method == "bridge":
        history = [
            {"step": step, "loss": 1.0 / step, "accuracy": accuracy * step / 3, "train_loss": 1.1 / step}
            for step in (1, 2, 3)
        ]
        start = {"step": 0, "loss": 1.2, "accuracy": 0.1}  # scored before any training: no training loss
        write_json(folder / "bridge" / "training.json", {"history": [start, *history], "collapsed": False})


def _pair(versus: str) -> dict[str, Any]:
    count = 8 if versus == "control_zeroed" else 0
    pair = {"task": "moods", "method": "bridge", "soft_tokens": 8, "versus": versus, "versus_soft_tokens": count}
    return {**pair, "family": "controls" if count else "main"}


def claims() -> pd.DataFrame:
    """One claim of every verdict."""
    verdicts = ["reproduced", "not reproduced", "artefact of the protocol", "not tested"]
    rows = [
        {
            "id": f"claim-{place}",
            "source": "paper",
            "task": "moods",
            "published_task": "sst2",
            "method": "bridge",
            "metric": "accuracy",
            "published": 93.7,
            "reproduced": 85.0,
            "low": 80.0,
            "high": 90.0,
            "verdict": verdict,
            "reason": f"Reason {place} & more",
            "scale": "different",
            "statement": f"Statement {place} <of the publication>",
        }
        for place, verdict in enumerate(verdicts)
    ]
    return pd.DataFrame(rows).reindex(columns=CLAIMS)


def latency() -> pd.DataFrame:
    """Four arms at two batch sizes, equal work."""
    arms = {
        "bridge": (60, 40, 2, 15),
        "text_relay_30": (900, 800, 0, 80),
        "text_relay_30_fixed": (950, 850, 0, 80),
        "direct_receiver": (30, 0, 0, 28),
    }
    rows = [
        {
            "task": "moods",
            "arm": arm,
            "protocol": "equal_work",
            "batch_size": batch,
            "mode": "eager",
            "device": "cpu",
            "n": 20,
            "median_ms": median * batch**0.5,
            "low_ms": 0.9 * median,
            "high_ms": 1.1 * median,
            "examples_per_s": 1000 / median,
            "roofline_ms": median / 3,
            "sender_ms": sender,
            "bridge_ms": bridge,
            "receiver_ms": receiver,
        }
        for arm, (median, sender, bridge, receiver) in arms.items()
        for batch in (1, 8)
    ]
    return pd.DataFrame(rows)


def about(study: Study) -> dict[str, Any]:
    """What the configuration says of the study."""
    kinds = {
        "bridge": "bridge",
        "zero_shot_receiver": "zero_shot",
        "text_relay": "text_relay",
        "control_zeroed": "control",
    }
    methods = {
        name: {**entry, "kind": kinds[name], "what": f"What {kinds[name]} does."}
        for name, entry in study.names["methods"].items()
    }
    tasks = {
        task: {
            "title": title,
            "kind": "labels" if LABELS[task] else "number",
            "stands_for": "sst2" if LABELS[task] else None,
            "citation": "Someone (2020). A paper & more.",
            "licence": "MIT",
            "soft_tokens": 8,
        }
        for task, title in study.names["tasks"].items()
    }
    model = {"licence": "Apache-2.0"}
    return {
        "study": "mini",
        "title": "A made-up study",
        "sender": {"title": "Sender_1", **model},
        "receiver": {"title": "Receiver & Sons", **model},
        "seeds": [1, 2],
        "methods": methods,
        "tasks": tasks,
    }


def document_files(study: Study) -> dict[str, Path]:
    """The csv files that documents read."""
    return {name: study.folder / f"{name}.csv" for name in ("statistics", "claims", "costs", "summary", "latency")}


def write_tables(study: Study) -> list[Path]:
    """The study's tables, in all formats; returns their paths without ending."""
    names = {name: entry["title"] for name, entry in study.names["methods"].items()}
    tasks = study.names["tasks"]
    read = {name: study.folder / f"{name}.csv" for name in ("summary", "statistics", "claims", "costs")}
    made = [study.folder / "tables" / name for name in TABLES]
    accuracy, compared, claimed, cost = [
        {"name": path.name, **{ending: f"{path}.{ending}" for ending in ("tex", "csv", "html")}} for path in made
    ]
    write_accuracy_table(read["summary"], read["statistics"], tasks, names, ["labels"], "A made-up study", **accuracy)
    write_statistics_table(read["statistics"], tasks, names, margin=2.0, **compared)
    write_claims_table(read["claims"], margin=2.0, **claimed)
    write_costs_table(read["costs"], gpus={}, **cost)
    return made
