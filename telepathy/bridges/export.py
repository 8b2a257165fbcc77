"""Make a study's best bridge an artefact that others can load: weights, configuration, model card, test metrics."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from telepathy.bridges.base import load_bridge
from telepathy.errors import TelepathyError
from telepathy.files import read_json


def export_bridge(bridges: Sequence[str | Path], licences: Mapping[str, str], target: str | Path) -> Path:
    """Export the bridge of the best dev accuracy among some trained ones of a task.

    Of equals the one with the lower dev loss is taken, then the one with fewer soft tokens. Test
    accuracy plays no part and is only told.

    Args:
        bridges: folders that `telepathy.methods.bridge.train_bridge` wrote, each beside the
            ``metrics.json`` of its run.
        licences: what the weights were made from -> its terms.
        target: folder to make: ``model.safetensors``, ``config.json``, ``README.md`` (the model
            card) and ``metrics.json`` with the provenance of the test accuracy.

    Returns:
        The folder of the bridge that was exported.

    Raises:
        TelepathyError: if there is no bridge to choose from.
    """
    if not bridges:
        raise TelepathyError("There is no bridge to export: the study trains none on this task.")
    best = min(map(Path, bridges), key=_rank)
    metrics = read_json(best.parent / "metrics.json")
    bridge, _ = load_bridge(best)
    bridge.save_pretrained(
        target,
        run=metrics["run"],
        dev=dev_record(best),
        test=metrics["metrics"],
        licences=dict(licences),
        chosen_from=len(bridges),
    )
    shutil.copyfile(best.parent / "metrics.json", Path(target) / "metrics.json")
    return best


def dev_record(bridge: str | Path) -> dict[str, Any]:
    """Dev metrics of the weights that were kept."""
    history = read_json(Path(bridge) / "training.json")["history"]
    if read_json(Path(bridge) / "config.json")["training"]["settings"]["keep"] == "last":
        return history[-1]
    return max(history, key=lambda record: (record["accuracy"], -record["loss"]))


def _rank(bridge: Path) -> tuple[float, float, int, str]:
    record, shape = dev_record(bridge), read_json(bridge / "config.json")["bridge"]
    return (-record["accuracy"], record["loss"], shape["soft_tokens"], str(bridge))
