"""What a trained bridge sends: soft tokens by label, what each of them reads, and the words nearest to them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn import functional as F

from telepathy.bridges import Bridge, PerceiverBridge, load_bridge
from telepathy.features import FeatureStore, LayerStates
from telepathy.files import write_json, write_parquet
from telepathy.methods.bridge import BridgeData
from telepathy.models.loading import LanguageModel
from telepathy.tasks.prompts import prompt_ids

EXAMPLES = 500
"""Most test examples whose soft tokens are kept."""
COMPONENTS = 50
"""Principal components of the soft tokens that are kept."""
SHOWN = 4
"""Most examples whose attention is kept, the first of each label."""
NEAREST = 3
"""Words kept of each soft token."""
WORD = re.compile("[Ġ▁][a-z]{2,}")
"""A word with the space before it, as byte-level and SentencePiece vocabularies write it."""
CHUNK = 16_384
"""Rows of the vocabulary that are compared at once."""


def inspect_bridge(
    data: BridgeData,
    sender: LanguageModel,
    receiver: LanguageModel,
    folder: str | Path,
    run: dict[str, Any],
    table: str | Path,
    facts: str | Path,
) -> None:
    """Write what figures need of one trained bridge, so that they load no model.

    Args:
        data: the first test examples are read.
        sender: gives the tokens that the bridge read.
        receiver: gives the vocabulary.
        folder: what `telepathy.methods.bridge.train_bridge` wrote.
        run: names of the run, kept with the facts.
        table: parquet to write, a row an example: ``id``, ``label`` and ``c0`` … the principal components of
            its soft tokens, concatenated (`PCA`).
        facts: JSON to write: ``run``; ``examples`` with ``id``, ``label``, ``tokens`` and ``attention``
            ``[k, tokens]`` (mean over heads and blocks; None for a bridge without attention); ``words``, for each
            label the nearest words of its mean soft tokens, and ``apart``, those of what they have that the mean
            soft tokens of all labels have not.
    """
    bridge, about = load_bridge(folder)
    states = FeatureStore(data.features, "test", data.task).layer(about["sender"]["layer"])
    frame = data.frame("test").head(EXAMPLES)
    tokens = soft_tokens(bridge, states, len(frame))
    write_parquet(table, _components(frame, tokens))
    shown = [int(row) for row in frame.groupby("label").head(1).index[:SHOWN]]
    examples = [_example(bridge, states, sender, data, frame.loc[row].to_dict(), row) for row in shown]
    words, apart = _words_by_label(receiver, frame, tokens)
    write_json(facts, {"run": run, "examples": examples, "words": words, "apart": apart})


def _words_by_label(receiver: LanguageModel, frame: pd.DataFrame, tokens: Tensor) -> tuple[dict, dict]:
    """Words nearest to each label's mean soft tokens, and to what these have that those of all labels have not."""
    rows = {str(label): rows for label, rows in sorted(frame.groupby("label").indices.items())}
    means = torch.stack([tokens[torch.as_tensor(found)].mean(0) for found in rows.values()])
    near = nearest_words(receiver, means.flatten(0, 1))
    apart = nearest_words(receiver, (means - means.mean(0)).flatten(0, 1), centred=True)
    k = tokens.shape[1]
    by_label = [{label: hits[at * k : (at + 1) * k] for at, label in enumerate(rows)} for hits in (near, apart)]
    return by_label[0], by_label[1]


def soft_tokens(bridge: Bridge, states: LayerStates, examples: int) -> Tensor:
    """Soft tokens of the first examples, ``[examples, k, d_receiver]`` in float32."""
    with torch.inference_mode():
        parts = [
            bridge(*states.batch(range(start, min(start + 64, examples)))).float() for start in range(0, examples, 64)
        ]
    return torch.cat(parts)


def _components(frame: pd.DataFrame, tokens: Tensor) -> pd.DataFrame:
    flat = tokens.flatten(1).numpy()
    count = min(COMPONENTS, *flat.shape)
    scores = PCA(count, svd_solver="full").fit_transform(flat)
    columns = {f"c{place}": scores[:, place].astype(np.float32) for place in range(count)}
    return pd.DataFrame({"id": frame["id"].to_numpy(), "label": frame["label"].to_numpy(), **columns})


def _example(
    bridge: Bridge, states: LayerStates, sender: LanguageModel, data: BridgeData, example: dict, row: int
) -> dict[str, Any]:
    ids = prompt_ids(sender, data.task, example)
    attention = None
    if isinstance(bridge, PerceiverBridge):
        with torch.inference_mode():
            attention = bridge.attention(*states.batch([row]))[0].double().numpy().round(5).tolist()
    texts = [sender.tokenizer.decode([token]) for token in ids]
    return {"id": example["id"], "label": str(example["label"]), "tokens": texts, "attention": attention}


def nearest_words(receiver: LanguageModel, vectors: Tensor, centred: bool = False) -> list[list[dict[str, Any]]]:
    """Words of the receiver's vocabulary whose input embeddings point in the direction of given vectors.

    Words are entries that begin with a space and go on with two lower-case ASCII letters or more; the rest of a
    vocabulary is pieces of words and of code, and rare pieces are near to everything. Vectors and embeddings are
    compared by the cosine after the mean embedding is taken off: all embeddings share it.

    Args:
        receiver: gives vocabulary and embeddings of width ``d``.
        vectors: ``[vectors, d]``.
        centred: the vectors are differences already, without a mean to take off.

    Returns:
        For every vector the nearest `NEAREST` words, each ``{word, cosine}``, best first.
    """
    ids, words = _vocabulary(receiver)
    device = receiver.compute.device
    with torch.inference_mode():
        parts = [receiver.embed(part.to(device)).float() for part in ids.split(CHUNK)]
        mean = torch.stack([part.sum(0) for part in parts]).sum(0) / max(len(ids), 1)
        wanted = F.normalize(vectors.to(device).float() - (0 if centred else mean), dim=-1)
        cosines = torch.cat([wanted @ F.normalize(part - mean, dim=-1).T for part in parts], dim=1)
    best = cosines.topk(min(NEAREST, len(words)), dim=1)
    return [
        [{"word": words[place], "cosine": round(value, 4)} for value, place in zip(values, places)]
        for values, places in zip(best.values.tolist(), best.indices.tolist())
    ]


def _vocabulary(receiver: LanguageModel) -> tuple[Tensor, list[str]]:
    """Ids and texts of the vocabulary's words."""
    entries: Sequence[str | None] = receiver.tokenizer.convert_ids_to_tokens(range(len(receiver.tokenizer)))
    rows = receiver.model.get_input_embeddings().num_embeddings
    found = {row: entry[1:] for row, entry in enumerate(entries[:rows]) if entry and WORD.fullmatch(entry)}
    return torch.tensor(list(found), dtype=torch.long), list(found.values())
