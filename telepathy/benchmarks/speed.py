"""Our training, evaluation and answers against the plain way, side by side on one machine (``speed.csv``)."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from telepathy.benchmarks.arms import EQUAL_WORK, Arms
from telepathy.benchmarks.plain import plain_answer, plain_loss, plain_weights
from telepathy.benchmarks.roofline import measure_machine
from telepathy.benchmarks.timing import Clock, interleaved
from telepathy.files import write_csv
from telepathy.inference import Telepathy
from telepathy.methods.bridge import BridgeData, answer_with_bridge, embedding_sample
from telepathy.methods.prompted import records
from telepathy.runtime import BridgeRuntime
from telepathy.training.alignment import alignment_learner
from telepathy.training.bridge import BridgeLearner
from telepathy.training.loop import Learner, batch_rows

COLUMNS = ["what", "ours", "reference", "unit", "ratio", "goal", "device"]
RELAY_TOKENS = 30
GOALS = {"training": 8.0, "evaluation": 15.0, "latency": 10.0, "demo": 20.0}
"""Least ratio to the reference; of the demo the most minutes."""


@dataclass(frozen=True, kw_only=True)
class SpeedConfig:
    """How much is timed.

    Attributes:
        batch_size: examples of a training step through the receiver, on both sides.
        rounds: timings of each side, taken in turn; medians are reported.
        evaluated: examples that our side answers in a round.
        one_by_one: examples that the plain side answers in a round.
        loss, input_dropout, alignment_batch_size, alignment_sharpness: of training, as in the method's settings.
    """

    batch_size: int = 8
    rounds: int = 9
    evaluated: int = 64
    one_by_one: int = 4
    loss: str = "labels"
    input_dropout: float = 0.5
    alignment_batch_size: int = 64
    alignment_sharpness: float = 80.0


def measure_speed(
    model: Telepathy, data: BridgeData, config: SpeedConfig, costs: str | Path, target: str | Path
) -> pd.DataFrame:
    """Time both sides in turn and write ``speed.csv``.

    Args:
        model: the trained bridge between its models; the task has labels.
        data: cached examples and features of its task.
        config: how much is timed.
        costs: ``costs.csv`` of the study.
        target: csv file to write.

    Returns:
        Columns ``what``, ``ours``, ``reference``, ``unit``, ``ratio`` (how many times faster ours is; of the
        roofline how many times the least time it takes), ``goal``, ``device``.
    """
    rows = [*_training(model, data, config), *_evaluation(model, data, config), *_latency(model, data, config)]
    rows.append({"what": "all jobs of the study over the cores", "ours": _minutes(costs), "unit": "minutes at most"})
    rows[-1]["goal"] = GOALS["demo"]
    about = model.receiver.compute.describe()
    device = f"{about['hardware']}, {about['threads']} of {os.cpu_count()} cores, {about['dtype']}"
    table = pd.DataFrame(rows).assign(device=device).reindex(columns=COLUMNS).round(3)
    write_csv(target, table)
    return table


def _training(model: Telepathy, data: BridgeData, config: SpeedConfig) -> list[dict[str, Any]]:
    train, dev = data.frame("train"), data.frame("dev")
    depth = model.sender.depth
    states, dev_states = (data.states(split, model.layer, depth) for split in ("train", "dev"))
    learner = BridgeLearner(
        model.bridge,
        model.receiver,
        model.task,
        (states, train),
        (dev_states, dev),
        model.side,
        loss=config.loss,
        input_dropout=config.input_dropout,
    )
    alignment = alignment_learner(learner, embedding_sample(model.receiver), config.alignment_sharpness)
    optimizer = torch.optim.AdamW(model.bridge.parameters(), lr=0.0, fused=True)
    examples, size, aligned = records(train), config.batch_size, config.alignment_batch_size

    def step_of(learner: Learner, size: int) -> Callable[[int], None]:
        return lambda round_: _step(optimizer, learner.loss(batch_rows(len(train), size, round_, 0)))

    def plain(round_: int) -> None:
        chosen = [examples[row] for row in batch_rows(len(train), size, round_, 0)]
        with plain_weights(model):
            _step(optimizer, plain_loss(model, chosen))

    ours, first, slow = _in_turn([step_of(learner, size), step_of(alignment, aligned), plain], config.rounds)
    return [
        _rates("bridge training", (ours, slow), size, size, "training"),
        _rates("bridge training, alignment (no receiver runs)", (first, slow), aligned, size, None),
    ]


def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def _evaluation(model: Telepathy, data: BridgeData, config: SpeedConfig) -> list[dict[str, Any]]:
    frame = data.frame("test").head(config.evaluated)
    states, examples = data.states("test", model.layer, model.sender.depth), records(frame)

    def cached(_round: int) -> None:
        runtime = BridgeRuntime(model.bridge, model.receiver, model.task, model.side)
        answer_with_bridge(runtime, states.head(len(frame)), frame)

    def whole(_round: int) -> None:
        model(examples)

    def plain(round_: int) -> None:
        with plain_weights(model):
            for place in range(config.one_by_one):
                plain_answer(model, examples[(round_ * config.one_by_one + place) % len(examples)])

    sizes = len(frame), config.one_by_one
    return [
        _rates("evaluation, features cached", _in_turn([cached, plain], config.rounds), *sizes, "evaluation"),
        _rates("evaluation, encoding included", _in_turn([whole, plain], config.rounds), *sizes, None),
    ]


def _latency(model: Telepathy, data: BridgeData, config: SpeedConfig) -> list[dict[str, Any]]:
    compute = model.receiver.compute
    clock = Clock(compute)
    arms = Arms(model, clock, compiled=False)
    batches = [[example] for example in records(data.frame("test").head(max(2, config.rounds)))]
    relay = f"text_relay_{RELAY_TOKENS}_fixed"
    chosen = {name: arm for name, arm in arms.equal_work([RELAY_TOKENS]).items() if name in ("bridge", relay)}
    found = interleaved(chosen, batches, 1, max(2, config.rounds), clock, compute)
    ours, theirs = (float(np.median(found[name].total)) for name in ("bridge", relay))
    machine = measure_machine(compute)
    least = float(
        np.mean([machine.milliseconds(*arms.least_work("bridge", EQUAL_WORK, batch, 0)) for batch in batches])
    )
    what = f"bridge against text relay of {RELAY_TOKENS} tokens, batch 1"
    row = {"what": what, "ours": ours, "reference": theirs, "unit": "ms", "ratio": theirs / ours}
    roofline = {"what": "bridge against its roofline, batch 1", "ours": ours, "reference": least, "unit": "ms"}
    return [{**row, "goal": GOALS["latency"]}, {**roofline, "ratio": ours / least}]


def _in_turn(sides: Sequence[Callable[[int], None]], rounds: int) -> list[list[float]]:
    """Seconds of each side in turn; the first call of each is not counted."""
    seconds: list[list[float]] = [[] for _ in sides]
    for round_ in range(rounds + 1):
        for side, work in zip(seconds, sides):
            started = time.perf_counter()
            work(round_)
            side.append(time.perf_counter() - started)
    return [side[1:] for side in seconds]


def _rates(what: str, seconds: Sequence[Sequence[float]], ours: int, plain: int, goal: str | None) -> dict[str, Any]:
    fast, slow = ours / float(np.median(seconds[0])), plain / float(np.median(seconds[1]))
    row: Mapping[str, Any] = {"what": what, "ours": fast, "reference": slow, "unit": "examples/s", "ratio": fast / slow}
    return {**row, "goal": GOALS[goal] if goal else None}


def _minutes(costs: str | Path) -> float:
    """Wall time of all jobs, shared by the cores."""
    return float(pd.read_csv(costs)["seconds"].sum()) / 60 / (os.cpu_count() or 1)
