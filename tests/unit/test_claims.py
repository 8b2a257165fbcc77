import pandas as pd
import pytest

from telepathy.analysis.claims import (
    ARTEFACT,
    COLUMNS,
    NOT_REPRODUCED,
    NOT_TESTED,
    REPRODUCED,
    VERDICTS,
    publication,
    published_runs,
    score_claims,
)
from telepathy.analysis.rows import COLUMNS as STATISTICS

PAPER = {"sender": "llama-3.1-8b-instruct", "receiver": "mistral-7b-instruct-v0.3"}
SMALL = {"sender": "smollm2-135m-instruct", "receiver": "gemma-3-270m"}


def accuracy(task, method, estimate, low, high, k=0):
    return {
        "statistic": "accuracy",
        "task": task,
        "method": method,
        "soft_tokens": k,
        "estimate": estimate,
        "low": low,
        "high": high,
    }


def difference(task, versus, estimate, p, family="main", method="bridge"):
    row = {"statistic": "difference", "task": task, "method": method, "soft_tokens": 8, "versus": versus}
    row |= {"estimate": estimate, "low": estimate - 2, "high": estimate + 2, "p_value": p, "p_adjusted": p}
    return {**row, "family": family}


def trend(task, estimate, p):
    row = {"statistic": "trend", "task": task, "method": "bridge", "estimate": estimate, "low": -9.0, "high": 9.0}
    return {**row, "p_adjusted": p, "family": "trend", "note": "points a doubling"}


def majority(task, share):
    return {"statistic": "majority", "task": task, "estimate": share}


@pytest.fixture
def score(tmp_path):
    """Score claims from rows of statistics; by default for small models on stand-ins."""

    def run(*rows, tasks=None, models=SMALL, latency=None, margin=2.0):
        tasks = tasks or {"movies": "sst2", "topicqa": "boolq", "r52": "banking77"}
        pd.DataFrame(rows).reindex(columns=STATISTICS).to_csv(tmp_path / "statistics.csv", index=False)
        if latency is not None:
            pd.DataFrame(latency).to_csv(tmp_path / "latency.csv", index=False)
        score_claims(
            tmp_path / "statistics.csv",
            tmp_path / "claims.csv",
            tasks=tasks,
            soft_tokens=dict.fromkeys(tasks, 8),
            models=models,
            margin=margin,
            latency=None if latency is None else tmp_path / "latency.csv",
        )
        table = pd.read_csv(tmp_path / "claims.csv")
        assert table.columns.tolist() == COLUMNS
        return table.set_index("id")

    return run


def on_paper(score, *rows, **more):
    return score(majority("sst2", 50.9), *rows, tasks={"sst2": "sst2"}, models=PAPER, **more)


def test_an_empty_study_tests_no_claim_and_says_why(score):
    table = score(majority("movies", 50))
    assert set(table["verdict"]) == {NOT_TESTED}
    assert table["reason"].notna().all()
    assert table.loc["trec-bridge-8", "reason"] == "the study has no trec and no task that stands in for it"


def test_every_claim_has_one_row_and_a_sentence_one_a_task(score):
    table = score(majority("movies", 50))
    claims = publication()["claims"]
    assert len(table) == sum(len(claim.get("tasks", [1])) for claim in claims)
    assert table.index.is_unique
    assert table["statement"].notna().all()


def test_a_stand_in_is_another_scale_and_so_are_other_models(score):
    assert score(majority("movies", 50)).loc["sst2-bridge-8", ["task", "published_task", "scale"]].tolist() == [
        "movies",
        "sst2",
        "different",
    ]
    table = score(majority("sst2", 50), tasks={"sst2": "sst2"}, models=SMALL)
    assert table.loc["sst2-bridge-8", "scale"] == "different"
    assert on_paper(score).loc["sst2-bridge-8", "scale"] == "same"


@pytest.mark.parametrize(
    "low, high, verdict",
    [
        (93.0, 95.0, REPRODUCED),
        (95.2, 97.0, REPRODUCED),
        (95.4, 97.0, NOT_REPRODUCED),
        (89.0, 91.2, NOT_REPRODUCED),
        (89.0, 91.4, REPRODUCED),
    ],
)
def test_on_the_same_scale_a_number_must_lie_within_the_margin_of_the_interval(score, low, high, verdict):
    # The claim is 93.3, the margin 2 points.
    table = on_paper(score, accuracy("sst2", "bridge", (low + high) / 2, low, high, k=8))
    assert table.loc["sst2-bridge-8", "verdict"] == verdict


def test_on_the_same_scale_a_number_of_only_the_published_settings_is_an_artefact(score):
    rows = (
        accuracy("sst2", "prompt_tuning", 94, 93, 95, k=8),
        accuracy("sst2", "prompt_tuning_as_published", 51, 48, 54, k=8),
    )
    row = on_paper(score, *rows).loc["sst2-prompt-tuning"]
    assert row["verdict"] == ARTEFACT
    assert row[["published", "reproduced", "low", "high", "same_protocol"]].tolist() == [50.9, 94, 93, 95, 51]


