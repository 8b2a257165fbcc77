"""Whether a model can take part, and whether it fits this machine, told from its configuration alone."""

from pathlib import Path
from typing import Any

import psutil
import torch

from telepathy.config import memory_needed
from telepathy.models.families import model_class, read_config
from telepathy.models.loading import load_tokenizer_only


def check_model(folder: str | Path) -> dict[str, Any]:
    """Facts about a model folder; its weights need not be there.

    Returns:
        ``family``, ``layers``, ``state_width`` and ``embedding_width``, ``parameters``,
        ``longest_sequence`` (tokens), ``first_token`` and ``padding_token`` (as texts),
        ``needed_mb`` (MiB for a job in 16 bit), ``available_mb`` (MiB of ``device``) and ``fits``.

    Raises:
        TelepathyError: if the folder holds no model, or its family cannot take part.
    """
    lm = load_tokenizer_only(folder)
    config = read_config(folder).get_text_config()
    with torch.device("meta"):
        model = model_class(config)(config)
    parameters = sum(value.numel() for value in model.parameters())
    needed, (device, available) = memory_needed(parameters), _largest_memory()
    return {
        "family": config.model_type,
        "layers": lm.depth,
        "state_width": lm.state_width,
        "embedding_width": model.get_input_embeddings().embedding_dim,
        "parameters": parameters,
        "longest_sequence": lm.max_positions,
        "first_token": lm.tokenizer.decode([lm.bos_id]),
        "padding_token": lm.tokenizer.decode([lm.pad_id]),
        "device": device,
        "needed_mb": round(needed),
        "available_mb": round(available),
        "fits": needed <= available,
    }


def _largest_memory() -> tuple[str, float]:
    """The device that runs models here, and its memory in MiB."""
    if torch.cuda.is_available():
        gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        best = max(gpus, key=lambda gpu: gpu.total_memory)
        return best.name, best.total_memory / 2**20
    return "CPU", psutil.virtual_memory().total / 2**20
