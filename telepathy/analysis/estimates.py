"""Intervals and tests for accuracies that vary with the seed and with the test examples.

The seeds of a method answer the same examples, and two methods answer them too: an observation
belongs to a seed and to an example, and both were drawn. Resampling both (the crossed, two-level
bootstrap) counts what varies with neither alone three times, and takes the spread of three seeds
for a third smaller than it is (Owen 2007, "The pigeonhole bootstrap", Annals of Applied
Statistics 1). So three kinds of draws give three variances, which are put together without those
two biases, and t quantiles with few degrees of freedom take the place of percentiles: three seeds
hold no 2.5 % percentile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial

import numpy as np
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

ALPHA = 0.05
POWER = 0.8
SEED = 0


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and examples, and how well it is known.

    Attributes:
        mean: over seeds and examples, ``[...]``.
        error: standard error over new seeds and new examples, ``[...]``; of new examples only where there is one seed.
        df: degrees of freedom of the t distribution that gives the 95 % interval, ``[...]``.
        n: number of examples; no test of so few gives a p value below that of the sign test, 2 / 2^n.
    """

    mean: np.ndarray
    error: np.ndarray
    df: np.ndarray
    n: int

    def interval(self, confidence: float = 1 - ALPHA) -> tuple[np.ndarray, np.ndarray]:
        """Interval of the mean, ends ``[...]``."""
        reach = stats.t.ppf((1 + confidence) / 2, self.df) * self.error
        return self.mean - reach, self.mean + reach

    def p_value(self) -> np.ndarray:
        """Two-sided p value of a mean of zero; 1 where nothing differs."""
        with np.errstate(divide="ignore", invalid="ignore"):
            p = 2 * stats.t.sf(np.abs(self.mean) / self.error, self.df)
        return np.where(self.mean == 0, 1.0, np.maximum(p, 2.0 ** (1 - self.n)))


@lru_cache(maxsize=16)
def _shares(units: int, draws: int, seed: int) -> np.ndarray:
    """Share of every unit in a resample of as many units, ``[draws, units]``; rows sum to 1."""
    return np.random.default_rng([seed, units]).multinomial(units, np.full(units, 1 / units), size=draws) / units


def two_level_bootstrap(values: np.ndarray, draws: int, seed: int = SEED) -> Estimate:
    """Mean of values of seeds and examples, with its error over new seeds and new examples.

    Each draw resamples seeds (outer level) and examples (inner level; the same for all seeds and all
    methods, so that differences stay paired). The variances over draws of seeds alone, examples
    alone, and what is left of both together estimate the three mean squares of the two-way layout.

    Args:
        values: one value a seed and example, ``[..., seeds, n]``: 0 or 1 for right answers, their
            difference for two methods, or any contrast.
        draws: number of resamples.
        seed: of the resampling; the same draws serve every call with as many seeds and examples.

    Returns:
        Mean, error and degrees of freedom, each ``[...]``.
    """
    seeds, n = values.shape[-2:]
    outer, inner = _shares(seeds, draws, seed), _shares(n, draws, seed + 1)
    mean = values.mean((-2, -1))
    by_seed = values @ inner.T
    only_seeds = values.mean(-1) @ outer.T - mean[..., None]
    only_examples = by_seed.mean(-2) - mean[..., None]
    both = (by_seed * outer.T).sum(-2) - mean[..., None]
    over_seeds, over_examples = seeds / max(seeds - 1, 1), n / max(n - 1, 1)
    seed_part = (only_seeds**2).mean(-1) * over_seeds
    example_part = (only_examples**2).mean(-1) * over_examples
    rest = ((both - only_seeds - only_examples) ** 2).mean(-1) * over_seeds * over_examples
    return _combined(mean, seed_part, example_part, rest, seeds, n)


