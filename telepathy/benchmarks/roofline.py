"""The least time that the hardware would take: bytes and operations of the work over the machine's measured rates.

Each forward pass takes at least the time of its bytes (weights, key-value cache) at the copy bandwidth or of its
operations at the matrix rate, whichever is longer (Williams et al. 2009).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from telepathy.bridges import Bridge
from telepathy.devices import Compute
from telepathy.models.loading import LanguageModel, decoder_layers


@dataclass(frozen=True)
class Machine:
    """Rates that were measured on this machine: bytes and operations a second."""

    bytes_per_second: float
    operations_per_second: float

    def milliseconds(self, *passes: "Work") -> float:
        """Least time of some forward passes, one after another."""
        return sum(
            1e3 * max(work.bytes / self.bytes_per_second, work.operations / self.operations_per_second)
            for work in passes
        )


@dataclass(frozen=True)
class Work:
    """What one forward pass moves and computes."""

    bytes: float
    operations: float

    def __add__(self, other: "Work") -> "Work":
        return Work(self.bytes + other.bytes, self.operations + other.operations)


def measure_machine(compute: Compute, seconds: float = 1.0) -> Machine:
    """Measure copy bandwidth and matrix rate in the precision of the models: the best of several tries each.

    Args:
        compute: device and precision.
        seconds: about how long to measure each.
    """
    cuda = compute.device.type == "cuda"
    source = torch.ones(2**28 if cuda else 2**25, dtype=torch.float32, device=compute.device)
    target = torch.empty_like(source)
    copied = 2 * source.numel() * source.element_size()
    side = 8192 if cuda else 1024
    left, right = (torch.randn(side, side, device=compute.device).to(compute.dtype) for _ in range(2))
    return Machine(
        bytes_per_second=copied / _best(lambda: target.copy_(source), compute, seconds),
        operations_per_second=2 * side**3 / _best(lambda: left @ right, compute, seconds),
    )


def _best(work: Callable[[], object], compute: Compute, seconds: float) -> float:
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until or best == float("inf"):
        started = time.perf_counter()
        work()
        if compute.device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def model_work(
    lm: LanguageModel, batch: int, tokens: float, context: float, layers: int | None = None, head_rows: int = 0
) -> Work:
    """Work of one forward pass of a language model.

    Args:
        lm: the model; only its shapes are read, so it may lie on the meta device.
        batch: sequences.
        tokens: positions of each that are computed.
        context: positions that each of them sees at most, those of the cache included.
        layers: layers that are run, from the first; None for all.
        head_rows: rows of the vocabulary whose logits are computed, at one position a sequence.
    """
    stack = list(decoder_layers(lm.model))[: lm.depth if layers is None else layers]
    config = lm.model.config
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    stored = (getattr(config, "num_key_value_heads", None) or heads) * width
    weights = sum(parameter.numel() for layer in stack for parameter in layer.parameters())
    matrices = sum(value.numel() for layer in stack for value in layer.parameters() if value.dim() > 1)
    head = head_rows * lm.width
    size = lm.compute.dtype.itemsize
    return Work(
        bytes=size * (weights + head + 2 * batch * context * stored * len(stack)),
        operations=2 * batch * (tokens * matrices + head) + 4 * batch * tokens * context * heads * width * len(stack),
    )


def bridge_work(bridge: Bridge, batch: int, tokens: float) -> Work:
    """Work of a bridge over so many tokens of each sequence; operations are counted by PyTorch's own counter."""
    length = max(2, round(tokens))
    device = next(bridge.parameters()).device
    states = torch.zeros(batch, length, bridge.config.sender_width, device=device)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        bridge(states, torch.ones(batch, length, dtype=torch.bool, device=device))
    size = sum(value.numel() * value.element_size() for value in bridge.parameters())
    return Work(bytes=size, operations=counter.get_total_flops())
