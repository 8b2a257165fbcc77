"""Several processes of one job, one a GPU, through accelerate; a single process is what it was without them.

Each process runs the same function on its own device and takes its `share` of the work; sums make
them agree. They are started afresh, not forked: CUDA may then be used in each, whatever the parent did.
"""

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from telepathy.errors import TelepathyError
from telepathy.files import atomic_path, partial_path
from telepathy.gpu_memory import say_gpu_memory
from telepathy.training.interruption import SIGNALS

if TYPE_CHECKING:
    from accelerate import PartialState

T = TypeVar("T")
GRACE = 30.0
"""Seconds that the other processes have to end by themselves after one has failed."""
LONGEST_WAIT = timedelta(days=1)
"""One process may hash gigabytes while the others wait; one that failed is noticed by the parent, not by this."""
LOOPBACK = {"linux": "lo", "darwin": "lo0"}
KINDS = {"TelepathyError": TelepathyError, "MemoryError": MemoryError, "OutOfMemoryError": MemoryError}

_group: "PartialState | None" = None


def processes() -> int:
    """Number of processes that share the work of this job."""
    return 1 if _group is None else _group.num_processes


def rank() -> int:
    """Number of this process, from 0; process 0 is the main one."""
    return 0 if _group is None else _group.process_index


def is_main() -> bool:
    """Whether this process writes what the job writes."""
    return rank() == 0


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's part of some items: every n-th; it may be empty."""
    return items if _group is None else items[rank() :: processes()]


def wait() -> None:
    """Go on when all processes have come this far."""
    if _group is not None:
        _group.wait_for_everyone()


def total(tensor: Tensor) -> Tensor:
    """Sum of a tensor over the processes, where and as it was."""
    if _group is None:
        return tensor
    from accelerate.utils import reduce

    return reduce(tensor.to(_group.device), reduction="sum").to(tensor.device)


def total_number(value: float) -> float:
    """Sum of a number over the processes, in double precision."""
    return value if _group is None else float(total(torch.tensor([value], dtype=torch.float64)))


def anyone(value: bool) -> bool:
    """Whether it is true in any process."""
    return total_number(float(value)) > 0


def sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Put the sum over the processes into the gradient of every parameter.

    One that has no gradient in any process stays without: an optimiser leaves it alone then.
    """
    if _group is None:
        return
    parts = [torch.zeros_like(value) if value.grad is None else value.grad for value in parameters]
    there = torch.tensor([float(value.grad is not None) for value in parameters], device=parts[0].device)
    summed = total(torch.cat([there, *(part.reshape(-1).float() for part in parts)]))
    sizes = [len(parts), *(part.numel() for part in parts)]
    there, *gradients = summed.split(sizes)
    for value, part, gradient, known in zip(parameters, parts, gradients, there.tolist(), strict=True):
        value.grad = gradient.view_as(part).to(part.dtype) if known else None


def copy_from_main(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors by those of the main process."""
    if _group is None:
        return
    from accelerate.utils import broadcast

    for tensor in tensors:
        tensor.data.copy_(broadcast(tensor.data.to(_group.device).contiguous()))


@contextmanager
def written_together(target: str | os.PathLike[str]) -> Iterator[Path]:
    """As `telepathy.files.atomic_path`, one path for all processes; it takes its name when all are done."""
    if is_main():
        with atomic_path(target) as partial:
            wait()
            yield partial
            wait()
    else:
        wait()
        yield partial_path(target)
        wait()


