"""How a bridge's steps are shared out; without PyTorch, since plans of whole studies ask it."""

from collections.abc import Mapping
from typing import Any


def alignment_steps(settings: Mapping[str, Any]) -> int:
    """How many of a bridge's steps point its soft tokens at words before the receiver is run: 9 of 10 at most."""
    return min(settings["alignment_steps"], settings["steps"] * 9 // 10)
