"""The rehearsal at tiny shapes: every rule of the paper on models and texts that are made on the spot."""

from collections import Counter

import pandas as pd
import pytest

from telepathy.benchmarks.plan import RULES
from tests.workflow.conftest import _copy_project

pytestmark = pytest.mark.slow

STUDY = "results/rehearsal_tiny"


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    """The study, made without a network."""
    house = _copy_project(tmp_path_factory.mktemp("rehearsal"))
    house.snakemake("--config", "study=rehearsal_tiny")
    return house


def test_every_rule_runs_and_every_method_answers(rehearsed):
    summary = pd.read_csv(rehearsed.path(f"{STUDY}/summary.csv"))
    assert set(summary["n"]) == {16}
    costs = pd.read_csv(rehearsed.path(f"{STUDY}/costs.csv"))
    theirs = {rule for kind, rules in RULES.items() for rule in rules if kind != "own"}  # the paper has no own methods
    assert theirs | {"encode_task", "measure_latency"} <= set(costs["rule"])


def test_the_forecast_counts_the_jobs_of_the_papers_dag_and_says_that_no_gpu_measured_them(rehearsed):
    table = pd.read_csv(rehearsed.path(f"{STUDY}/forecast.csv")).query("rule != 'total'")
    listed = Counter(rule for rule, _ in rehearsed.run("snakemake", "--dry-run").jobs())
    assert table.groupby("rule")["jobs"].sum().to_dict() == {rule: listed[rule] for rule in set(table["rule"])}
    assert (table["measured_jobs"] > 0).all()
    assert set(table["status"]) == {"unmeasured", "no gpu"}


def test_latency_is_timed_and_shown(rehearsed):
    latency = pd.read_csv(rehearsed.path(f"{STUDY}/latency.csv"))
    assert {"bridge", "text_relay_4", "label_relay", "direct_sender", "direct_receiver"} <= set(latency["arm"])
    text = rehearsed.path(f"{STUDY}/tables/table4_speed.tex").read_text()
    assert "Label relay" in text and "as published" in text


def test_a_study_that_times_nothing_has_no_latency(house):
    done = house.run("snakemake", "--dry-run", "results/small/latency.csv", check=False)
    assert done.status != 0
    assert "The study small times nothing: give it the key benchmark" in done.text
