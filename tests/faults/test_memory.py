"""Memory that runs out for real, on a CPU: a limit on the address space of a process."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.faults
ROOM = 224
"""MiB that a process may take once it is ready; an example needs 64."""
CODE = """
import json, resource, sys
import numpy as np
import torch
from pathlib import Path
from telepathy.errors import TelepathyError
from telepathy.training.loop import fit
from tests.unit.test_loop import Regression, config

kind, room = sys.argv[1], int(sys.argv[2])
make = {"torch": torch.ones, "numpy": lambda size: torch.from_numpy(np.ones(size, np.float32))}[kind]

class Large(Regression):
    def loss(self, rows):
        taken = make(len(rows) * 2**24)  # 64 MiB an example
        return super().loss(rows) + 0 * taken[0]

torch.set_num_threads(1)
fit(Regression(), config(batch_size=8), seed=3)  # all libraries are loaded and warm
learner = Large()
if room:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + room * 2**20,) * 2)
try:
    fit(learner, config(batch_size=8), seed=3)
except TelepathyError as error:
    print(error)
    sys.exit(3)
print(json.dumps({"sizes": sorted({len(rows) for rows in learner.seen}), "weight": learner.module.weight.tolist()}))
"""


def train(kind, room):
    """Status of a process that trains in so many MiB (0: without a limit), and what it said last."""
    command = [sys.executable, "-c", CODE, kind, str(room)]
    done = subprocess.run(command, text=True, capture_output=True, timeout=200)
    assert done.stdout, done.stderr[-2000:]
    return done.returncode, done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def roomy():
    """What comes out where memory suffices."""
    return json.loads(train("torch", 0)[1])


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_where_a_batch_does_not_fit_its_parts_are_halved_and_the_result_stays(roomy, kind):
    status, said = train(kind, ROOM)
    assert status == 0
    found = json.loads(said)
    assert (roomy["sizes"], found["sizes"]) == ([8], [2])
    assert found["weight"][0] == pytest.approx(roomy["weight"][0], rel=1e-4)


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_where_one_example_does_not_fit_one_sentence_says_so(kind):
    status, said = train(kind, 32)
    assert status == 3
    assert said.startswith("The memory does not hold one training example: take a GPU or a machine with more")
