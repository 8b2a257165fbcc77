"""What every bridge is: its configuration, its scale, how it is saved, shared and found again by name."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin, snapshot_download
from safetensors.torch import load_file
from torch import Tensor, nn

from telepathy.bridges.card import model_card
from telepathy.errors import TelepathyError
from telepathy.files import atomic_path, check_files, read_json, sha256_of, write_json
from telepathy.hub import limit_silence
from telepathy.plugins import import_plugins

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


class Bridge(nn.Module, PyTorchModelHubMixin, ABC, library_name="telepathy"):
    """Base of all bridges.

    A subclass maps sender states ``[batch, tokens, d_sender]`` and their mask ``[batch, tokens]``
    to raw vectors ``[batch, k, d_receiver]`` in ``raw_tokens`` and names its last layer in ``last``;
    this class standardises the states and gives the vectors the size of the receiver's own embeddings.

    Attributes:
        config_class: the dataclass of its settings; a subclass with settings of its own sets a
            subclass of `BridgeConfig`.
        config: its settings.
        about: what it was trained from and for (JSON); saved with it and told by its model card.
    """

    config_class: ClassVar[type[BridgeConfig]] = BridgeConfig
    embedding_rms: Tensor
    state_mean: Tensor
    state_scale: Tensor

    def __init__(self, config: BridgeConfig):
        super().__init__()
        self.config = config
        self.about: dict[str, Any] = {}
        self.register_buffer("embedding_rms", torch.ones(()))
        self.register_buffer("state_mean", torch.zeros(config.sender_width))
        self.register_buffer("state_scale", torch.ones(config.sender_width))

    @property
    @abstractmethod
    def last(self) -> nn.Linear:
        """Layer whose outputs are raw vectors, ``d_receiver`` or ``k * d_receiver`` wide."""

    @abstractmethod
    def raw_tokens(self, states: Tensor, mask: Tensor) -> Tensor:
        """Map states to ``[batch, k, d_receiver]``."""

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return soft tokens.

        Args:
            states: sender states ``[batch, tokens, d_sender]``, any float type.
            mask: true at real tokens, ``[batch, tokens]``.

        Returns:
            Soft tokens ``[batch, k, d_receiver]`` in float32, each with the root mean square of a
            typical receiver embedding (a receiver ignores or chokes on vectors of another size).
        """
        raw = self.raw_tokens(*self.read(states, mask)).float()  # under autocast it may be less
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

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | Path, *, config: Any = None, model_card_kwargs: Any = None, **about: Any
    ) -> None:
        """Write ``model.safetensors``, ``config.json`` and a model card, whole or not at all.

        Args:
            save_directory: folder to make.
            config: of the hub's mixin, which passes None: the bridge's own is written.
            model_card_kwargs: of the hub's mixin, which passes None.
            about: further facts for the attribute ``about``.
        """
        self.about = {**self.about, **about}
        with atomic_path(save_directory) as partial:
            super().save_pretrained(partial, config=config, model_card_kwargs=model_card_kwargs)

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        hashes = {"model.safetensors": sha256_of(save_directory / "model.safetensors")}
        write_json(save_directory / "config.json", {"bridge": asdict(self.config), "files": hashes, **self.about})

    def generate_model_card(self, *_: Any, **__: Any) -> ModelCard:
        """Write the model card from ``about``."""
        return model_card(self.config, self.about)

    @classmethod
    def from_pretrained(cls, name: str | Path, revision: str | None = None) -> "Bridge":  # type: ignore[override]
        """Load a trained bridge of any architecture from a folder or from the Hugging Face hub.

        Args:
            name: folder, or repository such as ``someone/bridge``.
            revision: commit, tag or branch of the repository; the main branch if absent.

        Raises:
            TelepathyError: if there is no such bridge or the hub cannot be reached.
        """
        folder = Path(name)
        if not folder.is_dir():
            if folder.is_absolute() or len(folder.parts) != 2:
                raise TelepathyError(f"There is no folder {name}, and no repository of the hub has such a name.")
            folder = _downloaded(str(name), revision)
        return load_bridge(folder)[0]


