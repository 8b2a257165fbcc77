"""Train a bridge: the sender's cached states in, the frozen receiver's loss on the answer out."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers import Cache

from telepathy.batches import within_memory
from telepathy.bridges import Bridge
from telepathy.devices import draws
from telepathy.errors import TelepathyError
from telepathy.features import LayerStates
from telepathy.models.compiled import Recorded, compiled_view
from telepathy.models.loading import LanguageModel, head_logits, pad
from telepathy.scoring.labels import (
    LabelSet,
    beginning,
    continuation_ids,
    label_log_likelihoods,
    positions_of,
    repeated,
)
from telepathy.tasks.spec import Task

PART = {"cpu": 16, "cuda": 256}
"""Most examples that a bridge reads at once in training: a CPU gains by less padding, a GPU by fewer launches."""

NOTHING = -100
"""What should be said where an answer has ended."""


@dataclass(frozen=True, kw_only=True)
class ReceiverSide:
    """How the receiver reads soft tokens.

    Attributes:
        primer_position: ``before`` or ``after`` the soft tokens.
        bos: put the receiver's BOS first, where it parks its attention.
    """

    primer_position: str = "before"
    bos: bool = True

    def __post_init__(self) -> None:
        if self.primer_position not in ("before", "after"):
            raise TelepathyError(f"primer_position must be before or after, not {self.primer_position!r}.")


def receiver_prefix(receiver: LanguageModel, task: Task, soft_tokens: Tensor, side: ReceiverSide) -> Tensor:
    """Set BOS, primer and soft tokens in the receiver's order.

    Args:
        soft_tokens: ``[batch, k, d_receiver]``.

    Returns:
        Input embeddings ``[batch, positions, d_receiver]`` in the receiver's precision.
    """
    before, after = fixed_ids(receiver, task, side)
    parts = [_fixed(receiver, before, len(soft_tokens)), soft_tokens, _fixed(receiver, after, len(soft_tokens))]
    return torch.cat([part.to(receiver.compute.dtype) for part in parts], dim=1)


def fixed_ids(receiver: LanguageModel, task: Task, side: ReceiverSide) -> tuple[list[int], list[int]]:
    """Tokens that stand before and after the soft tokens of every example."""
    primer = receiver.token_ids(task.primer)
    bos = [receiver.bos_id] if side.bos else []
    return (bos + primer, []) if side.primer_position == "before" else (bos, primer)


def shared_beginning(receiver: LanguageModel, task: Task, side: ReceiverSide) -> tuple[Cache | None, int]:
    """Key-value cache of what stands before all soft tokens, and its length; frozen, so it is run once."""
    before, _ = fixed_ids(receiver, task, side)
    return (beginning(receiver, before) if before else None), len(before)


def embeddings_after(receiver: LanguageModel, task: Task, side: ReceiverSide) -> Tensor:
    """Embeddings of what stands after the soft tokens of every example, ``[1, positions, d_receiver]``."""
    _, after = fixed_ids(receiver, task, side)
    return _fixed(receiver, after, 1)


def heard(soft_tokens: Tensor, after: Tensor, shared: int) -> tuple[Tensor, Tensor]:
    """What the receiver reads after a beginning that all examples share, and the mask of all that it reads.

    Args:
        soft_tokens: ``[batch, k, d_receiver]``.
        after: of `embeddings_after`.
        shared: positions of the beginning.
    """
    batch = len(soft_tokens)
    prefix = torch.cat([soft_tokens.to(after.dtype), after.expand(batch, -1, -1)], dim=1)
    return prefix, torch.ones(batch, shared + prefix.shape[1], dtype=torch.long, device=prefix.device)


def _fixed(receiver: LanguageModel, ids: Sequence[int], batch: int) -> Tensor:
    row = torch.tensor(list(ids), dtype=torch.long, device=receiver.compute.device)
    return receiver.embed(row).detach().unsqueeze(0).expand(batch, -1, -1)


def line_end(receiver: LanguageModel) -> list[int]:
    """Tokens of a newline as it follows a number; end-of-sequence where a tokenizer knows no newline."""
    digit = receiver.token_ids("0")
    return receiver.token_ids("0\n")[len(digit) :] or receiver.eos_ids[:1]


def answer_rows(receiver: LanguageModel, task: Task, frame: pd.DataFrame, end: Sequence[int]) -> list[list[int]]:
    """Tokens that the receiver should say for each example, those of ``end`` last for free answers."""
    if task.kind == "number":
        return [continuation_ids(receiver, task.primer, text) + list(end) for text in frame["answer"]]
    labels = LabelSet.of(receiver, task)
    rows = dict(zip(labels.names, labels.tokens))
    return [list(rows[name]) for name in frame["label"]]


def answer_loss(
    receiver: LanguageModel,
    prefix: Tensor,
    mask: Tensor,
    rows: Sequence[Sequence[int]],
    labels: LabelSet | None = None,
    past: Cache | None = None,
) -> Tensor:
    """Mean over examples of the negative log-likelihood of the answer tokens.

    Logits are computed at the answer's places only (a vocabulary may have 262,144 rows).

    Args:
        prefix: input embeddings ``[batch, positions, d]``, left-padded.
        mask: 1 at real positions, ``[batch, positions]``; those of ``past`` first where it is given.
        rows: answer tokens of every example.
        labels: if given, an answer's first token competes with the labels' first tokens alone: what the vocabulary
            takes from all labels alike plays no part in the choice among them. Later tokens compete with the
            vocabulary, as they are scored (`label_log_likelihoods`). Where no label begins another, the loss is never
            below the cross-entropy of that choice; where every label has one token, it is equal to it.
        past: key-value cache of one sequence that stands before every prefix.
    """
    return _loss_of(receiver, past, _competing(labels, prefix.device), prefix, mask, *_spoken(receiver, rows, labels))


def _spoken(
    receiver: LanguageModel, rows: Sequence[Sequence[int]], labels: LabelSet | None, length: int = 0
) -> list[Tensor]:
    """What `_loss_of` takes of answers, on the receiver's device.

    Args:
        receiver: the model that should say them.
        rows: their tokens.
        labels: as `answer_loss` takes them.
        length: pad to this many tokens, so that all batches of a size have tensors of the same shapes; 0 to pad, and
            to score, no more than the batch needs.

    Returns:
        Tokens and their mask, ``[batch, longest]``; with labels also the place of each first token among those that it
        competes with, ``[batch]``, and of later tokens their places in the batch and what should be said there.
    """
    ids, real = pad(rows, receiver.pad_id)
    surplus = max(0, length - ids.shape[1])
    ids, real = F.pad(ids, (0, surplus), value=receiver.pad_id), F.pad(real, (0, surplus))
    parts = [ids, real]
    if labels is not None:
        first = _competing(labels, ids.device)
        assert first is not None
        wanted = torch.where(real[:, 1:].bool(), ids[:, 1:], NOTHING).flatten()
        later = torch.arange(len(wanted)) if length else (wanted != NOTHING).nonzero().squeeze(1)
        parts += [torch.searchsorted(first, ids[:, 0].contiguous()), later, wanted[later]]
    return [part.to(receiver.compute.device) for part in parts]


@cache
def _competing(labels: LabelSet | None, device: torch.device) -> Tensor | None:
    """The labels' first tokens in order; kept on the device: what a CUDA graph records may not wait for a copy."""
    if labels is None:
        return None
    return torch.tensor(sorted({row[0] for row in labels.tokens}), device=device)


