"""Simpler bridges: they pool the sender's states first, then map the one vector to ``k`` soft tokens."""

from abc import abstractmethod
from typing import cast

import torch
from torch import Tensor, nn

from telepathy.bridges.base import Bridge, BridgeConfig, register


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over real tokens, ``[batch, d]``."""
    real = mask.unsqueeze(-1)
    return (states * real).sum(1) / real.sum(1).clamp(min=1)


def last_state(states: Tensor, mask: Tensor) -> Tensor:
    """State of the last real token, ``[batch, d]``."""
    return states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]


class _Pooled(Bridge):
    """Mean and last state, normalised, mapped to all soft tokens at once."""

    def __init__(self, config: BridgeConfig):
        super().__init__(config)
        self.input_norm = nn.LayerNorm(config.sender_width) if config.input_norm else nn.Identity()
        self.map = self.build_map(2 * config.sender_width, config.soft_tokens * config.receiver_width)

    @property
    def last(self) -> nn.Linear:
        """The only layer, or the last of several."""
        layer = self.map[-1] if isinstance(self.map, nn.Sequential) else self.map
        return cast(nn.Linear, layer)

    @abstractmethod
    def build_map(self, inputs: int, outputs: int) -> nn.Module:
        """Build the map from the pooled vector to all soft tokens."""

    def raw_tokens(self, states: Tensor, mask: Tensor) -> Tensor:
        """Map states ``[batch, tokens, d_sender]`` to ``[batch, k, d_receiver]``."""
        states = self.input_norm(states)
        pooled = torch.cat([masked_mean(states, mask), last_state(states, mask)], dim=-1)
        return self.map(pooled).unflatten(-1, (self.config.soft_tokens, self.config.receiver_width))


@register("linear")
class LinearBridge(_Pooled):
    """One linear map from the pooled states."""

    def build_map(self, inputs: int, outputs: int) -> nn.Module:
        """Build one linear layer."""
        return nn.Linear(inputs, outputs)


@register("mlp")
class MLPBridge(_Pooled):
    """Two layers with a GELU between."""

    def build_map(self, inputs: int, outputs: int) -> nn.Module:
        """Build the two layers."""
        width = self.config.inner_width
        return nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, outputs))


@register("mean_pool")
class MeanPoolBridge(Bridge):
    """The mean state through one linear map, the same vector in all ``k`` places."""

    def __init__(self, config: BridgeConfig):
        super().__init__(config)
        self.input_norm = nn.LayerNorm(config.sender_width) if config.input_norm else nn.Identity()
        self.map = nn.Linear(config.sender_width, config.receiver_width)

    @property
    def last(self) -> nn.Linear:
        """The only layer."""
        return self.map

    def raw_tokens(self, states: Tensor, mask: Tensor) -> Tensor:
        """Map states ``[batch, tokens, d_sender]`` to ``[batch, k, d_receiver]``."""
        mean = masked_mean(self.input_norm(states), mask)
        return self.map(mean).unsqueeze(1).expand(-1, self.config.soft_tokens, -1)
