"""Examples in batches of like length, computed within the memory that there is."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from telepathy.errors import TelepathyError

Done = TypeVar("Done")


def length_batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Group examples of like length so that a padded batch has at most ``tokens`` places."""
    batches: list[list[int]] = [[]]
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        if batches[-1] and lengths[row] * (len(batches[-1]) + 1) > tokens:
            batches.append([])
        batches[-1].append(row)
    return batches


def in_order(batches: Iterable[Sequence[int]], work: Callable[[Sequence[int]], Sequence[Any]]) -> list[Any]:
    """Do work on batches of rows, each row once, and return the results in the order of the rows."""
    found: dict[int, Any] = {}
    with torch.inference_mode():
        for rows, results in within_memory(batches, work):
            found.update(zip(rows, results, strict=True))
    return [found[row] for row in range(len(found))]


def within_memory(
    batches: Iterable[Sequence[int]], work: Callable[[Sequence[int]], Done]
) -> Iterator[tuple[list[int], Done]]:
    """Do work on batches of rows; where memory runs out, a batch is halved, and later ones are cut in as many parts.

    Args:
        batches: rows that go together.
        work: what is done with them; it may do it again for some of them, after it ran out of memory.

    Yields:
        Rows and the result of the work on them, in the order of the batches.

    Raises:
        TelepathyError: if the memory does not hold one row.
    """
    parts = 1
    for batch in batches:
        waiting = [(rows, parts) for rows in _cut(batch, parts)]
        while waiting:
            rows, part = waiting.pop(0)
            done = _if_memory_suffices(work, rows)
            if done:
                yield rows, done[0]
                continue
            torch.cuda.empty_cache()
            parts = max(parts, 2 * part)
            waiting = [(half, 2 * part) for half in _cut(rows, 2)] + waiting
            print(f"Out of memory: a batch is computed in {parts} parts from here on.", file=sys.stderr, flush=True)


def _cut(rows: Sequence[int], parts: int) -> list[list[int]]:
    return [part.tolist() for part in np.array_split(np.asarray(rows), min(parts, len(rows)))]


def _if_memory_suffices(work: Callable[[Sequence[int]], Done], rows: Sequence[int]) -> tuple[Done] | None:
    """The result, alone in a tuple; the error, which holds on to what was allocated, ends with this function."""
    try:
        return (work(rows),)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        if len(rows) == 1:
            raise TelepathyError(
                "The memory does not hold one example: "
                "take a GPU or a machine with more, or shorten the task's max_tokens."
            ) from error
    return None


def out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether memory ran out: a GPU's, or a CPU's by PyTorch or by NumPy, which reads the sender's states."""
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or should_reduce_batch_size(error)
