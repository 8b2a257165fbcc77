"""Render LaTeX and HTML with Jinja2; delimiters that LaTeX does not use, everything escaped."""

import unicodedata
from pathlib import Path
from typing import Any

import jinja2

SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
UNSET = set("ĦħĸĿŀŉŦŧſ")
SET = set("–—‘’“”„…†‡•‰€™×")


def printable(text: Any) -> str:
    """Any text on one line: white space is one space, control characters are dropped."""
    return "".join(char for char in " ".join(str(text).split()) if char.isprintable())


def escape(text: Any) -> str:
    """Make any text inert in LaTeX.

    What the T1 fonts of pdfLaTeX do not have is written as its code point, so that no text stops a document.
    """
    return "".join(SPECIAL.get(char, _settable(char)) for char in unicodedata.normalize("NFC", printable(text)))


def _settable(char: str) -> str:
    known = (ord(char) < 0x180 and char not in UNSET) or char in SET
    return char if known else f"[U+{ord(char):04X}]"


def render(template: str, **values: Any) -> str:
    """Fill a template of ``telepathy/report/templates``.

    Templates write ``<< value >>``, ``<% if %>`` and ``<# comment #>``; a value that the
    template needs and does not get is an error. In HTML every value is escaped, in LaTeX what
    passes the filter ``tex``; the filter ``line`` keeps what can be printed.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        autoescape=template.endswith(".html.jinja"),
        keep_trailing_newline=True,
    )
    environment.filters.update(tex=escape, line=printable)
    return environment.get_template(template).render(**values)
