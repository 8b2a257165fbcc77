"""Train an adapter of the receiver, and answer with it: what can be learnt without a sender."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from telepathy import parallel
from telepathy.batches import length_batches, within_memory
from telepathy.devices import seed_everything
from telepathy.files import fingerprint
from telepathy.methods.adapters import (
    BATCH_TOKENS,
    CONFIGS,
    AdaptedReceiver,
    AdapterConfig,
    LoraConfig,
    adapter_config,
    new_adapter,
)
from telepathy.methods.trained import say, take, write_training
from telepathy.models.loading import LanguageModel, head_logits, pad
from telepathy.scoring.labels import LabelSet
from telepathy.tasks.data import check_classes, load_split
from telepathy.tasks.spec import Task
from telepathy.training.bridge import answer_loss, answer_rows
from telepathy.training.loop import Stopwatch, TrainingConfig, fit

HEAD_ROWS = 128
"""Most positions whose logits are held at once by the loss over a whole prompt."""


def train_adapter(
    task: Task,
    examples: str | Path,
    limits: Mapping[str, int],
    receiver: LanguageModel,
    settings: Mapping[str, Any],
    k: int,
    seed: int,
    target: str | Path,
    checkpoints: str | Path | None = None,
) -> None:
    """Train one adapter and write ``target`` with its weights, configuration and ``training.json``.

    Args:
        task: of the run.
        examples: folder of the cached task; train and dev are read, test is not.
        limits: split -> number of examples; absent means all.
        receiver: the frozen model.
        settings: resolved settings of the method (``$defs/method/prompt_tuning`` or ``lora`` of the schema).
        k: number of soft tokens; 0 for LoRA.
        seed: of initial weights and data order.
        target: folder to write.
        checkpoints: folder for resuming; None for none.
    """
    seed_everything(seed)
    train, dev = (load_split(examples, split, limits.get(split)) for split in ("train", "dev"))
    kind = settings["kind"]
    shape = take(CONFIGS[kind], {**settings, "soft_tokens": k})
    training = TrainingConfig(**take(TrainingConfig, settings))
    stopwatch = Stopwatch()
    adapted, history = tune_receiver(
        receiver, task, train, dev, adapter_config(kind, **shape), training, seed, checkpoints, say, stopwatch
    )
    if not parallel.is_main():
        return
    adapted.save_pretrained(target)
    write_training(target, task, dev, history, stopwatch.seconds, adapted.trainable_parameters, receiver.compute)
    if checkpoints is not None:
        shutil.rmtree(checkpoints, ignore_errors=True)


def tune_receiver(
    lm: LanguageModel,
    task: Task,
    train: pd.DataFrame,
    dev: pd.DataFrame,
    config: AdapterConfig,
    training: TrainingConfig,
    seed: int,
    checkpoints: str | Path | None = None,
    progress: Callable[[dict[str, float]], None] | None = None,
    stopwatch: Stopwatch | None = None,
) -> tuple[AdaptedReceiver, list[dict[str, float]]]:
    """Train an adapter of the receiver.

    LoRA changes ``lm`` in place until `AdaptedReceiver.detach`.

    Args:
        lm: frozen causal LM.
        task: gives prompt, primer and labels.
        train: training examples.
        dev: examples that select the weights.
        config: `PromptTuningConfig` or `LoraConfig`.
        training: steps, rate and so on.
        seed: decides the start, the order of the data and every random draw.
        checkpoints: as in `telepathy.training.loop.fit`.
        progress: as in `telepathy.training.loop.fit`.
        stopwatch: as in `telepathy.training.loop.fit`.

    Returns:
        The adapted receiver with the chosen weights, and the history.

    Raises:
        TelepathyError: if a class has no training example, or training breaks off.
    """
    check_classes(task, train)
    adapted = AdaptedReceiver(lm, task, config, new_adapter(lm, task, train, config, seed))
    identity = {"kind": config.kind, **asdict(config), "task": [task.name, task.prompt_hash]}
    identity |= {"receiver": [lm.name, lm.source], "examples": [fingerprint(part.to_json()) for part in (train, dev)]}
    identity["precision"] = lm.compute.precision_name
    learner = AdapterLearner(adapted, train, dev.iloc[: config.dev_examples])
    history = fit(learner, training, seed, identity, checkpoints, progress, stopwatch=stopwatch)
    adapted.adapter.eval()
    return adapted, history


class AdapterLearner:
    """An adapter on its frozen receiver, for `telepathy.training.loop.fit`."""

    def __init__(self, adapted: AdaptedReceiver, train: pd.DataFrame, dev: pd.DataFrame):
        self.adapted, self.dev = adapted, dev
        self.prompts, self.answers = adapted.prompts(train), self._answers(train)
        self.dev_prompts, self.dev_answers = adapted.prompts(dev), self._answers(dev)
        labels = adapted.config.loss == "labels" and adapted.task.labels
        self.restrict = LabelSet.of(adapted.lm, adapted.task) if labels else None

    def _answers(self, frame: pd.DataFrame) -> list[list[int]]:
        end = self.adapted.lm.eos_ids[:1]
        rows = answer_rows(self.adapted.lm, self.adapted.task, frame, end)
        config = self.adapted.config
        if isinstance(config, LoraConfig) and config.teach_end and self.adapted.task.labels:
            return [row + end for row in rows]
        return rows

    @property
    def trainable(self) -> nn.Module:
        """The adapter."""
        return self.adapted.adapter

    @property
    def examples(self) -> int:
        """Number of training examples."""
        return len(self.prompts)

    def weight(self, rows: Sequence[int]) -> int:
        """What the loss is a mean over: examples, or for a whole prompt all tokens but the first of each."""
        if self.adapted.config.loss != "whole_prompt":
            return len(rows)
        return sum(len(self.prompts[row]) + len(self.answers[row]) - 1 for row in rows)

    def loss(self, rows: Sequence[int]) -> Tensor:
        """Loss of some training examples, on what the configuration says."""
        prompts, answers = [self.prompts[row] for row in rows], [self.answers[row] for row in rows]
        with self.adapted.adapter.precision():
            if self.adapted.config.loss == "whole_prompt":
                return whole_prompt_loss(self.adapted.lm, [prompt + said for prompt, said in zip(prompts, answers)])
            prefix, mask = self.adapted.adapter.prefixes(prompts)
            return answer_loss(self.adapted.lm, prefix, mask, answers, self.restrict)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Dev accuracy and loss (of the right label among the labels; for numbers the answer loss for both)."""
        if not self.adapted.task.labels:
            loss = self._dev_loss()
            return {"loss": loss, "accuracy": -loss}
        predictions = self.adapted.scored(self.dev, self.dev_prompts)
        names = self.adapted.task.label_names
        gold = torch.tensor([names.index(name) for name in self.dev["label"]])
        scores = torch.from_numpy(np.stack(predictions["scores"].tolist()))
        right = predictions["prediction"] == predictions["label"]
        return {"loss": float(F.cross_entropy(scores, gold)), "accuracy": float(right.mean())}

    def _dev_loss(self) -> float:
        def loss(rows: Sequence[int]) -> float:
            prefix, mask = self.adapted.adapter.prefixes([self.dev_prompts[row] for row in rows])
            with self.adapted.adapter.precision():
                found = answer_loss(self.adapted.lm, prefix, mask, [self.dev_answers[row] for row in rows])
            return float(found) * len(rows)

        batches = length_batches([len(row) for row in self.dev_prompts], BATCH_TOKENS)
        return sum(part for _, part in within_memory(batches, loss)) / len(self.dev_prompts)


def whole_prompt_loss(lm: LanguageModel, rows: Sequence[Sequence[int]]) -> Tensor:
    """Mean over all tokens but the first of their negative log-likelihood (the published loss).

    Logits are made for some positions at a time, and again in the backward pass: of a whole batch
    they take gigabytes with a vocabulary of 262,144.

    Args:
        rows: prompts with their answers, BOS first.
    """
    ids, mask = (part.to(lm.compute.device) for part in pad(rows, lm.pad_id))
    states = lm.model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)[0]
    real = mask[:, 1:].bool()
    states, targets = states[:, :-1][real], ids[:, 1:][real]
    total = torch.zeros((), device=states.device)
    for start in range(0, len(targets), HEAD_ROWS):
        part = slice(start, start + HEAD_ROWS)
        total = total + checkpoint(
            _head_loss, lm, states[part], targets[part], use_reentrant=False, preserve_rng_state=False
        )
    return total / len(targets)


def _head_loss(lm: LanguageModel, states: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(head_logits(lm, states), targets, reduction="sum")
