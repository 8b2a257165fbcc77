"""What every result records about how it was made; nothing secret, nothing that changes from one rerun to the next."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

from telepathy.devices import Compute
from telepathy.tasks.spec import Task

PACKAGES = ("torch", "transformers", "tokenizers", "peft", "scikit-learn", "numpy", "pandas", "safetensors")


def provenance(
    compute: Compute, task: Task, data: Any, models: list[dict[str, Any]], **settings: Any
) -> dict[str, Any]:
    """Collect the origin of a result.

    Args:
        compute: device and precision.
        task: the task; its prompt's hash is recorded.
        data: what ``source.json`` of the cached task says.
        models: ``source.json`` of every model that took part.
        settings: the resolved settings, seeds and counts of the run.
    """
    return {
        **settings,
        "task": {"name": task.name, "version": task.version, "prompt": task.prompt_hash, "source": data},
        "models": models,
        "code": code_version(),
        "compute": compute.describe(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
    }


def code_version() -> dict[str, Any]:
    """Version of the library, and its commit where it lies in a git checkout."""
    from telepathy import __version__

    root = Path(__file__).parent.parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "HEAD")
    return {"version": __version__, "commit": commit, "dirty": bool(commit and git("status", "--porcelain", "-uno"))}
