import ast
import json
import math
import re
import statistics
import subprocess
import sys
from pathlib import Path

import jinja2
import pandas as pd
import pytest

from telepathy import workflow
from telepathy.__main__ import main
from telepathy.analysis.costs import summarise_costs
from telepathy.analysis.rows import COLUMNS as STATISTICS
from telepathy.analysis.rows import read_statistics
from telepathy.analysis.summary import COLUMNS, summarise
from telepathy.errors import TelepathyError
from telepathy.report.latex import escape, render
from telepathy.report.markdown import markdown
from telepathy.report.tables import Cell, accuracy_table, best_runs, cells, number, write_accuracy_table
from telepathy.workflow import library_sources
from tests.unit.studies import read_html

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "char, said",
    [
        ("\\", r"\textbackslash{}"),
        ("&", r"\&"),
        ("%", r"\%"),
        ("$", r"\$"),
        ("#", r"\#"),
        ("_", r"\_"),
        ("{", r"\{"),
        ("}", r"\}"),
        ("~", r"\textasciitilde{}"),
        ("^", r"\textasciicircum{}"),
        ("<", r"\textless{}"),
        (">", r"\textgreater{}"),
    ],
)
def test_a_special_character_is_written_so_that_latex_prints_it(char, said):
    assert escape(f"a{char}b") == f"a{said}b"


def test_what_was_escaped_is_not_escaped_again():
    assert escape("\\{%}") == r"\textbackslash{}\{\%\}"


def test_ordinary_text_stays():
    assert escape("Bridge, k = 8 (±0.5): Müller's way") == "Bridge, k = 8 (±0.5): Müller's way"


@pytest.mark.parametrize("char", ["\x00", "\x1b", "\x7f", "\u202e"])
def test_a_control_character_is_dropped(char):
    assert escape(f"a{char}b") == "ab"


def test_what_is_not_text_is_written_as_text():
    assert escape(12.5) == "12.5"


@pytest.mark.parametrize("char", ["中", "Ж", "−", "ħ", "🙂"])
def test_a_character_that_the_fonts_do_not_have_is_written_as_its_code_point(char):
    assert escape(f"a{char}b") == f"a[U+{ord(char):04X}]b"


FILLED = {"name": "t", "caption": "A caption", "heads": [number("k")], "rows": [[Cell("8")]], "long": False}


def test_a_template_with_all_its_values_is_filled():
    assert r"\label{tab:t}" in render("table.tex.jinja", **FILLED)


@pytest.mark.parametrize("name", sorted(FILLED))
def test_a_value_that_a_template_needs_and_does_not_get_is_an_error(name):
    rest = {key: value for key, value in FILLED.items() if key != name}
    with pytest.raises(jinja2.UndefinedError, match=f"'{name}' is undefined"):
        render("table.tex.jinja", **rest)


TASKS = {"zebras": "Zebras & co", "apes": "Apes"}
METHODS = {"zero_shot": "Zero-shot", "bridge": "Bridge 100%"}
ACCURACIES = {
    ("bridge", 4, "zebras"): [0.5, 0.7, 0.9],
    ("bridge", 8, "zebras"): [0.81, 0.82],
    ("bridge", 8, "apes"): [0.4],
    ("zero_shot", 0, "apes"): [0.25],
    ("lora", 0, "apes"): [0.99],
    ("bridge", 8, "wasps"): [0.99],
}


@pytest.fixture
def summary():
    """A summary in no particular order, with a method and a task that are not shown."""
    rows = []
    for (method, k, task), shares in ACCURACIES.items():
        for seed, share in enumerate(shares):
            majority = {"zebras": 0.5, "apes": 0.25, "wasps": 0.1}[task]
            run = {"task": task, "method": method, "soft_tokens": k, "seed": seed}
            rows.append({**run, "n": 200, "accuracy": share, "majority": majority})
    return pd.DataFrame(rows[::-1])


def test_only_the_tasks_and_methods_that_were_asked_for_are_in_a_table(summary):
    table = accuracy_table(summary, TASKS, METHODS)
    expected = sorted(set(ACCURACIES) - {("lora", 0, "apes"), ("bridge", 8, "wasps")})
    assert sorted(zip(table["method"], table["soft_tokens"], table["task"])) == expected


