"""Random models of a given shape, byte tokens and generated texts."""

import json

import pytest
import torch
from transformers import AutoTokenizer

from telepathy.devices import Compute
from telepathy.errors import TelepathyError
from telepathy.models import shapes
from telepathy.models.loading import load_language_model
from telepathy.models.shapes import byte_tokenizer, random_model
from telepathy.models.sources import fetch_model
from telepathy.scoring.labels import continuation_ids
from telepathy.tasks.fetching import fetch_data

SHAPE = {"model_type": "llama", "vocab_size": 300, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
SHAPE |= {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}


@pytest.fixture
def folder(tmp_path):
    fetch_model("tiny", {"random": SHAPE}, tmp_path / "tiny", tmp_path / "downloads", tmp_path / "pins")
    return tmp_path / "tiny"


def test_a_random_model_is_made_loaded_and_has_its_shape(folder):
    lm = load_language_model(folder, Compute(device=torch.device("cpu"), dtype=torch.float32))
    assert (lm.width, lm.depth, lm.max_positions, lm.bos_id) == (16, 2, 64, 1)
    assert lm.source["random"] == SHAPE
    assert lm.model(input_ids=torch.tensor([lm.token_ids("abc")])).logits.shape == (1, 3, 300)


def test_a_large_random_model_lies_in_several_files_each_of_which_is_watched(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, "FILE_SIZE", "12KB")
    fetch_model("tiny", {"random": SHAPE}, tmp_path / "tiny", tmp_path / "downloads", tmp_path / "pins")
    files = sorted((tmp_path / "tiny").glob("*.safetensors"))
    assert len(files) > 1
    compute = Compute(device=torch.device("cpu"), dtype=torch.bfloat16)
    loaded = load_language_model(tmp_path / "tiny", compute).model.state_dict()
    for name, weight in random_model("tiny", SHAPE).state_dict().items():
        assert torch.equal(loaded[name], weight), name
    for file in files:
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(TelepathyError, match=file.name):
            load_language_model(tmp_path / "tiny", compute)
        file.write_bytes(whole)


def test_a_random_model_is_the_same_every_time_and_leaves_the_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = (random_model("tiny", SHAPE).state_dict() for _ in range(2))
    assert torch.rand(1) == expected
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert next(iter(first.values())).dtype == torch.bfloat16


@pytest.mark.parametrize("text", ["abc", "a b\n", "Größe 12", " 🎉"])
def test_a_token_is_a_byte(folder, text):
    for tokenizer in (byte_tokenizer(), AutoTokenizer.from_pretrained(folder)):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert len(ids) == len(text.encode())
        assert tokenizer.decode(ids) == text
        assert max(ids) < 259


@pytest.mark.parametrize("answer, tokens", [("red", 1), ("blue", 1), ("dark red", 2), ("12", 3)])
def test_answers_of_rehearsals_are_short_as_labels_are(folder, answer, tokens):
    lm = load_language_model(folder, Compute(device=torch.device("cpu"), dtype=torch.float32))
    ids = continuation_ids(lm, "Answer:", answer)
    assert len(ids) == tokens and lm.tokenizer.decode(ids) == f" {answer}"


def test_a_shape_that_transformers_does_not_know_is_refused_with_the_models_name():
    with pytest.raises(TelepathyError, match="model odd has no shape that transformers knows"):
        random_model("odd", {"model_type": "nosuch"})


def test_random_texts_have_the_lengths_and_answers_that_were_asked_for(tmp_path):
    settings = {"seed": 1, "size": 50, "tokens": [10, 20], "answers": ["red", "blue"]}
    source = {"generator": "random_texts", "files": {"all": settings}}
    for name in ("one", "two"):
        fetch_data("texts", source, tmp_path / name, tmp_path, tmp_path)
    assert (tmp_path / "one" / "all").read_bytes() == (tmp_path / "two" / "all").read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "one" / "all").read_text().splitlines()]
    assert len(rows) == 50
    assert all(10 <= len(row["text"]) < 20 for row in rows)
    assert {row["answer"] for row in rows} == {"red", "blue"}
    assert len({row["text"] for row in rows}) == 50
