"""Read an answer out of generated text."""

import re
from collections.abc import Sequence

from telepathy.tasks.spec import Label

NUMBER = re.compile(r"(?:(?<![\d.])[-+])?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)")
"""A number; a sign right after another number is a minus between the two, or a range."""


def parse_label(text: str, labels: Sequence[Label]) -> str | None:
    """Return the name of the label that the text says first, or None.

    Verbalisers and synonyms count as whole words in any case ("no" is not in "know"); of two that
    start at one place the longer wins ("card not working" over "card").
    """
    found: list[tuple[int, int, str]] = []
    for label in labels:
        for phrase in (label.verbaliser, *label.synonyms):
            match = re.search(rf"(?<!\w){re.escape(phrase.strip())}(?!\w)", text, flags=re.IGNORECASE)
            if match:
                found.append((match.start(), -len(match.group()), label.name))
    return min(found)[2] if found else None


def parse_number(text: str) -> str | None:
    """Return the number that a worked answer ends in, in canonical form, or None.

    A number after ``####`` (GSM8K's own mark) wins, else the last one in the text; thousands
    commas, units, currency signs and a trailing full stop do not matter.
    """
    _, mark, tail = text.rpartition("####")
    numbers = NUMBER.findall(tail if mark else text)
    return canonical_number(numbers[0 if mark else -1]) if numbers else None


def canonical_number(number: str) -> str:
    """Write a number one way: ``1,000.50`` and ``+1000.5`` are both ``1000.5``, ``007`` is ``7``."""
    sign = "-" if number.startswith("-") else ""
    whole, _, fraction = number.lstrip("+-").replace(",", "").partition(".")
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    digits = f"{whole}.{fraction}" if fraction else whole
    return sign + digits if digits != "0" else "0"


def contains_label(text: str, labels: Sequence[Label]) -> str | None:
    """Return the first label of the list that occurs anywhere, even inside a word.

    The publication's own rule, kept for its variants only: "no" is found in "know".
    """
    lowered = text.lower()
    return next((label.name for label in labels if label.verbaliser.lower() in lowered), None)
