"""Make any text fit to be shown: in a figure, a table cell or a page."""

from typing import Any

MARK = "\N{REPLACEMENT CHARACTER}"


def plain(value: Any, limit: int | None = None, lines: bool = False) -> str:
    """Return ``value`` as text whose control characters are visible marks.

    Escape sequences would steer a terminal, NUL ends a string elsewhere, and lone surrogates cannot be written.

    Args:
        value: anything; what is missing (None) gives an empty text.
        limit: most characters; what is cut off is said by its length.
        lines: keep line breaks and tabs; otherwise all white space is one space.
    """
    text = "" if value is None else str(value)
    # Cut first: a text of a million characters is not worth cleaning.
    kept = text if limit is None or len(text) <= limit else text[:limit]
    kept = kept if lines else " ".join(kept.split())
    kept = "".join(char if char.isprintable() or (lines and char in "\n\t") else MARK for char in kept)
    return kept if limit is None or len(text) <= limit else f"{kept.rstrip()} … ({len(text):,} characters)"
