"""The smoke study end to end: real models, real data, every rule."""

import csv
import json
import sys

import pandas as pd
import pytest
import yaml

pytestmark = pytest.mark.slow

EXAMPLES = 24


def _runs(house):
    return sorted(house.path("results/smoke/runs").glob("*/*/k*/seed*"))


def test_every_run_of_the_smoke_study_predicts_every_test_example(made):
    ids = pd.read_parquet(made.path("resources/tasks/movies/test.parquet"))["id"].head(EXAMPLES).tolist()
    assert _runs(made)
    for run in _runs(made):
        predictions = pd.read_parquet(run / "predictions.parquet")
        assert predictions["id"].tolist() == ids, run


def test_accuracy_in_the_summary_is_that_of_the_predictions(made):
    summary = pd.read_csv(made.path("results/smoke/summary.csv")).set_index(["task", "method", "soft_tokens", "seed"])
    for run in _runs(made):
        task, method, k, seed = run.parts[-4:]
        predictions = pd.read_parquet(run / "predictions.parquet")
        right = (predictions["prediction"] == predictions["label"]).mean()
        row = summary.loc[(task, method, int(k[1:]), int(seed[4:]))]
        assert row["accuracy"] == pytest.approx(right)
        assert row["n"] == EXAMPLES


def test_the_table_shows_the_accuracy_of_the_summary(made):
    summary = pd.read_csv(made.path("results/smoke/summary.csv"))
    table = made.path("results/smoke/tables/table1_classification.tex").read_text()
    for _, row in summary[summary["task"] == "movies"].iterrows():
        assert f"{100 * row['accuracy']:.1f}" in table


def test_a_result_says_what_it_was_made_from(made):
    origin = json.loads((_runs(made)[0] / "metrics.json").read_text())["provenance"]
    assert {"settings", "task", "models", "code", "compute", "packages", "python"} <= set(origin)
    assert all(len(model["sha256"]) == 64 for model in origin["models"])
    assert origin["task"]["source"]


def test_costs_count_every_job_of_a_rule(made):
    rows = {row["rule"]: row for row in csv.DictReader(made.path("results/smoke/costs.csv").open())}
    bridges = len(list(made.path("results/smoke/runs").glob("*/*/k*/seed*/bridge")))
    assert int(rows["train_bridge"]["jobs"]) == bridges
    assert float(rows["train_bridge"]["seconds"]) > 0


def test_show_prints_the_table_and_where_the_results_are(made):
    done = made.run(sys.executable, "-m", "telepathy", "show", "results/smoke", COLUMNS="200")
    assert "Bridge" in done.text
    assert "results/smoke/summary.csv" in done.text


def test_a_second_run_has_nothing_to_do(made):
    done = made.snakemake("--config", "study=smoke")
    assert "Nothing to be done" in done.text


@pytest.mark.parametrize(
    "file, rules",
    [
        ("telepathy/report/tables.py", {"render_accuracy_table"}),
        ("telepathy/analysis/costs.py", {"summarise_costs"}),
        ("telepathy/bridges/pooled.py", {"train_bridge", "evaluate_bridge"}),
        (
            "telepathy/tasks/parsing.py",
            {"cache_task", "train_bridge", "evaluate_bridge", "prompt_model", "encode_task"},
        ),
    ],
)
def test_an_edit_of_the_library_reruns_what_uses_it(made_copy, file, rules):
    with made_copy.path(file).open("a") as handle:
        handle.write("\n# An edit.\n")
    done = made_copy.snakemake("--dry-run", "--config", "study=smoke")
    downstream = {"all", "summarise_runs", "summarise_costs", "compute_statistics", "score_claims"}
    downstream |= {f"render_{table}_table" for table in ("accuracy", "token", "statistics", "claims", "costs")}
    found = {rule for rule, _ in done.jobs()}
    assert rules <= found
    assert found - rules <= downstream
    assert not found & {"fetch_model", "fetch_data"}


def test_the_same_run_twice_gives_the_same_bytes(made, made_copy):
    forced = ["train_bridge", "evaluate_bridge", "prompt_model", "encode_task"]
    made_copy.snakemake("--config", "study=smoke", "--forcerun", *forced)
    for run in _runs(made):
        again = made_copy.path(str(run.relative_to(made.folder)))
        assert (again / "predictions.parquet").read_bytes() == (run / "predictions.parquet").read_bytes(), run
        first, second = (json.loads((folder / "metrics.json").read_text()) for folder in (run, again))
        # The copy is no git checkout, so that its results name no commit.
        del first["provenance"]["code"], second["provenance"]["code"]
        assert first == second, run
    names = ["results/smoke/tables/table1_classification.tex"]
    assert all(made_copy.path(name).read_bytes() == made.path(name).read_bytes() for name in names)


def test_a_new_task_is_one_yaml_over_a_csv(made_copy):
    words = {"hot": ["boiling", "scorching", "burning", "fiery"], "cold": ["icy", "freezing", "frosty", "wintry"]}
    rows = [
        {"note": f"Day {day}: the water was {word} and the air was {word} too.", "state": state}
        for day in range(12)
        for state, some in words.items()
        for word in some
    ]
    pd.DataFrame(rows).to_csv(made_copy.path("weather.csv"), index=False)
    task = {
        "name": "weather",
        "title": "Weather notes",
        "kind": "labels",
        "version": 1,
        "licence": "none",
        "citation": "made up by this test",
        "source": {"files": {"all": "weather.csv"}, "format": "csv"},
        "fields": {"note": "note"},
        "shorten": "note",
        "label": {"column": "state"},
        "labels": ["hot", "cold"],
        "prompt": "Note: {note}\nTemperature (hot or cold):",
        "primer": "Temperature:",
        "splits": {"train": 48, "dev": 16, "test": 16, "seed": 0},
    }
    made_copy.path("weather.yaml").write_text(yaml.safe_dump(task, sort_keys=False))
    study = {
        "title": "Weather",
        "sender": "smollm2-135m-instruct",
        "receiver": "gemma-3-270m",
        "seeds": [1],
        "settings": {"bridge": {"steps": 4, "batch_size": 4, "evaluations": 1}},
        "tasks": {"weather": {"soft_tokens": 4}},
        "runs": [{"tasks": ["weather"], "methods": ["bridge", "zero_shot_receiver"]}],
    }
    extra = {"tasks": {"weather": "weather.yaml"}, "studies": {"weather": study}}
    made_copy.path("extra.yaml").write_text(yaml.safe_dump(extra))
    target = "results/weather/tables/table1_classification.csv"
    made_copy.snakemake("--configfile", "config.yaml", "extra.yaml", "--", target)
    table = pd.read_csv(made_copy.path(target)).set_index("method")
    assert set(table.index) == {"bridge", "zero_shot_receiver"}
    assert (table["n"] == 16).all()
    assert (table["task"] == "weather").all()
