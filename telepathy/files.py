"""Writing files so that a reader never sees half of one, and hashing them."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import compress
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from telepathy.errors import TelepathyError


def partial_path(target: str | os.PathLike[str]) -> Path:
    """What `atomic_path` calls a file or folder until it is whole."""
    return Path(target).with_name(f".{Path(target).name}.partial")


@contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary sibling of ``target`` that takes its name only when the block succeeds.

    Works for files and for folders (make the folder inside the block). A kill leaves at most a
    hidden ``.partial`` sibling, never a short ``target``.

    Raises:
        TelepathyError: if the disk is full, naming the path, what it needs at least and what is left.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(target)
    _remove(partial)
    try:
        yield partial
        _flush(partial)
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(partial, target)
    except Exception as error:
        if not _is_full(error):
            raise
        free = shutil.disk_usage(target.parent).free
        raise TelepathyError(
            f"The disk is full: {target} could not be written (it needs {_need(partial, free) / 2**20:.1f} MiB "
            f"at least, {free / 2**20:.1f} MiB are left there, and a quota may allow less); "
            "free some space and run the same command again."
        ) from error
    finally:
        _remove(partial)


def _is_full(error: Exception) -> bool:
    """Whether a disk or a quota was full: safetensors says so in an error of its own, which is no OSError."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return getattr(error, "errno", None) in full or any(os.strerror(number) in str(error) for number in full)


def _need(partial: Path, free: int) -> int:
    """Bytes that a file or folder needs at least: more than it has and what was free, and the sizes it asked for."""
    files = [file.stat() for file in ([partial, *partial.rglob("*")] if partial.exists() else []) if file.is_file()]
    return max(free + sum(512 * file.st_blocks for file in files), sum(file.st_size for file in files))


def reserve(path: str | os.PathLike[str]) -> None:
    """Give a sparse file all its blocks now: a memory-mapped write to a full disk would end the process.

    Raises:
        OSError: if there is no room.
    """
    with open(path, "r+b") as handle:
        os.posix_fallocate(handle.fileno(), 0, os.fstat(handle.fileno()).st_size)


def link_or_copy(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Give a file a second name without using the disk twice; where hard links do not work it is copied."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    for file in files:
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the hexadecimal sha256 of one file."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def check_files(folder: str | os.PathLike[str], expected: Mapping[str, str], remedy: str) -> None:
    """Compare files of a folder with the sha256 that was recorded when they were written.

    Args:
        folder: where they lie.
        expected: name -> sha256; several files are hashed at a time, since a model has gigabytes.
        remedy: what to do about a damaged one, for the message.

    Raises:
        TelepathyError: if a file is missing or changed, naming it.
    """

    def damaged(name: str) -> bool:
        path = Path(folder) / name
        return not path.is_file() or sha256_of(path) != expected[name]

    names = sorted(expected)
    with ThreadPoolExecutor() as pool:
        for name in compress(names, pool.map(damaged, names)):
            raise TelepathyError(f"{Path(folder) / name} is damaged (its sha256 changed): {remedy}.")


def fingerprint(value: Any) -> str:
    """Return a 16-digit hash of anything that JSON can hold; key order does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys (the same bytes for the same value)."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read one JSON file."""
    return json.loads(Path(path).read_text())


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """Read one YAML file, plain values only, by the parser in C where PyYAML has it.

    Raises:
        yaml.YAMLError: if it is not YAML.
    """
    return yaml.load(Path(path).read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def write_parquet(path: str | os.PathLike[str], frame: pd.DataFrame) -> None:
    """Write a frame as parquet without its index."""
    with atomic_path(path) as partial:
        frame.to_parquet(partial, index=False)


def write_csv(path: str | os.PathLike[str], frame: pd.DataFrame) -> None:
    """Write a frame as csv without its index."""
    with atomic_path(path) as partial:
        frame.to_csv(partial, index=False)


def copy_file(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copy one file, byte for byte."""
    with atomic_path(target) as partial:
        shutil.copyfile(source, partial)
