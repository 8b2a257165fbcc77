import shutil
import subprocess

import pandas as pd
import pytest

from telepathy.analysis.claims import score_claims
from telepathy.analysis.rows import read_statistics
from telepathy.analysis.statistics import compute_statistics
from telepathy.analysis.summary import summarise
from telepathy.report.result_tables import (
    comparison_rows,
    cost_rows,
    seed_rows,
    token_rows,
    write_claims_table,
    write_costs_table,
    write_seed_table,
    write_statistics_table,
    write_token_table,
)
from telepathy.report.tables import Cell, Head, Table, write_accuracy_table
from tests.unit.studies import read_html, some_right, write_study

N = 90
RUNS = {
    ("movies", "bridge", 8): {1: some_right(N, 80), 2: some_right(N, 78, 4), 3: some_right(N, 79, 9)},
    ("movies", "bridge", 24): {1: some_right(N, 70), 2: some_right(N, 74, 3), 3: some_right(N, 72, 20)},
    ("movies", "prompt_tuning", 8): {1: some_right(N, 70, 30), 2: some_right(N, 72, 10), 3: some_right(N, 69)},
    ("movies", "prompt_tuning_as_published", 8): {1: some_right(N, 40)},
    ("movies", "zero_shot_sender", 0): {0: some_right(N, 50, 20)},
    ("movies", "zero_shot_receiver", 0): {0: some_right(N, 80)},
    ("movies", "text_relay", 0): {0: some_right(N, 0)},
    ("topicqa", "bridge", 16): {1: some_right(60, 40)},
    ("topicqa", "zero_shot_sender", 0): {0: some_right(60, 40)},
}
ONE_RUN = {("movies", "bridge", 8): {1: some_right(N, 80)}}
HOSTILE = "Bridge_{#1} \\input{x} 100% & <script>alert('x')</script> $x^2~\x1b[31m\x00 中 \u202e"
TASKS = {"movies": "Movies & <b>co</b>", "topicqa": "Topics #1"}
METHODS = {
    "bridge": HOSTILE,
    "prompt_tuning": "Prompt tuning",
    "prompt_tuning_as_published": "Prompt tuning, as published",
    "zero_shot_sender": "Zero-shot sender",
    "zero_shot_receiver": "Zero-shot receiver",
    "text_relay": "Text relay",
}
NAMES = ["table1_classification", "table5_tokens", "table7_statistics", "table8_claims", "table9_costs"]
NAMES += ["table10_seeds"]
MARGIN = 2.0


def pairs(runs):
    """The bridge against every other method of a task."""
    found = []
    for task, method, k in runs:
        own = min(count for other, name, count in runs if (other, name) == (task, "bridge"))
        if method != "bridge":
            found.append(
                {"task": task, "method": "bridge", "soft_tokens": own, "versus": method, "versus_soft_tokens": k}
            )
    return [{**pair, "family": "main"} for pair in found]


def make(folder, runs):
    """All tables of a study, from its predictions on."""
    files = write_study(folder, runs)
    paths = {name: folder / f"{name}.csv" for name in ("summary", "statistics", "claims", "costs")}
    summarise([file.with_name("metrics.json") for file in files], paths["summary"])
    columns = {"table1_classification": list(METHODS)}
    compute_statistics(files, paths["statistics"], comparisons=pairs(runs), columns=columns, margin=MARGIN, draws=500)
    tasks, models = {"movies": "sst2", "topicqa": "boolq"}, {"sender": "a", "receiver": "b"}
    score_claims(paths["statistics"], paths["claims"], tasks, {"movies": 8, "topicqa": 16}, models, MARGIN)
    costs = [{"rule": "train_bridge", "jobs": 2, "seconds": 90.0, "cpu_seconds": 80.0, "max_memory_mb": 500.0}]
    costs.append(
        {"rule": "summarise_runs", "jobs": 1, "seconds": 30.0, "cpu_seconds": float("nan"), "max_memory_mb": 90.0}
    )
    pd.DataFrame(costs).to_csv(paths["costs"], index=False)
    out = {name: {kind: folder / "tables" / f"{name}.{kind}" for kind in ("tex", "csv", "html")} for name in NAMES}
    named = {name: {"name": name, **out[name]} for name in NAMES}
    write_accuracy_table(
        paths["summary"], paths["statistics"], TASKS, METHODS, ["labels", "number"], "50% & more", **named[NAMES[0]]
    )
    write_token_table(paths["statistics"], TASKS, METHODS, **named[NAMES[1]])
    write_statistics_table(paths["statistics"], TASKS, METHODS, MARGIN, **named[NAMES[2]])
    write_claims_table(paths["claims"], MARGIN, **named[NAMES[3]])
    write_costs_table(paths["costs"], {"train_bridge": 0}, **named[NAMES[4]])
    write_seed_table(paths["summary"], TASKS, METHODS, {"bridge": "zero_shot_sender"}, **named[NAMES[5]])
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make(tmp_path_factory.mktemp("full") / "study", RUNS)


