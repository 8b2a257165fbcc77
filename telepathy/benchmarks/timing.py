"""Time several arms against each other: warmed up, interleaved, with intervals."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.stats import bootstrap
from torch.autograd import DeviceType

from telepathy.devices import Compute, forget_peak_memory, peak_memory_mb

DETAILED = 5
"""Most trials in which stages, or kernels, are timed apart on a GPU: a relay has tens of thousands of kernels."""


class Clock:
    """Time that stages take. On a GPU every stage is waited for, so it runs only where it is asked to."""

    def __init__(self, compute: Compute):
        self.cuda, self.running = compute.device.type == "cuda", compute.device.type != "cuda"
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        if not self.running:
            yield
            return
        self.wait()
        started = time.perf_counter()
        yield
        self.wait()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that counts as a stage."""

        def timed(*inputs: Any) -> Any:
            with self.stage(name):
                return function(*inputs)

        return timed

    def wait(self) -> None:
        """Wait for the GPU."""
        if self.cuda:
            torch.cuda.synchronize()


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way from texts to answers.

    Attributes:
        run: answers a batch; returns the answers and how many tokens were generated for each example.
        prepare: makes what ``run`` takes out of the examples, outside the timer.
    """

    run: Callable[[Any], tuple[list[Any], list[int]]]
    prepare: Callable[[Sequence[Any]], Any] = list


@dataclass
class Trials:
    """What was measured of one arm; times in milliseconds."""

    total: list[float] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)
    device: list[float] = field(default_factory=list)
    tokens: list[list[int]] = field(default_factory=list)
    memory_mb: float = 0.0


def interleaved(
    arms: Mapping[str, Arm], batches: Sequence[Sequence[Any]], warmups: int, trials: int, clock: Clock, compute: Compute
) -> dict[str, Trials]:
    """Time every arm on the same batches, one arm after the other in each trial.

    The arm that begins changes from trial to trial. Warm-ups go from the shortest batch to the longest, so that
    trials meet few shapes that are new. On a GPU stages and kernels are timed in further trials, because waiting for
    a stage slows the whole.

    Args:
        arms: name -> arm.
        batches: inputs of the trials, in turn.
        warmups: untimed calls of each arm.
        trials: timed calls of each arm.
        clock: of the arms' stages.
        compute: device that is waited for.
    """
    found, names = {name: Trials() for name in arms}, list(arms)
    by_size = sorted(batches, key=lambda batch: len(str(batch)))
    warm = [by_size[-1 - place * len(by_size) // warmups] for place in reversed(range(warmups))]
    for trial in range(-warmups, trials):
        batch, first = warm[trial] if trial < 0 else batches[trial % len(batches)], trial % len(names)
        for name in names[first:] + names[:first]:
            one = _timed(arms[name], batch, clock, compute)
            if trial >= 0:
                _add(found[name], one)
    if clock.cuda:
        for trial in range(min(trials, DETAILED)):
            for name, arm in arms.items():
                _detail(found[name], arm, batches[trial % len(batches)], clock)
    return found


def _timed(arm: Arm, batch: Sequence[Any], clock: Clock, compute: Compute) -> Trials:
    ready = arm.prepare(batch)
    clock.seconds.clear()
    clock.wait()
    forget_peak_memory(compute)
    started = time.perf_counter()
    _, tokens = arm.run(ready)
    clock.wait()
    total = 1e3 * (time.perf_counter() - started)
    stages = [{name: 1e3 * seconds for name, seconds in clock.seconds.items()}] if clock.running else []
    return Trials([total], stages, [], [tokens], peak_memory_mb(compute))


def _add(trials: Trials, one: Trials) -> None:
    trials.total += one.total
    trials.stages += one.stages
    trials.tokens += one.tokens
    trials.memory_mb = max(trials.memory_mb, one.memory_mb)


def _detail(trials: Trials, arm: Arm, batch: Sequence[Any], clock: Clock) -> None:
    """Time the stages of one call, and the kernels of another (their sum: what the GPU worked)."""
    ready = arm.prepare(batch)
    clock.seconds.clear()
    clock.running = True
    arm.run(ready)
    clock.running = False
    trials.stages.append({name: 1e3 * seconds for name, seconds in clock.seconds.items()})
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        arm.run(ready)
        clock.wait()
    trials.device.append(worked_ms(profile.profiler.kineto_results.events()))


def worked_ms(events: Iterable[Any]) -> float:
    """Milliseconds that a GPU's kernels and copies took; spans that a profiler marks about them do not count.

    ``key_averages``, which counts the same, takes seconds to build a tree of tens of thousands of events.

    Args:
        events: raw ones of `torch.profiler.profile`.
    """
    of_gpu = (event for event in events if event.device_type() == DeviceType.CUDA)
    return sum(e.duration_ns() for e in of_gpu if not (e.is_user_annotation() or e.is_hidden_event())) / 1e6


def median_interval(values: Sequence[float], level: float = 0.95, resamples: int = 2000) -> tuple[float, float, float]:
    """Median, and its percentile bootstrap interval (Efron 1979); seeded, so the same values give the same interval."""
    middle = float(np.median(values))
    if len(set(values)) < 2:
        return middle, middle, middle
    found = bootstrap(
        (np.asarray(values),),
        np.median,
        n_resamples=resamples,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return middle, float(found.confidence_interval.low), float(found.confidence_interval.high)
