"""Frozen models made fast on a GPU: small operations fused, what always runs alike recorded as a CUDA graph."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from telepathy.models.loading import LanguageModel, decoder_layers

RECOMPILE_LIMIT = 64
"""Kinds of layers (families, with a mask and without, …) that a process compiles; further ones would stay slow."""


class Recorded:
    """A function of tensors that on a GPU is recorded as a CUDA graph for every new shape, then replayed.

    Its result, a tensor or several, lies where the next replay of any shape may write: use it up, or copy it. All
    graphs of one function share their memory, so that it is that of the largest shape and not of all together.
    """

    def __init__(self, function: Callable[..., Any], record: bool):
        self.function, self.record = function, record
        self.graphs: dict[tuple[Any, ...], tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Any]] = {}
        self.pool: Any = None

    def __call__(self, *inputs: Tensor) -> Any:
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

    def _recorded(self, inputs: Sequence[Tensor]) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Any]:
        places = tuple(tensor.clone() for tensor in inputs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), _recording_announced():
            for _ in range(3):  # Kernels are chosen, compiled and their workspaces made before the recording.
                self.function(*places)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            result = self.function(*places)
        self.pool = graph.pool()
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
    # All families' layers are compiled under one count: transformers wraps their passes in one function.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
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
