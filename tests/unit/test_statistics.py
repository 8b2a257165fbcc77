import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from telepathy.analysis.comparisons import comparisons_of, statistics_settings
from telepathy.analysis.rows import COLUMNS
from telepathy.analysis.statistics import Answers, Method, Study, _trends, compute_statistics
from telepathy.config import check_config
from telepathy.errors import TelepathyError
from tests.unit.studies import answered, predictions, some_right, write_run, write_study

N = 120
RUNS = {
    ("movies", "bridge", 8): {1: some_right(N, 110), 2: some_right(N, 105, 4), 3: some_right(N, 108, 9)},
    ("movies", "bridge", 16): {1: some_right(N, 90), 2: some_right(N, 92, 3), 3: some_right(N, 88, 20)},
    ("movies", "lora", 0): {1: some_right(N, 100, 30), 2: some_right(N, 96, 10)},
    ("movies", "zero_shot", 0): {0: some_right(N, 70, 20)},
    ("movies", "relay", 0): {0: some_right(N, 0)},
    ("movies", "few_shot", 0): {7: some_right(N, 60)},
    ("topics", "bridge", 8): {1: some_right(60, 40)},
    ("topics", "zero_shot", 0): {0: some_right(60, 40)},
}
PAIRS = [
    ("movies", "bridge", 8, "lora", 0, "main"),
    ("movies", "bridge", 8, "zero_shot", 0, "main"),
    ("movies", "bridge", 8, "relay", 0, "main"),
    ("movies", "bridge", 8, "few_shot", 0, "main"),
    ("topics", "bridge", 8, "zero_shot", 0, "main"),
    ("movies", "bridge", 8, "bridge", 16, "counts"),
    ("movies", "bridge", 8, "absent", 0, "main"),
]
KEYS = ["task", "method", "soft_tokens", "versus", "versus_soft_tokens", "family"]
TABLES = {"table1": ["bridge", "lora", "zero_shot"], "table6": []}


def compute(files, target, **changed):
    settings = {"comparisons": [dict(zip(KEYS, pair)) for pair in PAIRS], "columns": TABLES, "margin": 3.0}
    compute_statistics(files, target, **{**settings, "draws": 2000, **changed})
    return pd.read_csv(target)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("results") / "study"


@pytest.fixture(scope="module")
def files(folder):
    return write_study(folder, RUNS)


@pytest.fixture(scope="module")
def table(files, folder):
    return compute(files, folder / "statistics.csv")


def pick(table, statistic, **wanted):
    rows = table[table["statistic"] == statistic]
    for key, value in wanted.items():
        rows = rows[rows[key] == value]
    return rows


def only(table, statistic, **wanted):
    rows = pick(table, statistic, **wanted)
    assert len(rows) == 1
    return rows.iloc[0]


def test_the_columns_are_those_that_others_read(table):
    assert table.columns.tolist() == COLUMNS


def test_every_run_has_its_accuracy(table):
    found = {
        (row["task"], row["method"], row["soft_tokens"], row["seed"]): row["estimate"]
        for row in pick(table, "accuracy_run").to_dict("records")
    }
    expected = {(*run, seed): 100 * right.mean() for run, seeds in RUNS.items() for seed, right in seeds.items()}
    assert found == pytest.approx(expected, abs=1e-4)


def test_the_mean_and_spread_over_seeds_are_those_of_the_runs(table):
    shares = [100 * right.mean() for right in RUNS["movies", "bridge", 8].values()]
    wanted = {"task": "movies", "method": "bridge", "soft_tokens": 8}
    assert only(table, "accuracy", **wanted)["estimate"] == pytest.approx(np.mean(shares), abs=1e-4)
    assert only(table, "spread", **wanted)["estimate"] == pytest.approx(np.std(shares, ddof=1), abs=1e-4)


def test_the_majority_share_is_that_of_the_most_frequent_answer(table):
    assert only(table, "majority", task="movies")["estimate"] == pytest.approx(200 / 3, abs=0.01)


def declared(table, statistic, versus, count=0, **more):
    wanted = {"task": "movies", "method": "bridge", "soft_tokens": 8, "versus": versus, "versus_soft_tokens": count}
    rows = pick(table, statistic, **{**wanted, **more})
    return rows[~rows["family"].str.startswith("best of ")]


def test_a_difference_is_over_the_seeds_that_both_have(table):
    row = declared(table, "difference", "lora").iloc[0]
    ours, theirs = RUNS["movies", "bridge", 8], RUNS["movies", "lora", 0]
    assert row["estimate"] == pytest.approx(
        100 * np.mean([ours[s].mean() - theirs[s].mean() for s in (1, 2)]), abs=1e-4
    )
    assert row["seeds"] == 2
    assert row["note"] == "over the seeds that both have (1, 2)"


def test_a_method_without_chance_is_paired_with_every_seed(table):
    row = declared(table, "difference", "zero_shot").iloc[0]
    assert row["seeds"] == 3
    assert declared(table, "mcnemar", "zero_shot")["seed"].tolist() == [1, 2, 3]


