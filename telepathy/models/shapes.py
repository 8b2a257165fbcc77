"""Models of a given shape with random weights: to rehearse a study at full size without a download."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from telepathy.errors import TelepathyError

SPECIAL = ("<pad>", "<s>", "</s>")
WORDS = (" red", " blue", " green", " dark")
"""Answers of rehearsals, a token each, as the labels of tasks are for real tokenizers."""
FILE_SIZE = "5GB"
"""Most that a file of weights holds. Large models on the hub lie in such files, which are hashed at the same time."""


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token a byte, so that a text of so many letters has so many tokens; but see `WORDS`."""
    vocabulary = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: place for place, token in enumerate(vocabulary)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in WORDS])
    pad, bos, eos = SPECIAL
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad, bos_token=bos, eos_token=eos)


def random_model(name: str, shape: Mapping[str, Any], device: str | torch.device = "cpu") -> PreTrainedModel:
    """A causal LM with random weights in bfloat16, the same at every call on one device.

    Args:
        name: key of the model in the registry; used in messages.
        shape: a transformers configuration, ``model_type`` included.
        device: where it is made.

    Raises:
        TelepathyError: if transformers does not know the model type.
    """
    settings = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **shape}
    try:
        config = AutoConfig.for_model(**settings)
    except (TypeError, ValueError) as error:
        raise TelepathyError(f"The model {name} has no shape that transformers knows: {error}.") from error
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


def save_random_model(name: str, shape: Mapping[str, Any], target: Path) -> dict[str, Any]:
    """Write a random model with its byte tokenizer as a Hugging Face folder; returns its source."""
    random_model(name, shape).save_pretrained(target, max_shard_size=FILE_SIZE)
    byte_tokenizer().save_pretrained(target)
    return {"random": dict(shape)}
