"""Tables of what was concluded and what it cost: soft tokens, seeds, statistics, claims, costs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from telepathy.analysis.claims import NOT_TESTED, VERDICTS
from telepathy.analysis.rows import read_statistics
from telepathy.files import write_csv
from telepathy.report.tables import Cell, Head, Table, number, wide

Row = dict[str, Any]
PAIR = ["task", "method", "soft_tokens", "versus", "versus_soft_tokens", "family"]
INTERVAL = "95 % intervals and p values by a paired bootstrap over seeds and examples"
TOKENS = (
    "Accuracy in percent by the number k of soft tokens, mean over seeds. “Trend” is the change in points when k "
    f"doubles (least squares over log2 k). {INTERVAL}; p values of trends adjusted by Holm over all of them."
)
SEEDS = (
    "Accuracy in percent over seeds (std in points). Probe: the linear probe of the same sender at its best layer, "
    "chosen on dev. Collapsed: seeds less than half of the way from the majority share to the probe."
)
COMPARISONS = (
    f"Differences in accuracy, in points. {INTERVAL}; p values adjusted by Holm within a family ({{families}}). "
    "McNemar: matched seeds whose exact two-sided test is significant after Holm, of all. Equal: two one-sided "
    "tests within {margin:g} points (Holm). Detectable: smallest true difference found with 80 % power at 5 %. "
    "A dash: nothing to compute from (no disagreement, or no seed in common). With one seed the interval leaves "
    "the spread over seeds out."
)
CLAIMS = (
    "Claims of the publication: {counts}. On the same scale (its models and data) a number is reproduced if it lies "
    "within {margin:g} points of the 95 % interval (speed: within 10 %), and an artefact of the protocol if it does so "
    "only with the publication's settings. On a different scale only directions are tested: above the majority share, "
    "or not. Sentences are tested by differences that are significant after Holm, and are artefacts if they hold only "
    "against the publication's version of a baseline. Accuracies in percent, differences in points."
)
COSTS = (
    "Machine time by rule, summed over the jobs that Snakemake measured; memory is the largest resident set of a job. "
    "CPU time and memory are sampled and lack up to the last 30 seconds of a job. "
)


def _records(frame: pd.DataFrame) -> list[Row]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _number(value: float, digits: int = 1) -> str:
    return "--" if pd.isna(value) else f"{value:.{digits}f}"


def interval_text(row: Mapping[Any, Any]) -> str:
    """An interval in points, a dash for none."""
    return "--" if pd.isna(row["low"]) else f"{row['low']:.1f} to {row['high']:.1f}"


def p_text(value: float) -> str:
    """A p value, a dash for none."""
    return "--" if pd.isna(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _of(frame: pd.DataFrame, statistic: str) -> pd.DataFrame:
    return frame[frame["statistic"] == statistic]


def token_rows(statistics: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every method that a study ran with several numbers of soft tokens, and its trend.

    Returns:
        Rows of ``statistics.csv``: the accuracies of each task and method, then its trend.
    """
    trends = _of(statistics, "trend")
    parts = []
    for row in _records(trends):
        own = (statistics["task"] == row["task"]) & (statistics["method"] == row["method"])
        parts += [_of(statistics[own], "accuracy"), _of(statistics[own], "trend")]
    columns = ["task", "method", "statistic", "soft_tokens", "n", "seeds", "estimate", "low", "high"]
    table = pd.concat(parts) if parts else trends
    return table[[*columns, "p_adjusted", "note"]].reset_index(drop=True)


def write_token_table(
    statistics: str | Path,
    tasks: Mapping[str, str],
    methods: Mapping[str, str],
    name: str,
    tex: str | Path,
    csv: str | Path,
    html: str | Path,
) -> None:
    """Write the accuracy at every number of soft tokens.

    Args:
        statistics: path of ``statistics.csv``.
        tasks: task -> title.
        methods: method -> title.
        name: the table's name.
        tex: LaTeX file to write.
        csv: csv file to write.
        html: HTML fragment to write.
    """
    frame = token_rows(read_statistics(statistics))
    heads = [
        Head("Task", wide(0.18)),
        Head("Method", wide(0.25)),
        *map(number, ("k", "n", "Seeds", "Accuracy", "95 % interval", "p (Holm)")),
    ]
    rows = [_token_cells(row, tasks, methods) for row in _records(frame)]
    write_csv(csv, frame)
    Table(name=name, caption=TOKENS, heads=heads, rows=rows, long=True).write(tex, html)