@pytest.mark.parametrize("run", sorted(set(ACCURACIES) - {("lora", 0, "apes"), ("bridge", 8, "wasps")}))
def test_mean_and_spread_are_those_of_the_statistics_module(summary, run):
    table = accuracy_table(summary, TASKS, METHODS).set_index(["method", "soft_tokens", "task"])
    row, shares = table.loc[run], ACCURACIES[run]
    spread = 100 * statistics.stdev(shares) if len(shares) > 1 else math.nan
    assert row["accuracy"] == pytest.approx(100 * statistics.mean(shares), abs=1e-4)
    assert row["std"] == pytest.approx(spread, abs=1e-4, nan_ok=True)


def test_a_table_says_how_many_seeds_there_were(summary):
    table = accuracy_table(summary, TASKS, METHODS).set_index(["method", "soft_tokens", "task"])
    assert table.loc[("bridge", 4, "zebras"), "seeds"] == 3


def test_the_majority_share_is_in_percent(summary):
    table = accuracy_table(summary, TASKS, METHODS)
    assert dict(zip(table["task"], table["majority"])) == {"zebras": 50.0, "apes": 25.0}


def test_methods_are_in_the_order_that_was_asked_for(summary):
    shown = cells(accuracy_table(summary, TASKS, METHODS), TASKS)
    assert [(row["title"], row["k"]) for row in shown] == [("Zero-shot", 0), ("Bridge 100%", 4), ("Bridge 100%", 8)]


def test_cells_are_in_the_order_of_the_tasks_with_a_dash_for_none(summary):
    shown = cells(accuracy_table(summary, TASKS, METHODS), TASKS)
    assert [row["cells"] for row in shown] == [["--", "25.0"], ["70.0 ± 20.0", "--"], ["81.5 ± 0.7", "40.0"]]


def compared(versus, mean, significant, task="zebras", method="bridge", k=8, table="table1_classification"):
    """The best of a column against another of some mean: the rows of both."""
    other = {"task": task, "soft_tokens": versus[1], "method": versus[0]}
    row = {"statistic": "difference", "task": task, "method": method, "soft_tokens": k, "versus": versus[0]}
    row |= {"versus_soft_tokens": versus[1], "significant": significant}
    return {**row, "family": f"best of {table}, {task}"}, {"statistic": "accuracy", **other, "estimate": mean}


@pytest.fixture
def statistics_file(tmp_path):
    """Write comparisons as rows of statistics."""

    def write(*pairs):
        rows = [row for pair in pairs for row in pair]
        pd.DataFrame(rows).reindex(columns=STATISTICS).to_csv(tmp_path / "statistics.csv", index=False)
        return tmp_path / "statistics.csv"

    return write


@pytest.fixture
def written(summary, statistics_file, tmp_path):
    """LaTeX, csv and HTML of a table."""
    summary.to_csv(tmp_path / "summary.csv", index=False)
    found = statistics_file(compared(("bridge", 4), 70, True), compared(("zero_shot", 0), 25, False, "apes"))
    paths = {kind: tmp_path / f"table.{kind}" for kind in ("tex", "csv", "html")}
    settings = {"kinds": ["labels"], "title": "A study", "name": "table1_classification"}
    write_accuracy_table(tmp_path / "summary.csv", found, TASKS, METHODS, **settings, **paths)
    return paths["tex"].read_text(), pd.read_csv(paths["csv"]), paths["html"].read_text()


def test_the_csv_of_a_table_is_the_table(written, summary):
    expected = accuracy_table(summary, TASKS, METHODS, {("zebras", "bridge", 8)})
    pd.testing.assert_frame_equal(written[1], expected.reset_index(drop=True), check_dtype=False)


@pytest.mark.parametrize(
    "second, third, marked",
    [(True, True, {("zebras", "bridge", 8)}), (True, False, {("zebras", "bridge", 8)}), (False, True, set())],
)
def test_the_best_is_marked_if_it_is_significantly_better_than_the_second(statistics_file, second, third, marked):
    pairs = compared(("zero_shot", 0), 60, third), compared(("bridge", 4), 70, second)
    assert best_runs(read_statistics(statistics_file(*pairs)), "table1_classification") == marked


