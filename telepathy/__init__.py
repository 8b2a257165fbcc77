"""Telepathy: hand one frozen language model's understanding of a text to another through soft tokens."""

import gc
from importlib import import_module

__version__ = "0.1.0"

# PyTorch and transformers make some hundred thousand objects at import, which stay. Looking through them after
# every 700 new ones takes a fifth of that time.
gc.set_threshold(max(50_000, gc.get_threshold()[0]), *gc.get_threshold()[1:])


def __getattr__(name: str) -> object:
    """Import the runtime on first use: the workflow imports this package and must start quickly.

    By name, not by an import statement: what a job imports decides what an edit of the library reruns.
    """
    places = {"Telepathy": "telepathy.inference", "train": "telepathy.notebook"}
    if name not in places:
        raise AttributeError(f"module 'telepathy' has no attribute {name!r}")
    return getattr(import_module(places[name]), name)