def _token_cells(row: Row, tasks: Mapping[str, str], methods: Mapping[str, str]) -> list[Cell]:
    k = "trend" if row["statistic"] == "trend" else f"{row['soft_tokens']:.0f}"
    texts = [tasks.get(row["task"], row["task"]), methods.get(row["method"], row["method"]), k]
    texts += [
        f"{row['n']:.0f}",
        f"{row['seeds']:.0f}",
        _number(row["estimate"]),
        interval_text(row),
        p_text(row["p_adjusted"]),
    ]
    return [Cell(text) for text in texts]


def seed_rows(summary: pd.DataFrame, probes: Mapping[str, str]) -> pd.DataFrame:
    """How much the seeds of a method differ, wherever a study ran several.

    Args:
        summary: rows of ``summary.csv``.
        probes: bridge -> linear probe of the same sender.

    Returns:
        One row a task, method and number of soft tokens, in percent: mean ``accuracy``, ``std`` (points),
        ``lowest`` and ``highest`` seed, ``majority`` share, accuracy of the ``probe`` and how many seeds
        ``collapsed``: less than half of the way from the majority share to the probe (both empty without a probe).
    """
    means = summary.groupby(["task", "method"])["accuracy"].mean()
    pairs = zip(summary["task"], summary["method"])
    runs = summary.assign(probe=[means.get((task, probes.get(method)), float("nan")) for task, method in pairs])
    below = runs["accuracy"] < (runs["majority"] + runs["probe"]) / 2
    runs["collapsed"] = below.astype("Int64").where(runs["probe"].notna())
    table = runs.groupby(["task", "method", "soft_tokens"], sort=False, as_index=False).agg(
        n=("n", "first"),
        seeds=("seed", "size"),
        accuracy=("accuracy", "mean"),
        std=("accuracy", "std"),
        lowest=("accuracy", "min"),
        highest=("accuracy", "max"),
        majority=("majority", "mean"),
        probe=("probe", "mean"),
        collapsed=("collapsed", lambda seeds: seeds.sum(min_count=1)),
    )
    shares = ["accuracy", "std", "lowest", "highest", "majority", "probe"]
    table[shares] = (100 * table[shares]).round(4)
    return table[table["seeds"] > 1].reset_index(drop=True)


def write_seed_table(
    summary: str | Path,
    tasks: Mapping[str, str],
    methods: Mapping[str, str],
    probes: Mapping[str, str],
    name: str,
    tex: str | Path,
    csv: str | Path,
    html: str | Path,
) -> None:
    """Write how much the seeds of each method differ.

    Args:
        summary: path of ``summary.csv``.
        tasks: task -> title.
        methods: method -> title.
        probes: as `seed_rows` takes them.
        name: the table's name.
        tex: LaTeX file to write.
        csv: csv file to write.
        html: HTML fragment to write.
    """
    frame = seed_rows(pd.read_csv(summary), probes)
    numbers = ("k", "n", "Seeds", "Mean", "Std", "Lowest", "Highest", "Majority", "Probe", "Collapsed")
    heads = [Head("Task", wide(0.13)), Head("Method", wide(0.2)), *map(number, numbers)]
    rows = [_seed_cells(row, tasks, methods) for row in _records(frame)]
    write_csv(csv, frame)
    Table(name=name, caption=SEEDS, heads=heads, rows=rows, long=True).write(tex, html)


def _seed_cells(row: Row, tasks: Mapping[str, str], methods: Mapping[str, str]) -> list[Cell]:
    texts = [tasks.get(row["task"], row["task"]), methods.get(row["method"], row["method"])]
    texts += [f"{row['soft_tokens']:.0f}" if row["soft_tokens"] else "--", f"{row['n']:.0f}", f"{row['seeds']:.0f}"]
    texts += [_number(row[column]) for column in ("accuracy", "std", "lowest", "highest", "majority", "probe")]
    return [Cell(text) for text in [*texts, _number(row["collapsed"], 0)]]


