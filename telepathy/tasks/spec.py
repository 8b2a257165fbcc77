"""What a task YAML says, checked."""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from telepathy.errors import TelepathyError
from telepathy.files import fingerprint, read_yaml

FOLDER = Path(__file__).parent
LETTERS = string.ascii_uppercase
ENDS = ("above", "below")
"""Labels of numbers on either side of a threshold."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """One label: its name in the data, the text that is scored, and other texts that mean it."""

    name: str
    verbaliser: str
    synonyms: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task as its YAML declares it; the keys are documented in ``task.schema.yaml``.

    Raises:
        TelepathyError: for contradictions, naming the task and the bad values.
    """

    name: str
    title: str
    kind: str
    version: int
    licence: str
    citation: str
    source: Mapping[str, Any]
    prompt: str
    primer: str
    splits: Mapping[str, int]
    labels: tuple[Label, ...] = ()
    stands_for: str | None = None
    fields: Mapping[str, str] = field(default_factory=lambda: {"text": "text"})
    label: Mapping[str, Any] | None = None
    answer: str | None = None
    choices: Sequence[str] | str | None = None
    derive: Mapping[str, Any] | None = None
    shorten: str = "text"
    max_words: int | None = None
    max_tokens: int = 256
    answer_tokens: int = 16

    def __post_init__(self) -> None:
        names = [label.name for label in self.labels]
        texts = [label.verbaliser.strip() for label in self.labels]
        if self.kind == "number":
            self._refuse(not self.answer, "is of kind number and needs the key answer")
        elif self.kind == "multiple_choice":
            self._refuse(not self.choices or not self.label, "is multiple choice and needs the keys choices and label")
        else:
            self._refuse(not self.label and not self.derive, "needs the key label")
            self._refuse(len(names) < 2, f"needs two labels at least, it has {len(names)}")
        self._refuse(
            "" in texts, f"has a label whose verbaliser is empty ({names[texts.index('')] if '' in texts else ''})"
        )
        for what, values in (("name", names), ("verbaliser", texts)):
            twice = sorted({value for value in values if values.count(value) > 1})
            self._refuse(bool(twice), f"has two labels with the same {what}: {', '.join(twice)}")
        if self.label and self.labels:
            rule = self.label
            given = [*rule.get("index", ()), *rule.get("map", {}).values(), *(rule[end] for end in ENDS if end in rule)]
            unknown = sorted({str(name) for name in given} - set(names))
            self._refuse(bool(unknown), f"gives examples labels that it does not list: {', '.join(unknown[:5])}")
            lacking = "threshold" in rule and not all(end in rule for end in ENDS)
            self._refuse(lacking, "has a threshold and needs the keys above and below")
        used = self._prompt_fields()
        known = set(self.fields) | ({"options"} if self.kind == "multiple_choice" else set())
        self._refuse(bool(used - known), f"uses unknown fields in its prompt: {', '.join(sorted(used - known))}")
        self._refuse(self.shorten not in used, f"shortens the field {self.shorten}, which its prompt does not have")

    def _prompt_fields(self) -> set[str]:
        try:
            return {name for _, name, _, _ in string.Formatter().parse(self.prompt) if name is not None}
        except ValueError as error:
            raise TelepathyError(f"The task {self.name} has a prompt with an unpaired brace ({error}).") from error

    def _refuse(self, wrong: bool, message: str) -> None:
        if wrong:
            raise TelepathyError(f"The task {self.name} {message}.")

    @property
    def label_names(self) -> list[str]:
        """Names of the labels, in the order of the YAML."""
        return [label.name for label in self.labels]

    def describe(self) -> dict[str, Any]:
        """What a reader of trained weights wants to know about the task (JSON)."""
        facts = {key: getattr(self, key) for key in ("title", "kind", "version", "licence", "citation")}
        return {**facts, "labels": self.label_names, "prompt": self.prompt, "primer": self.primer}

    @property
    def prompt_hash(self) -> str:
        """Identity of what models read, for provenance and feature stores."""
        labels = [(label.name, label.verbaliser) for label in self.labels]
        return fingerprint([self.prompt, self.primer, labels, self.shorten, self.max_tokens])


@cache
def _schema() -> Mapping[str, Any]:
    return read_yaml(FOLDER / "task.schema.yaml")


def load_task(path: str | Path) -> Task:
    """Read and check one task YAML.

    Raises:
        TelepathyError: if the file is absent or says something that the schema or `Task` refuses.
    """
    path = Path(path)
    if not path.is_file():
        raise TelepathyError(f"There is no task file {path}: the known tasks are {', '.join(sorted(known_tasks()))}.")
    try:
        data = read_yaml(path)
    except yaml.YAMLError as error:
        raise TelepathyError(f"{path} is not YAML: {str(error).splitlines()[0]}.") from error
    fault = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(_schema()).iter_errors(data))
    if fault is not None:
        place = ".".join(str(step) for step in fault.absolute_path) or "the top level"
        raise TelepathyError(f"{path}: at {place}, {fault.message}.")
    data["labels"] = tuple(_label(entry) for entry in data.get("labels") or _default_labels(data["kind"]))
    return Task(**data)


def _label(entry: str | Mapping[str, Any]) -> Label:
    if isinstance(entry, str):
        return Label(name=entry, verbaliser=entry)
    return Label(
        name=entry["name"],
        verbaliser=entry.get("verbaliser", entry["name"]),
        synonyms=tuple(entry.get("synonyms", ())),
    )


def _default_labels(kind: str) -> list[str | dict[str, Any]]:
    if kind == "boolean":
        return [{"name": "no", "synonyms": ["false"]}, {"name": "yes", "synonyms": ["true"]}]
    return list(LETTERS[:5]) if kind == "multiple_choice" else []


def known_tasks() -> dict[str, Path]:
    """Name and file of every task that the library ships."""
    return {path.stem: path for path in FOLDER.glob("*.yaml") if not path.stem.endswith(".schema")}
