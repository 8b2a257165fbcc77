"""The plain way, as a reference of speed: nothing cached, one example at a time, whole vocabularies.

This is how the publication's code trains and evaluates; it shares the bridge and the models with ours, and no more.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from telepathy.inference import Telepathy
from telepathy.models.loading import pad
from telepathy.scoring.generation import continuation
from telepathy.tasks.parsing import contains_label
from telepathy.tasks.prompts import prompt_ids

ANSWER_TOKENS = 10


@contextmanager
def plain_weights(model: Telepathy) -> Iterator[None]:
    """Let all weights of both models take gradients, as transformers loads them: then none is laid out once."""
    loaded = (model.sender.model, model.receiver.model)
    try:
        for part in loaded:
            part.requires_grad_(True)
        yield
    finally:
        for part in loaded:
            part.requires_grad_(False).zero_grad(set_to_none=True)


def plain_soft_tokens(model: Telepathy, examples: Sequence[Mapping[str, Any]]) -> Tensor:
    """Soft tokens ``[batch, k, d_receiver]`` after a whole forward pass of the sender, head included."""
    rows = [prompt_ids(model.sender, model.task, example) for example in examples]
    ids, mask = (part.to(model.sender.compute.device) for part in pad(rows, model.sender.pad_id))
    with torch.no_grad():
        out = model.sender.model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    return model.bridge(out.hidden_states[model.layer].to(torch.bfloat16), mask.bool())


def plain_loss(model: Telepathy, examples: Sequence[Mapping[str, Any]]) -> Tensor:
    """Loss of the answers' tokens from logits of the whole vocabulary at every position."""
    assert model.labels is not None
    tokens = dict(zip(model.labels.names, model.labels.tokens))
    prefix = model.receiver_prefix(plain_soft_tokens(model, examples))
    ids, real = (
        part.to(prefix.device) for part in pad([tokens[row["label"]] for row in examples], model.receiver.pad_id)
    )
    logits = model.receiver.model(inputs_embeds=torch.cat([prefix, model.receiver.embed(ids)], dim=1)).logits.float()
    said = logits[:, prefix.shape[1] - 1 : -1].transpose(1, 2)
    losses = F.cross_entropy(said, ids, reduction="none")
    return (losses * real).sum() / len(examples)


@torch.no_grad()
def plain_answer(model: Telepathy, example: Mapping[str, Any]) -> str | None:
    """The label that occurs in 10 generated tokens."""
    prefix = model.receiver_prefix(plain_soft_tokens(model, [example]))
    mask = torch.ones(prefix.shape[:2], dtype=torch.long, device=prefix.device)
    ids = continuation(model.receiver, prefix, mask, ANSWER_TOKENS, min_new_tokens=ANSWER_TOKENS)
    return contains_label(model.receiver.tokenizer.decode(ids[0], skip_special_tokens=True), model.task.labels)
