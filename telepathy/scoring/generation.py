"""Greedy generation, the same for every method that answers in free text."""

from typing import Any

import torch
from torch import Tensor

from telepathy.models.loading import LanguageModel


@torch.inference_mode()
def generate(lm: LanguageModel, prefix: Tensor, mask: Tensor, tokens: int) -> list[str]:
    """Continue each prefix greedily by at most ``tokens`` tokens and return the text of the first line.

    Args:
        lm: frozen causal LM of width ``d``.
        prefix: input embeddings ``[batch, positions, d]``, left-padded.
        mask: 1 at real positions, ``[batch, positions]``.
        tokens: most tokens to generate.
    """
    texts = lm.tokenizer.batch_decode(continuation(lm, prefix, mask, tokens), skip_special_tokens=True)
    return [text.strip().split("\n")[0].strip() for text in texts]


@torch.inference_mode()
def continuation(lm: LanguageModel, prefix: Tensor, mask: Tensor, tokens: int, **options: Any) -> Tensor:
    """Continue each prefix greedily by at most ``tokens`` tokens.

    Args:
        lm: frozen causal LM of width ``d``.
        prefix: input embeddings ``[batch, positions, d]``, left-padded.
        mask: 1 at real positions, ``[batch, positions]``.
        tokens: most tokens to generate.
        options: further options of transformers' ``generate``.

    Returns:
        Token ids ``[batch, generated]``, padded after the end of each sequence.
    """
    return lm.model.generate(
        inputs_embeds=prefix.to(lm.compute.dtype),
        attention_mask=mask,
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=lm.pad_id,
        eos_token_id=lm.eos_ids or None,
        **options,
    )
