import itertools
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from telepathy.analysis.estimates import (
    Estimate,
    _combined,
    detectable,
    equivalence,
    exact_mcnemar,
    holm,
    mean_share,
    slope,
    two_level_bootstrap,
    wilson,
)

DRAWS = 4000


def estimate(mean, error, df, n=500):
    return Estimate(mean=np.array(mean), error=np.array(error), df=np.array(df), n=n)


@pytest.mark.parametrize(
    "correct, n, low, high",
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals_are_those_of_newcombes_table(correct, n, low, high):
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3.
    assert wilson(correct, n) == pytest.approx((low, high), abs=5e-5)


def test_a_wilson_interval_with_few_degrees_of_freedom_solves_its_equation():
    low, high = wilson(30, 40, df=3)
    for end in (low, high):
        assert abs(0.75 - end) / math.sqrt(end * (1 - end) / 40) == pytest.approx(stats.t.ppf(0.975, 3))


def test_exact_mcnemar_is_that_of_the_worked_example_of_exact2x2():
    # Fay (2010), R Journal 2: 21 and 12 agree, 2 and 9 disagree, p = 0.06543.
    first = np.repeat([True, True, False, False], [21, 9, 2, 12])
    second = np.repeat([True, False, True, False], [21, 9, 2, 12])
    only_first, only_second, p = exact_mcnemar(first, second)
    assert (only_first, only_second) == (9, 2)
    assert p == pytest.approx(0.06543, abs=5e-6)


@pytest.mark.parametrize("only_first, only_second", [(0, 0), (1, 0), (3, 3), (5, 4), (40, 12)])
def test_exact_mcnemar_is_a_sign_test_and_at_most_one(only_first, only_second):
    first = np.repeat([True, False, True], [only_first, only_second, 10])
    second = np.repeat([False, True, True], [only_first, only_second, 10])
    counts = only_first, only_first + only_second
    expected = stats.binomtest(*counts).pvalue if counts[1] else 1.0
    assert exact_mcnemar(first, second)[2] == pytest.approx(expected)


def test_holm_is_that_of_a_table_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, none below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def two_way(values):
    """Error, and reach of the 95 % interval, from the mean squares of a two-way layout, summed in loops."""
    seeds, n = values.shape
    mean = values.mean()
    of_seed = [values[s].mean() for s in range(seeds)]
    of_example = [values[:, i].mean() for i in range(n)]
    rest = sum(
        (values[s, i] - of_seed[s] - of_example[i] + mean) ** 2 for s, i in itertools.product(range(seeds), range(n))
    )
    squares = {
        "seeds": n * sum((one - mean) ** 2 for one in of_seed) / (seeds - 1),
        "examples": seeds * sum((one - mean) ** 2 for one in of_example) / (n - 1),
        "rest": rest / ((seeds - 1) * (n - 1)),
    }
    parts = {name: square / (seeds * n) for name, square in squares.items()}
    variance = parts["seeds"] + parts["examples"] - parts["rest"]
    freedom = {"seeds": seeds - 1, "examples": n - 1, "rest": (seeds - 1) * (n - 1)}
    satterthwaite = variance**2 / sum(parts[name] ** 2 / freedom[name] for name in parts)
    banerjee = {"seeds": parts["seeds"], "examples": parts["examples"] - parts["rest"]}
    sure = stats.f.cdf(squares["seeds"] / squares["rest"], freedom["seeds"], freedom["rest"])
    squared = sure * sum(part * stats.t.ppf(0.975, freedom[name]) ** 2 for name, part in banerjee.items())
    squared += (1 - sure) * stats.t.ppf(0.975, satterthwaite) ** 2 * variance
    return math.sqrt(variance), math.sqrt(squared)


def answers(rng, seeds, n, level, between=0.4):
    """Right and wrong answers whose level varies with the seed and with the example."""
    odds = level + between * rng.normal(size=(seeds, 1)) + rng.normal(size=(1, n))
    return (odds + rng.normal(size=(seeds, n)) > 0).astype(float)


@pytest.mark.parametrize("seeds, n", [(3, 200), (5, 120), (8, 60)])
def test_the_error_of_the_bootstrap_is_that_of_the_two_way_layout(seeds, n):
    rng = np.random.default_rng(seeds)
    values = answers(rng, seeds, n, 1.0) - answers(rng, seeds, n, 0.4)
    error, reach = two_way(values)
    found = two_level_bootstrap(values, 40_000)
    assert found.mean == pytest.approx(values.mean())
    assert found.error == pytest.approx(error, rel=0.03)
    assert found.interval() == pytest.approx((values.mean() - reach, values.mean() + reach), abs=0.03 * reach)


@pytest.fixture
def one_seed():
    counts = [200, 30, 18, 52]
    return np.repeat([1.0, 1, 0, 0], counts), np.repeat([1.0, 0, 1, 0], counts)


def test_with_one_seed_the_difference_is_a_paired_t_test(one_seed):
    test = stats.ttest_rel(*one_seed)
    found = two_level_bootstrap(np.subtract(*one_seed)[None], 40_000)
    assert found.p_value() == pytest.approx(test.pvalue, rel=0.1)
    assert found.interval() == pytest.approx(tuple(test.confidence_interval()), abs=2e-3)


def test_equivalence_is_that_of_two_one_sided_paired_t_tests(one_seed):
    expected = ttost_paired(*one_seed, -0.08, 0.08)[0]
    found = two_level_bootstrap(np.subtract(*one_seed)[None], 40_000)
    assert 0.001 < expected < 0.5
    assert equivalence(found, 0.08) == pytest.approx(expected, rel=0.1)


def test_a_difference_as_large_as_the_margin_is_not_equivalent():
    assert equivalence(estimate(2.0, 0.5, 50), 2.0) == pytest.approx(0.5)
    assert equivalence(estimate(-2.0, 0.5, 50), 2.0) == pytest.approx(0.5)


@pytest.mark.parametrize("df", [3, 8, 80, 499])
def test_a_detectable_difference_is_found_with_80_percent_power(df):
    shift = detectable(estimate(0.0, 1.3, df)) / 1.3
    rng = np.random.default_rng(df)
    found = (rng.normal(size=200_000) + shift) / np.sqrt(rng.chisquare(df, size=200_000) / df)
    assert (np.abs(found) > stats.t.ppf(0.975, df)).mean() == pytest.approx(0.8, abs=0.025)


def test_a_detectable_difference_is_that_of_statsmodels_for_many_examples():
    expected = TTestPower().solve_power(nobs=500, alpha=0.05, power=0.8) * math.sqrt(500)
    assert detectable(estimate(0.0, 1.0, 499)) == pytest.approx(expected, rel=2e-3)


def test_where_nothing_differs_there_is_no_error_and_no_significance():
    found = two_level_bootstrap(np.zeros((3, 50)), 500)
    assert (found.mean, found.error, found.p_value()) == (0, 0, 1)
    assert math.isnan(equivalence(found, 2.0))
    assert math.isnan(detectable(found))


def test_where_all_examples_differ_alike_the_p_value_is_that_of_a_sign_test():
    found = two_level_bootstrap(np.ones((1, 20)), 500)
    assert found.p_value() == pytest.approx(stats.binomtest(20, 20).pvalue)


def test_the_same_values_give_the_same_draws():
    values = answers(np.random.default_rng(0), 3, 80, 0.5)
    first, second = two_level_bootstrap(values, 300), two_level_bootstrap(values.copy(), 300)
    assert (first.error, first.df) == (second.error, second.df)


def test_studies_in_one_array_are_the_studies_alone():
    values = answers(np.random.default_rng(0), 3, 80, 0.5)
    both = two_level_bootstrap(np.stack([values, 1 - values]), 300)
    assert both.mean[0] == pytest.approx(1 - both.mean[1])
    assert both.error[0] == pytest.approx(float(two_level_bootstrap(values, 300).error))


def test_the_interval_of_one_seed_is_wilsons():
    right = np.repeat([1, 0], [81, 182])[None]
    assert mean_share(right, DRAWS)[1:] == pytest.approx(wilson(81, 263))


@pytest.mark.parametrize("value", [0, 1])
def test_answers_that_are_all_alike_have_wilsons_interval(value):
    share, low, high = mean_share(np.full((3, 20), value), DRAWS)
    assert share == value
    assert high - low == pytest.approx(0.1611, abs=1e-4)


def test_seeds_that_agree_in_every_answer_say_no_more_than_one():
    right = np.repeat([1, 0], [400, 100])
    one, three = mean_share(right[None], DRAWS), mean_share(np.stack([right] * 3), DRAWS)
    assert three == pytest.approx(one, abs=2e-3)


def test_seeds_that_disagree_widen_the_interval():
    alike, apart = (
        [np.repeat([1, 0], [count, 200 - count]) for count in counts] for counts in ([160] * 3, (140, 160, 180))
    )
    widths = [np.diff(mean_share(np.stack(right), DRAWS)[1:])[0] for right in (alike, apart)]
    assert widths[1] > 2 * widths[0]


def test_the_slope_is_that_of_a_line_through_each_seed():
    counts = [4, 8, 32]
    right = np.random.default_rng(2).integers(0, 2, size=(3, 4, 25)).astype(float)
    expected = [np.polyfit(np.log2(counts), right[:, seed].mean(-1), 1)[0] for seed in range(4)]
    assert slope(right, counts).mean(-1) == pytest.approx(expected)


STUDIES = 2000


def exact_coverage(seeds, rest, between):
    """Coverage of 95 % intervals of many examples, by the normal and chi-squared distributions.

    Without sampling of examples in it: variances of the rest and of the examples are known and sum to 1 where seeds
    do not vary, ``between`` is what seeds add, and the mean square of seeds is chi-squared over its freedom.
    """
    quantiles = stats.chi2.ppf((np.arange(1000) + 0.5) / 1000, seeds - 1) / (seeds - 1)
    variance = np.broadcast_arrays((rest + between) * quantiles, 1.0, rest)
    found = _combined(np.zeros(1000), *variance, seeds, 100_000)
    true = math.sqrt(1 + between)
    return (2 * stats.norm.cdf(found.interval()[1] / true) - 1).mean()


@pytest.mark.parametrize("between", [0, 0.1, 0.3, 1, 3, 10, 100])
@pytest.mark.parametrize("rest", [0.1, 0.4, 0.8])
@pytest.mark.parametrize("seeds, low, high", [(2, 0.93, 0.983), (3, 0.945, 0.974), (5, 0.95, 0.97), (10, 0.95, 0.97)])
def test_intervals_cover_what_they_should_by_their_distribution(seeds, rest, between, low, high):
    assert low <= exact_coverage(seeds, rest, between) <= high


def simulated(rng, seeds, n, between):
    """Differences of two methods in many studies, ``[studies, seeds, n]``, and the true one in closed form.

    Both methods find the same examples hard, each some more; the level of each varies with its seed.
    """
    shared = rng.normal(size=(STUDIES, 1, n))
    right, true = [], []
    for level in (1.2, 0.8):
        latent = (
            level + shared + 0.5 * rng.normal(size=(STUDIES, 1, n)) + between * rng.normal(size=(STUDIES, seeds, 1))
        )
        right.append(latent + rng.normal(size=(STUDIES, seeds, n)) > 0)
        true.append(stats.norm.cdf(level / math.sqrt(1 + 1 + 0.25 + between**2)))
    return right[0].astype(float) - right[1], true[0] - true[1]


@pytest.mark.parametrize(
    "seeds, n, between",
    [
        *[(1, 200, 0.0), (2, 400, 0.1), (2, 400, 0.3), (2, 150, 0.25), (3, 300, 0.0), (3, 400, 0.1), (3, 400, 0.3)],
        *[(3, 150, 0.25), (5, 200, 0.2), (10, 150, 0.2)],
    ],
)
def test_95_percent_intervals_cover_the_truth_in_93_to_97_percent_of_studies(seeds, n, between):
    values, true = simulated(np.random.default_rng(seeds * n), seeds, n, between)
    low, high = two_level_bootstrap(values, 4000).interval()
    assert 0.93 <= ((low <= true) & (true <= high)).mean() <= 0.97


def test_percentiles_of_three_seeds_would_cover_too_little():
    # Why there are t quantiles: the plain bootstrap over 3 seeds.
    values, true = simulated(np.random.default_rng(9), 3, 200, 0.4)
    rng = np.random.default_rng(1)
    means = []
    for _ in range(400):
        picked = values[:, rng.integers(0, 3, 3)][:, :, rng.integers(0, 200, 200)]
        means.append(picked.mean((1, 2)))
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    assert ((low <= true) & (true <= high)).mean() < 0.9
