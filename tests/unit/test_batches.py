"""Batches of like length, and what becomes of them where memory ends."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from telepathy.batches import in_order, length_batches, within_memory
from telepathy.errors import TelepathyError

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=50)


@given(LENGTHS, st.integers(1, 200))
def test_batches_hold_every_row_once(lengths, tokens):
    rows = [row for batch in length_batches(lengths, tokens) for row in batch]
    assert sorted(rows) == list(range(len(lengths)))


@given(LENGTHS, st.integers(1, 200))
def test_a_padded_batch_of_several_rows_has_no_more_places_than_allowed(lengths, tokens):
    batches = [batch for batch in length_batches(lengths, tokens) if len(batch) > 1]
    assert all(len(batch) * max(lengths[row] for row in batch) <= tokens for batch in batches)


@given(LENGTHS, st.integers(1, 200))
def test_a_batch_could_not_take_the_next_row_as_well(lengths, tokens):
    batches = length_batches(lengths, tokens)
    first_of_next = [batch[0] for batch in batches[1:]]
    assert all((len(batch) + 1) * lengths[row] > tokens for batch, row in zip(batches, first_of_next))


@given(LENGTHS, st.integers(1, 200))
def test_batches_go_from_short_to_long(lengths, tokens):
    ordered = [lengths[row] for batch in length_batches(lengths, tokens) for row in batch]
    assert np.all(np.diff(ordered) >= 0)


def work_with_room_for(room, seen):
    """Squares of rows, of no more than so many at once."""

    def work(rows):
        seen.append(len(rows))
        if len(rows) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return [row**2 for row in rows]

    return work


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(1, 20), st.randoms())
def test_with_little_memory_every_row_is_done_once_and_comes_in_its_place(sizes, room, random):
    rows = list(range(sum(sizes)))
    random.shuffle(rows)
    ends = np.cumsum(sizes)
    batches = [rows[end - size : end] for size, end in zip(sizes, ends)]
    seen = []
    assert in_order(batches, work_with_room_for(room, seen)) == [row**2 for row in range(len(rows))]
    done = [size for size in seen if size <= room]
    assert sum(done) == len(rows)


def test_a_batch_that_does_not_fit_is_halved_and_so_are_later_ones():
    seen = []
    batches = [range(2), range(2, 12), range(12, 22)]
    results = list(within_memory(batches, work_with_room_for(3, seen)))
    assert seen == [2, 10, 5, 3, 2, 5, 3, 2, 3, 3, 2, 2]
    assert [len(rows) for rows, _ in results] == [2, 3, 2, 3, 2, 3, 3, 2, 2]


def test_one_example_that_does_not_fit_is_an_error():
    with pytest.raises(TelepathyError, match="does not hold one example: take a GPU or a machine with more"):
        in_order([[0, 1]], work_with_room_for(0, []))


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def work(_rows):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        in_order([[0, 1]], work)


CRAMPED = """
import json, resource, psutil, torch
from telepathy.batches import within_memory
has = psutil.Process().memory_info().vms
resource.setrlimit(resource.RLIMIT_AS, (has + 500 * 2**20,) * 2)
work = lambda rows: torch.full((len(rows), 2**24), 2.0).sum(1).tolist()  # 64 MiB a row
print(json.dumps(list(within_memory([range(16), range(16, 32)], work))))
"""


def test_where_the_kernel_gives_no_more_memory_batches_are_halved():
    run = subprocess.run([sys.executable, "-c", CRAMPED], capture_output=True, text=True, check=True)
    done = json.loads(run.stdout)
    assert [row for rows, _ in done for row in rows] == list(range(32))
    assert all(result == [2.0**25] * len(rows) for rows, result in done)
    assert 1 < max(len(rows) for rows, _ in done) < 8
    assert "Out of memory" in run.stderr
