"""What the Snakemake side needs of the library: log files of jobs, and which library files a job uses."""

import gc
import hashlib
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from telepathy.errors import TelepathyError
from telepathy.gpu_memory import say_gpu_memory
from telepathy.locks import joined_folder, take_over

ROOT = Path(__file__).parent.parent
OUT_OF_MEMORY = "ran out of memory (lower batch_size, or let --retries try again with more memory)"

PLUGINS_VARIABLE = "TELEPATHY_PLUGINS"
"""Environment variable that tells the jobs which files of the user's own there are."""

IMPORTS_PLUGINS = ("telepathy/bridges/base.py", "telepathy/methods/own.py")
"""Library files that may import plugins."""

IMPORT = re.compile(
    r"^[ \t]*(?:from[ ]+([\w.]+)[ ]+import[ ]*(?:\(([^)]*)\)|([^\n(]+))|import[ ]+([^\n]+))", re.MULTILINE
)
"""An import statement without comments: a module and its names, in brackets or not; or modules."""


def prepare_jobs(plugins: Iterable[str] = (), main: bool = False) -> None:
    """Let the Python processes of jobs find the library and plugins, and let Snakemake find Python, wherever they lie.

    Snakemake puts the interpreter's path into shell commands without quotes, which a space in it
    breaks. The main process takes over a folder whose Snakemake was killed. All of them leave
    SIGUSR1, by which SLURM warns every process of a job, to the training that writes a checkpoint
    then, instead of dying of it and taking the training along.

    Args:
        plugins: files of the user that jobs may import.
        main: whether this process is the one that a user started, not one that runs a job of it.
    """
    if main:
        take_over()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    if shlex.quote(sys.executable) != sys.executable:
        sys.executable = shlex.quote(os.path.relpath(sys.executable))
    announce_plugins(plugins)


def announce_plugins(files: Iterable[str | Path]) -> None:
    """Let this process and those that it starts know the plugins; nothing is imported yet.

    Raises:
        TelepathyError: if a file does not exist or is no Python file.
    """
    paths = [Path(file).absolute() for file in files]
    for path in paths:
        if path.suffix != ".py" or not path.is_file():
            raise TelepathyError(f"config.yaml: at plugins, there is no Python file {path}.")
    os.environ[PLUGINS_VARIABLE] = os.pathsep.join(map(str, paths))


@contextmanager
def job_log(snakemake: Any) -> Iterator[None]:
    """Send all that a job prints to its log file.

    A `TelepathyError` ends the job with its one sentence, on the terminal and in the log; any other
    exception leaves its traceback in the log. Where memory ran out, the terminal says what helps.

    What was imported stays: the garbage collector is spared it, which took a second at the end of each job.
    """
    gc.freeze()
    terminal = os.dup(2)
    with joined_folder(), open(snakemake.log[0], "w", buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield
        except TelepathyError as error:
            print(f"Error: {error}", file=sys.stderr)
            os.write(terminal, f"\nError in rule {snakemake.rule}: {error}\n".encode())
            sys.exit(1)
        except Exception as error:
            traceback.print_exc()
            what = OUT_OF_MEMORY if _memory_ran_out(error) else "failed"
            os.write(terminal, f"\nRule {snakemake.rule} {what}: its log is {snakemake.log[0]}\n".encode())
            sys.exit(1)
        finally:
            say_gpu_memory()


def _memory_ran_out(error: Exception) -> bool:
    """Whether it says so: Python's own error, PyTorch's on a GPU, and what its CPU allocator says."""
    name, said = type(error).__name__, str(error)
    return name in ("MemoryError", "OutOfMemoryError") or "can't allocate memory" in said


def library_sources(script: str, plugins: Sequence[str] = ()) -> list[str]:
    """Library files that a workflow script uses, directly or through other library files, and plugins if it can.

    Snakemake does not see Python imports: rules take the version of these files as a parameter, so that it
    reruns what depends on an edit. Imports inside functions count too.

    Args:
        script: name of the script in ``workflow_scripts`` without ``.py``.
        plugins: files of the user's own, which count where a script may import them.

    Returns:
        Paths relative to the project's root, sorted.
    """
    found: set[Path] = set()
    queue = [ROOT / "workflow_scripts" / f"{script}.py"]
    while queue:
        for file in _imported_files(queue.pop()):
            if file not in found:
                found.add(file)
                queue.append(file)
    files = sorted(os.path.relpath(file, ROOT) for file in found)
    return [*files, *plugins] if set(IMPORTS_PLUGINS) & set(files) else files


def version_of(files: Iterable[str]) -> str:
    """Short hash of what some files hold, in their order."""
    return hashlib.sha256("".join(map(_hash_of, files)).encode()).hexdigest()[:16]


@cache
def _hash_of(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _names(listed: str) -> list[str]:
    """``a, b as c`` without what they are called."""
    return [item.split()[0] for item in listed.split(",") if item.strip()]


@cache
def _imported_files(source: Path) -> list[Path]:
    names: set[str] = set()
    # Parsing a hundred files would make a dry run wait; a string that looks like an import only adds a file.
    text = re.sub(r"#.*", "", source.read_text())
    for module, bracketed, listed, modules in IMPORT.findall(text):
        names.update([module, *(f"{module}.{name}" for name in _names(bracketed or listed)), *_names(modules)])
    files = []
    ours = (name.split(".") for name in names if name.split(".")[0] == "telepathy")
    # Importing a.b.c runs a and a.b too.
    parts = {tuple(path[:length]) for path in ours for length in range(1, len(path) + 1)}
    for path in sorted(parts):
        place = ROOT.joinpath(*path)
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                files.append(file)
    return files
