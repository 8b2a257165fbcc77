"""Methods that only prompt a frozen model: zero-shot."""

import pandas as pd

from telepathy.models.loading import LanguageModel
from telepathy.scoring.answers import answer_rows_of_tokens
from telepathy.tasks.prompts import prompt_ids
from telepathy.tasks.spec import Task


def zero_shot(lm: LanguageModel, task: Task, frame: pd.DataFrame) -> pd.DataFrame:
    """Answer every example from the task's prompt alone.

    Returns:
        Predictions as `telepathy.scoring.answers.answer` gives them.
    """
    rows = [prompt_ids(lm, task, example) for example in frame.to_dict("records")]
    return answer_rows_of_tokens(lm, task, frame, rows, content_free_prompt(lm, task, frame))


def content_free_prompt(lm: LanguageModel, task: Task, frame: pd.DataFrame) -> list[int] | None:
    """The prompt with "N/A" in every field, which shows a model's bias towards labels (Zhao et al. 2021)."""
    if task.kind not in ("labels", "boolean"):
        return None
    return prompt_ids(lm, task, {name: "N/A" for name in task.fields})
