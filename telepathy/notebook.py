"""From a task and two models to a trained bridge in one call, for notebooks and scripts."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from telepathy.config import method_settings
from telepathy.devices import choose_compute
from telepathy.features import encode_task
from telepathy.inference import Telepathy
from telepathy.methods.bridge import BridgeData, train_bridge
from telepathy.models.loading import LanguageModel, layer_index, load_language_model
from telepathy.tasks.data import cache_task, load_split
from telepathy.tasks.fetching import fetch_data
from telepathy.tasks.spec import Task, load_task


def train(
    task: Task | str | Path,
    sender: LanguageModel | str | Path,
    receiver: LanguageModel | str | Path,
    folder: str | Path,
    *,
    soft_tokens: int = 8,
    seed: int = 0,
    examples: Mapping[str, int] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    downloads: str | Path = "resources/downloads",
    **settings: Any,
) -> Telepathy:
    """Train a bridge on a task and return it with its two models, ready to answer.

    The steps are those of the workflow: fetch, split, encode with the sender, train, select on dev.
    Progress bars show in terminals and notebooks. Test examples are not read.

    Args:
        task: the task or its YAML.
        sender: the model whose states are read, or its folder.
        receiver: the model that answers, or its folder.
        folder: where the bridge is written, as `Telepathy.from_pretrained` and the hub want it.
        soft_tokens: ``k``, number of vectors handed over.
        seed: of initial weights and data order.
        examples: most examples of ``train`` and ``dev``; all if absent.
        device: auto, cpu or cuda.
        dtype: auto, bfloat16 or float32; auto is bfloat16 where the hardware has it.
        downloads: folder that keeps what is downloaded.
        settings: of the bridge and its training, as under ``methods`` in config.yaml, e.g. ``steps=300``.

    Raises:
        TelepathyError: if the data, the models or a setting will not do.
    """
    task = task if isinstance(task, Task) else load_task(task)
    resolved = method_settings({"methods": {"bridge": {"kind": "bridge", **settings}}}, "bridge")
    with tempfile.TemporaryDirectory() as scratch:
        raw, cached, features = (Path(scratch) / name for name in ("raw", "task", "features"))
        fetch_data(task.name, task.source, raw, Path(downloads), Path(scratch) / "pins")
        cache_task(task, raw, cached)
        compute = choose_compute(device, dtype)
        models = [
            lm if isinstance(lm, LanguageModel) else load_language_model(lm, compute) for lm in (sender, receiver)
        ]
        limits = dict(examples or {})
        splits = {split: load_split(cached, split, limits.get(split)) for split in ("train", "dev")}
        encode_task(models[0], task, splits, features, [layer_index(resolved["sender_layer"], models[0].depth)])
        data = BridgeData(task=task, examples=cached, features=features, limits=limits)
        train_bridge(data, models[1], resolved, soft_tokens, seed, folder)
    return Telepathy.from_pretrained(folder, sender=models[0], receiver=models[1], task=task)
