"""Relays: the sender says something in words, and the receiver answers from that."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import pandas as pd

from telepathy.errors import TelepathyError
from telepathy.methods.prompted import literal, prompt_rows, with_prompt, zero_shot
from telepathy.methods.writing import write_after
from telepathy.models.loading import LanguageModel
from telepathy.scoring.answers import answer_rows_of_tokens, generated_predictions
from telepathy.tasks.parsing import contains_label
from telepathy.tasks.spec import Task


class Style(NamedTuple):
    """What the sender is told, the same for every task.

    Attributes:
        before: instruction before what the sender reads.
        after: the words that the message follows, where the sender is told in plain text.
        sees_question: the sender reads the whole prompt of the task, not only its text.
        paragraph: the message ends at its first blank line.
    """

    before: str
    after: str
    sees_question: bool
    paragraph: bool


STYLES = {
    "summary": Style("Summarise the following text in one sentence.\n\nText: ", "\n\nSummary:", False, True),
    "label_and_reason": Style("Answer in one word, then give the reason in one sentence.\n\n", "", True, True),
    "chain_of_thought": Style("Think step by step, then answer.\n\n", " Let's think step by step.", True, False),
}


WORDS, DATE = "words of the user", "26 Jul 2024"
"""What stands for a user's words in a chat template, and the date (Llama 3.1's own default) where one asks for it."""


@dataclass(frozen=True, kw_only=True)
class RelayConfig:
    """How the text goes from model to model.

    Attributes:
        style: ``summary``, ``label_and_reason`` or ``chain_of_thought``.
        message_tokens: most tokens that the sender writes.
        chat: a sender with a chat template is told as its user; one without, or (as published) every one, in plain
            text.
        label_list: the receiver answers the task's own prompt; without, only the text and the primer
            (as published).
        characters: the sender's text is cut to so many characters (published: 256); 0 for the task's
            own limit in tokens.
        answer: ``score`` takes the likeliest label; ``generate`` (as published) writes freely and
            takes the first label of the list that occurs anywhere, even inside a word.
        generated_tokens: most tokens of a generated answer.
    """

    style: str = "summary"
    message_tokens: int = 48
    chat: bool = True
    label_list: bool = True
    characters: int = 0
    answer: str = "score"
    generated_tokens: int = 10

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise TelepathyError(f"The style of a relay is {', '.join(STYLES)}, not {self.style!r}.")
        if self.answer not in ("score", "generate"):
            raise TelepathyError(f"answer must be score or generate, not {self.answer!r}.")
        for name, least in (("message_tokens", 1), ("generated_tokens", 1), ("characters", 0)):
            if getattr(self, name) < least:
                raise TelepathyError(f"A relay needs {name} of {least} at least, not {getattr(self, name)}.")


def text_relay(
    sender: LanguageModel, receiver: LanguageModel, task: Task, frame: pd.DataFrame, config: RelayConfig
) -> pd.DataFrame:
    """Let the sender write a message and the receiver answer with it in the text's place.

    Returns:
        Predictions as `telepathy.scoring.answers.answer` gives them, and the ``message``.
    """
    messages = write_messages(sender, task, frame, config)
    return answer_messages(receiver, task, frame, messages, config)


def write_messages(sender: LanguageModel, task: Task, frame: pd.DataFrame, config: RelayConfig) -> list[str]:
    """Write one message an example, greedily."""
    if config.characters:
        frame = frame.assign(**{task.shorten: frame[task.shorten].str[: config.characters]})
    asked = message_task(sender, task, config.style, config.chat)
    rows = prompt_rows(sender, asked, frame)
    messages = write_after(sender, rows, config.message_tokens)
    return [message.split("\n\n")[0].strip() for message in messages] if STYLES[config.style].paragraph else messages


def message_task(sender: LanguageModel, task: Task, style: str, chat: bool) -> Task:
    """The task under the prompt after which the sender writes its message.

    Instruct models that are told outside of their chat template often end at once: of SmolLM2-135M-Instruct's
    summaries of 500 movie sentences 444 were empty.

    Args:
        sender: the model that writes.
        task: what it writes about.
        style: key of `STYLES`.
        chat: as a user says it, if the sender's tokenizer has a chat template.
    """
    before, after, sees_question, _ = STYLES[style]
    read = task.prompt if sees_question else f"{{{task.shorten}}}"
    if chat and sender.tokenizer.chat_template:
        start, end = _user_turn(sender)
        before, after = start + before, end
    told = sum(len(sender.token_ids(part)) for part in (before, after))
    return with_prompt(task, literal(before) + read + literal(after), task.max_tokens + told)


def _user_turn(lm: LanguageModel) -> tuple[str, str]:
    """What a model's chat template puts before (its BOS left out) and after the words of a user."""
    said = [{"role": "user", "content": WORDS}]
    whole = lm.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True, date_string=DATE)
    before, _, after = whole.partition(WORDS)
    return before.removeprefix(lm.tokenizer.bos_token or ""), after


def answer_messages(
    receiver: LanguageModel, task: Task, frame: pd.DataFrame, messages: list[str], config: RelayConfig
) -> pd.DataFrame:
    """Answer every example from its message; `text_relay` without the sender."""
    read = task if config.label_list else with_prompt(task, _bare_prompt(task), task.max_tokens)
    room = task.max_tokens + config.message_tokens
    heard = frame.assign(**{task.shorten: messages})
    rows = prompt_rows(receiver, read, heard, room)
    if config.answer == "generate" and task.labels:
        texts = write_after(receiver, rows, config.generated_tokens)
        predictions = generated_predictions(task, frame, texts, partial(contains_label, labels=task.labels))
    else:
        predictions = answer_rows_of_tokens(receiver, task, frame, rows)
    return predictions.assign(message=messages)


def _bare_prompt(task: Task) -> str:
    """The fields and the primer: nothing says which answers there are."""
    fields = [*task.fields, *(["options"] if task.kind == "multiple_choice" else [])]
    return "\n".join([*(f"{{{name}}}" for name in fields), literal(task.primer)])


def label_relay(
    sender: LanguageModel | None, task: Task, frame: pd.DataFrame, sent: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Send only the sender's own zero-shot answer, which is then the answer.

    Args:
        sender: frozen causal LM; not needed with ``sent``.
        task: what is asked.
        frame: the examples.
        sent: the sender's `zero_shot` predictions of the same examples, if they are there already.

    Returns:
        The sender's zero-shot predictions with the ``message`` that was sent.

    Raises:
        TelepathyError: if ``sent`` is of other examples, or neither it nor a sender is given.
    """
    if sent is None:
        if sender is None:
            raise TelepathyError("A label relay needs the sender or its zero-shot predictions.")
        sent = zero_shot(sender, task, frame)
    if list(sent["id"]) != list(frame["id"]):
        raise TelepathyError(f"The sender's predictions for the task {task.name} are of other examples.")
    return sent.assign(message=[_spoken(task, answer) for answer in sent["prediction"]])


def _spoken(task: Task, answer: Any) -> str:
    verbalisers: Mapping[str, str] = {label.name: label.verbaliser for label in task.labels}
    return verbalisers.get(answer, answer) if isinstance(answer, str) else ""
