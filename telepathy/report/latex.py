"""Render LaTeX with Jinja2; delimiters that LaTeX does not use, everything escaped."""

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


def escape(text: Any) -> str:
    """Make any text inert in LaTeX; white space is one space, control characters are dropped."""
    printable = "".join(char for char in " ".join(str(text).split()) if char.isprintable())
    return "".join(SPECIAL.get(char, char) for char in printable)


def render(template: str, **values: Any) -> str:
    """Fill a template of ``telepathy/report/templates``.

    Templates write ``<< value >>``, ``<% if %>`` and ``<# comment #>``; a value that the
    template needs and does not get is an error.
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
        autoescape=False,
        keep_trailing_newline=True,
    )
    environment.filters["tex"] = escape
    return environment.get_template(template).render(**values)
