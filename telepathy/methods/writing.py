"""Free text from a frozen model, whole: messages of a relay, and answers of the published variants."""

from collections.abc import Callable, Sequence

from torch import Tensor

from telepathy.batches import in_order, length_batches
from telepathy.models.loading import LanguageModel
from telepathy.scoring.generation import continuation
from telepathy.scoring.labels import text_prefix

BATCH_TOKENS = 6144
"""Most places of a padded batch, what will be written included: bounds the key-value cache."""


def write_after(
    lm: LanguageModel,
    rows: Sequence[Sequence[int]],
    tokens: int,
    prefixes: Callable[[Sequence[Sequence[int]]], tuple[Tensor, Tensor]] | None = None,
) -> list[str]:
    """Continue token rows greedily by at most ``tokens`` tokens, like lengths together.

    Args:
        lm: frozen causal LM of width ``d``.
        rows: the prompts, BOS first.
        tokens: most tokens to write.
        prefixes: makes embeddings ``[batch, positions, d]``, left-padded, and their mask from some
            rows; by default the plain embeddings.

    Returns:
        All that was written after each row, in the order of ``rows``, stripped.
    """

    def written(batch: Sequence[int]) -> list[str]:
        chosen = [rows[row] for row in batch]
        prefix, mask = text_prefix(lm, chosen) if prefixes is None else prefixes(chosen)
        ids = continuation(lm, prefix, mask, tokens)
        return [text.strip() for text in lm.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    return in_order(length_batches([len(row) + tokens for row in rows], BATCH_TOKENS), written)
