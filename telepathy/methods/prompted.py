"""Methods that only prompt a frozen model: zero-shot and few-shot."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd

from telepathy.errors import TelepathyError
from telepathy.models.loading import LanguageModel
from telepathy.scoring.answers import answer_rows_of_tokens
from telepathy.tasks.data import check_classes
from telepathy.tasks.prompts import prompt_ids, render_prompt
from telepathy.tasks.spec import Task

BLANK_LINE = "\n\n"


def answer_prompts(
    lm: LanguageModel,
    task: Task,
    train: pd.DataFrame,
    frame: pd.DataFrame,
    settings: Mapping[str, Any],
    seed: int,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Answer by `zero_shot` or `few_shot`, as the resolved settings of a method say."""
    if settings["kind"] == "zero_shot":
        return zero_shot(lm, task, frame), {}
    room = min(settings["prompt_tokens"], lm.max_positions)
    return few_shot(lm, task, train, frame, settings["shots"], seed, room)


def zero_shot(lm: LanguageModel, task: Task, frame: pd.DataFrame) -> pd.DataFrame:
    """Answer every example from the task's prompt alone.

    Returns:
        Predictions as `telepathy.scoring.answers.answer` gives them.
    """
    rows = prompt_rows(lm, task, frame)
    return answer_rows_of_tokens(lm, task, frame, rows, content_free_prompt(lm, task, frame))


def prompt_rows(lm: LanguageModel, task: Task, frame: pd.DataFrame, room: int | None = None) -> list[list[int]]:
    """Token rows of all prompts, BOS first, each cut to fit (see `telepathy.tasks.prompts.prompt_ids`)."""
    return [prompt_ids(lm, task, example, room) for example in records(frame)]


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The examples as dictionaries of their columns."""
    return cast(list[dict[str, Any]], frame.to_dict("records"))


def content_free_prompt(lm: LanguageModel, task: Task, frame: pd.DataFrame) -> list[int] | None:
    """The prompt with "N/A" in every field, which shows a model's bias towards labels (Zhao et al. 2021)."""
    if task.kind not in ("labels", "boolean"):
        return None
    return prompt_ids(lm, task, {name: "N/A" for name in task.fields})


def few_shot(
    lm: LanguageModel,
    task: Task,
    train: pd.DataFrame,
    frame: pd.DataFrame,
    shots: int,
    seed: int,
    room: int | None = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Answer every example after some solved ones, the same for all (Brown et al. 2020).

    Args:
        lm: frozen causal LM.
        task: gives the prompt; the test example is cut as in `zero_shot`, a solved example never.
        train: examples to draw from.
        frame: examples to answer.
        shots: solved examples a class; in all where answers are numbers or lettered choices.
        seed: decides the draw and the order.
        room: most tokens of a whole prompt; None for as many as the model takes.

    Returns:
        Predictions as `telepathy.scoring.answers.answer` gives them, and what was shown: ``shots``
        (examples drawn), ``dropped`` (of them, left out because they would not fit), ``shown`` (their
        ids in order) and ``shot_tokens``.

    Raises:
        TelepathyError: if a class is missing in ``train`` or has fewer examples than ``shots``.
    """
    drawn = draw_shots(task, train, shots, seed)
    # Room for the answer too, where a model's own context is the limit.
    room = min(room or lm.max_positions, lm.max_positions - task.answer_tokens)
    shown = shots_that_fit(lm, task, drawn, room - min(task.max_tokens, room))
    text = BLANK_LINE.join([*(solved_example(task, example) for example in shown), ""])
    used = len(lm.token_ids(text)) if shown else 0
    shot_task = with_prompt(task, literal(text) + task.prompt, min(room, used + task.max_tokens))
    rows = prompt_rows(lm, shot_task, frame)
    predictions = answer_rows_of_tokens(lm, task, frame, rows, content_free_prompt(lm, shot_task, frame), True)
    return predictions, {
        "shots": len(drawn),
        "dropped": len(drawn) - len(shown),
        "shown": [example["id"] for example in shown],
        "shot_tokens": used,
    }


def draw_shots(task: Task, train: pd.DataFrame, shots: int, seed: int) -> list[dict[str, Any]]:
    """Draw ``shots`` examples of every class (or in all, see `few_shot`) in a random order."""
    if shots < 1:
        raise TelepathyError(f"Few-shot prompts of the task {task.name} need shots of 1 at least, not {shots}.")
    check_classes(task, train)
    rng = np.random.default_rng(seed)
    if task.kind in ("labels", "boolean"):
        groups = {f" of {name}": np.flatnonzero(train["label"] == name) for name in task.label_names}
    else:
        groups = {"": np.arange(len(train))}
    for which, rows in groups.items():
        if len(rows) < shots:
            raise TelepathyError(
                f"The task {task.name} has {len(rows)} training examples{which}, fewer than the {shots} shots: "
                "take more examples or fewer shots."
            )
    drawn = np.concatenate([rng.choice(rows, shots, replace=False) for rows in groups.values()])
    return records(train.iloc[rng.permutation(drawn)])


def shots_that_fit(lm: LanguageModel, task: Task, drawn: Sequence[dict[str, Any]], room: int) -> list[dict[str, Any]]:
    """Drop whole examples until ``room`` tokens hold the rest, from the most frequent class first."""

    def fits(examples: Sequence[dict[str, Any]]) -> bool:
        return (
            len(lm.token_ids(BLANK_LINE.join([*(solved_example(task, example) for example in examples), ""]))) <= room
        )

    # The fewer are left, the shorter: one of 77 labels' examples in 32 fits, and to try each number takes a minute.
    left = _fewer_and_fewer(drawn)
    return left[bisect_left(left, True, key=fits)]


def _fewer_and_fewer(drawn: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """What is left after 0, 1, … drops, to none at all."""
    left = [list(drawn)]
    while left[-1]:
        counts = Counter(example.get("label") for example in left[-1])
        most = max(counts.values())
        dropped = next(place for place, example in enumerate(left[-1]) if counts[example.get("label")] == most)
        left.append(left[-1][:dropped] + left[-1][dropped + 1 :])
    return left


def solved_example(task: Task, example: Mapping[str, Any]) -> str:
    """The task's prompt with its right answer."""
    if task.kind == "number":
        answer = str(example["answer"])
    else:
        answer = next(label.verbaliser for label in task.labels if label.name == example["label"])
    return f"{render_prompt(task, example)} {answer.strip()}"


def with_prompt(task: Task, prompt: str, max_tokens: int) -> Task:
    """The task under another prompt, so that `prompt_ids` cuts the same field and nothing else."""
    return replace(task, prompt=prompt, max_tokens=max_tokens)


def literal(text: str) -> str:
    """Text that `str.format` leaves as it is."""
    return text.replace("{", "{{").replace("}", "}}")