def _downloaded(repository: str, revision: str | None) -> Path:
    limit_silence()
    try:
        return Path(
            snapshot_download(repository, revision=revision, allow_patterns=["*.json", "*.safetensors", "*.md"])
        )
    except (OSError, ValueError) as error:
        raise TelepathyError(
            f"The bridge {repository} could not be fetched from the Hugging Face hub "
            f"({str(error).splitlines()[0][:200]}): check its name, the network and HF_TOKEN."
        ) from error


_ARCHITECTURES: dict[str, type[Bridge]] = {}


def register(name: str) -> Callable[[type[Bridge]], type[Bridge]]:
    """Class decorator: make a bridge known under ``name``, the key ``architecture`` in config.yaml.

    Raises:
        TelepathyError: if another class has that name, or the class leaves out what a bridge must define.
    """

    def remember(cls: type[Bridge]) -> type[Bridge]:
        if absent := ", ".join(sorted(cls.__abstractmethods__)):
            raise TelepathyError(f"The bridge {cls.__qualname__} does not define {absent} (docs/own_bridge.md).")
        known = _ARCHITECTURES.get(name)
        # A notebook's cell that is run again defines its class again.
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TelepathyError(
                f"The bridge architecture {name} is taken by {known.__qualname__}: choose another name."
            )
        _ARCHITECTURES[name] = cls
        return cls

    return remember


def bridge_class(architecture: str) -> type[Bridge]:
    """Find a registered bridge; plugins are imported the first time that a name is not known.

    Raises:
        TelepathyError: if no bridge is registered under the name.
    """
    if architecture not in _ARCHITECTURES:
        import_plugins()
    if architecture not in _ARCHITECTURES:
        known = ", ".join(sorted(_ARCHITECTURES))
        raise TelepathyError(f"There is no bridge architecture {architecture!r}: choose one of {known}.")
    return _ARCHITECTURES[architecture]


def bridge_config(architecture: str, options: Mapping[str, Any] | None = None, **shape: Any) -> BridgeConfig:
    """Build the typed configuration of a registered bridge.

    Args:
        architecture: registered name.
        options: settings that this architecture has beyond those of `BridgeConfig`.
        shape: settings of `BridgeConfig`.

    Raises:
        TelepathyError: if there is no such architecture or option, or a setting contradicts another.
    """
    cls = bridge_class(architecture).config_class
    allowed = sorted({field.name for field in fields(cls)} - {field.name for field in fields(BridgeConfig)})
    if unknown := sorted(set(options or {}) - set(allowed)):
        has = f"its options are {', '.join(allowed)}" if allowed else "it has none"
        raise TelepathyError(f"The bridge architecture {architecture} has no option {', '.join(unknown)}: {has}.")
    return cls(architecture=architecture, **shape, **(options or {}))


def build_bridge(config: BridgeConfig) -> Bridge:
    """Build an untrained bridge.

    Raises:
        TelepathyError: if no bridge is registered under the configuration's name.
    """
    return bridge_class(config.architecture)(config)


def load_bridge(folder: str | Path) -> tuple[Bridge, dict[str, Any]]:
    """Load a bridge and what its ``config.json`` says about it (safetensors only).

    Raises:
        TelepathyError: if the folder has no configuration or no weights, they changed since, or do not fit.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
        raise TelepathyError(f"{folder} holds no trained bridge (config.json and model.safetensors).")
    about = read_json(folder / "config.json")
    check_files(folder, about.pop("files", {}), f"delete {folder} to train it anew")
    try:
        shape = about.pop("bridge")
        bridge = build_bridge(bridge_class(shape["architecture"]).config_class(**shape))
        bridge.load_state_dict(load_file(folder / "model.safetensors"))
    except (KeyError, TypeError, RuntimeError) as error:
        raise TelepathyError(
            f"{folder} was written by another version of its architecture ({str(error).splitlines()[0][:200]}): "
            "train the bridge again or take that version."
        ) from error
    bridge.about = about
    return bridge.eval(), about
