"""What every bridge is: its configuration, its scale, how it is saved and found again by name."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from telepathy.errors import TelepathyError
from telepathy.files import atomic_path, check_files, read_json, sha256_of, write_json

START_SPREAD = 0.3  # Of the soft tokens about the mean embedding at the start, against a layer's usual weights.


@dataclass(frozen=True, kw_only=True)
class BridgeConfig:
    """Shape of a bridge.

    Attributes:
        architecture: registered name of the class.
        soft_tokens: ``k``, number of vectors handed to the receiver.
        sender_width: width of the sender's states.
        receiver_width: width of the receiver's input embeddings.
        width: inner width; 0 means the receiver's width (as published).
        depth: number of attention blocks.
        heads: attention heads; must divide the inner width.
        input_norm: normalise sender states, whose scale varies by orders of magnitude over positions.
        query_std: standard deviation of the learned queries at the start (published: 0.02).
        mean_residual: add the mean sender state to every query.
        self_attention: let soft tokens attend to each other in each block (published: yes).
        skip_first: do not read the first position, where models park attention with a massive state.
        standardise: centre and scale each feature of the states as in training data; what all texts
            share outweighs by far what tells them apart (as published: no).
        near_mean: soft tokens start near the receiver's mean embedding, not anywhere (as published: no).
    """

    architecture: str
    soft_tokens: int
    sender_width: int
    receiver_width: int
    width: int = 256
    depth: int = 2
    heads: int = 4
    input_norm: bool = True
    query_std: float = 1.0
    mean_residual: bool = True
    self_attention: bool = False
    skip_first: bool = True
    standardise: bool = True
    near_mean: bool = True

    def __post_init__(self) -> None:
        for name in ("soft_tokens", "sender_width", "receiver_width", "depth", "heads"):
            if getattr(self, name) < 1:
                raise TelepathyError(f"A bridge needs {name} of 1 at least, not {getattr(self, name)}.")
        if self.width < 0:
            raise TelepathyError(f"The width of a bridge is 0 (the receiver's) or more, not {self.width}.")
        if self.inner_width % self.heads:
            raise TelepathyError(
                f"A bridge of width {self.inner_width} cannot have {self.heads} heads: it must divide."
            )

    @property
    def inner_width(self) -> int:
        """The inner width with 0 resolved."""
        return self.width or self.receiver_width


class Bridge(nn.Module):
    """Base of all bridges.

    A subclass maps sender states ``[batch, tokens, d_sender]`` and their mask ``[batch, tokens]``
    to raw vectors ``[batch, k, d_receiver]`` in ``raw_tokens`` and names its last layer in ``last``;
    this class standardises the states and gives the vectors the size of the receiver's own embeddings.
    """

    embedding_rms: Tensor
    state_mean: Tensor
    state_scale: Tensor

    def __init__(self, config: BridgeConfig):
        super().__init__()
        self.config = config
        self.register_buffer("embedding_rms", torch.ones(()))
        self.register_buffer("state_mean", torch.zeros(config.sender_width))
        self.register_buffer("state_scale", torch.ones(config.sender_width))

    @property
    def last(self) -> nn.Linear:
        """Layer whose outputs are raw vectors, ``d_receiver`` or ``k * d_receiver`` wide; to be overridden."""
        raise NotImplementedError(f"{type(self).__name__} does not say which its last layer is.")

    def raw_tokens(self, states: Tensor, mask: Tensor) -> Tensor:
        """Map states to ``[batch, k, d_receiver]``; to be overridden."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it makes soft tokens.")

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return soft tokens.

        Args:
            states: sender states ``[batch, tokens, d_sender]``, any float type.
            mask: true at real tokens, ``[batch, tokens]``.

        Returns:
            Soft tokens ``[batch, k, d_receiver]`` in float32, each with the root mean square of a
            typical receiver embedding (a receiver ignores or chokes on vectors of another size).
        """
        raw = self.raw_tokens(*self.read(states, mask))
        return self.embedding_rms * raw * torch.rsqrt(raw.pow(2).mean(-1, keepdim=True) + 1e-6)

    def read(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states that count, standardised in float32, and their mask."""
        if self.config.skip_first:
            states, mask = states[:, 1:], mask[:, 1:]
        return (states.float() - self.state_mean) / self.state_scale, mask

    @torch.no_grad()
    def match_states(self, states: Tensor, mask: Tensor) -> None:
        """Take mean and scale of each feature from training examples, ``[examples, tokens, d_sender]``."""
        if self.config.standardise:
            states, mask = self.read(states, mask)
            real = states[mask]
            self.state_mean.copy_(real.mean(0))
            self.state_scale.copy_(real.std(0, correction=0).clamp(min=1e-6))

    @torch.no_grad()
    def match_embeddings(self, embeddings: Tensor) -> None:
        """Take the size of soft tokens from receiver embeddings ``[words, d_receiver]`` (median RMS).

        With ``near_mean`` also their start: each soft token is the mean embedding, and a part that
        depends on the states and is smaller.
        """
        sample = embeddings[:: max(1, len(embeddings) // 8192)].float()
        self.embedding_rms.fill_(sample.pow(2).mean(-1).sqrt().median().item())
        if self.config.near_mean:
            mean = sample.mean(0)
            unit = mean * torch.rsqrt(mean.pow(2).mean() + 1e-6)
            self.last.bias.copy_(unit.repeat(len(self.last.bias) // len(unit)))
            self.last.weight.mul_(START_SPREAD)

    def save_pretrained(self, folder: str | Path, **about: Any) -> None:
        """Write ``model.safetensors`` and ``config.json`` (shape, and whatever ``about`` holds)."""
        with atomic_path(folder) as partial:
            partial.mkdir(parents=True)
            save_file(
                {name: value.contiguous() for name, value in self.state_dict().items()}, partial / "model.safetensors"
            )
            hashes = {"model.safetensors": sha256_of(partial / "model.safetensors")}
            write_json(partial / "config.json", {"bridge": asdict(self.config), "files": hashes, **about})


_ARCHITECTURES: dict[str, type[Bridge]] = {}


def register(name: str) -> Callable[[type[Bridge]], type[Bridge]]:
    """Class decorator: make a bridge known under ``name``, the key ``architecture`` in config.yaml."""

    def remember(cls: type[Bridge]) -> type[Bridge]:
        _ARCHITECTURES[name] = cls
        return cls

    return remember


def build_bridge(config: BridgeConfig) -> Bridge:
    """Build an untrained bridge.

    Raises:
        TelepathyError: if no bridge is registered under the configuration's name.
    """
    if config.architecture not in _ARCHITECTURES:
        known = ", ".join(sorted(_ARCHITECTURES))
        raise TelepathyError(f"There is no bridge architecture {config.architecture!r}: choose one of {known}.")
    return _ARCHITECTURES[config.architecture](config)


def load_bridge(folder: str | Path) -> tuple[Bridge, dict[str, Any]]:
    """Load a bridge and what its ``config.json`` says about it (safetensors only).

    Raises:
        TelepathyError: if the folder has no configuration or no weights, or weights that changed since.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
        raise TelepathyError(f"{folder} holds no trained bridge (config.json and model.safetensors).")
    about = read_json(folder / "config.json")
    check_files(folder, about.pop("files", {}), f"delete {folder} to train it anew")
    bridge = build_bridge(BridgeConfig(**about.pop("bridge")))
    bridge.load_state_dict(load_file(folder / "model.safetensors"))
    return bridge.eval(), about