@pytest.fixture(scope="module")
def poor(tmp_path_factory):
    """A study of one run."""
    return make(tmp_path_factory.mktemp("poor") / "study", ONE_RUN)


@pytest.fixture(params=["study", "poor"])
def either(request):
    return request.getfixturevalue(request.param)


def page(folder, name):
    text = (folder / "tables" / f"{name}.html").read_text()
    return *read_html(text), text


@pytest.mark.parametrize("name", NAMES)
def test_every_row_of_an_html_table_has_a_cell_for_every_column(either, name):
    rows, _, _ = page(either, name)
    assert {len(row) for row in rows} == {len(rows[0])}


@pytest.mark.parametrize("name", NAMES)
def test_hostile_text_adds_no_tag_to_a_page(study, name):
    _, tags, text = page(study, name)
    assert tags <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "strong"}
    assert not any(ord(char) < 32 and char != "\n" for char in text)


def test_hostile_text_is_shown_as_it_is(study):
    rows, _, _ = page(study, "table1_classification")
    assert any("<script>alert('x')</script>" in row[0] for row in rows)


@pytest.fixture(scope="module")
def printed(study, poor, tmp_path_factory):
    """All tables of both studies in one document: the log, and the text of its pages."""
    folder = tmp_path_factory.mktemp("document")
    inputs = []
    for number, origin in enumerate((study, poor)):
        for path in sorted((origin / "tables").glob("*.tex")):
            (folder / f"{number}{path.name}").write_text(
                path.read_text().replace(r"\label{tab:", rf"\label{{{number}:")
            )
            inputs.append(rf"\input{{{number}{path.name}}}\clearpage")
    packages = [r"\usepackage[T1]{fontenc}", r"\usepackage{lmodern,booktabs,longtable,array}"]
    packages.append(r"\usepackage[a4paper,margin=2.5cm]{geometry}")
    text = "\n".join([r"\documentclass{article}", *packages, r"\begin{document}", *inputs, r"\end{document}"])
    (folder / "all.tex").write_text(text)
    assert shutil.which("pdflatex"), "apt-get install texlive-latex-recommended texlive-fonts-recommended lmodern"
    command = ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    for _ in range(3):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
        assert done.returncode == 0, done.stdout[-3000:]
    shown = subprocess.run(["pdftotext", "-layout", "all.pdf", "-"], cwd=folder, capture_output=True, text=True)
    return (folder / "all.log").read_text(errors="replace"), shown.stdout


@pytest.mark.latex
def test_all_tables_compile_in_real_latex_with_no_line_too_wide(printed):
    wide = [line for line in printed[0].splitlines() if line.startswith("Overfull") and "alignment" in line]
    assert not wide


@pytest.mark.latex
def test_hostile_text_is_printed_and_not_obeyed(printed):
    assert r"Bridge_{#1} \input{x} 100% &" in " ".join(printed[1].split())


@pytest.mark.latex
def test_what_the_scorecard_says_is_on_the_page(printed):
    assert "artefact of the" in printed[1] and "not tested" in printed[1]


def test_the_token_table_has_every_count_and_the_trend(study):
    frame = token_rows(read_statistics(study / "statistics.csv"))
    assert frame["soft_tokens"].tolist()[:2] == [8, 24]
    assert frame["statistic"].tolist() == ["accuracy", "accuracy", "trend"]


def test_the_seed_table_counts_the_seeds_below_half_of_the_way_to_the_probe():
    rows = [("bridge", 8, seed, share) for seed, share in enumerate([0.85, 0.71, 0.69, 0.55])]
    rows += [("bridge", 24, 1, 0.9), ("linear_probe", 0, 0, 0.9), ("lora", 0, 1, 0.6), ("lora", 0, 2, 0.8)]
    summary = pd.DataFrame(rows, columns=["method", "soft_tokens", "seed", "accuracy"])
    summary = summary.assign(task="movies", n=100, majority=0.5)
    table = seed_rows(summary, {"bridge": "linear_probe"}).set_index("method")
    assert table.index.tolist() == ["bridge", "lora"]  # what ran with one seed has no spread
    bridge, lora = table.loc["bridge"], table.loc["lora"]
    assert bridge["collapsed"] == 2  # the bar is 70 %: half of the way from 50 to 90
    shares = [85, 71, 69, 55]
    mean = sum(shares) / 4
    assert bridge["accuracy"] == pytest.approx(mean)
    assert bridge["std"] == pytest.approx((sum((share - mean) ** 2 for share in shares) / 3) ** 0.5, abs=1e-4)
    assert bridge[["lowest", "highest", "majority", "probe"]].tolist() == [55, 85, 50, 90]
    assert pd.isna(lora["collapsed"])
    assert pd.isna(lora["probe"])