def comparison_rows(statistics: pd.DataFrame) -> pd.DataFrame:
    """One row a declared comparison: difference, exact tests, equivalence and what could have been found.

    Returns:
        Columns of the pair (task, methods, soft tokens, family), ``n``, ``seeds``, ``difference``, ``low``, ``high``,
        ``p_adjusted``, ``significant``, ``mcnemar_significant`` and ``mcnemar_seeds`` (matched seeds, and those whose
        exact test is significant), ``equivalent``, ``detectable`` and ``note``.
    """
    declared = statistics[~statistics["family"].str.startswith("best of ")]
    columns = ["n", "seeds", "estimate", "low", "high", "p_adjusted", "significant", "note"]
    table = _of(declared, "difference")[[*PAIR, *columns]].rename(columns={"estimate": "difference"})
    tests = _of(declared, "mcnemar").assign(significant=lambda rows: rows["significant"].eq(True))
    exact = tests.groupby(PAIR, as_index=False).agg(
        mcnemar_significant=("significant", "sum"), mcnemar_seeds=("significant", "size")
    )
    equal = _of(declared, "equivalence")[[*PAIR, "significant"]].rename(columns={"significant": "equivalent"})
    found = _of(declared, "detectable")[[*PAIR, "estimate"]].rename(columns={"estimate": "detectable"})
    for other in (exact, equal, found):
        table = table.merge(other, on=PAIR, how="left")
    for column in ("mcnemar_significant", "mcnemar_seeds"):
        table[column] = table[column].astype("Int64")
    return table[[column for column in table if column != "note"] + ["note"]]


def write_statistics_table(
    statistics: str | Path,
    tasks: Mapping[str, str],
    methods: Mapping[str, str],
    margin: float,
    name: str,
    tex: str | Path,
    csv: str | Path,
    html: str | Path,
) -> None:
    """Write the declared comparisons of a study.

    Args:
        statistics: path of ``statistics.csv``.
        tasks: task -> title.
        methods: method -> title.
        margin: of equivalence, in points.
        name: the table's name.
        tex: LaTeX file to write.
        csv: csv file to write.
        html: HTML fragment to write.
    """
    frame = comparison_rows(read_statistics(statistics))
    numbers = ("n", "Seeds", "Points", "95 % interval", "p (Holm)", "McNemar", "Equal", "Detectable")
    heads = [Head("Task", wide(0.11)), Head("Difference", wide(0.22)), *map(number, numbers)]
    rows = [_comparison_cells(row, tasks, methods) for row in _records(frame)]
    families = ", ".join(dict.fromkeys(frame["family"])) or "none was declared"
    caption = COMPARISONS.format(families=families, margin=margin)
    write_csv(csv, frame)
    Table(name=name, caption=caption, heads=heads, rows=rows, long=True).write(tex, html)


def _comparison_cells(row: Row, tasks: Mapping[str, str], methods: Mapping[str, str]) -> list[Cell]:
    names = [methods.get(row[side], row[side]) for side in ("method", "versus")]
    tested = not pd.isna(row["mcnemar_seeds"])
    exact = f"{row['mcnemar_significant']} of {row['mcnemar_seeds']}" if tested else "--"
    equal = {True: "yes", False: "no"}.get(row["equivalent"], "--")
    texts = [tasks.get(row["task"], row["task"]), " minus ".join(names), f"{row['n']:.0f}", f"{row['seeds']:.0f}"]
    texts += [
        _number(row["difference"]),
        interval_text(row),
        p_text(row["p_adjusted"]),
        exact,
        equal,
        _number(row["detectable"]),
    ]
    return [Cell(text) for text in texts]


def write_claims_table(
    claims: str | Path, margin: float, name: str, tex: str | Path, csv: str | Path, html: str | Path
) -> None:
    """Write the scorecard: the claims that were tested first, then those that were not, together by reason.

    Args:
        claims: path of ``claims.csv``.
        margin: of equivalence, in points.
        name: the table's name.
        tex: LaTeX file to write.
        csv: csv file to write.
        html: HTML fragment to write.
    """
    frame = pd.read_csv(claims)
    frame = pd.concat([frame[frame["verdict"] != NOT_TESTED], frame[frame["verdict"] == NOT_TESTED]])
    texts = ("Claim", "Published", "Here (95 %)", "As published", "Verdict", "Scale", "Why")
    widths = (0.2, 0.09, 0.13, 0.09, 0.11, 0.08, 0.2)
    heads = [Head(text, wide(width)) for text, width in zip(texts, widths)]
    counts = ", ".join(f"{(frame['verdict'] == verdict).sum()} {verdict}" for verdict in VERDICTS)
    caption = CLAIMS.format(counts=counts, margin=margin)
    silent = (frame["verdict"] == NOT_TESTED) & frame["reproduced"].isna()
    rows = [_claim_cells(row) for row in _records(frame[~silent])]
    rows += [_silent_cells(str(reason), group) for reason, group in frame[silent].groupby("reason", sort=False)]
    write_csv(csv, frame)
    Table(name=name, caption=caption, heads=heads, rows=rows, long=True).write(tex, html)


