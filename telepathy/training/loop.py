"""The loop: AdamW, warm-up then cosine, selection on dev, exact resume."""

import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from telepathy import parallel
from telepathy.batches import out_of_memory
from telepathy.devices import seed_step
from telepathy.errors import TelepathyError
from telepathy.files import fingerprint
from telepathy.training.checkpoints import load_checkpoint, save_checkpoint
from telepathy.training.interruption import Interruption


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How something is trained.

    Attributes:
        steps: optimiser steps.
        batch_size: examples a step.
        learning_rate: peak learning rate of AdamW.
        warmup: share of the steps in which the rate rises linearly.
        schedule: ``cosine`` falls to zero after the warm-up, ``constant`` stays.
        weight_decay: AdamW's decoupled decay.
        clip: largest gradient norm.
        evaluations: how often dev is scored, evenly spread; the last is at the last step.
        keep: ``best`` keeps the weights of the best dev accuracy, ``last`` those of the last step.
        checkpoint_every: steps between checkpoints; 0 for none.
    """

    steps: int
    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup: float = 0.1
    schedule: str = "cosine"
    weight_decay: float = 0.01
    clip: float = 1.0
    evaluations: int = 4
    keep: str = "best"
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "evaluations"):
            if getattr(self, name) < 1:
                raise TelepathyError(f"Training needs {name} of 1 at least, not {getattr(self, name)}.")
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise TelepathyError(f"Training needs {name} above 0, not {getattr(self, name)}.")
        for name in ("weight_decay", "checkpoint_every"):
            if getattr(self, name) < 0:
                raise TelepathyError(f"Training needs {name} of 0 at least, not {getattr(self, name)}.")
        if not 0 <= self.warmup < 1:
            raise TelepathyError(f"warmup is a share of the steps between 0 and 1, not {self.warmup}.")
        for name, allowed in (("schedule", ("cosine", "constant")), ("keep", ("best", "last"))):
            if getattr(self, name) not in allowed:
                raise TelepathyError(f"{name} must be {' or '.join(allowed)}, not {getattr(self, name)!r}.")

    def rate(self, step: int) -> float:
        """Learning rate of one step (0-based) as a share of the peak."""
        rising = max(1, round(self.warmup * self.steps))
        if step < rising:
            return (step + 1) / rising
        if self.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, self.steps - rising)))

    def evaluation_steps(self) -> set[int]:
        """Steps (1-based) after which dev is scored."""
        return {round(self.steps * (number + 1) / self.evaluations) for number in range(self.evaluations)} - {0}


@dataclass
class Stopwatch:
    """Seconds that training took, those of earlier attempts up to the checkpoint from which it went on included."""

    seconds: float = 0.0


class Learner(Protocol):
    """What the loop needs of something that learns."""

    @property
    def trainable(self) -> nn.Module:
        """Module whose parameters that require gradients are trained and kept."""

    @property
    def examples(self) -> int:
        """Number of training examples."""

    def loss(self, rows: Sequence[int]) -> Tensor:
        """Mean loss of a batch of training examples, each of which counts the same.

        A learner whose mean is over something else (tokens) also has ``weight(rows)``: how many there are.
        One whose loss changes on the way also has ``begin(share)``, told before each step what share of them is taken.
        """

    def evaluate(self) -> dict[str, float]:
        """Dev metrics; ``accuracy`` (and ``loss`` to break ties) select the weights that are kept."""


def batch_rows(examples: int, batch_size: int, step: int, seed: int) -> list[int]:
    """Rows of one step's batch: a pure function of seed and step, so a resumed run sees the same data.

    Every epoch is a fresh permutation; batches run on across epochs.
    """
    rows: list[int] = []
    for place in range(step * batch_size, (step + 1) * batch_size):
        epoch, offset = divmod(place, examples)
        if not rows or offset == 0:
            order = np.random.default_rng([seed, epoch]).permutation(examples)
        rows.append(int(order[offset]))
    return rows


def trained_state(module: nn.Module) -> dict[str, Tensor]:
    """Copy of the parameters that train and of all buffers that are saved."""
    frozen = {name for name, value in module.named_parameters() if not value.requires_grad}
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items() if name not in frozen}


def fit(
    learner: Learner,
    config: TrainingConfig,
    seed: int,
    identity: Any = None,
    checkpoints: str | Path | None = None,
    progress: Callable[[dict[str, float]], None] | None = None,
    score_start: bool = False,
    stopwatch: Stopwatch | None = None,
) -> list[dict[str, float]]:
    """Train, leave the chosen weights in the learner and return the history.

    Of several processes (see `telepathy.parallel`) each computes the gradients of its share of every
    batch and takes the same step; the main one writes the checkpoints. Any number may go on from them.

    Args:
        learner: what learns.
        config: how.
        seed: decides the order of the data and every random draw.
        identity: what the run is (JSON); a checkpoint of another identity is refused.
        checkpoints: folder for checkpoints, outside any declared output; None for none.
        progress: called with each history record.
        score_start: score dev before the first step too, because the weights are trained already.
        stopwatch: the time is added to it.

    Returns:
        One record an evaluation: ``step``, ``train_loss`` (mean since the last), ``gradient_norm``
        (largest since the last; both absent at the start), ``learning_rate`` and the learner's dev metrics.

    Raises:
        TelepathyError: if the loss or its gradient is not finite, with step, rate and gradient norm; or
            if a signal asked for the end, after a checkpoint was written.
    """
    module = learner.trainable
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    mark = fingerprint([asdict(config), seed, identity])
    state: dict[str, Any] = {
        "step": 0,
        "history": [],
        "best": None,
        "losses": [],
        "norms": [],
        "part": config.batch_size,
        "seconds": 0.0,
    }
    if checkpoints is not None:
        state = load_checkpoint(Path(checkpoints), mark, module, optimizer) or state
    started = time.perf_counter() - state["seconds"]
    parallel.copy_from_main(parameters)
    parallel.wait()  # until all have read the checkpoint, which the main process may change or remove
    due = config.evaluation_steps() | ({0} if score_start else set())
    with Interruption() as interruption:
        for step in _bar(state["step"], config.steps):
            _score_if_due(learner, config, due, state, interruption, progress)
            rate = config.learning_rate * config.rate(step)
            loss, norm = _one_step(learner, parameters, optimizer, config, step, seed, rate, state)
            state["losses"].append(loss)
            state["norms"].append(norm)
            state["step"] = step + 1
            stopping = parallel.anyone(bool(interruption.asked))
            if checkpoints is not None and _checkpoint_due(config, step + 1, stopping):
                if parallel.is_main():
                    state["seconds"] = time.perf_counter() - started
                    save_checkpoint(Path(checkpoints), mark, module, optimizer, state)
                parallel.wait()  # a signal may end the others before it is written
            if stopping:
                interruption.stop()
        _score_if_due(learner, config, due, state, interruption, progress)
    if config.keep == "best" and state["best"] is not None:
        module.load_state_dict(state["best"], strict=False)
    if stopwatch is not None:
        stopwatch.seconds += time.perf_counter() - started
    return state["history"]


def _bar(first: int, steps: int) -> Iterable[int]:
    shown = parallel.is_main()
    return tqdm(range(first, steps), initial=first, total=steps, mininterval=5, disable=not shown)


def _one_step(learner, parameters, optimizer, config, step, seed, rate, state) -> tuple[float, float]:
    for group in optimizer.param_groups:
        group["lr"] = rate
    if hasattr(learner, "begin"):
        learner.begin(step / config.steps)
    rows = batch_rows(learner.examples, config.batch_size, step, seed)
    loss = None
    while loss is None:
        seed_step(seed, step)
        optimizer.zero_grad(set_to_none=True)
        loss = _gradients_that_fit(learner, rows, state)
    loss = parallel.total_number(loss)
    parallel.sum_gradients(parameters)
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, config.clip))
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise TelepathyError(
            f"Training broke off at step {step + 1}: the loss is {loss}, the gradient norm {norm}, "
            f"the learning rate {rate:.2g}; lower learning_rate or set dtype: float32."
        )
    optimizer.step()
    return loss, norm


def _gradients_that_fit(learner: Learner, rows: Sequence[int], state: dict[str, Any]) -> float | None:
    """This process's part of a batch's mean loss and of its gradients.

    None where memory did not suffice, in this or another process: parts are half as large then.
    The gradient of the batch is the mean over its parts, each weighted by its examples, so the
    effective batch stays. The size of the parts stays for all later steps.
    """
    loss = None
    try:
        loss = _gradients(learner, rows, state["part"])
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        if state["part"] == 1:
            raise TelepathyError(
                "The memory does not hold one training example: "
                "take a GPU or a machine with more, or shorten the task's max_tokens."
            ) from error
    if not parallel.anyone(loss is None):
        return loss
    torch.cuda.empty_cache()
    state["part"] = (state["part"] + 1) // 2
    print(f"Out of memory: a batch of {len(rows)} is computed in parts of {state['part']} from here on.", flush=True)
    return None


def _gradients(learner: Learner, rows: Sequence[int], part: int) -> float:
    weigh, own, total = getattr(learner, "weight", len), parallel.share(rows), 0.0
    for start in range(0, len(own), part):
        some = own[start : start + part]
        loss = learner.loss(some) * (weigh(some) / weigh(rows))
        loss.backward()
        total += loss.item()
    return total


def _checkpoint_due(config: TrainingConfig, step: int, stopping: bool) -> bool:
    """Whether to write one after a step: also before each evaluation, which a signal may break off."""
    if not config.checkpoint_every:
        return False
    return stopping or step % config.checkpoint_every == 0 or step in config.evaluation_steps()


def _score_if_due(
    learner: Learner,
    config: TrainingConfig,
    due: Collection[int],
    state: dict[str, Any],
    interruption: Interruption,
    progress: Callable[[dict[str, float]], None] | None,
) -> None:
    """Score dev if the last step is one after which it is scored and was not yet (as in a resumed run)."""
    step, scored = state["step"], [entry["step"] for entry in state["history"]]
    if step not in due or step in scored:
        return
    with interruption.at_once():
        _record(learner, state, step, config.learning_rate * config.rate(step - 1) if step else 0.0)
    if progress is not None and parallel.is_main():
        progress(state["history"][-1])


def _record(learner: Learner, state: dict[str, Any], step: int, rate: float) -> None:
    module = learner.trainable
    module.eval()
    metrics = learner.evaluate()
    module.train()
    losses, norms = state.pop("losses"), state.pop("norms")
    state["losses"], state["norms"] = [], []
    record: dict[str, float] = {"step": step, "learning_rate": rate}
    if losses:  # none at the start
        record |= {"train_loss": sum(losses) / len(losses), "gradient_norm": max(norms)}
    state["history"].append({**record, **metrics})
    best = max((entry["accuracy"], -entry["loss"]) for entry in state["history"])
    if (metrics["accuracy"], -metrics["loss"]) == best:
        state["best"] = trained_state(module)
