"""Everything that touches the network: Python packages and the Hugging Face hub, pinned and verified."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TypeVar

from telepathy.errors import TelepathyError
from telepathy.files import read_json, sha256_of, write_json
from telepathy.hub import SILENCE, limit_silence

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before a hub request is made again where the trouble may pass."""

T = TypeVar("T")


def check_sha256(path: Path, expected: str, what: str, made_from: Sequence[Path] = ()) -> None:
    """Refuse a file whose sha256 is not the expected one; it and the folders that it came from are removed."""
    actual = sha256_of(path)
    if actual != expected:
        path.unlink()
        for folder in made_from:
            shutil.rmtree(folder, ignore_errors=True)
        raise TelepathyError(
            f"{what} have sha256 {actual}, but {expected} is pinned: the download was removed; "
            "try again, and if it differs again do not use it."
        )


def package_folder(requirement: str, downloads: Path) -> Path:
    """Where the archives of one package are kept."""
    return downloads / requirement.replace("==", "-")


def fetch_package(requirement: str, downloads: Path, sdist: bool = False) -> Path:
    """Download one Python package's archive without its dependencies and without installing it.

    Args:
        requirement: exact, e.g. ``vaderSentiment==2.5``.
        downloads: folder that keeps the archive for later calls.
        sdist: take the source archive instead of the wheel.

    Returns:
        The path of the archive.
    """
    folder = package_folder(requirement, downloads) / ("sdist" if sdist else "wheel")
    archives = sorted(folder.glob("*.whl")) + sorted(folder.glob("*.tar.gz"))
    if archives:
        return archives[0]
    kind = "--no-binary" if sdist else "--only-binary"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", kind, ":all:"]
        done = subprocess.run([*command, "--dest", scratch, requirement], capture_output=True, text=True)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip gave no reason"]
            raise TelepathyError(
                f"The package {requirement} could not be downloaded ({lines[-1].removeprefix('ERROR: ')}): "
                "check the network and pip's index settings, then run the same command again."
            )
        _publish(Path(scratch), folder)
    return next(path for path in folder.iterdir())


def _publish(scratch: Path, folder: Path) -> None:
    """Give a finished download its name; a job that finished the same one first has won."""
    try:
        os.replace(scratch, folder)
    except OSError:
        if not folder.is_dir():
            raise
    scratch.mkdir(exist_ok=True)


def unpack_package_file(requirement: str, member: str, downloads: Path, into: IO[bytes], sdist: bool = False) -> None:
    """Append one file of a package's archive to an open file.

    Args:
        member: path inside the archive; ``outer.tar.gz!inner.txt`` names a file inside a nested archive.

    Raises:
        TelepathyError: if the archive has no such member.
    """
    archive = fetch_package(requirement, downloads, sdist)
    outer, _, inner = member.partition("!")
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as opened, opened.open(outer) as handle:
                _copy(handle, inner, into)
        else:
            with tarfile.open(archive) as tar:
                prefix = archive.name.removesuffix(".tar.gz")
                _copy(_member(tar, f"{prefix}/{outer}"), inner, into)
    except KeyError as error:
        raise TelepathyError(f"{requirement} has no file {member}: correct the source in its YAML.") from error


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    opened = archive.extractfile(name)
    if opened is None:
        raise KeyError(f"{name} is no file")
    return opened


def _copy(handle: IO[bytes], inner: str, into: IO[bytes]) -> None:
    if inner:
        with tarfile.open(fileobj=handle) as nested:
            into.write(_member(nested, inner).read())
    else:
        while block := handle.read(1 << 22):
            into.write(block)


