"""``statistics.csv`` of a study: every number that its tables, figures and claims rest on, from predictions alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from telepathy.analysis import estimates
from telepathy.analysis.estimates import Estimate, two_level_bootstrap
from telepathy.analysis.predictions import read_predictions
from telepathy.analysis.rows import COLUMNS, ORDER
from telepathy.errors import TelepathyError
from telepathy.files import write_csv

Row = dict[str, Any]


class Method(NamedTuple):
    """A method at one number of soft tokens, on one task."""

    task: str
    method: str
    soft_tokens: int


@dataclass(frozen=True)
class Answers:
    """What the runs of one method got right: seed -> right or wrong of each example ``[n]``, in one order a task."""

    right: Mapping[int, np.ndarray]

    def stacked(self, seeds: Sequence[int] | None = None) -> np.ndarray:
        """Right answers of some seeds, ``[seeds, n]``; a method without chance (seed 0 alone) is every seed's."""
        chosen = sorted(self.right) if seeds is None else seeds
        return np.stack([self.right[0 if self.chanceless else seed] for seed in chosen])

    @property
    def chanceless(self) -> bool:
        """Whether the method ran once because there is no chance in it."""
        return list(self.right) == [0]


@dataclass(frozen=True)
class Study:
    """All answers of a study, and the share of the most frequent answer of each task's examples."""

    answers: Mapping[Method, Answers]
    majority: Mapping[str, float]


def read_study(predictions: Iterable[str | Path]) -> Study:
    """Read ``…/runs/<task>/<method>/k<k>/seed<seed>/predictions.parquet`` files.

    Raises:
        TelepathyError: if two runs of a task answered different examples, naming both.
    """
    found: dict[Method, dict[int, np.ndarray]] = {}
    tasks: dict[str, tuple[Path, pd.DataFrame]] = {}
    for path in sorted(map(Path, predictions)):
        task, method, k, seed = path.parts[-5:-1]
        frame = read_predictions(path)[["id", "label", "prediction"]].set_index("id").sort_index()
        first, reference = tasks.setdefault(task, (path, frame))
        if not reference.index.equals(frame.index):
            raise TelepathyError(
                f"{path} and {first} answer different test examples of {task}: run again the one that was made "
                "with another number of examples."
            )
        right = (frame["prediction"] == frame["label"]).to_numpy(dtype=bool)
        found.setdefault(Method(task, method, int(k[1:])), {})[int(seed[4:])] = right
    majority = {task: frame["label"].value_counts(normalize=True).max() for task, (_, frame) in tasks.items()}
    return Study({method: Answers(right) for method, right in sorted(found.items())}, majority)


def compute_statistics(
    predictions: Iterable[str | Path],
    target: str | Path,
    comparisons: Sequence[Mapping[str, Any]],
    columns: Mapping[str, Sequence[str]],
    margin: float,
    draws: int,
) -> pd.DataFrame:
    """Write ``statistics.csv``.

    Rows by ``statistic``: ``majority`` (share of the most frequent answer), ``accuracy_run`` (Wilson interval
    a run), ``accuracy`` (mean over seeds), ``spread`` (standard deviation over seeds), ``difference`` (method
    minus versus, over the seeds that both have), ``mcnemar`` (exact, a matched seed), ``equivalence`` (two
    one-sided tests, 90 % interval), ``detectable`` (smallest difference found with 80 % power) and ``trend``
    (change when the number of soft tokens doubles). Intervals are at 95 % unless said otherwise, p values are
    adjusted by Holm within a family of one statistic.

    Args:
        predictions: prediction files of the study.
        target: csv to write.
        comparisons: entries of `telepathy.analysis.comparisons.comparisons_of`.
        columns: table -> methods that stand in it; within each task the best of them is compared with every
            other, in a family ``best of <table>, <task>``.
        margin: of equivalence, in points.
        draws: of the bootstrap.

    Returns:
        The table. Accuracies are in percent, differences and errors in points; what does not apply is empty.
    """
    study = read_study(predictions)
    pairs = [(_side(entry, ""), _side(entry, "versus"), str(entry["family"])) for entry in comparisons]
    pairs = [pair for pair in pairs if pair[0] in study.answers and pair[1] in study.answers]
    rows = [*_majorities(study), *_runs(study), *_means(study, draws), *_trends(study, draws)]
    for first, second, family in pairs:
        pair = _pair(study, first, second, family, draws)
        rows += [_difference(pair), *_details(pair, margin)]
    rows += _bests(study, columns, draws)
    table = _rounded(_adjusted(pd.DataFrame(rows).reindex(columns=COLUMNS)))
    write_csv(target, table)
    return table