def _combined(
    mean: np.ndarray, seed_part: np.ndarray, example_part: np.ndarray, rest: np.ndarray, seeds: int, n: int
) -> Estimate:
    """Put the mean squares of the two-way layout together.

    Satterthwaite's degrees of freedom (1946) serve where seeds vary little; where they vary much and
    are few, their intervals cover too little, because a spread that looks small by chance also
    looks well known. Banerjee's sum of squared reaches (1960) covers at least 95 %, and too much
    where seeds vary little. The squared interval lies between the two: its share of Banerjee's is
    how sure the F test of seeds against the rest is that seeds vary.
    """
    few, many = max(seeds - 1, 1), max(n - 1, 1)
    variance, df = _satterthwaite(seed_part, example_part, rest, few, many)
    quantile = partial(stats.t.ppf, 1 - ALPHA / 2)
    satterthwaite = quantile(df) ** 2 * variance
    banerjee = quantile(few) ** 2 * seed_part + quantile(many) ** 2 * np.maximum(example_part - rest, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        sure = np.nan_to_num(stats.f.cdf(seed_part / rest, few, few * many))
        reach = np.sqrt((sure * banerjee + (1 - sure) * satterthwaite) / variance)
    return Estimate(mean=mean, error=np.sqrt(variance), df=np.where(variance > 0, _freedom(reach), many), n=n)


def _satterthwaite(
    seed_part: np.ndarray, example_part: np.ndarray, rest: np.ndarray, few: int, many: int
) -> tuple[np.ndarray, np.ndarray]:
    """Variance of the mean and its degrees of freedom.

    Seeds and examples vary by zero at least. A difference of mean squares that may not fall below
    zero is too large on average where seeds do not vary: the floor is lower by that bias, the mean
    of what a chi-squared variable over its degrees of freedom exceeds 1 by.
    """
    bias = stats.chi2.sf(few, few + 2) - stats.chi2.sf(few, few)
    variance = np.maximum.reduce([seed_part + example_part - rest, seed_part, example_part - bias * rest])
    variance = np.where(variance < 1e-24, 0.0, variance)  # rounding of what does not vary
    spread = seed_part**2 / few + example_part**2 / many + rest**2 / (few * many)
    with np.errstate(divide="ignore", invalid="ignore"):
        df = np.where(variance > 0, variance**2 / spread, many)
    return variance, np.maximum(df, 1.0)


def _freedom(quantile: np.ndarray) -> np.ndarray:
    """Degrees of freedom, 1 to a million, whose two-sided 95 % t quantile is nearest to the given ones."""
    freedom, quantiles = _t_table()
    return np.interp(-quantile, -quantiles, freedom)


@cache
def _t_table() -> tuple[np.ndarray, np.ndarray]:
    freedom = np.geomspace(1, 1e6, 4000)
    return freedom, stats.t.ppf(1 - ALPHA / 2, freedom)


def wilson(correct: float, n: float, df: float = np.inf) -> tuple[float, float]:
    """95 % Wilson score interval of a share (Wilson 1927), ends between 0 and 1.

    Args:
        correct: number of right answers; any number of an effective sample.
        n: number of answers.
        df: degrees of freedom, if t quantiles take the place of normal ones.
    """
    alpha = 2 * stats.norm.sf(stats.t.ppf(1 - ALPHA / 2, df))
    low, high = proportion_confint(correct, n, alpha=alpha, method="wilson")
    return float(low), float(high)


def mean_share(right: np.ndarray, draws: int) -> tuple[float, float, float]:
    """Mean accuracy over seeds and its 95 % interval, shares between 0 and 1.

    The interval is Wilson's for the number of examples that would give the error of
    `two_level_bootstrap` (Dean and Pagano 2015), so that it stays between 0 and 1 and does not
    shrink to a point where all answers are right or wrong.

    Args:
        right: 1 for a right answer, ``[seeds, n]``.
        draws: number of resamples.
    """
    seeds, n = right.shape
    share = float(right.mean())
    if seeds == 1:
        return (share, *wilson(right.sum(), n))
    found = two_level_bootstrap(right.astype(float), draws)
    if found.error == 0:
        return (share, *wilson(share * n, n))
    effective = min(share * (1 - share) / float(found.error) ** 2, n * seeds)
    return (share, *wilson(share * effective, effective, float(found.df)))


def exact_mcnemar(first: np.ndarray, second: np.ndarray) -> tuple[int, int, float]:
    """Exact two-sided McNemar test of two methods on the same examples, at most 1.

    Args:
        first: whether the first method is right, ``[n]``.
        second: the same of the second, ``[n]``.

    Returns:
        How often only the first is right, how often only the second, and the p value.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    table = [[int((first & second).sum()), only_first], [only_second, int((~first & ~second).sum())]]
    return only_first, only_second, float(mcnemar(table, exact=True).pvalue)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjust the p values of one family (Holm 1979)."""
    return multipletests(p_values, alpha=ALPHA, method="holm")[1]


def equivalence(found: Estimate, margin: float) -> float:
    """P value of two one-sided tests of a difference of at least ``margin`` (Schuirmann 1987).

    Where nothing varies there is nothing to test with, and the value is not a number.
    """
    if found.error == 0:
        return float("nan")
    below = stats.t.sf((found.mean + margin) / found.error, found.df)
    above = stats.t.cdf((found.mean - margin) / found.error, found.df)
    return float(max(below, above))


def detectable(found: Estimate) -> float:
    """Smallest true difference that a two-sided test at 5 % finds with 80 % power (Bloom 1995).

    In the unit of the estimate, from its error and degrees of freedom; not a number where nothing varies.
    """
    if found.error == 0:
        return float("nan")
    errors = stats.t.ppf(1 - ALPHA / 2, found.df) + stats.t.ppf(POWER, found.df)
    return float(errors * found.error)


def slope(right: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Least-squares slope over log2 of the soft-token count, one value a seed and example.

    Args:
        right: 1 for a right answer, ``[counts, seeds, n]``.
        counts: numbers of soft tokens, two at least.

    Returns:
        ``[seeds, n]``; its mean is the change of the accuracy when the count doubles.
    """
    doublings = np.log2(counts)
    centred = doublings - doublings.mean()
    return np.tensordot(centred / (centred**2).sum(), right, axes=1)
