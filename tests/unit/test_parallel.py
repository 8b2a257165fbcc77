"""Two processes on a CPU, for real, against one."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from telepathy import parallel
from telepathy.errors import TelepathyError
from telepathy.features import FeatureStore
from telepathy.files import read_json
from telepathy.parallel import launch
from telepathy.tasks.spec import load_task

from .conftest import LABEL_TASK
from .parallel_jobs import METHODS, fail_in_second, hears, pipeline, regress, regress_often
from .test_bridge_training import examples

ROUNDING = {"bridge": 2e-3, "prompt_tuning": 1e-5, "lora": 1e-5, "lora_on_prompts": 1e-5}
"""float32 sums in another order, through some steps of 0.01. AdamW takes whole steps along gradients that are next to
nothing too: a bridge's weights differ by 1e-4 where one process computes each batch in two parts."""


@pytest.fixture(scope="module")
def deterministic():
    """Undo at the end what a run demands of PyTorch for the rest of a process."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def place(lms, tmp_path_factory):
    """Two saved models and a cached task."""
    folder = tmp_path_factory.mktemp("place")
    for family in ("llama", "gpt2"):
        lms[family].model.save_pretrained(folder / family)
        lms[family].tokenizer.save_pretrained(folder / family)
    (folder / "task.yaml").write_text(yaml.safe_dump(LABEL_TASK, sort_keys=False))
    (folder / "task").mkdir()
    for split, count in {"train": 48, "dev": 12, "test": 13}.items():
        examples(count, split).to_parquet(folder / "task" / f"{split}.parquet")
    (folder / "task" / "source.json").write_text('{"files": {}}')
    return folder


@pytest.fixture(scope="module")
def made(place, tmp_path_factory, deterministic):
    """What one process and what two made of the same, by their number."""
    folders = {count: tmp_path_factory.mktemp(f"by{count}") for count in (1, 2)}
    for count, folder in folders.items():
        launch(pipeline, count, 1, "cpu", place=place, target=folder)
    return folders


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_two_processes_store_the_states_that_one_stores(place, made, split):
    stores = [FeatureStore(folder / "features", split, load_task(place / "task.yaml")) for folder in made.values()]
    one, two = (store.layer(1).batch(range(len(store)))[0].float() for store in stores)
    assert one.abs().sum() > 0
    torch.testing.assert_close(two, one, rtol=2**-7, atol=2**-7)  # one bfloat16 step
    for kind in ("mean", "last"):
        one, two = (torch.from_numpy(store.pooled(2, kind)) for store in stores)
        torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-5)


def test_two_processes_say_the_same_of_what_they_stored(made):
    indices = [read_json(folder / "features" / "index.json") for folder in made.values()]
    for index in indices:
        for split in index["splits"].values():
            split["files"] = sorted(split["files"])
    assert indices[0] == indices[1]


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_train_the_weights_that_one_trains(made, method):
    one, two = (load_file(folder / method / "model.safetensors") for folder in made.values())
    torch.testing.assert_close(two, one, rtol=1e-4, atol=ROUNDING[method])


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_write_the_history_that_one_writes(made, method):
    one, two = (read_json(folder / method / "training.json") for folder in made.values())
    for part in ("history", *(["alignment"] if method == "bridge" else [])):
        assert [record["accuracy"] for record in one[part]] == [record["accuracy"] for record in two[part]]
        for record, wanted in zip(two[part], one[part], strict=True):
            assert record == pytest.approx(wanted, rel=1e-3, abs=1e-5)


def test_a_run_of_two_processes_leaves_no_checkpoint_behind(made):
    assert not (made[2] / "kept").exists()


CASES = {
    "even": {"batch_size": 4},
    "odd": {"batch_size": 3},
    "one row": {"batch_size": 1},
    "cramped": {"batch_size": 8, "room": 2},
}
SHARES = {"even": ({2}, {2}), "odd": ({2}, {1}), "one row": ({1}, set()), "cramped": ({2}, {2})}


@pytest.fixture(scope="module")
def regressions(tmp_path_factory):
    """The same regressions by one process and by two: folder of results by number of processes."""
    folders = {count: tmp_path_factory.mktemp(f"regressions{count}") for count in (1, 2)}
    for count, folder in folders.items():
        launch(regress_often, count, 1, "cpu", target=str(folder / "run"), cases=CASES)
    return folders


def result(path, rank=0):
    return json.loads(path.with_name(f"{path.name}.{rank}.json").read_text())


def same(found, wanted):
    """Whether weights and history agree to the rounding of float32 (1e-5)."""
    for name, value in wanted["weights"].items():
        torch.testing.assert_close(torch.tensor(found["weights"][name]), torch.tensor(value), rtol=1e-5, atol=1e-6)
    for record, expected in zip(found["history"], wanted["history"], strict=True):
        assert record == pytest.approx(expected, rel=1e-4)
    return True


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rank", [0, 1])
def test_each_process_ends_with_the_weights_and_history_of_one_alone(regressions, case, rank):
    assert same(result(regressions[2] / f"run-{case}", rank), result(regressions[1] / f"run-{case}"))


@pytest.mark.parametrize("case", ["even", "odd", "one row"])
def test_the_rows_of_a_batch_are_shared_out(regressions, case):
    shares = [result(regressions[2] / f"run-{case}", rank)["seen"] for rank in (0, 1)]
    assert tuple({len(rows) for rows in seen} for seen in shares) == SHARES[case]
    alone = result(regressions[1] / f"run-{case}")["seen"]
    assert sorted(row for seen in shares for rows in seen for row in rows) == sorted(
        row for rows in alone for row in rows
    )


def test_out_of_memory_in_one_process_halves_the_parts_in_all(regressions):
    for rank in (0, 1):
        seen = result(regressions[2] / "run-cramped", rank)["seen"]
        assert {len(rows) for rows in seen[2:]} == {2}


def test_one_process_makes_no_state_of_accelerate(tmp_path):
    regress(tmp_path / "alone")
    assert (parallel.processes(), parallel.rank(), torch.distributed.is_initialized()) == (1, 0, False)


def test_the_checkpoint_of_two_processes_is_taken_up_by_one_and_by_two(tmp_path):
    with pytest.raises(RuntimeError, match="fails"):
        launch(regress, 2, 1, "cpu", target=str(tmp_path / "cut"), checkpoints=str(tmp_path / "kept"), stop_at=8)
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in (tmp_path / "kept").iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    regress(tmp_path / "one", checkpoints=copy)
    launch(regress, 2, 1, "cpu", target=str(tmp_path / "two"), checkpoints=str(tmp_path / "kept"))
    regress(tmp_path / "whole")
    for name in ("one", "two"):
        assert len(result(tmp_path / name)["seen"]) == 12 - 6
        assert same(result(tmp_path / name), result(tmp_path / "whole"))


SLOW = """
import sys
from telepathy.errors import TelepathyError
from telepathy.parallel import launch
from tests.unit.parallel_jobs import regress
try:
    launch(regress, 2, 1, "cpu", target=sys.argv[1], checkpoints=sys.argv[2], steps=400, checkpoint_every=390, slow=0.1)
