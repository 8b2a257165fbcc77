"""Checkpoints from which training goes on bit for bit: weights, optimiser, random states, history."""

import hashlib
import json
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from telepathy.files import atomic_path, link_or_copy

VERSION = 3


def save_checkpoint(
    folder: Path, mark: str, module: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Write ``last.safetensors`` atomically; the one before stays as ``previous.safetensors``.

    The new file is whole before the old one gets its second name, and takes the first name in one
    step: at no moment is a usable ``last.safetensors`` missing.

    Raises:
        TelepathyError: if the disk is full.
    """
    from telepathy.training.loop import trained_state

    tensors: dict[str, Tensor] = {f"module/{name}": value for name, value in trained_state(module).items()}
    for index, entry in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer/{index}/{key}": torch.as_tensor(value).clone() for key, value in entry.items()})
    if state["best"] is not None:
        tensors.update({f"best/{name}": value for name, value in state["best"].items()})
    tensors["random/torch"] = torch.get_rng_state()
    tensors["random/numpy"] = torch.from_numpy(np.random.get_state()[1].astype(np.int64))  # type: ignore[index, union-attr]
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    plain = {key: value for key, value in state.items() if key != "best"}
    numpy_state: Any = np.random.get_state()
    plain["numpy_rest"] = [int(numpy_state[2]), int(numpy_state[3]), float(numpy_state[4])]
    plain["python_random"] = random.getstate()
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    about = {"version": str(VERSION), "mark": mark, "state": json.dumps(plain)}
    about["sha256"] = content_hash(tensors, about)
    last = folder / "last.safetensors"
    with atomic_path(last) as partial:
        save_file(tensors, partial, metadata=about)
        if last.is_file():
            with atomic_path(folder / "previous.safetensors") as second_name:
                link_or_copy(last, second_name)


def content_hash(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """sha256 of all that a checkpoint holds: names, types, shapes and bytes of its tensors, and its metadata."""

    def digest(name: str) -> str:
        value = tensors[name].detach().cpu().contiguous()
        content = hashlib.sha256(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        content.update(value.reshape(-1).view(torch.uint8).numpy().data if value.numel() else b"")
        return content.hexdigest()

    with ThreadPoolExecutor() as pool:  # hashlib lets other threads run: a checkpoint may have gigabytes
        digests = list(pool.map(digest, sorted(tensors)))
    rest = {key: value for key, value in about.items() if key != "sha256"}
    return hashlib.sha256(json.dumps([digests, rest], sort_keys=True).encode()).hexdigest()


def load_checkpoint(
    folder: Path, mark: str, module: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any] | None:
    """Restore the newest usable checkpoint and return the loop's state, or None.

    One that is damaged, of another version or of another configuration is refused with a line in
    the log, and the one before it is tried.
    """
    for name in ("last.safetensors", "previous.safetensors"):
        path = folder / name
        if not path.is_file():
            continue
        try:
            with safe_open(path, framework="pt") as opened:
                about = opened.metadata() or {}
                refusal = _refusal(about, mark)
                if refusal is None:
                    tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
                    if content_hash(tensors, about) != about.get("sha256"):
                        refusal = "it is damaged (its sha256 changed)"
        except (SafetensorError, OSError) as error:
            refusal = f"it is damaged ({error})"
        if refusal is not None:
            print(f"The checkpoint {path} is not used: {refusal}.")
            continue
        print(f"Going on from the checkpoint {path}.")
        return _restore(tensors, json.loads(about["state"]), module, optimizer)
    return None


def _refusal(about: dict[str, str], mark: str) -> str | None:
    if about.get("version") != str(VERSION):
        return f"it is of version {about.get('version')}, this is version {VERSION}"
    if about.get("mark") != mark:
        return "it was made with another configuration or seed"
    return None


def _restore(
    tensors: dict[str, Tensor], state: dict[str, Any], module: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    def part(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    module.load_state_dict(part("module/"), strict=False)
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in part("optimizer/").items():
        index, name = key.split("/", 1)
        entries.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(tensors["random/torch"])
    if "random/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random/cuda"])
    keys = tensors["random/numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, *state.pop("numpy_rest")))
    version, internal, gauss = state.pop("python_random")
    random.setstate((version, tuple(internal), gauss))
    state["best"] = part("best/") or None
    return state
