"""Turn a task's raw files into train, dev and test parquet, and read them."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from telepathy.errors import TelepathyError
from telepathy.files import atomic_path, check_files, read_json, sha256_of, write_json
from telepathy.tasks.parsing import NUMBER, parse_number
from telepathy.tasks.spec import LETTERS, Task

RAW_FILES = ("all", "test", "train")


def cache_task(task: Task, raw: str | Path, target: str | Path) -> None:
    """Make ``target`` with ``train.parquet``, ``dev.parquet`` and ``test.parquet``.

    Columns: ``id`` (source split and row, so it never moves), the prompt's fields, ``label``,
    ``choices`` or ``answer``. Dev is carved out of train. An example whose fields equal those of a
    test example never enters train or dev; one whose text is empty enters no split.

    Raises:
        TelepathyError: if a column is missing, a label unknown, a split empty or a raw file changed.
    """
    fetched = read_json(Path(raw) / "source.json")
    check_files(raw, fetched.get("files", {}), f"delete {raw} to fetch it anew")
    splits = _split(task, _parts(task, raw))
    with atomic_path(target) as partial:
        partial.mkdir()
        for split, frame in splits.items():
            if frame.empty:
                raise TelepathyError(f"The task {task.name} has no {split} examples: correct its splits or its source.")
            frame.to_parquet(partial / f"{split}.parquet", index=False)
        hashes = {file.name: sha256_of(file) for file in sorted(partial.iterdir())}
        write_json(partial / "source.json", {**fetched, "splits": hashes})


def contradictions(task: Task, raw: str | Path) -> int:
    """How many texts the raw files give different answers; `cache_task` keeps the first of each."""
    whole = pd.concat(_parts(task, raw).values())
    return int((whole.groupby(list(task.fields))[whole.columns[-1]].nunique() > 1).sum())


def _parts(task: Task, raw: str | Path) -> dict[str, pd.DataFrame]:
    files = [Path(raw) / name for name in RAW_FILES]
    return {file.name: _canonical(task, file) for file in files if file.exists()}


def read_raw(task: Task, file: Path) -> pd.DataFrame:
    """Read one raw file as a frame of its columns."""
    kind = "jsonl" if "generator" in task.source else task.source.get("format", "parquet")
    try:
        return _read(task, file, kind)
    except ValueError as error:  # of parquet, JSON and csv alike
        reason = str(error).strip().splitlines()[0]
        raise TelepathyError(f"The {file.name} data of task {task.name} is no readable {kind}: {reason}.") from error


def _read(task: Task, file: Path, kind: str) -> pd.DataFrame:
    if kind == "parquet":
        return pd.read_parquet(file)
    if kind == "jsonl":
        return pd.read_json(file, lines=True, dtype=False)
    return pd.read_csv(
        file,
        sep="\t" if kind == "tsv" else ",",
        names=task.source.get("columns"),
        skiprows=task.source.get("skip_rows", 0),
        quoting=csv.QUOTE_NONE if kind == "tsv" else csv.QUOTE_MINIMAL,
        encoding="utf-8",
        encoding_errors="replace",
        keep_default_na=False,
        dtype=str,
    )


def _columns(task: Task) -> list[str]:
    """Columns that the data must have."""
    if task.derive:
        return ["text", "label"]
    choices = [task.choices] if isinstance(task.choices, str) else list(task.choices or ())
    label, answer = [task.label["column"]] if task.label else [], [task.answer] if task.answer else []
    return [*task.fields.values(), *choices, *label, *answer]


def _text(column: pd.Series) -> pd.Series:
    """The column as text, empty where the data has none."""
    return column.astype(str).where(column.notna(), "").str.replace("\x00", "").str.strip()


def _canonical(task: Task, file: Path) -> pd.DataFrame:
    raw = read_raw(task, file)
    missing = sorted(set(_columns(task)) - set(raw.columns))
    if missing:
        raise TelepathyError(
            f"The {file.name} data of task {task.name} has no column {', '.join(missing)}; "
            f"it has {', '.join(map(str, raw.columns))}."
        )
    raw = raw.reset_index(drop=True)
    frame = pd.DataFrame({"id": [f"{file.name}-{row}" for row in range(len(raw))]})
    if task.derive:
        return _topic_questions(task, raw, frame)
    for name, column in task.fields.items():
        frame[name] = _text(raw[column])
    if task.choices is not None:
        frame["choices"] = _choices(task, raw)
    if task.kind == "number":
        frame["answer"] = [_answer(task, str(value)) for value in raw[task.answer]]
    else:
        frame["label"] = _labels(task, raw)
    return _shortened(task, frame[frame.iloc[:, -1].notna()])


def _shortened(task: Task, frame: pd.DataFrame) -> pd.DataFrame:
    if task.max_words:
        words = frame[task.shorten].str.split().str[: task.max_words]
        frame = frame.assign(**{task.shorten: words.str.join(" ")})
    return frame[frame[task.shorten] != ""]


def _labels(task: Task, raw: pd.DataFrame) -> pd.Series:
    assert task.label is not None
    rule, values = task.label, raw[task.label["column"]]
    if "threshold" in rule:
        numbers = _numbers(task, values)
        labels = pd.Series(np.where(numbers > rule["threshold"], rule["above"], rule["below"]), index=values.index)
        return labels.where(numbers.notna() & (numbers != rule["threshold"]))
    if "map" in rule:
        return values.astype(str).map({str(key): value for key, value in rule["map"].items()})
    if "index" in rule:
        codes = _numbers(task, values)
        _known(task, codes.isin(range(len(rule["index"]))), values)
        return codes.map(dict(enumerate(rule["index"])))
    labels = values.astype(str).str.strip()
    _known(task, labels.isin(task.label_names), labels)
    return labels


def _numbers(task: Task, values: pd.Series) -> pd.Series:
    """The label column as numbers; missing where the data has none."""
    absent = values.isna() | (values.astype(str).str.strip() == "")
    numbers = pd.to_numeric(values.mask(absent, None), errors="coerce").astype(float)  # True and False are 1 and 0
    _known(task, numbers.notna() | absent, values)
    return numbers


def _known(task: Task, known: pd.Series, values: pd.Series) -> None:
    if not known.all():
        unknown = ", ".join(sorted(values[~known].astype(str).unique())[:5])
        raise TelepathyError(
            f"The data of task {task.name} has labels that its YAML does not know: {unknown}; "
            f"it knows {', '.join(task.label_names[:20])}."
        )


def _choices(task: Task, raw: pd.DataFrame) -> list[list[str]]:
    if isinstance(task.choices, str):
        lists = [value["text"] if isinstance(value, Mapping) else value for value in raw[task.choices]]
    else:
        lists = raw[list(task.choices or ())].to_numpy().tolist()
    return [[str(text) for text in options] for options in lists]


def _answer(task: Task, text: str) -> str | None:
    answer = parse_number(text)
    if answer is None or not NUMBER.search(text):
        raise TelepathyError(f"The task {task.name} has an answer without a number: {text[:60]!r}.")
    return answer


def _topic_questions(task: Task, raw: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Ask one question a passage: its own topic (yes) or another one (no), half and half."""
    assert task.derive is not None
    topics: Mapping[str, str] = task.derive["topics"]
    rng = np.random.default_rng(task.splits.get("seed", 0))
    frame["text"] = _text(raw["text"])
    questions: list[str | None] = []
    labels: list[str | None] = []
    for topic in raw["label"]:
        truth = bool(rng.integers(2))
        others = [other for other in topics if other != topic]
        asked = topic if truth else others[rng.integers(len(others))]
        questions.append(f"is this report about {topics[asked]}?" if topic in topics else None)
        labels.append(("yes" if truth else "no") if topic in topics else None)
    frame["question"], frame["label"] = questions, labels
    return _shortened(task, frame[frame["label"].notna()])


