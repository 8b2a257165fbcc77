"""Tiny random language models of three families, small tokenizers and tasks made on the spot."""

import copy
from pathlib import Path

import pytest
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from telepathy.devices import Compute
from telepathy.models.loading import LanguageModel
from telepathy.tasks.spec import load_task

torch.set_num_threads(1)

SENTENCES = [
    "The card was lost and the card was stolen, so the bank sent a new card.",
    "Review: a fine film that I know and like. Sentiment (negative or positive): positive",
    "Review: a dull film that nobody wants. Sentiment (negative or positive): negative",
    "Passage: the ship carried grain. Question: is this report about grain? Answer (no or yes): yes",
    "Question: how many apples are left? Answer (a number): 12 345 67 890",
]
SPECIAL = ["<pad>", "<s>", "</s>"]
FAMILIES = ("llama", "gemma3", "gpt2")


def _trained(pre_tokenizer, decoder, alphabet) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoder
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE as GPT-2 and Llama 3 have it: the space belongs to the word after it."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return _trained(pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel(), alphabet)


@pytest.fixture(scope="session")
def sentencepiece_like() -> PreTrainedTokenizerFast:
    """A tokenizer that puts a space before the first word of any text, as SentencePiece does."""
    return _trained(pre_tokenizers.Metaspace(prepend_scheme="always"), decoders.Metaspace(), [])


def _config(family: str, vocabulary: int):
    tokens = {"vocab_size": vocabulary, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    size |= {"intermediate_size": 48, "max_position_embeddings": 128, "initializer_range": 0.3}
    if family == "llama":
        return LlamaConfig(**tokens, **size)
    if family == "gemma3":
        # A window shorter than the prefixes below, so that one layer forgets and the other does not.
        return Gemma3TextConfig(
            **tokens, **size, head_dim=8, sliding_window=4, layer_types=["sliding_attention", "full_attention"]
        )
    return GPT2Config(**tokens, n_embd=32, n_layer=2, n_head=4, n_positions=128, initializer_range=0.3)


def build_lm(family: str, tokenizer, name: str | None = None, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """A random model whose weights are large enough that every mistake shows."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(_config(family, len(tokenizer)), attn_implementation="sdpa")
    model.eval().requires_grad_(False).to(dtype)
    compute = Compute(device=torch.device("cpu"), dtype=dtype)
    return LanguageModel(
        name=name or family, model=model, tokenizer=tokenizer, compute=compute, source={"path": family}
    )


@pytest.fixture(scope="session")
def lms(tokenizer) -> dict[str, LanguageModel]:
    """One tiny model a family."""
    return {family: build_lm(family, tokenizer) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def lm(request, lms) -> LanguageModel:
    """Each family in turn."""
    return lms[request.param]


@pytest.fixture
def llama(lms) -> LanguageModel:
    """One family where the family does not matter."""
    return lms["llama"]


@pytest.fixture
def metaspace_lm(sentencepiece_like) -> LanguageModel:
    """A model whose tokenizer behaves as SentencePiece."""
    return build_lm("llama", sentencepiece_like, "metaspace")


LABEL_TASK = {
    "name": "films",
    "title": "Films",
    "kind": "labels",
    "version": 1,
    "licence": "none",
    "citation": "none",
    "source": {"files": {"all": "films.csv"}, "format": "csv"},
    "label": {"column": "mood"},
    "labels": [{"name": "negative", "synonyms": ["bad"]}, "positive"],
    "prompt": "Review: {text}\nSentiment (negative or positive):",
    "primer": "Sentiment:",
    "splits": {"train": 20, "dev": 10, "test": 10, "seed": 0},
}


@pytest.fixture
def task_data() -> dict:
    """What a correct task YAML says; a test changes one thing."""
    return copy.deepcopy(LABEL_TASK)


@pytest.fixture
def make_task(tmp_path, task_data):
    """Write a task YAML with some keys changed (None removes one) and load it."""

    def make(**changes):
        data = {key: value for key, value in {**task_data, **changes}.items() if value is not None}
        path = Path(tmp_path) / "task.yaml"
        path.write_text(yaml.safe_dump(data, sort_keys=False))
        return load_task(path)

    return make


@pytest.fixture
def number_task(make_task):
    """A task whose answer is a number."""
    return make_task(
        kind="number",
        label=None,
        labels=None,
        fields={"question": "question"},
        answer="answer",
        shorten="question",
        prompt="Question: {question}\nAnswer (a number):",
        primer="Answer:",
    )


@pytest.fixture
def choice_task(make_task):
    """A task whose examples bring their options."""
    return make_task(
        kind="multiple_choice",
        labels=["A", "B", "C"],
        label={"column": "key"},
        choices="choices",
        fields={"question": "question"},
        shorten="question",
        prompt="Question: {question}\n{options}\nAnswer (A, B or C):",
        primer="Answer:",
    )
