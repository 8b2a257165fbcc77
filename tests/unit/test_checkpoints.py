import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from telepathy.errors import TelepathyError
from telepathy.training import checkpoints
from telepathy.training.loop import Stopwatch, TrainingConfig, fit

from .parallel_jobs import hears, regress

STEPS = 12


class Stop(Exception):
    """What ends a run before its time."""


class Noisy:
    """A small regression that draws from every random generator at every step."""

    def __init__(self, stop_at=None):
        torch.manual_seed(0)
        self.module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 1))
        self.inputs, self.targets = torch.randn(10, 3), torch.randn(10, 1)
        self.steps, self.stop_at = 0, stop_at
        torch.manual_seed(5)
        np.random.seed(5)
        random.seed(5)

    @property
    def trainable(self):
        return self.module

    @property
    def examples(self):
        return len(self.inputs)

    def loss(self, rows):
        if self.steps == self.stop_at:
            raise Stop
        self.steps += 1
        noise = 0.1 * (np.random.rand() + random.random() + random.gauss(0, 1))
        return (self.module(self.inputs[rows]) - self.targets[rows] + noise).pow(2).mean()

    def evaluate(self):
        with torch.no_grad():
            loss = float((self.module(self.inputs) - self.targets).pow(2).mean())
        return {"accuracy": round(-loss, 2), "loss": loss}


def config(**changes):
    settings = {"steps": STEPS, "batch_size": 4, "learning_rate": 0.05, "evaluations": 4, "checkpoint_every": 2}
    return TrainingConfig(**{**settings, **changes})


def run(folder, stop_at=None, identity="films", seed=3, **changes):
    """Train with checkpoints; returns the learner and the history, None where it was stopped."""
    learner = Noisy(stop_at)
    try:
        return learner, fit(learner, config(**changes), seed, identity, folder)
    except Stop:
        return learner, None


@pytest.fixture
def whole():
    """Learner and history of a run that nobody stopped."""
    return run(None)


