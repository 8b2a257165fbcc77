"""The one scorer: from prefixes to predictions, for labels and for free answers, and their metrics."""

from collections.abc import Callable, Sequence
from itertools import groupby, takewhile
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from torch.nn import functional as F
from transformers import Cache

from telepathy.batches import in_order, length_batches
from telepathy.models.loading import LanguageModel
from telepathy.scoring.generation import generate
from telepathy.scoring.labels import LabelSet, beginning, label_log_likelihoods, text_prefix
from telepathy.tasks.data import choice_count
from telepathy.tasks.parsing import parse_number
from telepathy.tasks.spec import Task

BATCH_TOKENS = 2048
"""Most places of a padded batch of prompts."""

SHARED_BATCH_TOKENS = 16384
"""Most places of a batch of prompts that share their beginning: it is run once, but every row has its cache."""

Prefixes = Callable[[Sequence[int]], tuple[Tensor, Tensor]]
"""Rows of a frame -> input embeddings ``[batch, positions, d]`` (left-padded) and mask."""


def answer(
    lm: LanguageModel,
    task: Task,
    frame: pd.DataFrame,
    prefixes: Prefixes,
    batches: Sequence[Sequence[int]],
    content_free: tuple[Tensor, Tensor] | None = None,
    past: Cache | None = None,
) -> pd.DataFrame:
    """Answer every example and return its prediction.

    Args:
        lm: the model that answers.
        task: labels are scored, a number is generated and parsed.
        frame: the examples.
        prefixes: makes the prefix of some rows of the frame.
        batches: which rows go together, each row once.
        content_free: prefix and mask ``[1, positions, …]`` without content, for calibrated scores.
        past: what stands before every prefix (labels only, see `label_log_likelihoods`).

    Returns:
        One row an example in the frame's order: ``id``, ``label``, ``prediction``, and ``scores``
        (log-likelihood of every label, in the task's order) or ``text`` (what was generated).
    """
    if task.kind == "number":
        texts = in_order(batches, lambda rows: generate(lm, *prefixes(rows), task.answer_tokens))
        return generated_predictions(task, frame, texts)
    labels = LabelSet.of(lm, task)
    scores = np.array(in_order(batches, lambda rows: label_log_likelihoods(lm, *prefixes(rows), labels, past).tolist()))
    base = None if content_free is None else label_log_likelihoods(lm, *content_free, labels)[0].numpy()
    return label_predictions(task, frame, labels, scores, base)


def answer_rows_of_tokens(
    lm: LanguageModel,
    task: Task,
    frame: pd.DataFrame,
    rows: list[list[int]],
    content_free: list[int] | None = None,
    share_beginning: bool = False,
) -> pd.DataFrame:
    """`answer` for prompts given as token rows; like lengths are batched together.

    With ``share_beginning`` the tokens with which all rows begin (the solved examples of a few-shot
    prompt) are run once. No padding may stand between them and the rest: it stands at the end, and
    where a label's further tokens would follow it, only rows of one length are batched.
    """
    base = None if content_free is None else text_prefix(lm, [content_free])
    shared = common_beginning(rows) if share_beginning and task.labels else 0
    if not shared:
        batches = length_batches([len(row) for row in rows], BATCH_TOKENS)
        return answer(lm, task, frame, lambda chosen: text_prefix(lm, [rows[row] for row in chosen]), batches, base)

    def rests(chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        embeds, mask = text_prefix(lm, [rows[row][shared:] for row in chosen], side="right")
        return embeds, F.pad(mask, (shared, 0), value=1)

    batches = length_batches([len(row) for row in rows], SHARED_BATCH_TOKENS)
    if max(map(len, LabelSet.of(lm, task).tokens)) > 1:
        batches = [list(group) for batch in batches for _, group in groupby(batch, key=lambda row: len(rows[row]))]
    return answer(lm, task, frame, rests, batches, base, beginning(lm, rows[0][:shared]))


def common_beginning(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with alike, their last ones not counted."""
    alike = (len(set(tokens)) == 1 for tokens in zip(*(row[:-1] for row in rows)))
    return sum(takewhile(bool, alike))


def label_predictions(
    task: Task, frame: pd.DataFrame, labels: LabelSet, scores: np.ndarray, base: np.ndarray | None = None
) -> pd.DataFrame:
    """Predict the label of the highest log-likelihood.

    Besides the primary ``prediction`` there are ``prediction_normalised`` (per token of the
    verbaliser) and, where ``base`` gives the scores of a content-free input, ``prediction_calibrated``
    (their difference; Zhao et al. 2021).
    """
    names = np.array(labels.names)
    if task.kind == "multiple_choice":
        counts = np.array([choice_count(example) for example in frame.to_dict("records")])
        scores = np.where(np.arange(len(names)) < counts[:, None], scores, -np.inf)
    table = {"id": frame["id"].to_numpy(), "label": frame["label"].to_numpy(), "prediction": names[scores.argmax(1)]}
    lengths = np.array([len(row) for row in labels.tokens])
    table["prediction_normalised"] = names[(scores / lengths).argmax(1)]
    if base is not None:
        table["prediction_calibrated"] = names[(scores - base).argmax(1)]
    return pd.DataFrame({**table, "scores": list(scores.astype(np.float32))})


def generated_predictions(
    task: Task,
    frame: pd.DataFrame,
    texts: Sequence[str],
    parse: Callable[[str], str | None] = parse_number,
) -> pd.DataFrame:
    """Parse generated texts; what cannot be parsed has no prediction and counts as wrong."""
    gold = frame["answer" if task.kind == "number" else "label"]
    predictions = pd.Series([parse(text) for text in texts], dtype=object)
    return pd.DataFrame(
        {"id": frame["id"].to_numpy(), "label": gold.to_numpy(), "prediction": predictions, "text": list(texts)}
    )


def score_predictions(task: Task, predictions: pd.DataFrame) -> dict[str, Any]:
    """Count what is right.

    Returns:
        ``n``, ``correct``, ``accuracy`` (share between 0 and 1), ``unparsed``, ``majority`` (share of
        the most frequent answer), the accuracy of every other label rule, and for label sets
        ``macro_f1`` and the order of ``scores``.
    """
    right = predictions["prediction"] == predictions["label"]
    result: dict[str, Any] = {
        "n": len(predictions),
        "correct": int(right.sum()),
        "accuracy": float(right.mean()),
        "unparsed": int(predictions["prediction"].isna().sum()),
        "majority": float(predictions["label"].value_counts(normalize=True).max()),
    }
    for rule in ("normalised", "calibrated"):
        if f"prediction_{rule}" in predictions:
            result[f"accuracy_{rule}"] = float((predictions[f"prediction_{rule}"] == predictions["label"]).mean())
    if task.labels:
        from sklearn.metrics import f1_score

        said = predictions["prediction"].fillna("(unparsed)").astype(str)
        gold = predictions["label"].astype(str)
        result["macro_f1"] = float(f1_score(gold, said, labels=task.label_names, average="macro", zero_division=0))
        result["labels"] = task.label_names
    return result
