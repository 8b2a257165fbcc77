"""The most memory of a GPU that a job held: said in its log, and read from there by a forecast."""

import re
import sys
from pathlib import Path

SAID = re.compile(r"^GPU memory: at most (\d+) MiB$", re.MULTILINE)


def say_gpu_memory() -> None:
    """Print the most memory that PyTorch's allocator held on a GPU, where this process used one.

    What it held and not what tensors took: recorded CUDA graphs keep theirs. The driver's own context comes on top.
    """
    torch = sys.modules.get("torch")  # jobs without models do not wait for its import
    if torch is None or not torch.cuda.is_initialized():
        return
    held = max(torch.cuda.max_memory_reserved(number) for number in range(torch.cuda.device_count()))
    print(f"GPU memory: at most {held >> 20} MiB", flush=True)


def gpu_memory_said(log: Path) -> float | None:
    """MiB that the job of this log file held on a GPU at most; None where it used none, or left no log."""
    said = SAID.findall(log.read_text(errors="replace")) if log.is_file() else []
    return float(said[-1]) if said else None