def test_a_column_of_one_method_has_no_best(statistics_file):
    assert best_runs(read_statistics(statistics_file()), "table1_classification") == set()


def test_another_tables_best_is_not_this_ones(statistics_file):
    pair = compared(("bridge", 4), 70, True, table="table3_baselines")
    assert best_runs(read_statistics(statistics_file(pair)), "table1_classification") == set()


def test_the_html_of_a_table_has_its_cells(written):
    rows, _ = read_html(written[2])
    assert rows[0] == ["Method", "k", "Zebras & co", "Apes"]
    assert rows[3] == ["Bridge 100%", "8", "81.5 ± 0.7", "40.0"]
    assert written[2].count("<strong>") == 1 and "<strong>81.5 ± 0.7</strong>" in written[2]


def body(tex):
    return [line.strip() for line in tex.partition(r"\midrule")[2].partition(r"\bottomrule")[0].strip().splitlines()]


def test_the_rows_of_a_latex_table_are_its_cells(written):
    assert body(written[0]) == [
        r"Zero-shot & -- & -- & 25.0 \\",
        r"Bridge 100\% & 4 & 70.0 $\pm$ 20.0 & -- \\",
        r"Bridge 100\% & 8 & \textbf{81.5 $\pm$ 0.7} & 40.0 \\",
    ]


def test_every_row_of_a_latex_table_has_a_cell_for_every_column(written):
    head = next(line for line in written[0].splitlines() if line.strip().startswith("Method"))
    counts = {len(re.findall(r"(?<!\\)&", line)) + 1 for line in [head, *body(written[0])]}
    assert counts == {4}


def test_the_caption_names_every_task_with_its_examples_and_majority(written):
    assert r"(Zebras \& co: n = 200, majority share 50.0; Apes: n = 200, majority share 25.0)." in written[0]


def test_the_braces_of_a_latex_table_are_in_pairs(written):
    depth = 0
    for char in re.sub(r"\\[{}]", "", written[0]):
        depth += {"{": 1, "}": -1}.get(char, 0)
        assert depth >= 0
    assert depth == 0


def test_the_markdown_of_a_study_is_its_table(summary, tmp_path):
    (tmp_path / "tables").mkdir()
    accuracy_table(summary, TASKS, METHODS).to_csv(tmp_path / "tables" / "table1_classification.csv", index=False)
    cost = {"rule": "train_bridge", "jobs": 2, "seconds": 90.0, "cpu_seconds": 80.0, "max_memory_mb": 500.0}
    pd.DataFrame([cost]).to_csv(tmp_path / "costs.csv", index=False)
    lines = markdown(tmp_path).splitlines()
    assert "| Bridge 100% | 8 | 40.0 | 81.5 ± 0.7 |" in lines


def test_a_study_of_reasoning_alone_is_shown_and_written(summary, tmp_path, capsys):
    (tmp_path / "tables").mkdir()
    accuracy_table(summary, TASKS, METHODS).to_csv(tmp_path / "tables" / "table2_reasoning.csv", index=False)
    alone = markdown(tmp_path, ["accuracy"])
    assert "| Bridge 100% | 8 | 40.0 | 81.5 ± 0.7 |" in alone.splitlines()
    accuracy_table(summary, [], METHODS).to_csv(tmp_path / "tables" / "table1_classification.csv", index=False)
    assert markdown(tmp_path, ["accuracy"]) == alone
    assert main(["show", str(tmp_path)]) == 0
    assert "81.5 ± 0.7" in capsys.readouterr().out


