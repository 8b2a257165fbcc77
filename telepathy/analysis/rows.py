"""The rows of ``statistics.csv``, for those who write and who read them; light on imports."""

from pathlib import Path

import pandas as pd

COLUMNS = [
    "statistic",
    "task",
    "method",
    "soft_tokens",
    "seed",
    "versus",
    "versus_soft_tokens",
    "n",
    "seeds",
    "estimate",
    "low",
    "high",
    "p_value",
    "p_adjusted",
    "family",
    "significant",
    "note",
]
ORDER = [
    "majority",
    "accuracy_run",
    "accuracy",
    "spread",
    "difference",
    "mcnemar",
    "equivalence",
    "detectable",
    "trend",
]
"""What a row can be, in the order of the file."""
TEXTS = ("statistic", "task", "method", "versus", "family", "note")


def read_statistics(path: str | Path) -> pd.DataFrame:
    """Read ``statistics.csv``; text columns hold texts even where all of them are empty."""
    return pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str)).fillna({"family": ""})
