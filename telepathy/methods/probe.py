"""Linear probe: logistic regression on pooled sender states (Alain and Bengio 2016)."""

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from telepathy.errors import TelepathyError
from telepathy.features import FeatureStore
from telepathy.methods.bridge import BridgeData
from telepathy.methods.trained import take
from telepathy.models.loading import layer_index
from telepathy.tasks.data import check_classes
from telepathy.tasks.spec import Task

POOLINGS = ("mean", "last")
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """What is tried on dev.

    Attributes:
        layers: hidden-state indices; None for all that the feature store has pooled.
        poolings: ``mean`` over the tokens and ``last`` token.
        strengths: inverse regularisation strengths ``C`` of scikit-learn.
        iterations: most iterations of a fit.
    """

    layers: tuple[int, ...] | list[int] | None = None
    poolings: tuple[str, ...] | list[str] = POOLINGS
    strengths: tuple[float, ...] | list[float] = (0.0001, 0.001, 0.01, 0.1, 1.0)
    iterations: int = 500

    def __post_init__(self) -> None:
        for name in ("layers", "poolings", "strengths"):
            if getattr(self, name) is not None and not getattr(self, name):
                raise TelepathyError(f"A linear probe needs one of its {name} at least.")
        if unknown := set(self.poolings) - set(POOLINGS):
            raise TelepathyError(f"The poolings of a probe are mean and last, not {', '.join(sorted(unknown))}.")
        if min(self.strengths) <= 0:
            raise TelepathyError(f"The strengths of a probe must be above 0, not {min(self.strengths)}.")
        if self.iterations < 1:
            raise TelepathyError(f"A probe needs iterations of 1 at least, not {self.iterations}.")


def probe_sender(data: BridgeData, settings: Mapping[str, Any]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """`linear_probe` of a task's cached features, as the resolved settings of a method say."""
    stores = {split: FeatureStore(data.features, split, data.task) for split in SPLITS}
    layers = [layer_index(layer, stores["train"].index["depth"]) for layer in settings["layers"]]
    config = ProbeConfig(**{**take(ProbeConfig, settings), "layers": layers})
    return linear_probe(data.task, stores, {split: data.frame(split) for split in SPLITS}, config)


def linear_probe(
    task: Task,
    stores: Mapping[str, FeatureStore],
    frames: Mapping[str, pd.DataFrame],
    config: ProbeConfig,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Fit on train, choose layer, pooling and regularisation by dev accuracy, answer test.

    Of equals the first is taken: lower layer as listed, earlier pooling, stronger regularisation.

    Args:
        task: a label set or a yes/no question.
        stores: pooled sender states of ``train``, ``dev`` and ``test``.
        frames: their examples.
        config: what is tried.

    Returns:
        Predictions with ``id``, ``label``, ``prediction`` and ``scores`` (log-probabilities in the
        task's label order), and ``selected``, ``selection`` (dev accuracy of everything tried; test
        plays no part) and ``trainable_parameters``.

    Raises:
        TelepathyError: if the task has no label set, a class has no training example, or a layer
            was not pooled.
    """
    _check(task, stores["train"], frames["train"], config)
    tried: list[dict[str, Any]] = []
    best: dict[str, Any] = {"dev_accuracy": -1.0}
    fitted: Any = None
    for layer in config.layers or stores["train"].index["pooled_layers"]:
        for pooling in config.poolings:
            train, dev = (stores[split].pooled(layer, pooling) for split in ("train", "dev"))
            for record, model in _fits(train, frames["train"], dev, frames["dev"], config):
                tried.append({"layer": int(layer), "pooling": pooling, **record})
                if record["dev_accuracy"] > best["dev_accuracy"]:
                    best, fitted = tried[-1], copy.deepcopy(model)
    predictions = _predict(task, fitted, stores["test"].pooled(best["layer"], best["pooling"]), frames["test"])
    size = fitted[-1].coef_.size + fitted[-1].intercept_.size
    return predictions, {"selected": best, "selection": tried, "trainable_parameters": int(size)}


def _check(task: Task, store: FeatureStore, train: pd.DataFrame, config: ProbeConfig) -> None:
    if task.kind not in ("labels", "boolean"):
        raise TelepathyError(f"The task {task.name} is of kind {task.kind}: a linear probe needs a set of labels.")
    check_classes(task, train)
    pooled = store.index["pooled_layers"]
    missing = [str(layer) for layer in config.layers or () if layer not in pooled]
    if missing or not pooled:
        kept = ", ".join(map(str, pooled)) or "none"
        raise TelepathyError(
            f"The features of task {task.name} have no pooled layer {', '.join(missing)}; they have {kept}."
        )


def _fits(train: np.ndarray, train_frame: pd.DataFrame, dev: np.ndarray, dev_frame: pd.DataFrame, config: ProbeConfig):
    """Yield a record and the fitted pipeline for every strength, from the strongest regularisation on.

    Each fit starts from the one before: a large ``C`` converges several times faster.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = LogisticRegression(max_iter=config.iterations, warm_start=True)
    model = make_pipeline(StandardScaler(), regression)
    for strength in sorted(config.strengths):
        regression.set_params(C=strength)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(train, train_frame["label"])
        iterations = int(np.max(regression.n_iter_))
        record = {
            "strength": float(strength),
            "dev_accuracy": float(model.score(dev, dev_frame["label"])),
            "converged": iterations < config.iterations,
        }
        yield record, model


def _predict(task: Task, model: Any, test: np.ndarray, frame: pd.DataFrame) -> pd.DataFrame:
    order = [list(model.classes_).index(name) for name in task.label_names]
    scores = np.asarray(model.predict_log_proba(test))[:, order]
    return pd.DataFrame(
        {
            "id": frame["id"].to_numpy(),
            "label": frame["label"].to_numpy(),
            "prediction": np.array(task.label_names)[scores.argmax(1)],
            "scores": list(scores.astype(np.float32)),
        }
    )
