"""Learned queries that attend to the sender's states (Perceiver, Jaegle et al. 2021)."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from telepathy.bridges.base import Bridge, BridgeConfig, register


class Attention(nn.Module):
    """Multi-head attention of queries over states, with the mask of real tokens."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, queries: Tensor, states: Tensor, mask: Tensor | None) -> Tensor:
        """Return ``[batch, k, width]`` for queries ``[batch, k, width]`` and states ``[batch, tokens, width]``."""
        query = self._split(self.query(queries))
        key, value = (self._split(part) for part in self.key_value(states).chunk(2, dim=-1))
        seen = None if mask is None else mask[:, None, None, :]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return self.out(mixed.transpose(1, 2).flatten(-2))

    def weights(self, queries: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """Return the attention itself, mean over heads, ``[batch, k, tokens]``."""
        query = self._split(self.query(queries))
        key = self._split(self.key_value(states).chunk(2, dim=-1)[0])
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        return scores.masked_fill(~mask[:, None, None, :], -torch.inf).softmax(-1).mean(1)


class Block(nn.Module):
    """Cross-attention, optional self-attention, feed-forward; each normalised first and added."""

    def __init__(self, config: BridgeConfig):
        super().__init__()
        width = config.inner_width
        self.cross_norm, self.cross = nn.LayerNorm(width), Attention(width, config.heads)
        self.self_norm = nn.LayerNorm(width) if config.self_attention else None
        self.self_attention = Attention(width, config.heads) if config.self_attention else None
        self.feed_norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, queries: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """Return queries ``[batch, k, width]`` enriched by the states."""
        queries = queries + self.cross(self.cross_norm(queries), states, mask)
        if self.self_attention is not None and self.self_norm is not None:
            normed = self.self_norm(queries)
            queries = queries + self.self_attention(normed, normed, None)
        return queries + self.feed(self.feed_norm(queries))


@register("perceiver")
class PerceiverBridge(Bridge):
    """``k`` learned queries, enriched by cross-attention to the sender's states."""

    def __init__(self, config: BridgeConfig):
        super().__init__(config)
        width = config.inner_width
        self.input_norm = nn.LayerNorm(config.sender_width) if config.input_norm else nn.Identity()
        self.enter = nn.Linear(config.sender_width, width)
        self.state_norm = nn.LayerNorm(width) if config.input_norm else nn.Identity()
        self.queries = nn.Parameter(config.query_std * torch.randn(config.soft_tokens, width))
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.depth)])
        self.output_norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, config.receiver_width)

    @property
    def last(self) -> nn.Linear:
        """The map to the receiver's width."""
        return self.leave

    def _enter(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        states = self.state_norm(self.enter(self.input_norm(states)))
        queries = self.queries.expand(len(states), -1, -1)
        if self.config.mean_residual:
            real = mask.unsqueeze(-1)
            queries = queries + ((states * real).sum(1) / real.sum(1).clamp(min=1)).unsqueeze(1)
        return queries, states

    def raw_tokens(self, states: Tensor, mask: Tensor) -> Tensor:
        """Map states ``[batch, tokens, d_sender]`` to ``[batch, k, d_receiver]``."""
        queries, states = self._enter(states, mask)
        for block in self.blocks:
            queries = block(queries, states, mask)
        return self.leave(self.output_norm(queries))

    def attention(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return what each soft token reads, mean over heads and blocks, ``[batch, k, tokens]``."""
        states, mask = self.read(states, mask)
        queries, states = self._enter(states, mask)
        seen = []
        for module in self.blocks:
            block = cast(Block, module)
            seen.append(block.cross.weights(block.cross_norm(queries), states, mask))
            queries = block(queries, states, mask)
        return F.pad(torch.stack(seen).mean(0), (int(self.config.skip_first), 0))
