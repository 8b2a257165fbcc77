"""Two Snakemakes on one folder, and a token that must stay secret."""

import subprocess
import time

import pytest

from tests.faults.conftest import COMMAND, TINY, TOKEN, differing, make_study

pytestmark = pytest.mark.faults


def test_a_second_snakemake_is_told_and_disturbs_nothing(new_house, finished):
    house = new_house("shared")
    with open(house.path("first.txt"), "w") as said:
        first = subprocess.Popen([*COMMAND, *TINY], cwd=house.folder, stdout=said, stderr=said)
    end = time.monotonic() + 120
    while not list(house.path(".snakemake").glob("locks/*")):
        assert first.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    second = make_study(house, check=False)
    assert second.status != 0
    assert "Directory cannot be locked" in second.text
    assert first.wait() == 0, house.path("first.txt").read_text()[-3000:]
    assert differing(house, finished) == []


def test_the_token_of_the_hub_is_in_no_file(finished):
    files = [path for path in finished.folder.rglob("*") if path.is_file()]
    assert len(files) > 100
    assert [path for path in files if TOKEN.encode() in path.read_bytes()] == []
