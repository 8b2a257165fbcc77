"""The bridge as a method: train one from cached features, answer the test examples with it."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from telepathy import parallel
from telepathy.batches import in_order
from telepathy.bridges import BridgeConfig, bridge_config, build_bridge, load_bridge
from telepathy.devices import seed_everything
from telepathy.errors import TelepathyError
from telepathy.features import FeatureStore, LayerStates
from telepathy.files import read_json
from telepathy.methods.controls import control_states
from telepathy.methods.trained import say, take, write_training
from telepathy.models.identity import refuse_other_model
from telepathy.models.loading import LanguageModel, layer_index
from telepathy.runtime import BridgeRuntime
from telepathy.scoring.answers import generated_predictions, label_predictions
from telepathy.tasks.data import check_classes, load_split
from telepathy.tasks.spec import Task
from telepathy.training.alignment import alignment_learner
from telepathy.training.bridge import BridgeLearner, ReceiverSide
from telepathy.training.loop import Stopwatch, TrainingConfig, fit
from telepathy.training.steps import alignment_steps

STATISTICS_EXAMPLES = 512  # Training examples from which a bridge takes the features' means and scales.


@dataclass(frozen=True, kw_only=True)
class BridgeData:
    """Cached inputs of one task: where they lie and how many examples of a split are used.

    Attributes:
        task: the task.
        examples: folder of the cached task.
        features: folder of the feature store.
        limits: split -> number of examples; absent means all.
    """

    task: Task
    examples: Path
    features: Path
    limits: Mapping[str, int]

    @property
    def sender_source(self) -> dict[str, Any]:
        """Where the sender came from."""
        return read_json(self.features / "index.json")["source"]

    def frame(self, split: str) -> pd.DataFrame:
        """The examples of one split."""
        return load_split(self.examples, split, self.limits.get(split))

    def states(self, split: str, layer: float, depth: int) -> LayerStates:
        """The sender's states of one split at a layer setting (see `layer_index`)."""
        return FeatureStore(self.features, split, self.task).layer(layer_index(layer, depth))


def train_bridge(
    data: BridgeData,
    receiver: LanguageModel,
    settings: Mapping[str, Any],
    k: int,
    seed: int,
    target: str | Path,
    checkpoints: str | Path | None = None,
) -> None:
    """Train one bridge and write ``target`` with its weights, configuration and ``training.json``.

    Args:
        data: train and dev are read, test is not.
        receiver: the frozen model that answers.
        settings: resolved settings of the method (``$defs/method/bridge`` of the schema).
        k: number of soft tokens.
        seed: of initial weights and data order.
        target: folder to write.
        checkpoints: folder for resuming; None for none.

    Raises:
        TelepathyError: if the loss is not finite, or a class has no example.
    """
    seed_everything(seed)
    train, dev = data.frame("train"), data.frame("dev")
    check_classes(data.task, train)
    depth, sender_width = _sender_shape(data)
    shape = {**take(BridgeConfig, settings), "sender_width": sender_width, "receiver_width": receiver.width}
    bridge = build_bridge(bridge_config(options=settings.get("options"), soft_tokens=k, **shape))
    states = data.states("train", settings["sender_layer"], depth)
    bridge.match_states(*states.batch(range(min(len(train), STATISTICS_EXAMPLES))))
    embeddings = embedding_sample(receiver)
    bridge.match_embeddings(embeddings)
    bridge.to(receiver.compute.device)
    learner = BridgeLearner(
        bridge,
        receiver,
        data.task,
        (states, train),
        (data.states("dev", settings["sender_layer"], depth), dev),
        ReceiverSide(**take(ReceiverSide, settings)),
        loss=settings["loss"],
        diversity=settings["diversity"],
        input_dropout=settings["input_dropout"],
        compiled=settings["compiled"],
    )
    stopwatch = Stopwatch()
    sources = [_index(data)["source"], receiver.name, receiver.source, read_json(data.examples / "source.json")]
    precision = receiver.compute.precision_name
    identity = [data.task.name, data.task.prompt_hash, k, dict(settings), dict(data.limits), sources, precision]
    first = alignment_steps(settings)
    aligning = {**settings, "steps": first}
    aligned = _align(learner, embeddings, aligning, seed, identity, checkpoints, stopwatch) if first else []
    config = TrainingConfig(**take(TrainingConfig, {**settings, "steps": settings["steps"] - first}))
    history = fit(learner, config, seed, identity, checkpoints, say, score_start=bool(aligned), stopwatch=stopwatch)
    if not parallel.is_main():
        return
    bridge.save_pretrained(
        target,
        task=data.task.name,
        task_details=data.task.describe(),
        sender={
            "name": _index(data)["model"],
            "layer": layer_index(settings["sender_layer"], depth),
            "source": _index(data)["source"],
        },
        receiver={"name": receiver.name, **take(ReceiverSide, settings), "source": receiver.source},
        prompt=data.task.prompt_hash,
        training={"seed": seed, "settings": dict(settings), "examples": len(train)},
    )
    parameters = sum(parameter.numel() for parameter in bridge.parameters())
    write_training(target, data.task, dev, history, stopwatch.seconds, parameters, receiver.compute, alignment=aligned)
    if checkpoints is not None:
        shutil.rmtree(checkpoints, ignore_errors=True)