def pinned_revision(repo: str, kind: str, revision: str | None, pin: Path) -> str:
    """Resolve a hub repository to one commit, and hold every later fetch to it.

    A commit of 40 hexadecimal digits is taken as it is. Anything else (a branch, or nothing) is
    resolved on the hub; the first commit seen is recorded in ``pin``, and a later resolution to
    another commit is refused, since results of two versions must not be mixed.

    Returns:
        The commit, 40 hexadecimal digits.
    """
    if revision and len(revision) == 40 and set(revision) <= set("0123456789abcdef"):
        commit = revision
    else:
        commit = _resolve(repo, kind, revision)
    if pin.is_file():
        known = read_json(pin)["revision"]
        if known != commit:
            raise TelepathyError(
                f"The {kind} {repo} resolves to commit {commit}, but {known} was recorded in {pin}: "
                f"set revision: {known} to go on with it, or delete that file to start afresh."
            )
    else:
        write_json(pin, {"repo": repo, "revision": commit})
    return commit


def _resolve(repo: str, kind: str, revision: str | None) -> str:
    from huggingface_hub import HfApi

    with _hub_errors(repo, kind, revision):
        info = _patiently(lambda: HfApi().repo_info(repo, repo_type=kind, revision=revision, timeout=SILENCE))
    if not info.sha:
        raise TelepathyError(f"The hub names no commit for {repo}: set its revision in the YAML.")
    return info.sha


def hub_snapshot(repo: str, kind: str, revision: str, patterns: Sequence[str], downloads: Path) -> Path:
    """Download the files of one commit that match ``patterns``; resumes what an earlier call left."""
    from huggingface_hub import snapshot_download

    limit_silence()
    with _hub_errors(repo, kind, revision):
        folder = _patiently(
            lambda: snapshot_download(
                repo,
                repo_type=kind,
                revision=revision,
                allow_patterns=list(patterns),
                cache_dir=downloads / "hub",
                etag_timeout=SILENCE,
            )
        )
    return Path(folder)


def _patiently(request: Callable[[], T]) -> T:
    """Make a hub request again, after growing waits, while what failed may pass; a download goes on where it was."""
    for wait in WAITS:
        try:
            return request()
        except Exception as error:
            if not _may_pass(error):
                raise
            print(f"The hub did not answer ({type(error).__name__}): trying again in {wait:.0f} s.", flush=True)
            time.sleep(wait)
    return request()


def _may_pass(error: Exception) -> bool:
    """Whether to ask again: no connection, too slow, too many requests, or the hub's own trouble."""
    from huggingface_hub import errors as hub

    if isinstance(error, hub.OfflineModeIsEnabled):
        return False
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return status in (408, 429) or status >= 500
    return isinstance(error, ConnectionError | TimeoutError | hub.LocalEntryNotFoundError) or "httpx" in str(
        type(error)
    )


class _hub_errors:
    """Turn what the hub client raises into one sentence that says what to do."""

    def __init__(self, repo: str, kind: str, revision: str | None):
        self.repo, self.kind, self.revision = repo, kind, revision

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type, error, _trace) -> None:
        if error is None or isinstance(error, TelepathyError):
            return
        from huggingface_hub import errors as hub

        page = f"huggingface.co/{'datasets/' if self.kind == 'dataset' else ''}{self.repo}"
        if isinstance(error, hub.GatedRepoError):
            remedy = f"is gated: accept its terms on {page} and set the environment variable HF_TOKEN"
        elif isinstance(error, hub.RevisionNotFoundError):
            remedy = f"has no revision {self.revision}: take a commit from {page}/commits/main"
        elif isinstance(error, hub.RepositoryNotFoundError):
            remedy = "does not exist, or is private: check its name, and set HF_TOKEN if it is yours"
        elif getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
            remedy = f"refused the access token: make a new one on huggingface.co, see {page}, and set HF_TOKEN"
        elif isinstance(error, OSError | hub.HfHubHTTPError | hub.LocalEntryNotFoundError) or "httpx" in str(
            type(error)
        ):
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            remedy = f"could not be reached ({reason}): check the network and run the same command again"
        else:
            return
        raise TelepathyError(f"The {self.kind} {self.repo} on the Hugging Face hub {remedy}.") from error
