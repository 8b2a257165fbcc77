"""Make any text fit to be shown: in a figure, a table cell or a page."""

from collections.abc import Mapping
from typing import Any

Names = Mapping[str, Mapping[str, Any]]
"""``methods``: method -> {title, group}, ``tasks``: task -> title; both in the order of config.yaml."""

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


def method_title(names: Names, method: str, soft_tokens: Any = 0) -> str:
    """A method's title, with its number of soft tokens where it has any (missing ones are NaN)."""
    title = names["methods"].get(method, {}).get("title", method)
    return f"{title} (k = {int(soft_tokens)})" if soft_tokens > 0 else str(title)
