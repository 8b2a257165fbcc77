"""Texts that mean harm or no sense: they are data on the way in and inert on the way out."""

import subprocess
import sys

import pandas as pd
import pytest
import torch

from telepathy.analysis.rows import COLUMNS
from telepathy.features import FeatureStore, encode_task
from telepathy.files import write_json
from telepathy.report.tables import write_accuracy_table
from telepathy.tasks.data import cache_task, load_split
from telepathy.tasks.prompts import prompt_ids
from tests.faults.conftest import films, write_films

pytestmark = pytest.mark.faults
HOSTILE = {
    "latex": r"\input{/etc/passwd} \write18{touch pwned} $x^2$ 100% & more # _ {",
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "terminal": "\x1b[31mred\x1b]0;title\x07 \x9b2J",
    "long": "word " * 200_000,
    "nul": "before\x00after",
    "template": "{text} {{options}} {0.__class__} %s ${HOME} $(touch pwned)",
    "tokens": "<s> </s> <pad> <|im_start|>system",
    "quotes": '"a", \'b\', """c""" ,,, ;',
    "direction": "\u202egnirts desrever \ufeff\u200b",
}


@pytest.fixture
def cached(tmp_path, make_task):
    """The task with every hostile text in each split, through the cache."""
    raw = tmp_path / "raw"
    raw.mkdir()
    write_films(raw / "all", [*((text, "negative") for text in HOSTILE.values()), *films(30)])
    write_json(raw / "source.json", {})
    task = make_task(splits={"train": 20, "dev": 5, "test": 9, "seed": 0})
    cache_task(task, raw, tmp_path / "task")
    return task, {split: load_split(tmp_path / "task", split) for split in ("train", "dev", "test")}


def test_hostile_texts_survive_the_cache_as_they_are_but_for_nul(cached):
    texts = set(pd.concat(cached[1].values())["text"])
    assert {text.replace("\x00", "").strip() for text in HOSTILE.values()} <= texts


def test_hostile_texts_are_encoded_within_the_limit_of_tokens(cached, tmp_path, llama):
    task, splits = cached
    encode_task(llama, task, splits, tmp_path / "features", layers=[1])
    for split, frame in splits.items():
        store = FeatureStore(tmp_path / "features", split, task)
        assert len(store) == len(frame)
        assert store.layer(1).lengths().max() <= min(task.max_tokens, llama.max_positions)
        states, mask = store.layer(1).batch(range(len(store)))
        assert torch.isfinite(states[mask].float()).all()


def test_braces_of_a_text_are_not_filled_in(cached, llama):
    task, _ = cached
    ids = prompt_ids(llama, task, {"text": HOSTILE["template"]})
    assert "{0.__class__}" in llama.tokenizer.decode(ids)


def hostile_table(folder):
    """An accuracy table whose titles are hostile."""
    summary = [
        {
            "study": "s",
            "task": f"t{row}",
            "method": f"m{row}",
            "soft_tokens": 0,
            "seed": 0,
            "n": 4,
            "accuracy": 0.5,
            "majority": 0.5,
        }
        for row in range(len(HOSTILE))
    ]
    pd.DataFrame(summary).to_csv(folder / "summary.csv", index=False)
    short = [text[:500] for text in HOSTILE.values()]
    titles = [{f"{kind}{row}": text for row, text in enumerate(short)} for kind in ("t", "m")]
    pd.DataFrame(columns=COLUMNS).to_csv(folder / "statistics.csv", index=False)
    tables = [folder / f"table.{ending}" for ending in ("tex", "csv", "html")]
    inputs = folder / "summary.csv", folder / "statistics.csv"
    write_accuracy_table(*inputs, *titles, ["labels"], HOSTILE["latex"], "table1", *tables)
    return (folder / "table.tex").read_text()


def test_titles_are_inert_in_latex(tmp_path):
    text = hostile_table(tmp_path)
    assert r"\input{" not in text and r"\write18" not in text and "$x^2$" not in text
    assert r"\textbackslash{}input\{/etc/passwd\}" in text
    assert not {char for char in text if not char.isprintable()} - {"\n"}


def test_a_hostile_table_reads_back_from_csv(tmp_path):
    hostile_table(tmp_path)
    titles = set(pd.read_csv(tmp_path / "table.csv")["title"])
    assert HOSTILE["html"] in titles and HOSTILE["quotes"] in titles


def test_the_terminal_gets_no_escapes(tmp_path):
    (tmp_path / "results" / "tables").mkdir(parents=True)
    hostile_table(tmp_path)
    (tmp_path / "table.csv").rename(tmp_path / "results" / "tables" / "table1_classification.csv")
    command = [sys.executable, "-m", "telepathy", "show", str(tmp_path / "results")]
    done = subprocess.run(command, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout and "\x07" not in done.stdout
