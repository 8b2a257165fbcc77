"""The model card of a trained bridge, filled from what training and evaluation recorded."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from telepathy.models.identity import identity_of

TEMPLATE = Path(__file__).parent / "model_card.md.jinja"


def model_card(config: Any, about: Mapping[str, Any]) -> ModelCard:
    """Render a model card with the hub's metadata.

    Args:
        config: the bridge's configuration.
        about: what its ``config.json`` holds: ``task``, ``task_details``, ``sender``, ``receiver``,
            ``training``, and for an exported bridge ``test`` (its metrics) and ``licences``.
            Whatever is absent is left out of the card.
    """
    results = [_result(about)] if "test" in about and "accuracy" in about["test"] else None
    sources = {role: about.get(role, {}).get("source", {}) for role in ("sender", "receiver")}
    models = [source["hub"] for source in sources.values() if "hub" in source]
    data = ModelCardData(
        library_name="telepathy",
        tags=["telepathy", "soft-tokens", f"{config.architecture}-bridge"],
        license="other",
        base_model=models or None,
        model_name=_title(about) if results else None,
        eval_results=results,
    )
    origins = {role: identity_of(source) for role, source in sources.items() if source}
    return ModelCard.from_template(
        data, str(TEMPLATE), title=_title(about), bridge=asdict(config), about=about, origins=origins
    )


def _title(about: Mapping[str, Any]) -> str:
    sender, receiver = (about.get(role, {}).get("name", role) for role in ("sender", "receiver"))
    return f"Bridge from {sender} to {receiver}"


def _result(about: Mapping[str, Any]) -> EvalResult:
    return EvalResult(
        task_type="text-classification",
        dataset_type=str(about["task"]),
        dataset_name=str(about.get("task_details", {}).get("title", about["task"])),
        metric_type="accuracy",
        metric_value=about["test"]["accuracy"],
        dataset_split="test",
    )