def _loss_of(
    receiver: LanguageModel,
    past: Cache | None,
    first: Tensor | None,
    prefix: Tensor,
    mask: Tensor,
    ids: Tensor,
    real: Tensor,
    *chosen: Tensor,
) -> Tensor:
    """`answer_loss` of tensors (see `_spoken`); a CUDA graph can record it."""
    seen = torch.cat([mask, real[:, :-1]], dim=1)
    inputs = torch.cat([prefix, receiver.embed(ids[:, :-1])], dim=1)
    states = receiver.model.base_model(
        inputs_embeds=inputs,
        attention_mask=seen,
        position_ids=positions_of(seen)[:, -inputs.shape[1] :],
        past_key_values=None if past is None else repeated(past, len(ids)),
        use_cache=False,
    )[0][:, -ids.shape[1] :]
    if first is None:
        losses = F.cross_entropy(head_logits(receiver, states).transpose(1, 2), ids, reduction="none")
        return torch.where(real.bool(), losses, 0.0).sum() / len(ids)
    place, later, wanted = chosen
    loss = F.cross_entropy(head_logits(receiver, states[:, 0], first), place, reduction="sum")
    tails = head_logits(receiver, states[:, 1:].flatten(0, 1).index_select(0, later))
    return (loss + F.cross_entropy(tails, wanted, ignore_index=NOTHING, reduction="sum")) / len(ids)


