"""Encode a task with the sender once and keep its hidden states in memory-mapped files.

A store is a folder a split: ``layer<i>.npy`` holds the states of all tokens of all examples, one
after another, ``[tokens, d]`` in bfloat16 (as uint16 bits, which NumPy can map); ``offsets.npy``
says where each example begins, ``[examples + 1]``; ``pooled.safetensors`` holds the mean and last
state of an example, ``[examples, d]``, of layers that only probes read. ``index.json`` says what
was encoded and holds the sha256 of every file.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.lib.format import open_memmap
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from telepathy import parallel
from telepathy.batches import length_batches, within_memory
from telepathy.devices import seed_everything
from telepathy.errors import TelepathyError
from telepathy.files import check_files, read_json, reserve, sha256_of, write_json
from telepathy.models.loading import LanguageModel, hidden_states, layer_index, pad
from telepathy.tasks.data import load_split
from telepathy.tasks.prompts import prompt_ids
from telepathy.tasks.spec import Task

BATCH_TOKENS = 4096


def encode_task(
    sender: LanguageModel,
    task: Task,
    splits: dict[str, pd.DataFrame],
    target: str | Path,
    layers: Sequence[int],
    pooled_layers: Sequence[int] = (),
) -> None:
    """Write the feature store of one task.

    Several processes (see `telepathy.parallel`) share the batches and write into the same files.

    Args:
        sender: frozen causal LM whose states are ``d`` wide.
        task: gives the prompt and its truncation.
        splits: name and examples of every split.
        target: folder to make.
        layers: hidden-state indices kept for every token.
        pooled_layers: hidden-state indices kept as mean and last state only.

    Raises:
        TelepathyError: if no layer is to be kept.
    """
    if not layers and not pooled_layers:
        raise TelepathyError(
            f"No layer of {sender.name} is to be kept for task {task.name}: no method of the study reads this model "
            "there, so name one that does."
        )
    with parallel.written_together(target) as partial:
        splits_index: dict[str, Any] = {}
        index: dict[str, Any] = {
            "model": sender.name,
            "source": sender.source,
            "depth": sender.depth,
            "width": sender.state_width,
            "dtype": str(sender.compute.dtype).removeprefix("torch."),
            "task": task.name,
            "prompt": task.prompt_hash,
            "max_tokens": task.max_tokens,
            "layers": sorted(set(layers)),
            "pooled_layers": sorted(set(pooled_layers)),
            "splits": splits_index,
        }
        for split, frame in splits.items():
            folder = partial / split
            rows = [prompt_ids(sender, task, example) for example in frame.to_dict("records")]
            _encode_split(sender, rows, folder, index["layers"], index["pooled_layers"])
            files = sorted(folder.iterdir()) if parallel.is_main() else []
            splits_index[split] = {
                "examples": len(rows),
                "tokens": sum(map(len, rows)),
                "files": {file.name: sha256_of(file) for file in files},
            }
        if parallel.is_main():
            write_json(partial / "index.json", index)


def encode_cached_task(
    sender: LanguageModel,
    task: Task,
    examples: str | Path,
    limits: Mapping[str, int],
    target: str | Path,
    layers: Sequence[float],
    pooled_layers: Sequence[float] = (),
) -> None:
    """Write the feature store of a cached task, all splits of it.

    Args:
        sender: as `encode_task` takes it.
        task: as `encode_task` takes it.
        examples: folder of the cached task.
        limits: split -> number of examples; absent means all.
        target: folder to make.
        layers: layer settings (see `layer_index`) kept for every token.
        pooled_layers: layer settings kept as mean and last state only.
    """
    seed_everything(0)
    splits = {split: load_split(examples, split, limits.get(split)) for split in ("train", "dev", "test")}
    kept, pooled = ([layer_index(layer, sender.depth) for layer in some] for some in (layers, pooled_layers))
    encode_task(sender, task, splits, target, kept, pooled)


def _encode_split(
    sender: LanguageModel, rows: list[list[int]], folder: Path, layers: list[int], pooled_layers: list[int]
) -> None:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    shape = (int(offsets[-1]), sender.state_width)
    stores = _open_stores(folder, layers, shape)
    pooled = {
        f"layer{layer}.{kind}": torch.zeros(len(rows), sender.state_width)
        for layer in pooled_layers
        for kind in ("mean", "last")
    }

    @torch.inference_mode()
    def read(batch: Sequence[int]) -> dict[int, Tensor]:
        ids, mask = (part.to(sender.compute.device) for part in pad([rows[row] for row in batch], sender.pad_id))
        found = hidden_states(sender, ids, mask, sorted({*layers, *pooled_layers}))
        return {layer: values.cpu() for layer, values in found.items()}  # at once: each copy waits for the GPU

    batches = parallel.share(length_batches([len(row) for row in rows], BATCH_TOKENS))
    shown = tqdm(batches, desc=folder.name, mininterval=5, disable=not parallel.is_main())
    for batch, states in within_memory(shown, read):
        for place, row in enumerate(batch):
            length = len(rows[row])
            for layer, store in stores.items():
                bits = states[layer][place, :length].to(torch.bfloat16).view(torch.uint16)
                store[offsets[row] : offsets[row + 1]] = bits.numpy()
            for layer in pooled_layers:
                kept = states[layer][place, :length].float()
                # The first position is the attention sink: its huge state says nothing of the text.
                pooled[f"layer{layer}.mean"][row] = kept[1:].mean(0)
                pooled[f"layer{layer}.last"][row] = kept[-1]
    for store in stores.values():
        store.flush()
    pooled = {name: parallel.total(states) for name, states in pooled.items()}
    parallel.wait()
    if parallel.is_main():
        np.save(folder / "offsets.npy", offsets)
        save_file(pooled, folder / "pooled.safetensors")


def _open_stores(folder: Path, layers: list[int], shape: tuple[int, int]) -> dict[int, np.memmap]:
    """Files of the layers, which the main process makes and all write into."""
    paths = {layer: folder / f"layer{layer}.npy" for layer in layers}
    if parallel.is_main():
        folder.mkdir(parents=True)
        for path in paths.values():
            open_memmap(path, "w+", np.uint16, shape)
            reserve(path)
    parallel.wait()
    return {layer: open_memmap(path, "r+") for layer, path in paths.items()}


class FeatureStore:
    """One split of a feature store, opened for reading.

    A file is hashed when it is first read, those of other layers are not: a layer may have tens of gigabytes.

    Raises:
        TelepathyError: if a file is missing, changed since it was written, or was made with another prompt.
    """

    def __init__(self, folder: str | Path, split: str, task: Task):
        self.folder, self.split = Path(folder) / split, split
        if not (Path(folder) / "index.json").is_file():
            raise TelepathyError(f"{folder} holds no features: let Snakemake build {folder}.")
        self.index = read_json(Path(folder) / "index.json")
        if split not in self.index["splits"]:
            raise TelepathyError(f"{folder} has no split {split}; it has {', '.join(self.index['splits'])}.")
        if self.index["prompt"] != task.prompt_hash:
            raise TelepathyError(f"{folder} was encoded with another prompt of {task.name}: delete it to encode anew.")
        self.offsets = np.load(self._checked("offsets.npy"))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def _checked(self, name: str) -> Path:
        """Path of a file, once its content is known to be what was written."""
        files = self.index["splits"][self.split]["files"]
        check_files(self.folder, {name: files[name]}, f"delete {self.folder.parent} to encode anew")
        return self.folder / name

    @cached_property
    def _pooled(self) -> dict[str, Tensor]:
        return load_file(self._checked("pooled.safetensors"))

    def pooled(self, layer: int, kind: str) -> np.ndarray:
        """Return the ``mean`` or ``last`` state of every example, ``[examples, d]`` float32."""
        return self._pooled[f"layer{layer}.{kind}"].numpy()

    def layer(self, layer: int) -> "LayerStates":
        """Open the states of one layer."""
        if layer not in self.index["layers"]:
            kept = ", ".join(map(str, self.index["layers"]))
            raise TelepathyError(f"{self.folder.parent} holds no layer {layer}: it holds {kept}.")
        # Copied on write, so that PyTorch, which knows no arrays that cannot be written, takes it without a copy.
        return LayerStates(np.load(self._checked(f"layer{layer}.npy"), mmap_mode="c"), self.offsets)


class LayerStates:
    """Sender states of one layer, ragged over examples.

    Attributes:
        bits: states of all tokens one after another, ``[tokens, d]``, bfloat16 as uint16.
        offsets: first token of every example, and the end, ``[examples + 1]``.
        pinned: batches lie in memory from which a GPU copies by itself, while the CPU goes on.
    """

    def __init__(self, bits: np.ndarray, offsets: np.ndarray):
        self.bits, self.offsets, self.pinned = bits, offsets, False

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def lengths(self) -> np.ndarray:
        """Tokens of every example, ``[examples]``."""
        return np.diff(self.offsets)

    def head(self, examples: int) -> "LayerStates":
        """The states of the first examples."""
        return LayerStates(self.bits, self.offsets[: examples + 1])

    def batch(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return bfloat16 states ``[batch, longest, d]``, zero-padded, and the mask of real tokens."""
        spans = [(int(self.offsets[row]), int(self.offsets[row + 1])) for row in rows]
        longest = max(end - start for start, end in spans)
        shape = len(rows), longest, self.bits.shape[1]
        states = torch.zeros(shape, dtype=torch.bfloat16, pin_memory=self.pinned)
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)
        for row, (start, end) in enumerate(spans):
            states[row, : end - start] = torch.from_numpy(self.bits[start:end]).view(torch.bfloat16)
            mask[row, : end - start] = True
        return states, mask