def test_on_the_same_scale_the_number_of_soft_tokens_must_be_the_claims_own(score):
    table = on_paper(score, accuracy("sst2", "bridge", 93.7, 93, 94, k=8))
    assert table.loc["sst2-bridge-8", "verdict"] == REPRODUCED
    assert table.loc["sst2-bridge", "reason"] == "the study has no run of bridge with 32 soft tokens on sst2"


@pytest.mark.parametrize("low, verdict", [(52.0, REPRODUCED), (49.0, NOT_REPRODUCED)])
def test_on_another_scale_a_high_number_must_be_above_the_majority(score, low, verdict):
    row = score(majority("movies", 50.5), accuracy("movies", "bridge", 60, low, 70, k=8)).loc["sst2-bridge-8"]
    assert row["verdict"] == verdict
    assert "direction only" in row["reason"]


@pytest.mark.parametrize(
    "sane, published, verdict",
    [
        ((80, 78, 82), (50, 46, 54), ARTEFACT),
        ((80, 78, 82), (70, 66, 74), NOT_REPRODUCED),
        ((80, 78, 82), None, NOT_REPRODUCED),
        ((51, 48, 54), (50, 46, 54), REPRODUCED),
    ],
)
def test_on_another_scale_a_number_at_the_majority_may_be_an_artefact(score, sane, published, verdict):
    rows = [majority("movies", 50.5), accuracy("movies", "prompt_tuning", *sane, k=8)]
    if published:
        rows.append(accuracy("movies", "prompt_tuning_as_published", *published, k=8))
    assert score(*rows).loc["sst2-prompt-tuning", "verdict"] == verdict


def test_on_another_scale_the_studys_own_number_of_soft_tokens_is_named(score):
    table = score(majority("movies", 50.5), accuracy("movies", "bridge", 80, 78, 82, k=8))
    assert table.loc["sst2-bridge", "reason"].endswith("; with 8 soft tokens")
    assert not table.loc["sst2-bridge-8", "reason"].endswith("soft tokens")


def test_on_another_scale_a_number_without_direction_is_not_tested(score):
    row = score(majority("r52", 40), accuracy("r52", "bridge", 80, 78, 82, k=8)).loc["banking77-k16"]
    assert (row["verdict"], row["reproduced"]) == (NOT_TESTED, 80)
    assert row["reason"].startswith("other models and data")


@pytest.mark.parametrize(
    "sender, receiver, verdict",
    [
        ((20, 0.001), (9, 0.01), REPRODUCED),
        ((20, 0.001), (1, 0.4), NOT_REPRODUCED),
        ((20, 0.001), (-9, 0.001), NOT_REPRODUCED),
    ],
)
def test_the_bridge_must_beat_both_models(score, sender, receiver, verdict):
    rows = difference("movies", "zero_shot_sender", *sender), difference("movies", "zero_shot_receiver", *receiver)
    row = score(*rows).loc["says-super-additive-sst2"]
    assert (row["verdict"], row["reproduced"]) == (verdict, receiver[0])


def test_beating_only_the_published_baseline_is_an_artefact(score):
    rows = difference("movies", "prompt_tuning", 1, 0.3), difference("movies", "prompt_tuning_as_published", 40, 0.001)
    row = score(*rows).loc["says-sender-essential-sst2"]
    assert (row["verdict"], row["reproduced"], row["same_protocol"]) == (ARTEFACT, 1, 40)


def test_comparisons_that_only_tables_make_are_no_evidence(score):
    found = "best of table1_classification, movies"
    rows = [difference("movies", f"zero_shot_{side}", 20, 0.001, family=found) for side in ("sender", "receiver")]
    assert score(*rows).loc["says-super-additive-sst2", "verdict"] == NOT_TESTED


@pytest.mark.parametrize(
    "gap, p, low, verdict",
    [
        (-10, 0.01, 60, REPRODUCED),
        (1, 0.6, 49, REPRODUCED),
        (1, 0.6, 60, NOT_REPRODUCED),
        (9, 0.01, 60, NOT_REPRODUCED),
    ],
)
def test_the_bridge_fails_below_the_better_model_or_at_the_majority(score, gap, p, low, verdict):
    rows = [difference("topicqa", "zero_shot_sender", gap, p), difference("topicqa", "zero_shot_receiver", 30, 0.001)]
    rows += [majority("topicqa", 55), accuracy("topicqa", "bridge", 65, low, 70, k=8)]
    assert score(*rows).loc["says-not-reasoning-boolq", "verdict"] == verdict


@pytest.mark.parametrize(
    "slope, p, verdict", [(-3, 0.01, REPRODUCED), (-3, 0.2, NOT_REPRODUCED), (3, 0.01, NOT_REPRODUCED)]
)
def test_accuracy_must_fall_significantly_as_tokens_grow(score, slope, p, verdict):
    assert score(trend("r52", slope, p)).loc["says-more-tokens-hurt-banking77", "verdict"] == verdict