def launch(
    function: Callable[..., None], count: int, threads: int = 1, device: str = "auto", /, **arguments: Any
) -> None:
    """Run a function in some processes at once, or in this one if ``count`` is 1 or less.

    Args:
        function: of the top level of a module; it loads in each process the models that it needs.
        count: processes; on a machine with CUDA each has a GPU of its own, ``cuda:<rank>``.
        threads: CPU threads of all of them together.
        device: as `telepathy.devices.choose_compute` takes it.
        arguments: of the function, plain values.

    Raises:
        TelepathyError: what the process that failed first said, or which signal ended it.
        MemoryError: if it ran out of memory.
        RuntimeError: with its traceback, for anything else.
    """
    if count <= 1:
        torch.set_num_threads(max(1, threads))
        function(**arguments)
        return
    from torch.multiprocessing.spawn import ProcessException, start_processes

    with tempfile.TemporaryDirectory() as folder:
        call = (function, arguments, count, max(1, threads // count), device, folder)
        context = start_processes(_process, call, nprocs=count, join=False, start_method="spawn")
        try:
            with _passed_on(context.pids()):
                while not context.join(grace_period=GRACE):
                    pass
        except ProcessException:
            raise _first_failure(Path(folder), context.processes) from None


@contextmanager
def _passed_on(numbers: Sequence[int]) -> Iterator[None]:
    """Give the processes what this one is told by signals: it only waits for them."""

    def pass_on(heard: int, _frame: Any) -> None:
        for number in numbers:
            with suppress(ProcessLookupError):  # it has ended
                os.kill(number, heard)

    here = SIGNALS if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, pass_on) for number in here}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _process(
    number: int, function: Callable[..., None], arguments: dict, count: int, threads: int, device: str, folder: str
) -> None:
    """What each process does; the reason of a failure is left in a file for the parent."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _join(number, count, threads, device, Path(folder) / "meeting")
        function(**arguments)
        wait()
        say_gpu_memory()
    except Exception as error:
        about = {"when": time.monotonic(), "kind": type(error).__name__, "text": str(error)}
        if not isinstance(error, TelepathyError):
            about["text"] = traceback.format_exc()
        Path(folder, f"failure{number}.json").write_text(json.dumps(about))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # at once: what CUDA still waits for may never come
    assert _group is not None
    _group.destroy_process_group()


def _end_with_parent() -> None:
    """End this process `GRACE` seconds after its parent: no collective hears the SIGINT that PyTorch sends then."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    time.sleep(GRACE)
    os._exit(1)


def _join(number: int, count: int, threads: int, device: str, meeting: Path) -> None:
    """Become one of the processes of a job; they meet in a file, so no port has to be free."""
    global _group
    from accelerate import PartialState

    cpu = device == "cpu" or not torch.cuda.is_available()
    if not cpu and torch.cuda.device_count() < count:
        raise TelepathyError(
            f"The study asks for {count} GPUs a job, but this one sees {torch.cuda.device_count()}: "
            "set gpus in config.yaml to what a job is given."
        )
    if number:  # what all of them print is in the log once
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    places = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ.update({name: str(value) for name, value in {**places, "OMP_NUM_THREADS": threads}.items()})
    if sys.platform in LOOPBACK:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK[sys.platform])
    torch.set_num_threads(threads)
    _group = PartialState(cpu=cpu, init_method=f"file://{meeting}", rank=number, world_size=count, timeout=LONGEST_WAIT)
    print(f"{count} processes share this job; this one computes on {_group.device}.", flush=True)


def _first_failure(folder: Path, processes: Sequence[Any]) -> Exception:
    """The failure that came first: others only lost the process that had it."""
    said = [json.loads(path.read_text()) for path in folder.glob("failure*.json")]
    first = min(said, key=lambda about: about["when"], default=None)
    ended = [process.exitcode for process in processes if process.exitcode < 0]
    # Whoever hangs after a failure is killed here, but not before GRACE.
    killed = bool(ended) and (first is None or time.monotonic() - first["when"] < GRACE)
    if first is not None and (first["kind"] in KINDS or not killed):
        return KINDS.get(first["kind"], RuntimeError)(first["text"])
    how = signal.Signals(-ended[0]).name if ended else "an error that left no word"
    return TelepathyError(
        f"One of the {len(processes)} processes of the job was ended by {how}: "
        "run the same command again, with more memory (mem_mb) if that ran out."
    )
