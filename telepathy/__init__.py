"""Telepathy: hand one frozen language model's understanding of a text to another through soft tokens."""

__version__ = "0.1.0"
