"""Whether the memory of a GPU holds a model, told from its files before it is loaded."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from telepathy.devices import Compute
from telepathy.errors import TelepathyError

WORKING_BYTES = 2**31
"""Room on a GPU beside the weights: activations, caches and recorded graphs."""


def check_room(folders: Sequence[str | Path], compute: Compute, free_bytes: int | None = None) -> None:
    """Refuse to load models that a GPU cannot hold.

    Args:
        folders: model folders with safetensors.
        compute: device and precision.
        free_bytes: memory to compare with; None for what the device has free, and no limit on a CPU.

    Raises:
        TelepathyError: saying how much is needed and how much there is.
    """
    if free_bytes is None:
        if compute.device.type != "cuda":
            return
        torch.cuda.empty_cache()  # what a model held that is gone is free
        free_bytes = torch.cuda.mem_get_info(compute.device)[0]
    weights = sum(_elements(file) for folder in set(folders) for file in Path(folder).glob("*.safetensors"))
    needed = weights * compute.dtype.itemsize + WORKING_BYTES
    if weights and needed > free_bytes:
        names = " and ".join(dict.fromkeys(Path(folder).name for folder in folders))
        raise TelepathyError(
            f"The GPU has {free_bytes / 2**30:.1f} GiB free, but {names} need {needed / 2**30:.1f} GiB: "
            "take a larger GPU, or the device cpu."
        )


def _elements(file: Path) -> int:
    """Numbers in a file of weights, in whatever precision; none in a damaged one, which loading names."""
    try:
        with safe_open(file, framework="pt") as weights:
            names = weights.keys()
            return sum(math.prod(weights.get_slice(name).get_shape()) for name in names)
    except SafetensorError:
        return 0
