"""The receiver's half of the runtime: sender states in, answers out; and how its stages are made fast on a GPU."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from telepathy.bridges import Bridge
from telepathy.models.loading import LanguageModel, decoder_layers
from telepathy.scoring.generation import generate
from telepathy.scoring.labels import LabelSet, label_scores
from telepathy.tasks.spec import Task
from telepathy.training.bridge import ReceiverSide, fixed_ids, receiver_prefix, shared_beginning


class BridgeRuntime:
    """A trained bridge and the frozen receiver that answers from its soft tokens.

    What stands before the soft tokens is run once, for all examples and all labels.

    Attributes:
        bridge: the trained bridge.
        receiver: the model that answers.
        task: primer and labels.
        side: how the receiver reads soft tokens.
        labels: the labels as the receiver says them; None for a task of numbers.
        shared: receiver positions before the soft tokens.
        fixed_tokens: receiver positions that are not soft tokens.
        bridge_stage, receiver_stage: what `translate` and `score` run.
    """

    def __init__(
        self,
        bridge: Bridge,
        receiver: LanguageModel,
        task: Task,
        side: ReceiverSide,
        compiled: bool = False,
        relative: bool = False,
    ):
        """Join the parts.

        Args:
            bridge: maps sender states to soft tokens.
            receiver: frozen causal LM.
            task: what is asked.
            side: how the receiver reads soft tokens.
            compiled: fuse the layers' small operations with `torch.compile`, and on a GPU record both stages.
            relative: score labels up to a number an example (see `label_scores`).
        """
        device = receiver.compute.device
        self.bridge, self.receiver, self.task, self.side = bridge.to(device).eval(), receiver, task, side
        self.labels = LabelSet.of(receiver, task) if task.labels else None
        self._past, self.shared = shared_beginning(receiver, task, side)
        before, after = fixed_ids(receiver, task, side)
        self.fixed_tokens = len(before) + len(after)
        self._after = receiver.embed(torch.tensor([after], dtype=torch.long, device=device)).detach()
        self._answerer = compiled_view(receiver, whole=False) if compiled else receiver
        self._relative = relative
        record = compiled and device.type == "cuda"
        self.bridge_stage = Recorded(self.bridge, record)
        self.receiver_stage = Recorded(self._score, record)

    @torch.inference_mode()
    def translate(self, states: Tensor, mask: Tensor) -> Tensor:
        """Map states ``[batch, tokens, d_sender]`` and their mask to soft tokens, ``[batch, k, d_receiver]``."""
        device = self.receiver.compute.device
        return self.bridge_stage(states.to(device), mask.to(device))

    @torch.inference_mode()
    def score(self, soft_tokens: Tensor) -> Tensor:
        """Score every label, ``[batch, n]`` in nats on the CPU; where ``relative``, up to a number an example."""
        return self.receiver_stage(soft_tokens).cpu()

    @torch.inference_mode()
    def write(self, soft_tokens: Tensor) -> list[str]:
        """Let the receiver write, greedily and at most the task's ``answer_tokens``."""
        prefix = self.receiver_prefix(soft_tokens)
        mask = torch.ones(prefix.shape[:2], dtype=torch.long, device=prefix.device)
        return generate(self.receiver, prefix, mask, self.task.answer_tokens)

    def receiver_prefix(self, soft_tokens: Tensor) -> Tensor:
        """Return all that the receiver reads, ``[batch, positions, d_receiver]``: BOS, primer and soft tokens."""
        return receiver_prefix(self.receiver, self.task, soft_tokens, self.side)

    def _score(self, soft: Tensor) -> Tensor:
        assert self.labels is not None
        after = self._after.expand(len(soft), -1, -1)
        prefix = torch.cat([soft.to(after.dtype), after], dim=1)
        positions = self.shared + prefix.shape[1]
        mask = torch.ones(len(soft), positions, dtype=torch.long, device=soft.device)
        return label_scores(self._answerer, prefix, mask, self.labels, self._past, relative=self._relative)


class Recorded:
    """A function of tensors that on a GPU is recorded as a CUDA graph for every new shape, then replayed.

    Its result lies where the next replay of the same shape writes: use it up, or copy it.
    """

    def __init__(self, function: Callable[..., Tensor], record: bool):
        self.function, self.record = function, record
        self.graphs: dict[tuple[Any, ...], tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return what the function returns."""
        if not self.record:
            return self.function(*inputs)
        shape = tuple((tuple(tensor.shape), tensor.dtype) for tensor in inputs)
        if shape not in self.graphs:
            self.graphs[shape] = self._recorded(inputs)
        graph, places, result = self.graphs[shape]
        for place, tensor in zip(places, inputs, strict=True):
            place.copy_(tensor)
        graph.replay()
        return result

    def _recorded(self, inputs: Sequence[Tensor]) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]:
        places = tuple(tensor.clone() for tensor in inputs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), _recording_announced():
            for _ in range(3):  # Kernels are chosen, compiled and their workspaces made before the recording.
                self.function(*places)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self.function(*places)
        return graph, places, result


@contextmanager
def _recording_announced() -> Iterator[None]:
    """Let transformers believe that a graph is recorded.

    It reads no values then, and makes masks that it leaves out otherwise (where nothing is padded). Layers that were
    compiled without a mask would be compiled again in the middle of the recording, which fails.
    """
    asked = torch.cuda.is_current_stream_capturing
    torch.cuda.is_current_stream_capturing = lambda: True
    try:
        yield
    finally:
        torch.cuda.is_current_stream_capturing = asked


def compiled_view(lm: LanguageModel, whole: bool, backend: str = "inductor") -> LanguageModel:
    """The same frozen weights under layers whose small operations `torch.compile` fuses; ``lm`` stays as it is.

    Args:
        lm: the model.
        whole: whole layers, where no key-value cache is used; otherwise their parts but the attention,
            which would be compiled anew for every layer's place in the cache.
        backend: of `torch.compile`.
    """
    stack = decoder_layers(lm.model)
    *path, last = next(name for name, module in lm.model.named_modules() if module is stack).split(".")
    model = inner = _twin(lm.model)
    for name in path:
        inner._modules[name] = inner = _twin(inner.get_submodule(name))
    inner._modules[last] = nn.ModuleList([_fused(layer, whole, backend) for layer in stack])
    return replace(lm, model=model)


def _fused(layer: nn.Module, whole: bool, backend: str) -> nn.Module:
    twin = _twin(layer)
    if not whole:
        for name, part in twin._modules.items():
            if part is not None and "attn" not in name:
                twin._modules[name] = _fused(part, True, backend)
        return twin
    twin.forward = torch.compile(twin.forward, dynamic=True, backend=backend)  # type: ignore[method-assign]
    return twin


def _twin(module: nn.Module) -> nn.Module:
    """A module with the same weights whose parts can be exchanged."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin
