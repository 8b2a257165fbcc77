"""Score labels as continuations of a prefix, whole verbalisers against one shared prefix."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Cache

from telepathy.errors import TelepathyError
from telepathy.models.loading import LanguageModel, head_logits, pad
from telepathy.tasks.spec import Task

ROWS, PLACES = 256, 2**16
"""Most rows (examples times labels) of one forward pass over label tails, and most places of their copied caches: the
memory that it takes does not grow with the length of the prompts."""


@dataclass(frozen=True)
class LabelSet:
    """The labels of a task as token rows of one receiver.

    Attributes:
        names: label names, in the task's order.
        tokens: the tokens of each verbaliser with its leading space, as they follow the primer.
    """

    names: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, lm: LanguageModel, task: Task) -> "LabelSet":
        """Tokenise a task's verbalisers for one model.

        Raises:
            TelepathyError: if a verbaliser has no token, or two have the same tokens.
        """
        tokens = tuple(tuple(continuation_ids(lm, task.primer, label.verbaliser)) for label in task.labels)
        for label, row in zip(task.labels, tokens):
            if not row or tokens.count(row) > 1:
                what = "no token" if not row else "the same tokens as another label"
                raise TelepathyError(
                    f"The label {label.name} of task {task.name} has {what} in the tokenizer of {lm.name}."
                )
        return cls(tuple(task.label_names), tokens)


def continuation_ids(lm: LanguageModel, context: str, text: str) -> list[int]:
    """Tokenise ``" " + text`` as it stands after ``context``.

    Tokenised together and the context's tokens taken off, so that tokenizers that put a space
    before the first word (SentencePiece) give the same tokens as in running text. Where a
    tokenizer merges across the boundary, the text is tokenised on its own.
    """
    alone = lm.token_ids(context)
    together = lm.token_ids(f"{context} {text.strip()}")
    if together[: len(alone)] == alone:
        return together[len(alone) :]
    return lm.token_ids(f" {text.strip()}")


def positions_of(mask: Tensor) -> Tensor:
    """Position of every token under left padding, ``[batch, positions]``."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def label_log_likelihoods(
    receiver: LanguageModel, prefix: Tensor, mask: Tensor, labels: LabelSet, past: Cache | None = None
) -> Tensor:
    """Score every label as the continuation of each prefix.

    Sums log p over all tokens of a label's verbaliser, so labels may differ in length and share
    first tokens (the ``acc`` rule of lm-evaluation-harness, Gao et al. 2021). The prefix is run
    once; its key-value cache is shared by all labels, and logits are computed only where a label's
    token is predicted.

    Args:
        receiver: frozen causal LM of width ``d``.
        prefix: input embeddings ``[batch, positions, d]``, left-padded, first real position the BOS. Behind
            ``past`` padding would stand between; where every label has one token it may stand at the end.
        mask: 1 at real positions, ``[batch, positions]``; those of ``past`` first where it is given.
        labels: ``n`` verbalisers.
        past: key-value cache of one sequence that stands before every prefix (`beginning`).

    Returns:
        Log-likelihoods in nats, ``[batch, n]``, float32, on the CPU.

    Raises:
        ValueError: if ``prefix`` is not as wide as the receiver, naming both widths.
    """
    return label_scores(receiver, prefix, mask, labels, past).cpu()


@torch.inference_mode()
def label_scores(
    receiver: LanguageModel,
    prefix: Tensor,
    mask: Tensor,
    labels: LabelSet,
    past: Cache | None = None,
    relative: bool = False,
) -> Tensor:
    """`label_log_likelihoods` on the receiver's device; a CUDA graph can record it.

    With ``relative`` the scores of an example are short of one number, the same for all its labels
    (the first token's normaliser over the whole vocabulary): which label is likeliest, and the
    labels' shares, stay, and the head is read for the labels' tokens alone.
    """
    if prefix.shape[-1] != receiver.width:
        raise ValueError(f"The prefix is {prefix.shape[-1]} wide, but {receiver.name} takes {receiver.width}.")
    several = max(map(len, labels.tokens)) > 1
    out = receiver.model.base_model(
        inputs_embeds=prefix.to(receiver.compute.dtype),
        attention_mask=mask,
        position_ids=positions_of(mask)[:, -prefix.shape[1] :],
        past_key_values=None if past is None else repeated(past, len(mask)),
        use_cache=several or past is not None,
    )
    first, last = _first_tokens(labels, mask.device), last_real(out.last_hidden_state, mask)
    if relative:
        scores = head_logits(receiver, last, first)
    else:
        scores = torch.log_softmax(head_logits(receiver, last), dim=-1).index_select(1, first)
    if several:
        scores = scores + _tails(receiver, mask, out.past_key_values, labels)
    return scores


