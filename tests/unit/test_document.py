import re
import shutil
import subprocess

import pandas as pd
import pytest

from telepathy.errors import TelepathyError
from telepathy.report.document import compile_paper, write_paper
from telepathy.report.facts import headline, origins, scorecard
from telepathy.report.figures.accuracy import draw_accuracy
from telepathy.report.figures.confusion import draw_confusion
from tests.unit.made_up_study import HOSTILE, LABELS, RUNS, TABLES, about, document_files, make_study, write_tables

latex = pytest.mark.latex
FIGURES = ["accuracy", "confusion"]


def write(study, tables=(), figures=(), **changes):
    target = study.folder / "paper.tex"
    told = {**about(study), **changes}
    write_paper(target, told, document_files(study), study.files("metrics.json"), list(tables), list(figures))
    return target.read_text()


def compiled(study) -> str:
    target = study.folder / "paper.pdf"
    compile_paper(study.folder / "paper.tex", target)
    done = subprocess.run(["pdftotext", "-layout", str(target), "-"], check=True, capture_output=True, text=True)
    return " ".join(done.stdout.split())


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = make_study(tmp_path_factory.mktemp("study"))
    write_tables(study)
    files = [study.folder / "figures" / f"{name}{ending}" for name in FIGURES for ending in (".pdf", ".svg")]
    draw_accuracy(study.folder / "statistics.csv", study.folder / "summary.csv", study.names, *files[:2])
    draw_confusion(study.files("predictions.parquet"), LABELS, study.names, *files[2:])
    return study


@latex
def test_the_pdf_has_the_accuracies_of_the_predictions_and_counts_the_verdicts(study):
    write(study, TABLES, FIGURES)
    text = compiled(study)
    for task, method, k, seed, _ in RUNS[2:6]:
        frame = pd.read_parquet(study.run(task, method, k, seed) / "predictions.parquet")
        assert f"{100 * (frame['prediction'] == frame['label']).mean():.1f}" in text
    assert "Of 4 claims of the publication, 1 are reproduced, 1 are not" in text
    assert "Receiver & Sons" in text and "commit abc123" in text
    assert "Figure 2" in text and "Table 4" in text


@latex
def test_the_same_source_gives_the_same_pdf(study, tmp_path):
    write(study, TABLES, FIGURES)
    compile_paper(study.folder / "paper.tex", tmp_path / "one.pdf")
    shutil.copytree(study.folder, tmp_path / "else where")
    compile_paper(tmp_path / "else where" / "paper.tex", tmp_path / "two.pdf")
    assert (tmp_path / "one.pdf").read_bytes() == (tmp_path / "two.pdf").read_bytes()


@latex
def test_no_page_holds_more_than_fits(study, tmp_path):
    write(study, TABLES, FIGURES)
    done = subprocess.run(
        ["pdflatex", "-draftmode", "-interaction=nonstopmode", f"-output-directory={tmp_path}", "paper.tex"],
        cwd=study.folder,
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert not re.findall(r"Overfull \\vbox .*", done.stdout)


@latex
def test_a_hostile_title_is_set_as_text(study):
    write(study, title=HOSTILE)
    text = compiled(study)
    assert "<script>document.title" in text and r"\input{x} 50% $x_1$" in text


def test_without_latex_the_rule_says_what_to_install(study, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TelepathyError, match=r"paper.pdf needs LaTeX \(pdflatex\): apt-get install texlive"):
        compile_paper(study.folder / "paper.tex", tmp_path / "paper.pdf")
    assert not (tmp_path / "paper.pdf").exists()


@latex
def test_an_error_of_latex_is_named_and_leaves_no_pdf(tmp_path):
    (tmp_path / "paper.tex").write_text("\\documentclass{article}\\begin{document}\\nosuchcommand\\end{document}")
    with pytest.raises(TelepathyError, match="Undefined control sequence"):
        compile_paper(tmp_path / "paper.tex", tmp_path / "paper.pdf")
    assert [path.name for path in tmp_path.iterdir()] == ["paper.tex"]


@latex
def test_no_command_of_the_source_reaches_a_shell(tmp_path):
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\\begin{document}\\immediate\\write18{touch owned}x\\end{document}"
    )
    compile_paper(tmp_path / "paper.tex", tmp_path / "paper.pdf")
    assert not (tmp_path / "owned").exists()


@latex
@pytest.mark.parametrize(
    "runs, sentence",
    [
        ([("moods", "bridge", 8, 1, 0.5)], "no pair of methods to compare"),
        ([("moods", "zero_shot_receiver", 0, 0, 0.0)], "0.0 (0.0 to 8.8)"),
        ([("sums", "bridge", 8, 1, 0.0)], "Sums"),
        ([("moods", "bridge", 8, 1, 1.0), ("moods", "text_relay", 0, 0, 1.0)], "not told apart from Text relay"),
    ],
    ids=["one method", "no bridge, all wrong", "numbers only", "no disagreement"],
)
def test_a_poor_study_gives_a_report_with_a_note(tmp_path, runs, sentence):
    study = make_study(tmp_path, runs)
    pd.read_csv(study.folder / "claims.csv").head(0).to_csv(study.folder / "claims.csv", index=False)
    write(study, seeds=[1])
    text = compiled(study)
    assert sentence in text
    assert "No claim of the publication is about what this study runs." in text
    assert "With 1 seed, the spread over seeds is hardly known." in text


def test_a_changed_prediction_changes_the_numbers_of_its_task_alone(tmp_path):
    before = write(make_study(tmp_path / "a"))
    changed = [(*run[:4], 0.2 if run[0] == "sums" and run[1] == "bridge" else run[4]) for run in RUNS]
    after = write(make_study(tmp_path / "b", changed))
    different = [(one, other) for one, other in zip(before.splitlines(), after.splitlines()) if one != other]
    assert len(different) == 1
    assert different[0][1].startswith("Bridge (k = 24) 20.0 ")


def test_the_headline_has_main_methods_in_order_and_declared_differences_only(study):
    found = headline(pd.read_csv(study.folder / "statistics.csv"), about(study))
    moods = found[0]
    assert [row["title"] for row in moods["accuracies"]] == [
        "Bridge (k = 8)",
        "Bridge (k = 24)",
        "Zero-shot receiver",
        "Text relay, summary",
    ]
    assert [row["versus"] for row in moods["differences"]].count("Text relay, summary") == 1
    assert {row["versus"]: row["estimate"] for row in moods["differences"]} == pytest.approx(
        {"Zero-shot receiver": 25, "Text relay, summary": 15, "Control: states zeroed (k = 8)": 40}
    )


def test_every_verdict_is_counted_even_those_that_no_claim_has():
    claims = pd.DataFrame({"verdict": ["not tested", "not tested", "reproduced"]})
    assert scorecard(claims) == {
        "reproduced": 1,
        "not reproduced": 0,
        "artefact of the protocol": 0,
        "not tested": 2,
    }


def test_runs_from_two_commits_are_both_named(tmp_path):
    study = make_study(tmp_path, RUNS[:2])
    first = study.files("metrics.json")[0]
    first.write_text(first.read_text().replace("abc123", "def456"))
    found = origins(study.files("metrics.json"))["code"]
    assert [re.search(r"commit (\w+)", line)[1] for line in found] == ["abc123", "def456"]