def test_seeds_and_differences_are_written_as_they_stand_in_the_tables(tmp_path):
    (tmp_path / "tables").mkdir()
    spread = {"task": "movies", "method": "bridge", "soft_tokens": 8, "seeds": 3, "accuracy": 86.53, "std": 1.29}
    spread |= {"lowest": 85.2, "highest": 87.8, "majority": 50.8, "probe": 85.0, "collapsed": 0}
    alone = {**spread, "method": "lora", "soft_tokens": 0, "probe": None, "collapsed": None}
    pd.DataFrame([spread, alone]).to_csv(tmp_path / "tables" / "table10_seeds.csv", index=False)
    difference = {"task": "movies", "method": "bridge", "versus": "linear_probe", "difference": 1.53, "low": -0.6}
    difference |= {"high": 3.7, "p_adjusted": 0.0004}
    pd.DataFrame([difference]).to_csv(tmp_path / "tables" / "table7_statistics.csv", index=False)
    lines = markdown(tmp_path, ["seeds", "differences"]).splitlines()
    assert lines[2:4] == [
        "| movies | `bridge` | 8 | 3 | 86.5 ± 1.3 | 85.2 | 85.0 | 0 |",
        "| movies | `lora` |  | 3 | 86.5 ± 1.3 | 85.2 |  |  |",
    ]
    assert lines[-1] == "| movies | `bridge` − `linear_probe` | +1.5 | -0.6 to 3.7 | < 0.001 |"


def test_tables_go_between_the_marks_of_their_own_study(tmp_path):
    (tmp_path / "ours" / "tables").mkdir(parents=True)
    pd.DataFrame(columns=["task", "method"]).to_csv(tmp_path / "ours" / "tables" / "table7_statistics.csv", index=False)
    document = tmp_path / "README.md"
    document.write_text(
        "a\n<!-- other: x -->\nb\n<!-- end of other -->\n<!-- ours: y -->\nold\n<!-- end of ours -->\nc\n"
    )
    assert main(["insert", str(tmp_path / "ours"), str(document), "--tables", "differences"]) == 0
    text = document.read_text()
    assert text.startswith("a\n<!-- other: x -->\nb\n<!-- end of other -->\n<!-- ours: y -->\n| task |")
    assert text.endswith("|\n\n<!-- end of ours -->\nc\n")
    assert "old" not in text


def test_a_study_without_a_table_is_refused_with_what_to_run(tmp_path):
    with pytest.raises(TelepathyError, match=r"has no table yet: run snakemake .*table1_classification\.csv first"):
        markdown(tmp_path)


@pytest.fixture
def runs(tmp_path):
    """Two runs as their jobs leave them: a trained one with its costs, one without training."""

    def write(run, metrics, **beside):
        folder = tmp_path / "runs" / run["task"] / run["method"] / f"seed{run['seed']}"
        (folder / "bridge").mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps({"run": run, "metrics": metrics, "provenance": {"n": -1}}))
        for name, content in beside.items():
            (folder / "bridge" / f"{name}.json").write_text(json.dumps(content))
        return folder / "metrics.json"

    common = {"n": 10, "correct": 7, "accuracy": 0.7, "majority": 0.5, "unparsed": 1, "labels": ["a", "b"]}
    trained = write(
        {"study": "s", "task": "movies", "method": "bridge", "k": 8, "seed": 2},
        {**common, "macro_f1": 0.6},
        training={"collapsed": True, "history": []},
        cost={"train_seconds": 12.5, "peak_memory_mb": 300.0, "trainable_parameters": 99},
    )
    frozen = write({"study": "s", "task": "apes", "method": "zero_shot", "k": 0, "seed": 0}, common)
    return [trained, frozen]


def test_the_summary_has_a_row_a_run(runs, tmp_path):
    table = summarise(runs, tmp_path / "summary.csv")
    assert table[["task", "method", "soft_tokens", "seed"]].to_numpy().tolist() == [
        ["apes", "zero_shot", 0, 0],
        ["movies", "bridge", 8, 2],
    ]


def test_the_summary_has_the_metrics_of_every_run(runs, tmp_path):
    row = summarise(runs, tmp_path / "summary.csv").iloc[1]
    assert row[["n", "correct", "accuracy", "majority", "unparsed", "macro_f1"]].tolist() == [10, 7, 0.7, 0.5, 1, 0.6]