def same_weights(one, other):
    pairs = zip(one.module.state_dict().values(), other.module.state_dict().values(), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("stop_at", [2, 5, 8, 11])
def test_a_run_that_was_stopped_ends_with_the_same_weights(tmp_path, stop_at, keep):
    run(tmp_path, stop_at, keep=keep)
    resumed, _ = run(tmp_path, keep=keep)
    assert same_weights(resumed, run(None, keep=keep)[0])


class Timed(Noisy):
    """Each of its steps takes a while that is known."""

    SECONDS = 0.05

    def loss(self, rows):
        time.sleep(self.SECONDS)
        return super().loss(rows)


def test_the_time_of_earlier_attempts_counts_up_to_their_checkpoints(tmp_path):
    stopwatch, started = Stopwatch(), time.perf_counter()
    with pytest.raises(Stop):
        fit(Timed(stop_at=9), config(), 3, None, tmp_path, stopwatch=stopwatch)
    assert stopwatch.seconds == 0.0  # of an attempt that ends in weights alone
    fit(Timed(), config(), 3, None, tmp_path, stopwatch=stopwatch)
    assert STEPS * Timed.SECONDS < stopwatch.seconds < time.perf_counter() - started
    fit(Timed(), config(), 3, stopwatch=stopwatch)  # a bridge's training has two parts
    assert 2 * STEPS * Timed.SECONDS < stopwatch.seconds < time.perf_counter() - started


class Early(Noisy):
    """Its first evaluation is its best, if it is the first of the run."""

    def __init__(self, first, stop_at=None):
        super().__init__(stop_at)
        self.accuracy = first

    def evaluate(self):
        accuracy, self.accuracy = self.accuracy, 0.1
        return {**super().evaluate(), "accuracy": accuracy}


def test_weights_that_were_best_before_the_stop_are_kept(tmp_path):
    whole = Early(0.9)
    fit(whole, config(), 3)
    with pytest.raises(Stop):
        fit(Early(0.9, stop_at=5), config(), 3, None, tmp_path)
    resumed = Early(0.1)
    fit(resumed, config(), 3, None, tmp_path)
    assert same_weights(resumed, whole)


@pytest.mark.parametrize("stop_at", [2, 5, 8, 11])
def test_a_run_that_was_stopped_ends_with_the_same_history(tmp_path, whole, stop_at):
    run(tmp_path, stop_at)
    assert run(tmp_path)[1] == whole[1]


def test_a_run_that_was_stopped_twice_ends_with_the_same_weights(tmp_path, whole):
    run(tmp_path, stop_at=3)
    run(tmp_path, stop_at=5)
    assert same_weights(run(tmp_path)[0], whole[0])


def test_checkpoints_do_not_change_what_is_learnt(tmp_path, whole):
    assert same_weights(run(tmp_path)[0], whole[0])


@pytest.mark.parametrize("stop_at, again", [(1, 12), (5, 8), (8, 4), (11, 2)])
def test_only_the_steps_after_the_last_checkpoint_are_taken_again(tmp_path, stop_at, again):
    run(tmp_path, stop_at)
    assert run(tmp_path)[0].steps == again


def test_a_finished_run_takes_no_step_again(tmp_path):
    run(tmp_path)
    assert run(tmp_path)[0].steps == 0


def test_no_checkpoint_is_written_where_none_is_asked_for(tmp_path):
    run(tmp_path, checkpoint_every=0)
    assert list(tmp_path.iterdir()) == []


def test_the_checkpoint_that_is_taken_is_named(tmp_path, capsys):
    run(tmp_path, stop_at=5)
    capsys.readouterr()
    run(tmp_path)
    assert f"Going on from the checkpoint {tmp_path / 'last.safetensors'}." in capsys.readouterr().out


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def emptied(path):
    path.write_bytes(b"")


def garbled(path):
    path.write_bytes(b"\x00\x01 not a checkpoint")


@pytest.mark.parametrize("damage", [cut, emptied, garbled])
def test_a_damaged_checkpoint_is_refused_with_its_path(tmp_path, damage, capsys):
    run(tmp_path, stop_at=7)
    damage(tmp_path / "last.safetensors")
    run(tmp_path)
    assert f"The checkpoint {tmp_path / 'last.safetensors'} is not used: it is damaged" in capsys.readouterr().out


@pytest.mark.parametrize("damage", [cut, emptied, garbled])
def test_the_checkpoint_before_a_damaged_one_is_used(tmp_path, damage, whole):
    run(tmp_path, stop_at=7)
    damage(tmp_path / "last.safetensors")
    resumed, _ = run(tmp_path)
    assert (resumed.steps, same_weights(resumed, whole[0])) == (STEPS - 4, True)


def test_with_all_checkpoints_damaged_training_starts_anew(tmp_path, whole):
    run(tmp_path, stop_at=7)
    for path in tmp_path.iterdir():
        cut(path)
    resumed, _ = run(tmp_path)
    assert (resumed.steps, same_weights(resumed, whole[0])) == (STEPS, True)


@pytest.mark.parametrize("change", [{"learning_rate": 0.01}, {"seed": 4}, {"identity": "other"}, {"steps": 13}])
def test_a_checkpoint_of_another_run_is_not_used(tmp_path, change):
    run(tmp_path, stop_at=7)
    assert run(tmp_path, **change)[0].steps == change.get("steps", STEPS)


def test_a_checkpoint_of_another_run_is_refused_with_the_reason(tmp_path, capsys):
    run(tmp_path, stop_at=7)
    run(tmp_path, seed=4)
    assert "last.safetensors is not used: it was made with another configuration or seed." in capsys.readouterr().out


def test_a_checkpoint_of_another_version_is_refused_with_both(tmp_path, capsys, monkeypatch):
    run(tmp_path, stop_at=7)
    monkeypatch.setattr(checkpoints, "VERSION", checkpoints.VERSION + 1)
    run(tmp_path)
    assert (
        f"it is of version {checkpoints.VERSION - 1}, this is version {checkpoints.VERSION}." in capsys.readouterr().out
    )


def test_a_write_that_breaks_off_leaves_the_checkpoint_before(tmp_path, whole, monkeypatch):
    real, written = checkpoints.save_file, []

    def break_off(tensors, path, **more):
        written.append(path)
        if len(written) < 3:
            return real(tensors, path, **more)
        Path(path).write_bytes(b"half of it")
        raise Stop

    monkeypatch.setattr(checkpoints, "save_file", break_off)
    run(tmp_path)
    monkeypatch.undo()
    resumed, _ = run(tmp_path)
    assert (resumed.steps, same_weights(resumed, whole[0])) == (STEPS - 3, True)


FIRST_WRITE = 8
"""Touches of files until the first checkpoint has its name."""


def in_a_child(task):
    """Run something in a forked child; returns how it ended, as `os.waitpid` says it, a signal as a negative number."""
    child = os.fork()
    if child == 0:
        try:
            task()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at_event(folder, number):
    """Kill this process at its n-th opening, linking, renaming or removing of a file in a folder."""
    seen = []

    def hook(event, arguments):
        if event in ("open", "os.link", "os.rename", "os.remove") and str(folder) in str(arguments[0]):
            seen.append(event)
            if len(seen) == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    run(folder)


@pytest.mark.parametrize("number", range(1, 61))
def test_a_run_that_was_killed_at_any_touch_of_a_file_ends_with_the_same_weights(tmp_path, whole, number):
    assert in_a_child(lambda: kill_at_event(tmp_path, number)) == -signal.SIGKILL
    assert (tmp_path / "last.safetensors").is_file() or number <= FIRST_WRITE
    resumed, history = run(tmp_path)
    assert same_weights(resumed, whole[0]) and history == whole[1]


class Killed(Noisy):
    """Its process is killed in the middle of a step."""

    def loss(self, rows):
        value = super().loss(rows)
        if self.steps == self.killed_at:
            os.kill(os.getpid(), self.by)
        return value


def killed_run(folder, step, by=signal.SIGKILL):
    learner = Killed()
    learner.killed_at, learner.by = step, by
    return fit(learner, config(), 3, "films", folder)


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_a_run_that_was_killed_in_any_step_ends_with_the_same_weights(tmp_path, whole, step):
    assert in_a_child(lambda: killed_run(tmp_path, step)) == -signal.SIGKILL
    resumed, history = run(tmp_path)
    assert same_weights(resumed, whole[0]) and history == whole[1]


WARNINGS = pytest.mark.parametrize("warning", [signal.SIGTERM, signal.SIGUSR1])


@WARNINGS
@pytest.mark.parametrize("step", [1, 5, 6, STEPS])
def test_a_warning_ends_training_after_the_step_with_how_to_go_on(tmp_path, whole, step, warning):
    with pytest.raises(TelepathyError, match=f"stopped by {warning.name}: run the same command again to go on"):
        killed_run(tmp_path, step, warning)
    resumed, history = run(tmp_path)
    assert (resumed.steps, same_weights(resumed, whole[0]), history) == (STEPS - step, True, whole[1])


LONG = {"steps": 400, "checkpoint_every": 399}
TRAIN = f"""
import sys
from tests.unit.parallel_jobs import regress
regress(sys.argv[1], checkpoints=sys.argv[2], slow=0.1, **{LONG})
"""


@WARNINGS
def test_a_process_that_trains_is_gone_ten_seconds_after_a_warning_and_leaves_a_checkpoint(tmp_path, warning):
    command = [sys.executable, "-c", TRAIN, str(tmp_path / "slow"), str(tmp_path / "kept")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not hears(process.pid):
        time.sleep(0.1)
    time.sleep(1)
    assert not (tmp_path / "kept").exists()
    process.send_signal(warning)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 1 and f"stopped by {warning.name}" in said
    assert (tmp_path / "kept" / "last.safetensors").is_file()
    regress(tmp_path / "resumed", checkpoints=tmp_path / "kept", **LONG)
    regress(tmp_path / "whole", **LONG)
    resumed, whole = (json.loads((tmp_path / f"{name}.0.json").read_text()) for name in ("resumed", "whole"))
    assert 0 < len(resumed["seen"]) < len(whole["seen"])
    assert (resumed["weights"], resumed["history"]) == (whole["weights"], whole["history"])


class Slow(Noisy):
    """A signal arrives in the middle of its evaluation, which draws random numbers."""

    def evaluate(self):
        torch.rand(3)
        os.kill(os.getpid(), self.by)
        raise AssertionError("the evaluation went on")


@WARNINGS
def test_a_warning_breaks_off_an_evaluation(tmp_path, whole, warning):
    learner = Slow()
    learner.by = warning
    with pytest.raises(TelepathyError, match=f"stopped by {warning.name}"):
        fit(learner, config(), 3, "films", tmp_path)
    resumed, history = run(tmp_path)
    assert (resumed.steps, same_weights(resumed, whole[0]), history) == (STEPS - 3, True, whole[1])


def test_signals_are_handled_as_before_once_training_is_over():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    run(None)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before


@pytest.mark.parametrize("draw", range(40))
def test_a_flipped_bit_is_found(tmp_path, whole, draw, capsys):
    run(tmp_path, stop_at=7)
    path = tmp_path / "last.safetensors"
    content = bytearray(path.read_bytes())
    place = int(np.random.default_rng(draw).integers(8 * len(content)))
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)
    resumed, _ = run(tmp_path)
    assert f"The checkpoint {path} is not used" in capsys.readouterr().out
    assert (resumed.steps, same_weights(resumed, whole[0])) == (STEPS - 4, True)


def test_the_hash_of_a_checkpoint_is_that_of_its_parts():
    tensors = {"b": torch.tensor(1.5, dtype=torch.bfloat16), "a": torch.arange(3)}
    parts = [("a", "torch.int64 (3,)", np.arange(3).tobytes()), ("b", "torch.bfloat16 ()", b"\xc0\x3f")]
    digests = [hashlib.sha256(f"{name} {kind} ".encode() + content).hexdigest() for name, kind, content in parts]
    expected = hashlib.sha256(json.dumps([digests, {"mark": "m"}]).encode()).hexdigest()
    assert checkpoints.content_hash(tensors, {"mark": "m", "sha256": "x"}) == expected


def test_a_checkpoint_is_safetensors_without_frozen_weights(tmp_path):
    learner = Noisy()
    learner.module[0].weight.requires_grad_(False)
    fit(learner, config(), 3, None, tmp_path)
    with safe_open(tmp_path / "last.safetensors", framework="pt") as opened:
        names = {name for name in opened.keys() if name.startswith("module/")}  # noqa: SIM118
    assert names == {f"module/{name}" for name in learner.module.state_dict()} - {"module/0.weight"}