class BridgeLearner:
    """A bridge between a feature store and a frozen receiver, for `telepathy.training.loop.fit`."""

    def __init__(
        self,
        bridge: Bridge,
        receiver: LanguageModel,
        task: Task,
        train: tuple[LayerStates, pd.DataFrame],
        dev: tuple[LayerStates, pd.DataFrame],
        side: ReceiverSide,
        loss: str = "vocabulary",
        diversity: float = 0.0,
        input_dropout: float = 0.0,
        compiled: bool = False,
    ):
        """Join the parts.

        Args:
            bridge: what is trained.
            receiver: frozen causal LM.
            task: what is asked.
            train: states and examples.
            dev: likewise.
            side: how the receiver reads soft tokens.
            loss: ``labels`` or ``vocabulary``: what the first token of an answer competes with.
            diversity: weight of the published penalty on soft tokens that resemble each other.
            input_dropout: share of the states' features that an example loses at each step.
            compiled: in training fuse the receiver's small operations with `torch.compile`, and on a GPU record its
                pass and the gradient through it as a CUDA graph.
        """
        self.bridge, self.receiver, self.task, self.side = bridge, receiver, task, side
        self.diversity, self.input_dropout = diversity, input_dropout
        self.states, self.train = train
        self.dev_states, self.dev = dev
        self.states.pinned = receiver.compute.device.type == "cuda"
        end = line_end(receiver)  # what is generated is read up to the end of its line
        self.answers = answer_rows(receiver, task, train[1], end)
        self.dev_answers = answer_rows(receiver, task, dev[1], end)
        self.labels = LabelSet.of(receiver, task) if task.labels else None
        self.restrict = self.labels if loss == "labels" else None
        self.past, self.shared = shared_beginning(receiver, task, side)
        self.after = embeddings_after(receiver, task, side)
        self.reader = compiled_view(receiver, whole=False) if compiled else receiver
        record = compiled and receiver.compute.device.type == "cuda"
        self.receiver_stage = Recorded(self._loss_and_gradient, record) if compiled else None
        self.padded_to = max(map(len, self.answers)) if record else 0  # a recording for each shape would fill the GPU

    @property
    def trainable(self) -> nn.Module:
        """The bridge."""
        return self.bridge

    @property
    def examples(self) -> int:
        """Number of training examples."""
        return len(self.answers)

    @cached_property
    def dev_batches(self) -> list[list[int]]:
        """Rows of dev, like lengths together."""
        order = np.argsort(self.dev_states.lengths(), kind="stable")
        return [part.tolist() for part in np.array_split(order, max(1, len(order) // 64))]

    def training_tokens(self, rows: Sequence[int]) -> Tensor:
        """Soft tokens of training examples with some features of the states dropped, ``[batch, k, d_receiver]``."""
        return self.soft_tokens(self.states, rows, self.input_dropout)

    def soft_tokens(self, states: LayerStates, rows: Sequence[int], dropout: float = 0.0) -> Tensor:
        """Soft tokens of some examples, ``[batch, k, d_receiver]``; like lengths are read together: less is padded."""
        lengths = states.lengths()
        order = sorted(range(len(rows)), key=lambda place: int(lengths[rows[place]]))
        part = PART[self.receiver.compute.device.type]
        parts = [[rows[place] for place in order[start : start + part]] for start in range(0, len(order), part)]
        soft = torch.cat([self._read(states, part, dropout) for part in parts])
        return soft[torch.tensor(order).argsort().to(soft.device)]

    def _read(self, states: LayerStates, rows: Sequence[int], dropout: float) -> Tensor:
        batch, mask = (part.to(self.receiver.compute.device, non_blocking=True) for part in states.batch(rows))
        if dropout:
            batch = drop_features(batch, self.bridge.state_mean, rows, dropout)
        with self.receiver.compute.mixed_precision(), self.receiver.compute.short_attention():
            return self.bridge(batch, mask)

    def prefix(self, soft: Tensor) -> tuple[Tensor, Tensor]:
        """What the receiver reads after the shared beginning, and the mask of all that it reads."""
        return heard(soft, self.after, self.shared)

    def loss(self, rows: Sequence[int]) -> Tensor:
        """Answer loss, plus the published penalty on soft tokens that resemble each other if asked for."""
        answers = [self.answers[row] for row in rows]
        with self.receiver.compute.short_attention():
            soft = self.training_tokens(rows)
            if self.receiver_stage is None:
                loss = answer_loss(self.receiver, *self.prefix(soft), answers, self.restrict, self.past)
            else:
                spoken = _spoken(self.receiver, answers, self.restrict, self.padded_to)
                loss = _WithGradient.apply(soft, self.receiver_stage, *spoken)
        return loss + self.diversity * mean_similarity(soft) if self.diversity else loss

    def _loss_and_gradient(self, soft: Tensor, *spoken: Tensor) -> tuple[Tensor, Tensor]:
        """Answer loss and its gradient by the soft tokens."""
        first = _competing(self.restrict, soft.device)
        with torch.enable_grad():
            soft = soft.detach().requires_grad_()
            loss = _loss_of(self.reader, self.past, first, *self.prefix(soft), *spoken)
            (gradient,) = torch.autograd.grad(loss, soft)
        return loss.detach(), gradient

    def _judged(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Soft tokens of dev examples and the scores of their labels; for numbers the loss of the answers instead."""
        tokens = self.soft_tokens(self.dev_states, rows)
        prefix, mask = self.prefix(tokens)
        if self.labels is not None:
            return tokens.float().cpu(), label_log_likelihoods(self.receiver, prefix, mask, self.labels, self.past)
        answers = [self.dev_answers[row] for row in rows]
        return tokens.float().cpu(), answer_loss(self.receiver, prefix, mask, answers, past=self.past)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Dev accuracy and loss, and the collapse monitors."""
        hits, losses, entropies, soft = [], [], [], []
        for rows, (tokens, scores) in within_memory(self.dev_batches, self._judged):
            soft.append(tokens)
            if self.labels is None:
                losses.append(float(scores) * len(rows))
                continue
            gold = torch.tensor([self.labels.names.index(name) for name in self.dev["label"].iloc[rows]])
            hits.append((scores.argmax(1) == gold).float())
            losses.append(float(F.cross_entropy(scores, gold, reduction="sum")))
            entropies.append(scores.softmax(1).mean(0))
        metrics = {"loss": sum(losses) / len(self.dev)}
        metrics["accuracy"] = float(torch.cat(hits).mean()) if hits else -metrics["loss"]
        metrics["effective_rank"] = effective_rank(torch.cat(soft))
        if entropies:
            share = torch.stack(entropies).mean(0)
            metrics["prediction_entropy"] = float(-(share * share.clamp(min=1e-9).log()).sum())
        return metrics


class _WithGradient(torch.autograd.Function):
    """A loss whose gradient is computed along with it."""

    @staticmethod
    def forward(ctx: Any, soft: Tensor, stage: Recorded, *spoken: Tensor) -> Tensor:
        loss, gradient = stage(soft, *spoken)
        ctx.save_for_backward(gradient.clone())  # both lie where the next step's will
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return outer * gradient, *[None] * (len(ctx.needs_input_grad) - 1)


def drop_features(states: Tensor, mean: Tensor, rows: Sequence[int], share: float) -> Tensor:
    """Put the mean in the place of a random share of an example's features, the same ones at all of its tokens.

    What an example keeps depends on the step's seed and its row alone (`telepathy.devices.draws`), so a
    batch that is computed in parts, or by several processes, is the same batch.

    Args:
        states: ``[batch, tokens, d_sender]``.
        mean: of every feature, ``[d_sender]``.
        rows: of the examples.
        share: between 0 and 1; what is kept is scaled up to make up for it.

    Returns:
        States of the same shape in float32.
    """
    kept = torch.from_numpy(np.stack([draws(row).random(len(mean)) >= share for row in rows]))
    return mean + (states.float() - mean) * (kept.to(states.device).unsqueeze(1) / (1 - share))


def mean_similarity(soft_tokens: Tensor) -> Tensor:
    """Mean squared cosine between an example's soft tokens, off the diagonal."""
    unit = F.normalize(soft_tokens.float(), dim=-1)
    cosine = unit @ unit.transpose(1, 2)
    k = cosine.shape[1]
    return ((cosine**2).sum((1, 2)) - k).mean() / max(1, k * (k - 1))


def effective_rank(soft_tokens: Tensor) -> float:
    """Effective rank (Roy and Vetterli 2007) of all examples' soft tokens about their mean.

    1 means that they differ along one direction only, 0 that they do not differ at all.

    Args:
        soft_tokens: ``[examples, k, d]``.
    """
    flat = soft_tokens.flatten(1)
    singular = torch.linalg.svdvals(flat - flat.mean(0))
    if singular.sum() < 1e-4 * flat.norm():
        return 0.0
    share = singular / singular.sum()
    return float(torch.exp(-(share * share.clamp(min=1e-12).log()).sum()))
