"""Checkpoints from which training goes on bit for bit: weights, optimiser, random states, history."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from telepathy.files import atomic_path

VERSION = 1


def save_checkpoint(
    folder: Path, mark: str, module: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Write ``last.safetensors`` atomically; the one before stays as ``previous.safetensors``."""
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
    about = {"version": str(VERSION), "mark": mark, "state": json.dumps(plain)}
    last = folder / "last.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    if last.is_file():
        last.replace(folder / "previous.safetensors")
    with atomic_path(last) as partial:
        save_file({name: value.contiguous() for name, value in tensors.items()}, partial, metadata=about)


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