def _claim_cells(row: Row) -> list[Cell]:
    published = _number(row["published"]) + ("" if pd.isna(row["published_std"]) else f" ± {row['published_std']:.1f}")
    here = _number(row["reproduced"]) + ("" if pd.isna(row["low"]) else f" ({interval_text(row)})")
    where = "" if pd.isna(row["task"]) or row["task"] == row["published_task"] else f" [{row['task']}]"
    texts = [f"{row['statement']}{where}", published, here, _number(row["same_protocol"])]
    texts += [row["verdict"], row["scale"], "" if pd.isna(row["reason"]) else row["reason"]]
    return [Cell(text, text in VERDICTS and text != NOT_TESTED) for text in texts]


def _silent_cells(reason: str, claims: pd.DataFrame) -> list[Cell]:
    """One row for all claims that the study says nothing about for one reason."""
    texts = [", ".join(claims["id"]), *["--"] * 3, NOT_TESTED, "", reason]
    return [Cell(text) for text in texts]


def cost_rows(costs: pd.DataFrame, gpus: Mapping[str, int]) -> pd.DataFrame:
    """Minutes of each rule, with a row for all of them.

    Args:
        costs: rows of ``costs.csv``.
        gpus: rule -> GPUs of one of its jobs; a rule that is absent asks for none.

    Returns:
        Columns ``rule``, ``jobs``, ``minutes`` (wall time summed over jobs), ``cpu_minutes``, ``gpu_minutes`` and
        ``memory_mb`` (of the largest job).
    """
    table = costs[["rule", "jobs"]].copy()
    table["minutes"] = costs["seconds"] / 60
    table["cpu_minutes"] = costs["cpu_seconds"] / 60
    table["gpu_minutes"] = table["minutes"] * costs["rule"].map(dict(gpus)).fillna(0)
    table["memory_mb"] = costs["max_memory_mb"]
    sums = table[["jobs", "minutes", "cpu_minutes", "gpu_minutes"]].sum()
    total = pd.DataFrame([{"rule": "all", **sums, "memory_mb": table["memory_mb"].max()}])
    return pd.concat([table, total], ignore_index=True).astype({"jobs": int}).round(4)


def write_costs_table(
    costs: str | Path,
    gpus: Mapping[str, int],
    name: str,
    tex: str | Path,
    csv: str | Path,
    html: str | Path,
) -> None:
    """Write what every rule of a study cost.

    Args:
        costs: path of ``costs.csv``.
        gpus: as `cost_rows` takes it; without any GPU there is no column for them.
        name: the table's name.
        tex: LaTeX file to write.
        csv: csv file to write.
        html: HTML fragment to write.
    """
    frame = cost_rows(pd.read_csv(costs), gpus)
    most = max(gpus.values(), default=0)
    minutes = ["minutes", "cpu_minutes", *(["gpu_minutes"] if most else [])]
    titles = ["Jobs", "Wall minutes", "CPU minutes", *(["GPU minutes"] if most else []), "Memory (MB)"]
    rows = [
        [row["rule"], str(row["jobs"]), *(_number(row[column]) for column in minutes), _number(row["memory_mb"], 0)]
        for row in _records(frame)
    ]
    held = f"one, a job that trains or encodes {most}" if most > 1 else "one"
    caption = COSTS + (f"A job of a rule that asks for GPUs holds {held}." if most else "No GPU was used.")
    write_csv(csv, frame)
    cells = [[Cell(text) for text in row] for row in rows]
    Table(name=name, caption=caption, heads=[Head("Rule"), *map(number, titles)], rows=cells).write(tex, html)
