"""Figures and documents as a user makes them: a rule a figure, and a report of Snakemake's own."""

import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.slow

FIGURES = ["accuracy", "confusion", "training", "soft_tokens", "attention", "words"]


def jobs(house, *arguments):
    return [rule for rule, _ in house.snakemake("--dry-run", *arguments, "--config", "study=smoke").jobs()]


def test_the_smoke_study_has_its_figures_and_documents(made):
    folder = made.path("results/smoke")
    for name in FIGURES:
        assert (folder / f"figures/{name}.pdf").read_bytes().startswith(b"%PDF")
        assert "<svg" in (folder / f"figures/{name}.svg").read_text()
    assert "Content-Security-Policy" in (folder / "report.html").read_text()
    assert "\\begin{document}" in (folder / "paper.tex").read_text()


@pytest.mark.latex
def test_the_paper_is_compiled(made):
    assert made.path("results/smoke/paper.pdf").read_bytes().startswith(b"%PDF")


def test_deleting_one_figure_rebuilds_only_it(made_copy):
    made_copy.path("results/smoke/figures/words.svg").unlink()
    assert jobs(made_copy, "results/smoke/figures/words.svg") == ["draw_words"]
    before = {path: path.stat().st_mtime_ns for path in made_copy.path("results/smoke/figures").iterdir()}
    made_copy.snakemake("results/smoke/figures/words.svg")
    touched = {
        path.name
        for path in made_copy.path("results/smoke/figures").iterdir()
        if before.get(path) != path.stat().st_mtime_ns
    }
    assert touched == {"words.svg", "words.pdf"}


def test_figures_made_again_have_the_same_bytes(made, made_copy):
    made_copy.snakemake("--config", "study=smoke", "--forcerun", "inspect_bridge", "draw_accuracy", "write_page")
    names = ["accuracy.pdf", "accuracy.svg", "words.svg", "soft_tokens.svg", "attention.pdf"]
    for name in names:
        file = f"results/smoke/figures/{name}"
        assert made_copy.path(file).read_bytes() == made.path(file).read_bytes(), name


def test_a_changed_prediction_reaches_the_figures_and_documents_that_show_it(made_copy):
    run = made_copy.path("results/smoke/runs/movies/zero_shot_receiver/k0/seed0/predictions.parquet")
    pd.read_parquet(run).assign(prediction="positive").to_parquet(run, index=False)
    found = set(jobs(made_copy))
    assert {"draw_accuracy", "draw_confusion", "write_page", "write_paper"} <= found
    assert not found & {"draw_words", "draw_attention", "draw_training", "inspect_bridge", "train_bridge"}


def test_an_edit_of_one_figures_code_redraws_the_figures_of_its_file(made_copy):
    with made_copy.path("telepathy/report/figures/training.py").open("a") as handle:
        handle.write("\n# An edit.\n")
    found = set(jobs(made_copy))
    assert "draw_training" in found
    assert found <= {"all", "draw_training", "write_page", "compile_paper"}


def test_snakemakes_own_report_has_every_figure_with_its_caption(made_copy):
    made_copy.snakemake("--report", "snakemake_report.html", "--config", "study=smoke")
    text = made_copy.path("snakemake_report.html").read_text()
    for name in FIGURES:
        assert f"figures/{name}.svg" in text, name
    assert "Soft tokens are no words" in text


def test_a_machine_without_latex_makes_all_but_the_pdf(made_copy, tmp_path):
    listed = made_copy.run(
        "snakemake", "--dry-run", "--forceall", "--config", "study=smoke", PATH=_without_latex(tmp_path)
    )
    found = {rule for rule, _ in listed.jobs()}
    assert {"write_paper", "write_page"} <= found
    assert "compile_paper" not in found


def _without_latex(tmp_path):
    """A PATH that has what Snakemake needs and nothing else."""
    (tmp_path / "bin").mkdir()
    for name in ("git", "bash", "sh", "env", "which"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    return f"{Path(sys.executable).parent}:{tmp_path / 'bin'}"


def test_a_bridge_that_the_study_does_not_train_is_named(house):
    done = house.run("snakemake", "--dry-run", "results/weird/inspection/movies.json", check=False)
    assert "no study 'weird'" in done.text
    done = house.run("snakemake", "--dry-run", "results/smoke/inspection/r8.json", check=False)
    assert "trains no bridge on r8: add the method bridge to its runs" in done.text