def test_one_count_has_no_token_table(poor):
    assert token_rows(read_statistics(poor / "statistics.csv")).empty


def test_a_comparison_has_one_row_with_all_its_tests(study):
    statistics = read_statistics(study / "statistics.csv")
    frame = comparison_rows(statistics).set_index(["task", "versus"])
    assert len(frame) == len(pairs(RUNS))
    row = frame.loc[("movies", "prompt_tuning")]
    exact = statistics[(statistics["statistic"] == "mcnemar") & (statistics["versus"] == "prompt_tuning")]
    assert row["mcnemar_seeds"] == 3
    assert row["mcnemar_significant"] == exact["significant"].eq(True).sum()


def test_where_two_methods_never_disagree_there_are_dashes_and_no_numbers(study):
    rows, _, _ = page(study, "table7_statistics")
    row = next(row for row in rows if row[0] == "Topics #1")
    assert row[2:] == ["60", "1", "0.0", "--", "1.000", "0 of 1", "--", "--"]


def test_a_study_that_compares_nothing_says_so(poor):
    rows, _, text = page(poor, "table7_statistics")
    assert len(rows) == 1
    assert "none was declared" in text


def test_all_answers_wrong_are_said_in_the_caption(study):
    assert "All answers wrong: Text relay on Movies" in page(study, "table1_classification")[2]


def test_one_run_says_that_the_spread_is_not_known(poor):
    assert "the spread over seeds is not known" in page(poor, "table1_classification")[2]


def test_the_scorecard_counts_its_verdicts_and_begins_with_what_was_tested(study):
    claims = pd.read_csv(study / "claims.csv")
    rows, _, text = page(study, "table8_claims")
    for verdict, count in claims["verdict"].value_counts().items():
        assert f"{count} {verdict}" in text
    verdicts = [row[4] for row in rows[1:]]
    assert verdicts == sorted(verdicts, key=lambda verdict: verdict == "not tested")
    tested = claims[claims["verdict"] != "not tested"]["verdict"].tolist()
    assert [verdict for verdict in verdicts if verdict != "not tested"] == tested


def test_claims_that_a_study_says_nothing_about_stand_together_by_reason(study):
    claims = pd.read_csv(study / "claims.csv")
    rows, _, _ = page(study, "table8_claims")
    shown = {row[6]: row[0].split(", ") for row in rows[1:] if row[4] == "not tested" and row[2] == "--"}
    silent = claims[(claims["verdict"] == "not tested") & claims["reproduced"].isna()]
    assert shown == silent.groupby("reason")["id"].agg(list).to_dict()


def test_costs_are_in_minutes_with_their_sum():
    costs = pd.DataFrame(
        {
            "rule": ["train_bridge", "summarise_runs"],
            "jobs": [3, 1],
            "seconds": [120.0, 60.0],
            "cpu_seconds": [90.0, 30.0],
            "max_memory_mb": [500.0, 100.0],
        }
    )
    frame = cost_rows(costs, {"train_bridge": 2, "evaluate_bridge": 1}).set_index("rule")
    assert frame.loc["all"].tolist() == [4, 3.0, 2.0, 4.0, 500.0]
    assert frame["gpu_minutes"].tolist() == [4.0, 0.0, 4.0]


def test_without_gpus_there_is_no_column_for_them(study):
    assert page(study, "table9_costs")[0][0] == ["Rule", "Jobs", "Wall minutes", "CPU minutes", "Memory (MB)"]


def test_the_same_results_give_the_same_bytes(study, tmp_path):
    again = make(tmp_path / "study", RUNS)
    for path in sorted((study / "tables").iterdir()):
        assert (again / "tables" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("long", [True, False])
def test_a_table_is_written_in_both_formats_with_the_same_cells(tmp_path, long):
    table = Table(
        name="t",
        caption="c",
        heads=[Head("a"), Head("b", "r", number=True)],
        rows=[[Cell("x_1"), Cell("2", True)]],
        long=long,
    )
    table.write(tmp_path / "t.tex", tmp_path / "t.html")
    assert r"x\_\allowbreak{}1 & \textbf{2} \\" in (tmp_path / "t.tex").read_text()
    assert read_html((tmp_path / "t.html").read_text())[0] == [["a", "b"], ["x_1", "2"]]
