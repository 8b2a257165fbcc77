"""A folder whose Snakemake was killed can be used again by the same command.

Snakemake's own locks outlive a kill, and so do its jobs. The locks here are the kernel's: they end with the process
that holds them, whatever ended it.
"""

import fcntl
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil

FOLDER = Path(".snakemake")
MAIN = "TELEPATHY_MAIN"
"""Environment variable that tells jobs which process started them: host, number and time of its start."""

_held: list[IO[bytes]] = []


def take_over() -> None:
    """Let a Snakemake that starts in a folder go on from one that was killed there.

    If no other runs, what is left of the other's locks is removed, once its last job has ended. If
    one runs, nothing is done: Snakemake's own lock refuses the second.
    """
    FOLDER.mkdir(exist_ok=True)
    main = _lock("telepathy.main", fcntl.LOCK_EX | fcntl.LOCK_NB)
    if main is None:
        return
    _held.append(main)
    os.environ[MAIN] = f"{socket.gethostname()} {os.getpid()} {psutil.Process().create_time()}"
    jobs = _lock("telepathy.jobs", fcntl.LOCK_EX | fcntl.LOCK_NB)
    if jobs is None:
        print("Waiting for jobs of a Snakemake that was killed in this folder.", file=sys.stderr, flush=True)
        jobs = _lock("telepathy.jobs", fcntl.LOCK_EX)
    if jobs is not None:
        jobs.close()
    for left in sorted(FOLDER.glob("locks/*")):
        left.unlink(missing_ok=True)


@contextmanager
def joined_folder() -> Iterator[None]:
    """Say that this process is a job of this folder, and end it if the Snakemake that started it is killed.

    It ends by SIGTERM, at which training writes a checkpoint. A job on another host, as on a
    cluster, goes on.
    """
    host, _, rest = os.environ.get(MAIN, "").partition(" ")
    if host == socket.gethostname():
        number, started = rest.split()
        threading.Thread(target=_end_after, args=(int(number), float(started)), daemon=True).start()
    held = _lock("telepathy.jobs", fcntl.LOCK_SH)
    try:
        yield
    finally:
        if held is not None:
            held.close()


def _end_after(number: int, started: float) -> None:
    while True:
        try:
            process = psutil.Process(number)
            alive = process.create_time() == started and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            alive = False
        if not alive:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        time.sleep(0.5)


def _lock(name: str, how: int) -> IO[bytes] | None:
    """The file, locked; None where another process holds it, or the file system knows no locks."""
    if not FOLDER.is_dir():
        return None
    handle = open(FOLDER / name, "ab")  # noqa: SIM115 - it is held until the process ends
    try:
        fcntl.flock(handle, how)
    except OSError:
        handle.close()
        return None
    return handle
