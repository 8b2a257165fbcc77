"""Whether a model is the one that something was trained for, whatever its folder is called."""

from collections.abc import Mapping
from typing import Any

from telepathy.errors import TelepathyError
from telepathy.files import fingerprint


def identity_of(source: Mapping[str, Any]) -> str | None:
    """What tells a model's weights from any other's: commit or sha256, as its ``source.json`` has them.

    Returns:
        One short text, or None where the source says neither.
    """
    if "revision" in source:
        return f"{source['hub']}@{source['revision']}"
    if "sha256" in source:
        return f"sha256 {source['sha256']}"
    weights = {name: digest for name, digest in source.get("files", {}).items() if name.endswith(".safetensors")}
    return f"weights {fingerprint(weights)}" if weights else None


def refuse_other_model(what: str, role: str, trained: Mapping[str, Any], name: str, source: Mapping[str, Any]) -> None:
    """Refuse a model that is not the one that something was trained for.

    Args:
        what: for the message, e.g. ``The bridge results/…/bridge``.
        role: ``sender`` or ``receiver``.
        trained: ``name`` and ``source`` of the model in training.
        name: of the model that is to be used.
        source: of the model that is to be used.

    Raises:
        TelepathyError: if their identities differ or, where one has none, their names.
    """
    expected, found = identity_of(trained.get("source", {})), identity_of(source)
    same = expected == found if expected and found else trained["name"] == name
    if not same:
        both = (
            (f"{trained['name']} ({expected})", f"{name} ({found})") if expected and found else (trained["name"], name)
        )
        raise TelepathyError(f"{what} was trained for the {role} {both[0]}, but got {both[1]}.")
