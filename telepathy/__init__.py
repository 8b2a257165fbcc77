"""Telepathy: hand one frozen language model's understanding of a text to another through soft tokens."""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import the runtime on first use: the workflow imports this package and must start quickly."""
    if name == "Telepathy":
        from telepathy.inference import Telepathy

        return Telepathy
    if name == "train":
        from telepathy.notebook import train

        return train
    raise AttributeError(f"module 'telepathy' has no attribute {name!r}")