def test_mcnemars_test_is_exact_for_every_matched_seed(table):
    for row in declared(table, "mcnemar", "lora").to_dict("records"):
        ours, theirs = RUNS["movies", "bridge", 8][row["seed"]], RUNS["movies", "lora", 0][row["seed"]]
        counts = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
        assert row["p_value"] == pytest.approx(stats.binomtest(counts[0], sum(counts)).pvalue, rel=1e-3)
        assert row["note"] == f"only bridge right: {counts[0]}, only lora right: {counts[1]}"


def test_examples_are_paired_by_their_names_and_not_by_their_order(tmp_path, table):
    files = write_study(tmp_path / "study", RUNS)
    shuffled = pd.read_parquet(files[0]).sample(frac=1, random_state=1)
    answered(files[0], shuffled)
    pd.testing.assert_frame_equal(compute(files, tmp_path / "statistics.csv"), table)


def test_holm_is_over_each_statistic_and_family(table):
    for _, rows in table[table["p_value"].notna()].groupby(["statistic", "family"]):
        expected = multipletests(rows["p_value"], method="holm")[1]
        assert rows["p_adjusted"].to_numpy() == pytest.approx(expected, rel=2e-3)
        assert rows["significant"].astype(bool).tolist() == (expected < 0.05).tolist()


def test_a_family_has_only_its_own_comparisons(table):
    found = pick(table, "difference", family="main")
    assert len(found) == 5
    assert len(pick(table, "difference", family="counts")) == 1


def test_runs_with_no_seed_in_common_are_not_compared(table):
    row = declared(table, "difference", "few_shot").iloc[0]
    assert row["note"] == "no seed in common: not compared"
    assert row[["estimate", "low", "high", "p_value"]].isna().all()
    assert declared(table, "mcnemar", "few_shot").empty


def test_two_methods_that_never_disagree_have_a_note_and_no_interval(table):
    wanted = {"task": "topics", "method": "bridge", "family": "main"}
    row = only(table, "difference", **wanted)
    assert row["note"].startswith("0 disagreements: no interval; one seed")
    assert row[["low", "high"]].isna().all()
    assert (row["estimate"], row["p_value"]) == (0, 1)
    assert only(table, "mcnemar", **wanted)["p_value"] == 1
    assert only(table, "equivalence", **wanted)[["low", "p_value", "significant"]].isna().all()
    assert np.isnan(only(table, "detectable", **wanted)["estimate"])


def test_a_method_with_all_answers_wrong_has_an_interval_and_a_note(table):
    row = only(table, "accuracy", method="relay")
    assert (row["estimate"], row["low"]) == (0, 0)
    assert row["high"] == pytest.approx(100 * stats.norm.ppf(0.975) ** 2 / (N + stats.norm.ppf(0.975) ** 2), abs=0.01)
    assert row["note"] == "all answers wrong"


def test_one_seed_of_a_method_with_chance_is_noted(table):
    assert "one seed" in only(table, "accuracy", task="topics", method="bridge")["note"]
    assert pd.isna(only(table, "accuracy", task="topics", method="zero_shot")["note"])


def test_the_trend_is_the_slope_over_doublings(table):
    row = only(table, "trend")
    means = [np.mean([right.mean() for right in RUNS["movies", "bridge", k].values()]) for k in (8, 16)]
    assert row["estimate"] == pytest.approx(100 * (means[1] - means[0]), abs=1e-4)
    assert row["significant"] and row["note"] == "points a doubling, k = 8, 16"


