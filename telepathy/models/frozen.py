"""Frozen linear layers on a CPU, their weights laid out once.

oneDNN, which computes PyTorch's matrix products there, reads weights in blocks. `torch.nn.functional.linear` knows
nothing of frozen weights and lets it copy them into blocks at every call: for the few rows of a receiver that reads
soft tokens, or of a model that writes token by token, that takes longer than the product. What `torch.compile` does
for frozen models (``torch.ops.mkldnn``, see ``torch/_inductor/fx_passes/mkldnn_fusion.py``) is done here without a
compiler, and for the gradient of the inputs too.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LARGEST_MODEL, LARGEST_LAYER = 2**30, 2**27
"""Bytes of weights up to which they are laid out: of a model's layers together, and of one (heads of large vocabularies
are larger). The blocks take as much memory again, and once more where gradients are asked for."""


class FrozenLinear(nn.Linear):
    """A linear layer whose weights stay as they are; they are laid out when they are first used.

    Where they do not stay (they ask for gradients, or inputs are of another precision) it is a plain ``nn.Linear``.
    """

    _blocks: dict[str, tuple[tuple[int, int], Tensor]]

    def forward(self, input: Tensor) -> Tensor:
        """Return ``input @ weight.T + bias``, ``[..., out_features]`` of inputs ``[..., in_features]``."""
        plain = self.weight.requires_grad or input.dtype != self.weight.dtype
        if plain or torch.compiler.is_compiling():
            return super().forward(input)
        if torch.is_grad_enabled() and input.requires_grad:
            return _Product.apply(input, self)
        return self.product(input)

    def product(self, input: Tensor) -> Tensor:
        """The same where no gradient is asked for."""
        return _product(input, self._laid_out("forward"), self.bias)

    def input_gradient(self, gradient: Tensor) -> Tensor:
        """Gradient of the inputs, ``[..., in_features]``, from that of the outputs, ``[..., out_features]``."""
        return _product(gradient, self._laid_out("backward"), None)

    def _laid_out(self, way: str) -> Tensor:
        state = (self.weight.data_ptr(), self.weight._version)  # changes when somebody writes to the weight
        known, blocks = self._blocks.get(way, (None, None))
        if blocks is None or known != state:
            weight = self.weight.detach()
            rows = weight if way == "forward" else weight.t().contiguous()
            blocks = torch.ops.mkldnn._reorder_linear_weight(rows, None)
            self._blocks[way] = state, blocks
        return blocks


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, layer: FrozenLinear) -> Tensor:
        ctx.layer = layer
        return layer.product(input)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.layer.input_gradient(gradient), None


def _product(input: Tensor, blocks: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(input, blocks, bias, "none", [], "")


def lay_out_once(model: nn.Module) -> None:
    """Turn a frozen model's linear layers into `FrozenLinear`, where that is faster and memory allows it.

    That is on an x86 CPU, in float32, or in bfloat16 where the CPU has it.

    Args:
        model: frozen, on the device and in the precision in which it stays.
    """
    layers = [module for module in model.modules() if type(module) is nn.Linear and _served(module.weight)]
    if sum(layer.weight.nbytes for layer in layers) > LARGEST_MODEL:
        return
    for layer in layers:
        layer.__class__ = FrozenLinear
        layer._blocks = {}  # type: ignore[assignment]


def _served(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or weight.nbytes > LARGEST_LAYER or not torch.backends.mkldnn.is_available():
        return False
    if torch.cpu.get_capabilities().get("architecture") != "x86_64":
        return False
    bf16 = weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.dtype == torch.float32 or bf16
