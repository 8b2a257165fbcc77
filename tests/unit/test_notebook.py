import pandas as pd
import pytest
import torch

import telepathy
from telepathy.errors import TelepathyError

WORDS = {"negative": "dull", "positive": "fine"}


@pytest.fixture
def films(make_task, tmp_path):
    """A task over a csv in which one word gives the answer away."""
    rows = [(f"a {word} film of {number} minutes", mood) for number in range(40) for mood, word in WORDS.items()]
    pd.DataFrame(rows, columns=["text", "mood"]).to_csv(tmp_path / "films.csv", index=False)
    source = {"files": {"all": str(tmp_path / "films.csv")}, "format": "csv"}
    return make_task(source=source, splits={"train": 40, "dev": 16, "test": 16, "seed": 0})


SETTINGS = {"steps": 60, "batch_size": 8, "width": 16, "heads": 2, "learning_rate": 1e-2, "sender_layer": 1}


@pytest.fixture
def train(films, llama, lms, tmp_path):
    """Train a bridge between two tiny models."""

    def work(name="bridge", **changes):
        before = torch.are_deterministic_algorithms_enabled()
        try:
            return telepathy.train(films, llama, lms["gpt2"], tmp_path / name, soft_tokens=2, **{**SETTINGS, **changes})
        finally:
            torch.use_deterministic_algorithms(before)

    return work


def test_a_trained_bridge_answers_new_texts(train):
    model = train()
    texts = {"a dull film of 90 minutes": "negative", "a fine film of 91 minutes": "positive"}
    assert model(list(texts)) == list(texts.values())


def test_what_is_trained_is_what_the_folder_holds(train, films, llama, lms, tmp_path):
    model = train(steps=4)
    again = telepathy.Telepathy.from_pretrained(tmp_path / "bridge", sender=llama, receiver=lms["gpt2"], task=films)
    assert torch.equal(again.soft_tokens("a dull film"), model.soft_tokens("a dull film"))


def test_a_progress_bar_counts_the_steps(train, capsys):
    train(steps=6, alignment_steps=4)
    shown = capsys.readouterr().err
    assert "4/4" in shown and "2/2" in shown


def test_limits_are_kept(train, tmp_path):
    train(steps=2, examples={"train": 10, "dev": 4})
    model = telepathy.bridges.Bridge.from_pretrained(tmp_path / "bridge")
    assert model.about["training"]["examples"] == 10


def test_an_unknown_setting_is_refused_with_those_that_exist(train):
    with pytest.raises(TelepathyError, match=r"'stepps' was unexpected.*; the keys are .*steps"):
        train(stepps=3)
