"""Render an example as a prompt that fits, without ever cutting the question or the label list."""

from collections.abc import Mapping
from typing import Any

from telepathy.errors import TelepathyError
from telepathy.models.loading import LanguageModel
from telepathy.tasks.spec import LETTERS, Task


def render_prompt(task: Task, example: Mapping[Any, Any]) -> str:
    """Fill the task's prompt with one example's fields."""
    return task.prompt.format(**_values(task, example))


def _values(task: Task, example: Mapping[Any, Any]) -> dict[str, str]:
    values = {name: str(example[name]).strip() for name in task.fields}
    if task.kind == "multiple_choice":
        values["options"] = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, example["choices"]))
    return values


def prompt_ids(lm: LanguageModel, task: Task, example: Mapping[Any, Any], room: int | None = None) -> list[int]:
    """Tokenise a prompt, BOS first, in at most ``room`` tokens (default: the task's ``max_tokens``).

    Where it is too long, tokens are taken off the end of the field that the task shortens; the
    rest of the prompt stays whole.

    Raises:
        TelepathyError: if the prompt does not fit even with that field empty.
    """
    room = min(room or task.max_tokens, lm.max_positions)
    values = _values(task, example)
    ids = _tokens(lm, task.prompt.format(**values))
    text = values[task.shorten]
    while len(ids) > room and text:
        text = _without_last_tokens(lm, text, len(ids) - room)
        ids = _tokens(lm, task.prompt.format(**{**values, task.shorten: text}))
    if len(ids) > room:
        raise TelepathyError(
            f"A prompt of the task {task.name} takes {len(ids)} tokens of {lm.name} with an empty {task.shorten}, "
            f"more than the {room} that it may have: raise max_tokens or shorten the prompt."
        )
    return ids


def _tokens(lm: LanguageModel, text: str) -> list[int]:
    return [lm.bos_id, *lm.token_ids(text)]


def _without_last_tokens(lm: LanguageModel, text: str, surplus: int) -> str:
    offsets = lm.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    kept = offsets[: max(0, len(offsets) - surplus)]
    # The tokens of one character all end where it ends: without the second bound it would never go.
    return text[: min(kept[-1][1], len(text) - 1)].rstrip() if kept else ""