def test_the_summary_has_the_costs_beside_a_run(runs, tmp_path):
    row = summarise(runs, tmp_path / "summary.csv").iloc[1]
    assert row[["train_seconds", "peak_memory_mb", "trainable_parameters"]].tolist() == [12.5, 300.0, 99]


def test_the_summary_says_which_run_collapsed(runs, tmp_path):
    assert summarise(runs, tmp_path / "summary.csv").loc[1, "collapsed"]


def test_what_a_method_does_not_have_is_empty(runs, tmp_path):
    row = summarise(runs, tmp_path / "summary.csv").iloc[0]
    assert row[["collapsed", "macro_f1", "train_seconds", "trainable_parameters"]].isna().all()


def test_the_summary_is_written_as_it_is_returned(runs, tmp_path):
    table = summarise(runs, tmp_path / "summary.csv")
    read = pd.read_csv(tmp_path / "summary.csv")
    assert read.columns.tolist() == COLUMNS
    pd.testing.assert_frame_equal(read, table, check_dtype=False)


def test_the_order_of_the_files_does_not_matter(runs, tmp_path):
    summarise(runs, tmp_path / "one.csv")
    summarise(runs[::-1], tmp_path / "two.csv")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()


@pytest.fixture
def costs(tmp_path):
    """Benchmark files of three jobs of two rules; one job ran twice, one was too quick to be measured."""
    jobs = {
        "encode_task/movies": [{"s": 4.0, "cpu_time": 3.0, "max_rss": 900.0}],
        "train_bridge/movies": [
            {"s": 99.0, "cpu_time": 9.0, "max_rss": 999.0},
            {"s": 30.0, "cpu_time": 20.0, "max_rss": 400.0},
        ],
        "train_bridge/apes": [{"s": 10.0, "cpu_time": "NA", "max_rss": 100.0}],
    }
    files = []
    for name, lines in jobs.items():
        files.append(tmp_path / "costs" / f"{name}.jsonl")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        files[-1].write_text("".join(json.dumps(line) + "\n" for line in lines))
    summarise_costs(files, tmp_path / "costs.csv")
    return pd.read_csv(tmp_path / "costs.csv")


def test_costs_are_summed_over_the_jobs_of_a_rule(costs):
    found = costs.set_index("rule")[["jobs", "seconds", "cpu_seconds"]]
    assert found.loc["train_bridge"].tolist() == [2, 40.0, 20.0]


def test_the_memory_of_a_rule_is_that_of_its_largest_job(costs):
    assert dict(zip(costs["rule"], costs["max_memory_mb"])) == {"train_bridge": 400.0, "encode_task": 900.0}


def test_the_dearest_rule_comes_first(costs):
    assert costs["rule"].tolist() == ["train_bridge", "encode_task"]


