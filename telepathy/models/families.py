"""Which families of transformers can send and receive, found from a model's configuration before its weights."""

from pathlib import Path
from typing import Any

import transformers
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, PretrainedConfig

from telepathy.errors import TelepathyError


def read_config(folder: str | Path) -> PretrainedConfig:
    """Read a model folder's configuration and refuse families that cannot take part.

    Any causal language model of transformers with a key-value cache can: the sender's layers are
    read, the receiver takes input embeddings and scores labels on a shared cache.

    Raises:
        TelepathyError: if the family is unknown, wants its own code run, has an encoder, or keeps a
            recurrent state in place of a cache.
    """
    folder = Path(folder)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (ValueError, KeyError) as error:
        raise TelepathyError(
            f"The model {folder.name} is of a family that transformers {transformers.__version__} does not have, or "
            "brings code of its own, which is never run: choose a model whose family transformers ships."
        ) from error
    check_family(folder.name, config)
    return config


def check_family(name: str, config: PretrainedConfig) -> None:
    """Refuse a configuration whose family cannot send or receive (see `read_config`)."""
    kinds = (type(config), type(config.get_text_config(decoder=True)))  # asked one by one: a list imports every family
    if not all(kind in MODEL_FOR_CAUSAL_LM_MAPPING for kind in kinds) or getattr(config, "is_encoder_decoder", False):
        raise TelepathyError(
            f"The model {name} ({config.model_type}) is no causal language model: choose one that only decodes."
        )
    if getattr(model_class(config), "_is_stateful", False):
        raise TelepathyError(
            f"The model {name} ({config.model_type}) keeps a recurrent state in place of a key-value cache, on which "
            "labels cannot be scored side by side: choose a model with attention in all its layers."
        )


def model_class(config: PretrainedConfig) -> Any:
    """The causal class that transformers takes for a configuration."""
    found = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    return found[0] if isinstance(found, tuple) else found
