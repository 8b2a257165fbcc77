"""Latency, throughput and memory of every arm: one tidy row an arm, protocol, mode and batch size."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from telepathy.benchmarks.arms import AS_PUBLISHED, EQUAL_WORK, Arms, Examples
from telepathy.benchmarks.roofline import Machine, measure_machine
from telepathy.benchmarks.timing import Clock, Trials, interleaved, median_interval
from telepathy.devices import Compute, in_any_order
from telepathy.errors import TelepathyError
from telepathy.files import write_csv
from telepathy.inference import Telepathy
from telepathy.tasks.data import load_split

COLUMNS = [
    "task",
    "arm",
    "protocol",
    "batch_size",
    "mode",
    "device",
    "hardware",
    "n",
    "warmups",
    "median_ms",
    "low_ms",
    "high_ms",
    "p5_ms",
    "p95_ms",
    "device_ms",
    "examples_per_s",
    "tokens_generated",
    "peak_memory_mb",
    "roofline_ms",
    "roofline_ratio",
    "sender_ms",
    "bridge_ms",
    "receiver_ms",
]


@dataclass(frozen=True, kw_only=True)
class LatencyConfig:
    """What is timed, and how often.

    Attributes:
        batch_sizes: examples a call.
        warmups: untimed calls of each arm.
        trials: timed calls of each arm at batch 1.
        batch_trials: timed calls at larger batches.
        inputs: distinct test examples.
        relays: lengths of the text relays' messages in tokens.
        batched_relays: whether text relays are timed at larger batches too, which takes longest of all.
        modes: ``eager`` and ``compiled``.
        protocols: ``equal_work`` and ``as_published`` (eager, batch 1).
    """

    batch_sizes: Sequence[int] = (1, 2, 4, 8, 16)
    warmups: int = 20
    trials: int = 200
    batch_trials: int = 200
    inputs: int = 100
    relays: Sequence[int] = (30, 50)
    batched_relays: bool = True
    modes: Sequence[str] = ("eager", "compiled")
    protocols: Sequence[str] = (EQUAL_WORK, AS_PUBLISHED)

    def __post_init__(self) -> None:
        for name in ("trials", "batch_trials", "inputs"):
            if getattr(self, name) < 1:
                raise TelepathyError(f"A benchmark needs {name} of 1 at least, not {getattr(self, name)}.")
        if self.warmups < 0:
            raise TelepathyError(f"A benchmark needs warmups of 0 at least, not {self.warmups}.")
        for name, allowed in (("modes", ("eager", "compiled")), ("protocols", (EQUAL_WORK, AS_PUBLISHED))):
            if unknown := sorted(set(getattr(self, name)) - set(allowed)):
                raise TelepathyError(f"{name} of a benchmark are {' or '.join(allowed)}, not {', '.join(unknown)}.")


def measure_latency(
    load: Callable[[bool], Telepathy], examples: str | Path, config: LatencyConfig, target: str | Path
) -> pd.DataFrame:
    """Time every arm and write ``latency.csv``, anew after each batch size: what was measured outlives a time limit.

    Args:
        load: makes the runtime, compiled or not.
        examples: folder of the cached task; the first test examples are read.
        config: what is timed, and how often.
        target: csv file to write.

    Returns:
        The table: times in milliseconds a call, ``examples_per_s`` from the median, the roofline and the
        median's ratio to it (equal work only), tokens generated an example, peak memory in MiB (on a CPU of
        the whole process). Columns that an arm does not have are empty.

    Raises:
        TelepathyError: if the task has no labels.
    """
    inputs: Examples = load_split(examples, "test", config.inputs).to_dict("records")  # type: ignore[assignment]
    rows: list[dict[str, Any]] = []
    for mode in config.modes:
        model = load(mode == "compiled")
        compute = model.receiver.compute
        if model.labels is None:
            raise TelepathyError(f"The arms of a benchmark choose labels, but the task {model.task.name} has none.")
        machine, clock = measure_machine(compute), Clock(compute)
        arms = Arms(model, clock, mode == "compiled")
        for protocol, size in product(config.protocols, config.batch_sizes):
            if protocol == EQUAL_WORK or (mode == "eager" and size == 1):
                with in_any_order():
                    found = _cell(arms, inputs, size, protocol, config, compute, clock)
                facts = {"protocol": protocol, "batch_size": size, "mode": mode, "warmups": config.warmups}
                rows += [
                    {**facts, **_row(name, trials, size, arms, inputs, machine, protocol, compute)}
                    for name, trials in found.items()
                ]
                write_csv(target, pd.DataFrame(rows).reindex(columns=COLUMNS))
    return pd.DataFrame(rows).reindex(columns=COLUMNS)


def _cell(
    arms: Arms, inputs: Examples, size: int, protocol: str, config: LatencyConfig, compute: Compute, clock: Clock
) -> dict[str, Trials]:
    relays = config.relays if size == 1 or config.batched_relays else ()
    chosen = arms.equal_work(relays) if protocol == EQUAL_WORK else arms.as_published()
    trials = config.trials if size == 1 else config.batch_trials
    return interleaved(chosen, batches_of(inputs, size), config.warmups, trials, clock, compute)


def batches_of(inputs: Examples, size: int) -> list[Examples]:
    """Batches of one size out of the inputs, each input once; they begin anew where they do not fill one batch."""
    whole = max(1, len(inputs) // size)
    return [[inputs[(start * size + place) % len(inputs)] for place in range(size)] for start in range(whole)]


def _row(
    name: str,
    trials: Trials,
    size: int,
    arms: Arms,
    inputs: Examples,
    machine: Machine,
    protocol: str,
    compute: Compute,
) -> dict[str, Any]:
    median, low, high = median_interval(trials.total)
    written = float(np.mean([sum(counts) for counts in trials.tokens])) / size
    about = compute.describe()
    threads = f", {about['threads']} threads" if about["device"] == "cpu" else ""
    batches = batches_of(inputs, size)[: len(trials.total)]
    steps = float(np.median([max(counts) for counts in trials.tokens]))
    least = float(np.mean([machine.milliseconds(*arms.least_work(name, protocol, batch, steps)) for batch in batches]))
    row: dict[str, Any] = {
        "task": arms.task.name,
        "arm": name,
        "device": about["device"],
        "hardware": f"{about['hardware']}{threads}, {about['dtype']}",
        "n": len(trials.total),
        "median_ms": median,
        "low_ms": low,
        "high_ms": high,
        "p5_ms": float(np.percentile(trials.total, 5)),
        "p95_ms": float(np.percentile(trials.total, 95)),
        "device_ms": float(np.median(trials.device)) if trials.device else None,
        "examples_per_s": 1e3 * size / median,
        "tokens_generated": written,
        "peak_memory_mb": trials.memory_mb,
        "roofline_ms": least,
        "roofline_ratio": median / least,
    }
    row |= {f"{stage}_ms": _stage(trials.stages, stage) for stage in ("sender", "bridge", "receiver")}
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}


def _stage(stages: Sequence[Mapping[str, float]], name: str) -> float | None:
    values = [found[name] for found in stages if name in found]
    return float(np.median(values)) if values else None