SOURCES = {
    "workflow_scripts/work.py": "import json\nfrom telepathy.first import thing\n",
    "telepathy/__init__.py": "",
    "telepathy/first.py": "def thing():\n    from telepathy.deep import second\n    return second\n",
    "telepathy/deep/__init__.py": "from telepathy.deep.inner import name\n",
    "telepathy/deep/second.py": "import telepathy.third\nimport numpy\n",
    "telepathy/deep/inner.py": "name = 1\n",
    "telepathy/third.py": "from telepathy.first import thing\n",
    "telepathy/unused.py": "from telepathy.third import x\n",
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A small library in which one file is not used."""
    for name, text in SOURCES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(workflow, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize("file", ["first.py", "deep/__init__.py", "deep/second.py", "deep/inner.py", "third.py"])
def test_a_script_uses_what_it_imports_and_what_that_imports(project, file):
    assert f"telepathy/{file}" in library_sources("work")


def test_a_script_does_not_use_what_nothing_imports(project):
    assert "telepathy/unused.py" not in library_sources("work")


def test_only_files_of_the_library_are_listed(project):
    assert all(path.startswith("telepathy/") for path in library_sources("work"))


def test_the_files_of_a_script_are_sorted_and_each_once(project):
    found = library_sources("work")
    assert found == sorted(set(found))


LOADED = """
import sys
sys.argv = ["script"]
source = open({script!r}).read().split("with job_log")[0]
exec(source)
from pathlib import Path
root = Path({root!r})
files = {{Path(m.__file__) for n, m in list(sys.modules.items()) if n.split(".")[0] == "telepathy" and m.__file__}}
print("\\n".join(str(file.relative_to(root)) for file in files if file.read_text().strip()))
"""


def test_every_library_file_that_a_real_script_loads_is_listed():
    script = ROOT / "workflow_scripts" / "render_accuracy_table.py"
    code = LOADED.format(script=str(script), root=str(ROOT))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {path for path in done.stdout.split() if not path.endswith("__init__.py")}
    assert loaded and loaded <= set(library_sources("render_accuracy_table"))


def by_syntax_tree(source):
    """Names of library modules, or of things in them, that a file imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("folder", ["telepathy", "workflow_scripts"])
def test_imports_are_found_as_the_syntax_tree_has_them(folder):
    for path in (ROOT / folder).rglob("*.py"):
        parts = {tuple(name.split(".")) for name in by_syntax_tree(path.read_text()) if name.startswith("telepathy")}
        modules = {ROOT.joinpath(*name[:length]) for name in parts for length in range(1, len(name) + 1)}
        files = {file for module in modules for file in (module.with_suffix(".py"), module / "__init__.py")}
        assert set(workflow._imported_files(path)) == {file for file in files if file.is_file()}, path


ODD = """
from telepathy.deep import (  # a word, and a bracket )
    second as other,  # telepathy.unused
)
def late():
    import numpy, telepathy.third as third  # from telepathy.unused import x
"""


def test_imports_may_stand_in_brackets_beside_comments_and_under_other_names(project):
    (project / "workflow_scripts/work.py").write_text(ODD)
    found = set(library_sources("work"))
    assert {"telepathy/deep/second.py", "telepathy/third.py"} <= found and "telepathy/unused.py" not in found


JOB = """
import sys
from types import SimpleNamespace
from telepathy.__main__ import main
from telepathy.errors import TelepathyError
from telepathy.workflow import job_log
with job_log(SimpleNamespace(log=[sys.argv[1]], rule="train_bridge")):
    print("said by the job")
    print("warned by the job", file=sys.stderr)
    {action}
"""
ACTIONS = {
    "mended": 'raise TelepathyError("There is no such thing: make one.")',
    "broken": 'raise ValueError("inner detail")',
    "fine": "pass",
}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """A job that ends well, one that a user can mend and one that breaks: status, terminal and log."""
    found = {}
    for name, action in ACTIONS.items():
        log = tmp_path_factory.mktemp("logs") / "job.log"
        command = [sys.executable, "-c", JOB.format(action=action), str(log)]
        done = subprocess.run(command, capture_output=True, text=True)
        found[name] = done.returncode, done.stdout + done.stderr, log.read_text(), log
    return found


def test_an_error_that_a_user_can_mend_is_one_sentence_on_the_terminal(jobs):
    assert jobs["mended"][1].strip() == "Error in rule train_bridge: There is no such thing: make one."


def test_an_error_that_a_user_can_mend_is_one_sentence_in_the_log(jobs):
    assert jobs["mended"][2].splitlines()[-1] == "Error: There is no such thing: make one."
    assert "Traceback" not in jobs["mended"][2]


def test_any_other_error_leaves_its_traceback_in_the_log(jobs):
    assert "Traceback" in jobs["broken"][2] and jobs["broken"][2].strip().endswith("ValueError: inner detail")


def test_any_other_error_names_the_log_on_the_terminal(jobs):
    assert jobs["broken"][1].strip() == f"Rule train_bridge failed: its log is {jobs['broken'][3]}"


@pytest.mark.parametrize("name, status", [("fine", 0), ("mended", 1), ("broken", 1)])
def test_a_job_fails_exactly_where_it_raised(jobs, name, status):
    assert jobs[name][0] == status


def test_all_that_a_job_prints_is_in_its_log(jobs):
    assert sorted(jobs["fine"][2].splitlines()) == ["said by the job", "warned by the job"]


def test_a_job_that_ends_well_says_nothing_on_the_terminal(jobs):
    assert jobs["fine"][1] == ""