def _side(entry: Mapping[str, Any], side: str) -> Method:
    count = f"{side}_soft_tokens".lstrip("_")
    return Method(entry["task"], entry[side or "method"], int(entry[count]))


def _majorities(study: Study) -> list[Row]:
    sizes = {method.task: answers.stacked().shape[1] for method, answers in study.answers.items()}
    return [
        {"statistic": "majority", "task": task, "n": sizes[task], "estimate": 100 * share}
        for task, share in study.majority.items()
    ]


def _row(statistic: str, method: Method, n: int, **values: Any) -> Row:
    return {"statistic": statistic, **method._asdict(), "n": n, **values}


def _runs(study: Study) -> list[Row]:
    rows = []
    for method, answers in study.answers.items():
        for seed, right in answers.right.items():
            low, high = estimates.wilson(right.sum(), len(right))
            shares = {"estimate": 100 * right.mean(), "low": 100 * low, "high": 100 * high}
            rows.append(_row("accuracy_run", method, len(right), seed=seed, seeds=1, **shares, note=_extreme(right)))
    return rows


def _means(study: Study, draws: int) -> list[Row]:
    rows = []
    for method, answers in study.answers.items():
        right = answers.stacked()
        seeds, n = right.shape
        share, low, high = estimates.mean_share(right, draws)
        values = {"estimate": 100 * share, "low": 100 * low, "high": 100 * high}
        note = _notes(_extreme(right), _one_seed([answers], seeds))
        rows.append(_row("accuracy", method, n, seeds=seeds, **values, note=note))
        if seeds > 1:
            rows.append(_row("spread", method, n, seeds=seeds, estimate=100 * right.mean(1).std(ddof=1)))
    return rows


def _extreme(right: np.ndarray) -> str:
    return "all answers wrong" if not right.any() else "all answers right" if right.all() else ""


def _one_seed(sides: Sequence[Answers], seeds: int) -> str:
    chance = seeds == 1 and not all(side.chanceless for side in sides)
    return "one seed: the interval leaves the spread over seeds out" if chance else ""


def _notes(*notes: str) -> str:
    return "; ".join(filter(None, notes))


@dataclass(frozen=True)
class Pair:
    """Two methods on the examples of one task, over the seeds that both have."""

    first: Method
    second: Method
    family: str
    seeds: Sequence[int]
    right: Sequence[np.ndarray]
    found: Estimate
    note: str

    def row(self, statistic: str, **values: Any) -> Row:
        """A row of the two, with what all of their rows have."""
        names = {"versus": self.second.method, "versus_soft_tokens": self.second.soft_tokens, "family": self.family}
        return _row(statistic, self.first, self.found.n, **{"seeds": len(self.seeds), **names, **values})


def _pair(study: Study, first: Method, second: Method, family: str, draws: int) -> Pair:
    sides = study.answers[first], study.answers[second]
    seeds = _shared(*sides)
    if not seeds:
        unknown = np.array(np.nan)
        nothing = Estimate(mean=unknown, error=unknown, df=unknown, n=sides[0].stacked().shape[1])
        return Pair(first, second, family, seeds, [], nothing, "no seed in common: not compared")
    right = [side.stacked(seeds) for side in sides]
    found = two_level_bootstrap(100 * (right[0].astype(float) - right[1]), draws)
    left = {*sides[0].right, *sides[1].right} - {*seeds, 0}
    some = f"over the seeds that both have ({', '.join(map(str, seeds))})" if left else ""
    return Pair(first, second, family, seeds, right, found, _notes(_one_seed(sides, len(seeds)), some))


def _shared(first: Answers, second: Answers) -> list[int]:
    """Seeds over which two methods are compared: those of both, or of the one that has chance in it."""
    if first.chanceless or second.chanceless:
        return sorted(second.right if first.chanceless else first.right)
    return sorted(set(first.right) & set(second.right))


def _difference(pair: Pair) -> Row:
    return pair.row("difference", **_tested(pair.found), note=_notes(_degenerate(pair.found), pair.note))