def test_the_trend_of_one_seed_says_so():
    right = {k: np.arange(N) % 3 < k // 8 for k in (8, 16)}
    one = Study({Method("movies", "bridge", k): Answers({1: found}) for k, found in right.items()}, {"movies": 0.5})
    assert "; one seed: " in _trends(one, 200)[0]["note"]


def test_the_best_of_a_column_is_compared_with_all_others(table):
    rows = pick(table, "difference", family="best of table1, movies")
    assert set(zip(rows["method"], rows["soft_tokens"])) == {("bridge", 8)}
    assert set(zip(rows["versus"], rows["versus_soft_tokens"])) == {("bridge", 16), ("lora", 0), ("zero_shot", 0)}


def test_the_same_predictions_in_any_order_give_the_same_bytes(files, folder, table):
    compute(files[::-1], folder / "again.csv")
    assert (folder / "again.csv").read_bytes() == (folder / "statistics.csv").read_bytes()


def involves(row, task, method, count):
    return row["task"] == task and (
        (row["method"], row["soft_tokens"]) == (method, count)
        or (row["versus"], row["versus_soft_tokens"]) == (method, count)
        or (row["statistic"] == "trend" and row["method"] == method)
    )


def test_a_changed_prediction_changes_exactly_the_numbers_that_depend_on_it(tmp_path, table):
    files = write_study(tmp_path / "study", RUNS)
    changed = RUNS["movies", "lora", 0][2] ^ some_right(N, 5, 50)
    write_run(tmp_path / "study", "movies", "lora", 0, 2, changed)
    after = compute(files, tmp_path / "statistics.csv")
    columns = ["estimate", "low", "high", "p_value"]  # an adjusted p value depends on its whole family
    same = (table[columns] == after[columns]) | (table[columns].isna() & after[columns].isna())
    for row, unchanged in zip(table.to_dict("records"), same.all(axis=1)):
        depends = involves(row, "movies", "lora", 0) and row["seed"] != 1
        assert unchanged != depends, row


def test_runs_that_answered_other_examples_are_refused(tmp_path):
    files = [
        write_run(tmp_path, "movies", "bridge", 8, 1, some_right(20, 5)),
        write_run(tmp_path, "movies", "zero_shot", 0, 0, some_right(21, 5)),
    ]
    with pytest.raises(TelepathyError, match=r"zero_shot.* and .*bridge.* answer different test examples of movies"):
        compute(files, tmp_path / "statistics.csv")


def test_an_unparsed_answer_is_wrong(tmp_path):
    frame = predictions(some_right(20, 10))
    frame.loc[:3, "prediction"] = None
    path = write_run(tmp_path, "movies", "bridge", 8, 1, some_right(20, 10))
    answered(path, frame)
    assert only(compute([path], tmp_path / "statistics.csv"), "accuracy")["estimate"] == 30


def test_a_study_with_nothing_to_compare_has_its_accuracies(tmp_path):
    path = write_run(tmp_path, "movies", "bridge", 8, 1, some_right(20, 10))
    found = compute([path], tmp_path / "statistics.csv", comparisons=[])
    assert found["statistic"].tolist() == ["majority", "accuracy_run", "accuracy"]


METHODS = {
    "bridge": {"kind": "bridge"},
    "bridge_deep": {"kind": "bridge", "group": "ablation"},
    "zero_shot": {"kind": "zero_shot"},
    "prompt_tuning": {"kind": "prompt_tuning"},
    "published": {"kind": "text_relay", "group": "variant"},
}
STUDY = {
    "title": "A study",
    "sender": "a",
    "receiver": "a",
    "seeds": [1],
    "tasks": {"movies": {"soft_tokens": 8}, "r8": {"soft_tokens": 4}},
    "runs": [
        {"tasks": ["movies"], "methods": ["bridge", "prompt_tuning"], "soft_tokens": [4, 8]},
        {"tasks": ["r8"], "methods": ["bridge"], "soft_tokens": [16, 32]},
        {"tasks": ["movies", "r8"], "methods": ["zero_shot", "published"]},
        {"tasks": ["movies"], "methods": ["bridge_deep"]},
    ],
}


def config(**study):
    models = {"a": {"title": "A", "source": {"path": "a"}}}
    return {"study": "one", "models": models, "methods": METHODS, "studies": {"one": {**STUDY, **study}}}


def test_by_default_the_bridge_is_compared_with_each_group_of_methods():
    found = {tuple(pair.values()) for pair in comparisons_of(config(), "one")}
    assert found == {
        ("movies", "bridge", 8, "prompt_tuning", 8, "main"),
        ("movies", "bridge", 8, "zero_shot", 0, "main"),
        ("r8", "bridge", 16, "zero_shot", 0, "main"),
        ("movies", "bridge", 8, "published", 0, "variants"),
        ("r8", "bridge", 16, "published", 0, "variants"),
        ("movies", "bridge", 8, "bridge_deep", 8, "ablations"),
    }


def test_a_study_may_declare_its_own_comparisons():
    block = {"method": "prompt_tuning", "versus": ["zero_shot", "published"], "family": "mine"}
    found = [tuple(pair.values()) for pair in comparisons_of(config(comparisons=[block]), "one")]
    assert sorted(found) == [
        ("movies", "prompt_tuning", 8, "published", 0, "mine"),
        ("movies", "prompt_tuning", 8, "zero_shot", 0, "mine"),
    ]


def test_comparisons_without_a_bridge_are_none():
    only_zero_shot = [{"tasks": ["movies"], "methods": ["zero_shot", "published"]}]
    assert comparisons_of(config(runs=only_zero_shot), "one") == []


def test_settings_of_a_study_go_before_the_defaults():
    found = statistics_settings(config(equivalence_margin=5), "one")
    assert (found["equivalence_margin"], found["bootstrap_draws"]) == (5, 4000)


@pytest.mark.parametrize(
    "block, sentence",
    [
        ({"method": "nosuch"}, "no method 'nosuch'"),
        ({"method": "bridge", "versus": ["nosuch"]}, "no method 'nosuch'"),
        ({"method": "bridge", "groups": ["nosuch"]}, "'nosuch' is not one of"),
        ({"method": "bridge", "family": "best of all"}, "'best of all' does not match"),
    ],
)
def test_a_mistake_in_the_comparisons_is_named(block, sentence):
    with pytest.raises(TelepathyError, match=sentence):
        check_config(config(comparisons=[block]))
