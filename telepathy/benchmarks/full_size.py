"""Latency, throughput and a training step at the shapes of a study's models, against the goals for one GPU."""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from telepathy.benchmarks.latency import COLUMNS as LATENCY_COLUMNS
from telepathy.benchmarks.latency import LatencyConfig, measure_latency
from telepathy.benchmarks.roofline import Work, bridge_work, measure_machine, model_work
from telepathy.bridges import BridgeConfig, build_bridge
from telepathy.config import Config, benchmark_settings, check_config, method_settings, study_of, task_file
from telepathy.devices import Compute, seed_everything
from telepathy.errors import TelepathyError
from telepathy.features import encode_task
from telepathy.files import write_csv
from telepathy.inference import Telepathy
from telepathy.methods.bridge import BridgeData
from telepathy.methods.trained import take
from telepathy.models.loading import LanguageModel, layer_index
from telepathy.models.shapes import byte_tokenizer, random_model
from telepathy.tasks.data import cache_task
from telepathy.tasks.fetching import fetch_data
from telepathy.tasks.spec import load_task
from telepathy.training.bridge import BridgeLearner, ReceiverSide

COLUMNS = ["what", "value", "unit", "goal", "device", "status"]
ROOT = Path(__file__).parents[2]
WARMUPS, STEPS = 3, 20


