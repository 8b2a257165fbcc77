"""What several processes run in test_parallel.py: functions that a fresh process can import."""

import os
import signal
import time
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from telepathy import features, parallel
from telepathy.config import method_settings
from telepathy.features import encode_cached_task
from telepathy.files import write_json
from telepathy.methods.bridge import BridgeData, train_bridge
from telepathy.methods.tuning import train_adapter
from telepathy.models.loading import with_model
from telepathy.tasks.spec import load_task
from telepathy.training.loop import TrainingConfig, fit

COMPUTE = {"device": "cpu", "dtype": "float32"}
BRIDGE = {"kind": "bridge", "sender_layer": 1, "width": 16, "heads": 2, "alignment_steps": 5}
ADAPTER = {"dev_examples": 12, "checkpoint_every": 3}
METHODS = {
    "bridge": BRIDGE,
    "prompt_tuning": {"kind": "prompt_tuning", **ADAPTER},
    "lora": {"kind": "lora", "rank": 2, **ADAPTER},
    "lora_on_prompts": {"kind": "lora", "rank": 2, "loss": "whole_prompt", **ADAPTER},
}


def settings(name):
    """A method's settings: ten steps of five examples, which two processes cannot share evenly."""
    own = {**METHODS[name], "steps": 15 if name == "bridge" else 10, "batch_size": 5, "learning_rate": 0.01}
    return method_settings({"methods": {name: {**own, "evaluations": 2}}}, name)


def pipeline(place, target):
    """Encode a task, then train a bridge and adapters on it, as the rules do."""
    place, target = Path(place), Path(target)
    task, examples = load_task(place / "task.yaml"), place / "task"
    encoding = {"task": task, "examples": examples, "limits": {}, "layers": [1], "pooled_layers": [2]}
    with mock.patch.object(features, "BATCH_TOKENS", 200):  # several batches a split
        with_model(encode_cached_task, "sender", place / "llama", COMPUTE, target=target / "features", **encoding)
    data = BridgeData(task=task, examples=examples, features=target / "features", limits={})
    rest = {"settings": settings("bridge"), "k": 2, "seed": 1, "target": target / "bridge"}
    with_model(train_bridge, "receiver", place / "gpt2", COMPUTE, data=data, checkpoints=target / "kept", **rest)
    for name in list(METHODS)[1:]:
        rest = {"settings": settings(name), "k": 2, "seed": 1, "target": target / name, "limits": {}}
        with_model(train_adapter, "receiver", place / "llama", COMPUTE, task=task, examples=examples, **rest)


class Regression:
    """Least squares on ten examples; one weight is never used, and memory may be short in the second process."""

    def __init__(self, room=100, slow=0.0, stop_at=None):
        torch.manual_seed(parallel.rank())  # a start of its own in each, which the loop has to mend
        self.module = nn.ModuleDict({"used": nn.Linear(3, 1), "unused": nn.Linear(3, 1)})
        generator = torch.Generator().manual_seed(0)
        self.inputs, self.targets = (torch.randn(10, width, generator=generator) for width in (3, 1))
        self.room, self.slow, self.stop_at, self.seen = room, slow, stop_at, []

    @property
    def trainable(self):
        return self.module

    @property
    def examples(self):
        return len(self.inputs)

    def loss(self, rows):
        if parallel.rank() == 1 and len(rows) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.seen.append(list(rows))
        if len(self.seen) == self.stop_at:
            raise ValueError(f"process {parallel.rank()} fails")
        time.sleep(self.slow)
        return (self.module["used"](self.inputs[rows]) - self.targets[rows]).pow(2).mean()

    def evaluate(self):
        with torch.no_grad():
            loss = float((self.module["used"](self.inputs) - self.targets).pow(2).mean())
        return {"accuracy": -loss, "loss": loss}


def regress(target, steps=12, checkpoints=None, batch_size=4, checkpoint_every=3, **changes):
    """Train a regression, leave its weights and history at ``target``, and what each process saw beside it."""
    learner = Regression(**changes)
    config = TrainingConfig(
        steps=steps, batch_size=batch_size, learning_rate=0.05, evaluations=3, checkpoint_every=checkpoint_every
    )
    history = fit(learner, config, 3, "films", checkpoints)
    weights = {name: value.tolist() for name, value in learner.module.state_dict().items()}
    write_json(f"{target}.{parallel.rank()}.json", {"weights": weights, "history": history, "seen": learner.seen})


def regress_often(target, cases):
    """Train several regressions in one go, ``<target>-<name>`` each."""
    for name, changes in cases.items():
        regress(f"{target}-{name}", **changes)


def fail_in_second(target, error, then=""):
    """The second process fails, or is killed, while the first waits for it."""
    if parallel.rank() == 1:
        if then == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise error
    parallel.wait()
    Path(target).touch()


def hears(number):
    """Whether a process has a handler for SIGTERM (Linux says so)."""
    lines = Path(f"/proc/{number}/status").read_text().splitlines()
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)