def latency(arm, protocol, median, batch=1, hardware="a laptop", mode="eager", task="movies"):
    row = {
        "task": task,
        "arm": arm,
        "protocol": protocol,
        "batch_size": batch,
        "mode": mode,
        "device": "cpu",
        "hardware": hardware,
    }
    return {
        **row,
        "median_ms": median,
        "low_ms": median * 0.95,
        "high_ms": median * 1.05,
        "examples_per_s": 1000 * batch / median,
    }


@pytest.mark.parametrize(
    "bridge, published, verdict", [(100, 100, REPRODUCED), (390, 100, ARTEFACT), (500, 600, NOT_REPRODUCED)]
)
def test_faster_than_text_is_tested_at_equal_work(score, bridge, published, verdict):
    rows = [latency("bridge", "equal_work", bridge), latency("text_relay_50", "equal_work", 400)]
    rows += [latency("bridge", "as_published", published), latency("text_relay_50", "as_published", 500)]
    row = score(latency=rows).loc["says-faster-than-text"]
    assert (row["verdict"], row["reproduced"]) == (verdict, pytest.approx(400 / bridge, abs=1e-4))
    assert row["same_protocol"] == pytest.approx(500 / published, abs=1e-4)


def test_milliseconds_on_other_hardware_are_shown_and_not_judged(score):
    row = score(latency=[latency("bridge", "equal_work", 100)], models=PAPER).loc["latency-bridge"]
    assert (row["verdict"], row["reproduced"], row["reason"]) == (NOT_TESTED, 100, "other models and hardware")


@pytest.mark.parametrize("median, verdict", [(165, REPRODUCED), (60, NOT_REPRODUCED), (300, NOT_REPRODUCED)])
def test_milliseconds_on_the_same_hardware_must_be_within_a_tenth(score, median, verdict):
    rows = [latency("bridge", "equal_work", median, hardware="NVIDIA H100 80GB HBM3")]
    assert on_paper(score, latency=rows).loc["latency-bridge", "verdict"] == verdict


@pytest.mark.parametrize("bridge, verdict", [(20, REPRODUCED), (85, REPRODUCED), (200, NOT_REPRODUCED)])
def test_more_than_the_claimed_speed_up_agrees_too(score, bridge, verdict):
    # The claim is 4.7 times as fast.
    rows = [
        latency(arm, "equal_work", median, hardware="NVIDIA H100", task="sst2")
        for arm, median in (("bridge", bridge), ("text_relay_50", 400))
    ]
    assert on_paper(score, latency=rows).loc["sst2-speedup", "verdict"] == verdict


@pytest.mark.parametrize("timed, tested", [("movies", "sst2-speedup"), ("newsgroups", "agnews-speedup")])
def test_a_speed_up_on_a_task_is_judged_by_timings_of_that_task(score, timed, tested):
    rows = [latency(arm, "equal_work", median, task=timed) for arm, median in (("bridge", 100), ("text_relay_50", 400))]
    table = score(latency=rows, tasks={"movies": "sst2", "newsgroups": "agnews"})
    verdicts = table.loc[["sst2-speedup", "agnews-speedup"], "verdict"]
    assert verdicts[tested] == REPRODUCED and verdicts.drop(tested).tolist() == [NOT_TESTED]
    assert table.loc["says-faster-than-text", "verdict"] == REPRODUCED


def test_a_rate_is_that_of_its_batch(score):
    rows = [latency("bridge", "equal_work", median, batch, "NVIDIA H100") for batch, median in ((1, 500), (16, 151))]
    table = on_paper(score, latency=rows)
    assert table.loc["throughput-bridge-16", ["verdict", "reproduced"]].tolist() == [
        REPRODUCED,
        pytest.approx(105.96, abs=0.01),
    ]
    assert table.loc["throughput-bridge-1", "verdict"] == NOT_REPRODUCED
    assert table.loc["throughput-bridge-4", "verdict"] == NOT_TESTED


def test_without_a_benchmark_speed_is_not_tested(score):
    assert score(majority("movies", 50)).loc["sst2-speedup", "reason"] == "the study has no latency benchmark"


def test_a_claim_that_comes_from_counts_is_their_mean():
    runs = published_runs().assign(share=lambda frame: 100 * frame["correct"] / frame["total"])
    means = (
        runs[runs["seed"].isin([42, 456])].groupby(["dataset", "method", runs["soft_tokens"].fillna(0)])["share"].mean()
    )
    checked = 0
    for claim in publication()["claims"]:
        key = (claim.get("task"), claim["method"], claim.get("soft_tokens", 0))
        if claim["metric"] == "accuracy" and key in means.index and claim["id"] != "trec-bridge-8":
            assert means[key] == pytest.approx(claim["value"], abs=0.15), claim["id"]
            checked += 1
    assert checked >= 20


def test_the_spread_of_the_publications_seeds_is_shown(score):
    assert score(majority("movies", 50)).loc["sst2-bridge", "published_std"] == pytest.approx(0.3)


def test_the_claims_name_only_what_is_known():
    for claim in publication()["claims"]:
        assert claim.get("direction") in (None, "above_majority", "at_majority")
        assert claim.get("test") in (None, "beats", "fails", "falls")
        assert ("value" in claim) or ("statement" in claim)
    assert len(VERDICTS) == 4
