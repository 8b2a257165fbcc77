"""Methods of the user's own: a class in a plugin, registered by name and run like any other method."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar

import pandas as pd

from telepathy.errors import TelepathyError
from telepathy.models.loading import LanguageModel
from telepathy.plugins import import_plugins
from telepathy.tasks.parsing import parse_number
from telepathy.tasks.spec import Task


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """Settings of a method that has none."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a method of one's own is given.

    Attributes:
        task: prompt, primer and labels.
        train: examples with their answers.
        dev: examples with their answers, to select on.
        test: examples whose answers were taken out.
        models: role (``sender``, ``receiver``) -> the frozen model, as the key ``models`` asks for.
        seed: of every random draw.
    """

    task: Task
    train: pd.DataFrame
    dev: pd.DataFrame
    test: pd.DataFrame
    models: Mapping[str, LanguageModel]
    seed: int


class OwnMethod(ABC):
    """Base of methods of one's own.

    Attributes:
        config_class: frozen dataclass of its settings, the key ``options`` in config.yaml.
        config: its settings.
    """

    config_class: ClassVar[type] = NoOptions

    def __init__(self, config: Any):
        self.config = config

    @abstractmethod
    def answer(self, inputs: Inputs) -> Sequence[str | None]:
        """Answer every test example in order: a label's name or a number; None where there is no answer."""


_METHODS: dict[str, type[OwnMethod]] = {}


def register_method(name: str) -> Callable[[type[OwnMethod]], type[OwnMethod]]:
    """Class decorator: make a method known under ``name``, the key ``method`` of a method of kind own."""

    def remember(cls: type[OwnMethod]) -> type[OwnMethod]:
        _METHODS[name] = cls
        return cls

    return remember


def build_method(name: str, options: Mapping[str, Any]) -> OwnMethod:
    """Build a registered method with its typed settings.

    Raises:
        TelepathyError: if no plugin registers the name, or it has no such option.
    """
    if name not in _METHODS:
        import_plugins()
    if name not in _METHODS:
        known = ", ".join(sorted(_METHODS)) or "none"
        raise TelepathyError(f"No plugin registers a method {name!r}; registered are: {known}.")
    cls = _METHODS[name].config_class
    allowed = sorted(field.name for field in fields(cls)) if is_dataclass(cls) else []
    if unknown := sorted(set(options) - set(allowed)):
        raise TelepathyError(
            f"The method {name} has no option {', '.join(unknown)}; it has {', '.join(allowed) or 'none'}."
        )
    return _METHODS[name](cls(**options))


def run_own_method(
    settings: Mapping[str, Any],
    task: Task,
    splits: Mapping[str, pd.DataFrame],
    models: Mapping[str, LanguageModel],
    seed: int,
) -> pd.DataFrame:
    """Answer the test examples with a method of the user's own; it never sees their answers.

    Args:
        settings: resolved settings of the method (``$defs/method/own`` of the schema).
        task: of the run.
        splits: examples of ``train``, ``dev`` and ``test``.
        models: role -> frozen model.
        seed: of every random draw.

    Returns:
        Predictions: ``id``, ``label``, ``prediction``.

    Raises:
        TelepathyError: if there is no such method or it does not answer every example with a known label.
    """
    gold = "answer" if task.kind == "number" else "label"
    test = splits["test"]
    inputs = Inputs(
        task=task,
        train=splits["train"],
        dev=splits["dev"],
        test=test.drop(columns=gold),
        models=models,
        seed=seed,
    )
    answers = list(build_method(settings["method"], settings["options"]).answer(inputs))
    _check_answers(settings["method"], task, answers, len(test))
    if task.kind == "number":
        answers = [_number(settings["method"], answer) for answer in answers]
    predictions = pd.Series(answers, dtype=object).to_numpy()
    return pd.DataFrame({"id": test["id"].to_numpy(), "label": test[gold].to_numpy(), "prediction": predictions})


def _number(name: str, answer: Any) -> str | None:
    """A number as the task's answers are written, ``1,000.0`` as ``1000``."""
    found = None if answer is None else parse_number(str(answer))
    if answer is not None and found is None:
        said = str(answer)[:60]
        raise TelepathyError(f"The method {name} answered {said!r}, which is no number: give a number or None.")
    return found


def _check_answers(name: str, task: Task, answers: Sequence[str | None], examples: int) -> None:
    if len(answers) != examples:
        raise TelepathyError(f"The method {name} gave {len(answers)} answers to {examples} test examples.")
    unknown = sorted({str(answer) for answer in answers if answer is not None} - set(task.label_names))
    if task.labels and unknown:
        raise TelepathyError(
            f"The method {name} answered {', '.join(unknown[:5])}, which the task {task.name} does not have: "
            f"its labels are {', '.join(task.label_names[:20])}."
        )