except TelepathyError as error:
    print(error)
    sys.exit(1)
"""


def started(folder):
    """A slow run of two processes; returns when both train."""
    command = [sys.executable, "-c", SLOW, str(folder / "slow"), str(folder / "kept")]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, start_new_session=True)


def command_of(process):
    """Its command line; none if it ended just now, as helpers of an import do."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def training(process):
    """The two processes, once they hear signals."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = [child for child in psutil.Process(process.pid).children() if "spawn_main" in command_of(child)]
        if len(found) == 2 and all(hears(child.pid) for child in found):
            return sorted(found, key=lambda child: child.pid)
        time.sleep(0.2)
    raise AssertionError("two processes did not start to train")


@pytest.mark.parametrize("whom", ["group", "parent", "second"])
def test_a_signal_to_any_of_them_stops_all_at_one_step_with_a_checkpoint(tmp_path, whom):
    process = started(tmp_path)
    children = training(process)
    time.sleep(1)
    before = time.monotonic()
    if whom == "group":
        os.killpg(process.pid, signal.SIGTERM)
    else:
        os.kill({"parent": process.pid, "second": children[1].pid}[whom], signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert time.monotonic() - before < 10
    assert process.returncode == 1
    assert "run the same command again to go on from its checkpoint" in said
    assert not any(child.is_running() for child in children)
    regress(tmp_path / "resumed", checkpoints=tmp_path / "kept", steps=400, checkpoint_every=390)
    regress(tmp_path / "whole", steps=400, checkpoint_every=390)
    assert 0 < len(result(tmp_path / "resumed")["seen"]) < 400
    assert same(result(tmp_path / "resumed"), result(tmp_path / "whole"))


def test_a_process_that_waits_for_another_does_not_outlive_a_killed_job(tmp_path):
    process = started(tmp_path)
    first, second = training(process)
    second.suspend()  # the first waits for it, inside a collective that hears no signal
    time.sleep(1)
    process.kill()
    process.wait()
    try:
        _, alive = psutil.wait_procs([first], timeout=parallel.GRACE + 10)
    finally:
        second.resume()
        process.communicate(timeout=60)
    assert not alive
    assert not psutil.wait_procs([second], timeout=10)[1]


@pytest.mark.parametrize(
    "error, kind, sentence",
    [
        (TelepathyError("The second has no file."), TelepathyError, r"^The second has no file\.$"),
        (MemoryError("full"), MemoryError, "full"),
        (KeyError("absent"), RuntimeError, r"Traceback(.|\n)*KeyError: 'absent'"),
    ],
)
def test_what_the_process_that_failed_first_said_is_raised(tmp_path, error, kind, sentence):
    with pytest.raises(kind, match=sentence):
        launch(fail_in_second, 2, 1, "cpu", target=str(tmp_path / "done"), error=error)
    assert not (tmp_path / "done").exists()


def test_a_process_that_is_killed_ends_the_others_with_one_sentence(tmp_path):
    with pytest.raises(TelepathyError, match=r"One of the 2 processes of the job was ended by SIGKILL: .*more memory"):
        launch(fail_in_second, 2, 1, "cpu", target=str(tmp_path / "done"), error=None, then="killed")
