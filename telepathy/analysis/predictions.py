"""Read a run's predictions: the one way in for everything that is computed, drawn or shown from them."""

from pathlib import Path

import pandas as pd

from telepathy.files import check_files, read_json


def read_predictions(path: str | Path) -> pd.DataFrame:
    """Read the ``predictions.parquet`` of one run, as `telepathy.analysis.results.write_run` wrote it.

    Raises:
        TelepathyError: if it is not the file that the run's ``metrics.json`` was made with.
    """
    folder = Path(path).parent
    check_files(folder, read_json(folder / "metrics.json")["files"], f"delete {folder} to make the run anew")
    return pd.read_parquet(path)