def measure_full_size(
    config: Config, study: str, compute: Compute, folder: str | Path, changes: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Write ``latency.csv`` and ``speed.csv`` of one GPU into a folder.

    The training step comes first, and what is measured is written at once: it outlives a time limit.

    Args:
        config: content of config.yaml.
        study: study whose models have the source ``random`` and which has the key ``benchmark``.
        compute: device and precision; off a GPU every row of ``speed.csv`` is ``unmeasured``.
        folder: where to write.
        changes: settings of `LatencyConfig` in place of the study's ``benchmark``.

    Returns:
        ``speed.csv``: columns ``what``, ``value``, ``unit``, ``goal``, ``device``, ``status``.

    Raises:
        TelepathyError: if a model of the study has weights of its own, or the study times nothing.
    """
    check_config(config)
    settings = benchmark_settings(config, study)
    if not settings:
        raise TelepathyError(f"The study {study} times nothing: give it the key benchmark in config.yaml.")
    settings = {**settings, **(changes or {})}
    timed = LatencyConfig(**take(LatencyConfig, settings))
    seed_everything(0)
    with tempfile.TemporaryDirectory() as scratch:
        models = _models(config, study, compute)
        data = _data(config, study, settings["task"], Path(scratch))
        bridge, layer = _bridge(config, study, settings, models)
        load = lambda compiled: Telepathy(bridge, *models, data.task, layer, ReceiverSide(), compiled=compiled)  # noqa: E731
        trained = method_settings(config, settings["method"], study, settings["task"])
        shares = {mode: _training_share(load(False), data, trained, mode == "compiled") for mode in timed.modes}
        write_csv(Path(folder) / "speed.csv", _table(pd.DataFrame(columns=LATENCY_COLUMNS), shares, compute))
        latency = measure_latency(load, data.examples, timed, Path(folder) / "latency.csv")
    table = _table(latency, shares, compute)
    write_csv(Path(folder) / "speed.csv", table)
    return table


def _data(config: Config, study: str, name: str, scratch: Path) -> BridgeData:
    task = load_task(ROOT / task_file(config, name))
    fetch_data(name, task.source, scratch / "raw", scratch / "downloads", scratch / "pins")
    cache_task(task, scratch / "raw", scratch / "examples")
    limits = study_of(config, study)["tasks"][name].get("examples", {})
    return BridgeData(task=task, examples=scratch / "examples", features=scratch / "features", limits=limits)


def _models(config: Config, study: str, compute: Compute) -> tuple[LanguageModel, LanguageModel]:
    entry = study_of(config, study)
    sender, receiver = (_model(config, entry[role], compute) for role in ("sender", "receiver"))
    return sender, receiver


def _model(config: Config, name: str, compute: Compute) -> LanguageModel:
    source = config["models"][name]["source"]
    if "random" not in source:
        raise TelepathyError(f"The model {name} has weights of its own: name a study whose models are random.")
    model: Any = random_model(name, source["random"], compute.device)
    model.to(compute.dtype).eval().requires_grad_(False)
    return LanguageModel(name=name, model=model, tokenizer=byte_tokenizer(), compute=compute, source=source)


def _bridge(config: Config, study: str, settings: dict[str, Any], models: tuple[LanguageModel, LanguageModel]) -> Any:
    sender, receiver = models
    chosen = method_settings(config, settings["method"], study, settings["task"])
    k = study_of(config, study)["tasks"][settings["task"]]["soft_tokens"]
    shape = BridgeConfig(
        soft_tokens=k, sender_width=sender.width, receiver_width=receiver.width, **take(BridgeConfig, chosen)
    )
    return build_bridge(shape), layer_index(chosen["sender_layer"], sender.depth)


def _training_share(model: Telepathy, data: BridgeData, settings: dict[str, Any], compiled: bool) -> float:
    """Operations of a training step over its median time, as a share of the measured matrix rate."""
    size, compute = settings["batch_size"], model.receiver.compute
    frame = data.frame("train").head(size)
    encode_task(model.sender, data.task, {"train": frame}, data.features, [model.layer])
    states = data.states("train", model.layer, model.sender.depth)
    split, chosen = (states, frame), {name: settings[name] for name in ("loss", "input_dropout")}
    learner = BridgeLearner(
        model.bridge, model.receiver, data.task, split, split, model.side, compiled=compiled, **chosen
    )
    optimizer = torch.optim.AdamW(model.bridge.parameters(), lr=1e-4, fused=True)
    seconds = []
    for _ in range(WARMUPS + STEPS):
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        learner.loss(range(len(frame))).backward()
        optimizer.step()
        if compute.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    work = _step_work(model, len(frame), float(np.mean(states.lengths())), learner)
    return work.operations / float(np.median(seconds[WARMUPS:])) / measure_machine(compute).operations_per_second


def _step_work(model: Telepathy, batch: int, tokens: float, learner: BridgeLearner) -> Work:
    """Forward and backward: of the bridge with weight gradients (three times), of the receiver without (twice)."""
    read = model.bridge.config.soft_tokens + max(map(len, learner.answers)) - 1
    receiver = model_work(model.receiver, batch, read, read + model.shared)
    bridge = bridge_work(model.bridge, batch, tokens)
    return bridge + bridge + bridge + receiver + receiver


def _table(latency: pd.DataFrame, shares: Mapping[str, float], compute: Compute) -> pd.DataFrame:
    relay = _best(latency, "text_relay_50_fixed", 1, "median_ms")
    bridge = _best(latency, "bridge", 1, "median_ms")
    rate = _best(latency, "bridge", 16, "examples_per_s")
    rows = [
        ("bridge latency, batch 1, median", bridge, "ms", "at most 13"),
        ("bridge against text relay of 50 tokens, equal work, batch 1", relay / bridge, "times", "at least 18"),
        ("bridge throughput, batch 16", rate, "examples/s", "at least 500"),
    ]
    what = "bridge training step against the measured matrix rate"
    rows += [(f"{what}, {mode}", 100 * share, "percent", "at least 40") for mode, share in shares.items()]
    table = pd.DataFrame(rows, columns=["what", "value", "unit", "goal"])
    measured = compute.device.type == "cuda"
    if not measured:
        table["value"] = np.nan
    about = compute.describe()
    table["device"] = f"{about['hardware']}, {about['dtype']}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    table["status"] = np.where(table["value"].notna(), "measured", "unmeasured")
    return table.reindex(columns=COLUMNS).round(3)


def _best(latency: pd.DataFrame, arm: str, size: int, column: str) -> float:
    """An arm's value in the last mode that was timed (compiled, where it was); nothing if it was not."""
    rows = latency.query("arm == @arm and batch_size == @size and protocol == 'equal_work'")
    return float(rows[column].iloc[-1]) if len(rows) else float("nan")
