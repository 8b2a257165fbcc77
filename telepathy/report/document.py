"""The reproduction report of a study: LaTeX from a template, and its PDF."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from telepathy.errors import TelepathyError
from telepathy.files import atomic_path
from telepathy.report.facts import About, headline, origins, scorecard
from telepathy.report.latex import render

PACKAGES = "texlive-latex-recommended texlive-fonts-recommended lmodern"
"""Debian's packages that compile the report."""
CAPTIONS = Path(__file__).parent / "captions"


def captions(names: Sequence[str]) -> dict[str, str]:
    """Captions of some figures, which `snakemake --report`, paper and page share."""
    return {name: (CAPTIONS / f"{name}.rst").read_text().strip() for name in names}


def write_paper(
    target: str | Path,
    about: About,
    files: Mapping[str, str | Path],
    metrics: Sequence[str | Path],
    tables: Sequence[str],
    figures: Sequence[str],
) -> None:
    """Write ``paper.tex``, which reads tables and figures from the folders beside it.

    Args:
        target: file to write.
        about: the study.
        files: paths of ``statistics``, ``claims`` and ``costs``.
        metrics: ``metrics.json`` of every run.
        tables: names of the study's tables.
        figures: names of the study's figures.
    """
    costs = pd.read_csv(files["costs"])
    claims = pd.read_csv(files["claims"])
    text = render(
        "paper.tex.jinja",
        about=about,
        headline=headline(pd.read_csv(files["statistics"]), about),
        counts=scorecard(claims),
        claims=len(claims),
        different=bool((claims["scale"] == "different").any()),
        tables=list(tables),
        figures=captions(figures),
        origins=origins(metrics),
        runs=len(metrics),
        jobs=int(costs["jobs"].sum()),
        seconds=float(costs["seconds"].sum()),
    )
    with atomic_path(target) as partial:
        partial.write_text(text)


def compile_paper(source: str | Path, target: str | Path) -> None:
    """Compile ``paper.tex`` with pdfLaTeX; the same source gives the same bytes.

    Args:
        source: LaTeX file; what it includes lies beside it.
        target: PDF to write.

    Raises:
        TelepathyError: without LaTeX, saying what to install, or with LaTeX's first error.
    """
    program = shutil.which("pdflatex")
    if program is None:
        raise TelepathyError(
            f"{target} needs LaTeX (pdflatex): apt-get install {PACKAGES}, then ask for the file again; "
            f"all it shows is in {Path(target).with_name('report.html')} too."
        )
    source = Path(source)
    with tempfile.TemporaryDirectory() as scratch:
        _run_latex(program, source, Path(scratch))
        with atomic_path(target) as partial:
            shutil.copyfile(Path(scratch) / f"{source.stem}.pdf", partial)


def _run_latex(program: str, source: Path, scratch: Path) -> None:
    # The epoch takes the clock out of the PDF; HOME keeps LaTeX's caches out of the user's folder.
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1", "HOME": str(scratch)}
    command = [program, "-interaction=nonstopmode", "-halt-on-error", "-file-line-error", "-no-shell-escape"]
    for _ in range(3):  # references and long tables settle in three passes
        done = subprocess.run(
            [*command, f"-output-directory={scratch}", source.name],
            cwd=source.parent,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            print(done.stdout[-4000:], flush=True)
            raise TelepathyError(f"LaTeX could not compile {source}: {_first_error(done.stdout)}")


def _first_error(log: str) -> str:
    lines = log.splitlines()
    wrong = [line for line in lines if ".tex:" in line or line.startswith("!")]
    return next(iter(wrong), lines[-1] if lines else "no message") + "."
