"""Greedy generation, the same for every method that answers in free text."""

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
    ids = lm.model.generate(
        inputs_embeds=prefix.to(lm.compute.dtype),
        attention_mask=mask,
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=lm.pad_id,
        eos_token_id=lm.eos_ids or None,
    )
    texts = lm.tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [text.strip().split("\n")[0].strip() for text in texts]