def _split(task: Task, parts: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    sizes, rng = task.splits, np.random.default_rng(task.splits.get("seed", 0))
    text = list(task.fields)
    parts = {name: frame.drop_duplicates(subset=text) for name, frame in parts.items()}
    shuffled = {name: frame.iloc[rng.permutation(len(frame))] for name, frame in sorted(parts.items())}
    if "all" in shuffled:
        whole = shuffled["all"]
        test, rest = whole.iloc[: sizes["test"]], whole.iloc[sizes["test"] :]
    else:
        test, rest = shuffled["test"].iloc[: sizes["test"]], shuffled["train"]
        seen = set(map(tuple, parts["test"][text].to_numpy()))
        rest = rest[[tuple(row) not in seen for row in rest[text].to_numpy()]]
    dev, train = rest.iloc[: sizes["dev"]], rest.iloc[sizes["dev"] : sizes["dev"] + sizes["train"]]
    return {"train": train, "dev": dev, "test": test}


def check_classes(task: Task, train: pd.DataFrame) -> None:
    """Refuse to train where a class of a label set has no example."""
    if task.kind in ("labels", "boolean"):
        absent = [name for name in task.label_names if name not in set(train["label"])]
        if absent:
            raise TelepathyError(
                f"The task {task.name} has no training example of {', '.join(absent)}: "
                "take more examples or remove the label."
            )


def choice_count(example: Mapping[Any, Any]) -> int:
    """Number of options of one example."""
    return min(len(example["choices"]), len(LETTERS))


def load_split(folder: str | Path, split: str, limit: int | None = None) -> pd.DataFrame:
    """Read the first ``limit`` examples (default: all) of one split that `cache_task` wrote.

    Of train, none of whose classes may be absent, as `with_every_class` takes them.

    Raises:
        TelepathyError: if the file is not the one that was written.
    """
    name, about = f"{split}.parquet", Path(folder) / "source.json"
    recorded = read_json(about).get("splits", {}) if about.is_file() else {}
    check_files(folder, {name: recorded[name]} if name in recorded else {}, f"delete {folder} to make it anew")
    frame = pd.read_parquet(Path(folder) / name)
    if not limit:
        return frame
    return with_every_class(frame, limit) if split == "train" and "label" in frame else frame.head(limit)


def with_every_class(frame: pd.DataFrame, limit: int) -> pd.DataFrame:
    """The first ``limit`` examples, if these hold every class of the frame.

    Else the first example of each class that is absent stands at their end, in the place of the last
    one of the class that is most frequent then. A limit below the number of classes leaves some out.
    """
    head, later = frame.head(limit), frame.iloc[limit:]
    absent = later[~later["label"].isin(head["label"])].drop_duplicates("label")
    for place in range(len(absent)):
        counts = head["label"].value_counts()
        if counts.max() == 1:
            absent = absent.head(place)
            break
        most = min(counts.index[counts == counts.max()])
        head = head.drop(index=head.index[head["label"] == most][-1])
    return pd.concat([head, absent], ignore_index=True)
