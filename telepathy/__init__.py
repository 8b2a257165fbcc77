"""Telepathy: hand one frozen language model's understanding of a text to another through soft tokens."""

from importlib import import_module

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import the runtime on first use: the workflow imports this package and must start quickly.

    By name, so that a job that does not use the runtime does not depend on its files.
    """
    if name == "Telepathy":
        return import_module("telepathy.inference").Telepathy
    raise AttributeError(f"module 'telepathy' has no attribute {name!r}")