def last_real(states: Tensor, mask: Tensor) -> Tensor:
    """State at the last real place of every row, whichever side is padded, ``[batch, d]``.

    Args:
        states: of the last places that the mask covers, ``[batch, positions, d]``.
        mask: 1 at real positions.
    """
    padding = mask.flip(1).argmax(1)
    return states[torch.arange(len(states), device=states.device), states.shape[1] - 1 - padding]


@cache
def _first_tokens(labels: LabelSet, device: torch.device) -> Tensor:
    return torch.tensor([row[0] for row in labels.tokens], device=device)


@torch.no_grad()
def beginning(lm: LanguageModel, ids: Sequence[int]) -> Cache:
    """Key-value cache of a token sequence with which many prefixes begin; training may read it too."""
    row = torch.tensor([list(ids)], device=lm.compute.device)
    return lm.model.base_model(input_ids=row, use_cache=True).past_key_values


def repeated(cache: Cache, times: int) -> Cache:
    """Copy of a cache with every sequence ``times`` times in a row."""
    copied = copy.copy(cache)
    copied.layers = [copy.copy(layer) for layer in cache.layers]
    copied.batch_repeat_interleave(times)  # puts new tensors in the layers; those of the cache stay
    return copied


def _tails(receiver: LanguageModel, mask: Tensor, cache: Cache, labels: LabelSet) -> Tensor:
    """Log-likelihood of every label's tokens after its first, ``[batch, n]``."""
    batch, context = mask.shape
    step = max(1, min(ROWS, PLACES // context) // batch)
    tails = torch.zeros(batch, len(labels.tokens), device=mask.device)
    for places, ids, real, said in _tail_parts(labels, batch, step, receiver.pad_id, mask.device):
        seen = torch.cat([mask.repeat_interleave(len(places), 0), real[:, :-1].to(mask.dtype)], dim=1)
        states = receiver.model.base_model(
            input_ids=ids[:, :-1],
            attention_mask=seen,
            position_ids=positions_of(seen)[:, mask.shape[1] :],
            past_key_values=repeated(cache, len(places)),
            use_cache=True,
        )[0]
        logits = head_logits(receiver, states.flatten(0, 1).index_select(0, said))
        losses = F.cross_entropy(logits, ids[:, 1:].flatten().index_select(0, said), reduction="none")
        log_p = torch.zeros(real[:, 1:].numel(), device=mask.device).index_copy(0, said, -losses)
        tails.index_copy_(1, places, log_p.view(batch, len(places), -1).sum(-1))
    return tails


@cache
def _tail_parts(
    labels: LabelSet, batch: int, step: int, pad_id: int, device: torch.device
) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Labels of several tokens, ``step`` at a time: their places, tokens and mask of every row, and where tails stand.

    Tails differ in length; ``said`` are the places, in all rows one after another, after which a token follows.

    Kept on the device: what a CUDA graph records may not wait for a copy.
    """
    long = [index for index, row in enumerate(labels.tokens) if len(row) > 1]
    parts = []
    for start in range(0, len(long), step):
        chunk = long[start : start + step]
        ids, real = pad([labels.tokens[index] for index in chunk], pad_id)
        places = torch.tensor(chunk, device=device)
        ids, real = ids.repeat(batch, 1), real.repeat(batch, 1)
        said = real[:, 1:].flatten().nonzero().squeeze(1)
        parts.append((places, ids.to(device), real.to(device), said.to(device)))
    return parts


def text_prefix(lm: LanguageModel, rows: Sequence[Sequence[int]], side: str = "left") -> tuple[Tensor, Tensor]:
    """Embed token rows, padded on a side: prefix ``[batch, positions, d]`` and mask ``[batch, positions]``."""
    ids, mask = pad(rows, lm.pad_id, side=side)
    ids, mask = ids.to(lm.compute.device), mask.to(lm.compute.device)
    return lm.embed(ids), mask