def _align(
    learner: BridgeLearner,
    embeddings: Tensor,
    settings: Mapping[str, Any],
    seed: int,
    identity: Any,
    checkpoints: str | Path | None,
    stopwatch: Stopwatch,
) -> list[dict[str, float]]:
    """Train on the words of the answers alone and return the history."""
    own = {"batch_size": settings["alignment_batch_size"], "learning_rate": settings["alignment_rate"], "keep": "last"}
    config = TrainingConfig(**{**take(TrainingConfig, settings), **own})
    folder = None if checkpoints is None else Path(checkpoints) / "alignment"
    alignment = alignment_learner(learner, embeddings, settings["alignment_sharpness"])
    return fit(alignment, config, seed, identity, folder, say, stopwatch=stopwatch)


def _index(data: BridgeData) -> dict[str, Any]:
    return read_json(data.features / "index.json")


def _sender_shape(data: BridgeData) -> tuple[int, int]:
    index = _index(data)
    return index["depth"], index["width"]


def embedding_sample(receiver: LanguageModel) -> Tensor:
    """Some 4,096 embeddings from all over the vocabulary, ``[words, d_receiver]`` on the CPU."""
    vocabulary = receiver.model.get_input_embeddings().num_embeddings
    words = torch.arange(0, vocabulary, max(1, vocabulary // 4096), device=receiver.compute.device)
    return receiver.embed(words).cpu()


def answer_with_bridge(runtime: BridgeRuntime, states: LayerStates, frame: pd.DataFrame) -> pd.DataFrame:
    """Answer every example of a frame from the sender's states alone.

    Args:
        runtime: the bridge and its receiver; its scores are log-likelihoods, not relative ones.
        states: of the frame's examples.
        frame: the examples.

    Returns:
        Predictions as `telepathy.scoring.answers.answer` gives them.
    """

    def soft_tokens(rows: Sequence[int]) -> Tensor:
        return runtime.translate(*states.batch(rows))

    order = np.argsort(states.lengths(), kind="stable")
    batches = [part.tolist() for part in np.array_split(order, -(-len(order) // 64))]
    if runtime.labels is None:
        texts = in_order(batches, lambda rows: runtime.write(soft_tokens(rows)))
        return generated_predictions(runtime.task, frame, texts)
    scores = in_order(batches, lambda rows: runtime.score(soft_tokens(rows)).tolist())
    return label_predictions(runtime.task, frame, runtime.labels, np.array(scores))


def evaluate_bridge(
    data: BridgeData, receiver: LanguageModel, folder: str | Path, control: str | None = None, seed: int = 0
) -> pd.DataFrame:
    """Answer the test examples with a trained bridge.

    Args:
        data: test is read.
        receiver: the frozen model that answers.
        folder: what `train_bridge` wrote.
        control: put states that say nothing in the sender's place (see `telepathy.methods.controls`).
        seed: of the control's draws.

    Raises:
        TelepathyError: if the bridge was trained for another receiver, sender or prompt.
    """
    bridge, about = load_bridge(folder)
    sender = (_index(data)["model"], data.sender_source)
    check_trained_for(folder, about, (receiver.name, receiver.source), sender, data.task.prompt_hash)
    states = FeatureStore(data.features, "test", data.task).layer(about["sender"]["layer"])
    if control is not None:
        states = control_states(control, states, seed)
    side = ReceiverSide(**take(ReceiverSide, about["receiver"]))
    return answer_with_bridge(BridgeRuntime(bridge, receiver, data.task, side), states, data.frame("test"))


Named = tuple[str, Mapping[str, Any]]
"""Name and source of a model."""


def check_trained_for(
    folder: str | Path, about: Mapping[str, Any], receiver: Named, sender: Named, prompt: str
) -> None:
    """Refuse to use a bridge with other models or another prompt than those of its training.

    Args:
        folder: of the bridge; used in messages.
        about: what the bridge's ``config.json`` says.
        receiver: name and source of the receiver that is there; commit or sha256 count, where both have one.
        sender: name and source of the sender.
        prompt: hash of the task's prompt.

    Raises:
        TelepathyError: naming what was expected and what was found.
    """
    what = f"The bridge {folder}"
    refuse_other_model(what, "receiver", about["receiver"], *receiver)
    refuse_other_model(what, "sender", about["sender"], *sender)
    if about["prompt"] != prompt:
        raise TelepathyError(f"{what} was trained for the prompt {about['prompt']}, but got {prompt}.")