def _details(pair: Pair, margin: float) -> list[Row]:
    """What a declared comparison has besides its difference."""
    if not pair.seeds:
        return []
    found, flat = pair.found, _degenerate(pair.found)
    low, high = found.interval(1 - 2 * estimates.ALPHA)
    bounds = {"low": low, "high": high} if found.error else {}
    p_value, note = estimates.equivalence(found, margin), _notes(f"margin {margin:g} points, 90 % interval", flat)
    equal = pair.row("equivalence", estimate=found.mean, **bounds, p_value=p_value, note=note)
    note = _notes("80 % power at 5 %, two-sided", flat)
    smallest = pair.row("detectable", estimate=estimates.detectable(found), note=note)
    return [*(_mcnemar(pair, place) for place in range(len(pair.seeds))), equal, smallest]


def _mcnemar(pair: Pair, place: int) -> Row:
    one, other = (side[place] for side in pair.right)
    only_first, only_second, p = estimates.exact_mcnemar(one, other)
    counts = f"only {pair.first.method} right: {only_first}, only {pair.second.method} right: {only_second}"
    note = _notes(counts, "" if only_first + only_second else "0 disagreements")
    gap = 100 * (only_first - only_second) / len(one)
    return pair.row("mcnemar", seed=pair.seeds[place], seeds=1, estimate=gap, p_value=p, note=note)


def _tested(found: Estimate) -> Row:
    low, high = found.interval()
    bounds = {"low": low, "high": high} if found.error else {}
    return {"estimate": found.mean, **bounds, "p_value": found.p_value()}


def _degenerate(found: Estimate) -> str:
    if found.error:
        return ""
    return "0 disagreements: no interval" if found.mean == 0 else "nothing varies: no interval"


def _bests(study: Study, columns: Mapping[str, Sequence[str]], draws: int) -> list[Row]:
    """The best method of every column of a table against the column's others."""
    rows = []
    for table, methods in columns.items():
        for task in study.majority:
            column = [one for one in study.answers if one.task == task and one.method in methods]
            ranked = sorted(column, key=lambda one: -study.answers[one].stacked().mean())
            family = f"best of {table}, {task}"
            rows += [_difference(_pair(study, ranked[0], other, family, draws)) for other in ranked[1:]]
    return rows


def _trends(study: Study, draws: int) -> list[Row]:
    rows = []
    for task, method in sorted({(one.task, one.method) for one in study.answers}):
        ladder = [one for one in study.answers if one.task == task and one.method == method]
        seeds = sorted(set.intersection(*(set(study.answers[one].right) for one in ladder)))
        if len(ladder) < 2 or not seeds:
            continue
        counts = [one.soft_tokens for one in ladder]
        right = np.stack([study.answers[one].stacked(seeds) for one in ladder]).astype(float)
        found = two_level_bootstrap(100 * estimates.slope(right, counts), draws)
        seeded = _one_seed([study.answers[one] for one in ladder], len(seeds))
        note = _notes(f"points a doubling, k = {', '.join(map(str, counts))}", seeded, _degenerate(found))
        row = _row("trend", Method(task, method, 0), found.n, seeds=len(seeds), **_tested(found), note=note)
        rows.append({**row, "soft_tokens": np.nan, "family": "trend"})
    return rows


def _adjusted(table: pd.DataFrame) -> pd.DataFrame:
    """Holm within each statistic and family, and the order of the file."""
    table = table.astype(dict.fromkeys(("estimate", "low", "high", "p_value"), float))
    families = table[table["p_value"].notna()].groupby(["statistic", "family"])["p_value"]
    table["p_adjusted"] = families.transform(lambda p_values: estimates.holm(p_values.to_numpy(dtype=float)))
    significant = table["p_adjusted"] < estimates.ALPHA
    table["significant"] = significant.astype(object).where(table["p_adjusted"].notna(), None)
    table["statistic"] = pd.Categorical(table["statistic"], ORDER, ordered=True)
    keys = ["statistic", "task", "method", "soft_tokens", "versus", "versus_soft_tokens", "family", "seed"]
    return table.sort_values(keys, na_position="first", ignore_index=True)


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Four digits after the point, four of a p value, whole counts."""
    for name in ("soft_tokens", "seed", "versus_soft_tokens", "n", "seeds"):
        table[name] = table[name].astype("Int64")
    for name in ("estimate", "low", "high"):
        table[name] = table[name].round(4) + 0.0  # no negative zero
    for name in ("p_value", "p_adjusted"):
        table[name] = table[name].map(lambda p: float(f"{p:.4g}"))
    table["note"] = table["note"].replace("", np.nan)
    return table
