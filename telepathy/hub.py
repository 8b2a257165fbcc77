"""How long the Hugging Face hub may be silent."""

from typing import Any

from huggingface_hub import constants, set_client_factory
from huggingface_hub.utils._http import default_client_factory

SILENCE = constants.HF_HUB_ETAG_TIMEOUT
"""Seconds without a byte from the hub after which a request is broken off; of the environment variable, or 10."""


def limit_silence() -> None:
    """Make the hub's client break off every request that it is told nothing about for `SILENCE` seconds.

    It has limits of its own for some requests only: it asks for a list of files with none at all. A failed
    request closes the client, so all later ones need the limit as well.
    """
    set_client_factory(_client)


def _client() -> Any:
    client = default_client_factory()
    client.event_hooks = {**client.event_hooks, "request": [*client.event_hooks["request"], _limit]}
    return client


def _limit(request: Any) -> None:
    said = request.extensions.get("timeout", {})
    request.extensions["timeout"] = {part: said.get(part) or SILENCE for part in ("connect", "read", "write", "pool")}
