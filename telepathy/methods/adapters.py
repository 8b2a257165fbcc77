"""Learnt weights on a frozen receiver: soft prompts (Lester et al. 2021) and LoRA (Hu et al. 2021)."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from telepathy.batches import length_batches
from telepathy.errors import TelepathyError
from telepathy.files import atomic_path, check_files, read_json, sha256_of, write_json
from telepathy.methods.prompted import prompt_rows
from telepathy.methods.writing import write_after
from telepathy.models.loading import LanguageModel
from telepathy.scoring.answers import answer, generated_predictions
from telepathy.scoring.labels import LabelSet, text_prefix
from telepathy.tasks.parsing import contains_label
from telepathy.tasks.spec import Task

BATCH_TOKENS = 2048


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """What every adapter of the receiver has.

    Attributes:
        loss: ``answer`` (the answer's tokens against the vocabulary) or ``labels`` (against the tokens
            of the other labels); LoRA also ``whole_prompt``.
        answer: ``score`` takes the likeliest label; ``generate`` (as published) writes freely and
            takes the first label of the list that occurs anywhere, even inside a word.
        generated_tokens: most tokens of a generated answer.
        dev_examples: at most so many examples of dev select the weights.
    """

    kind: ClassVar[str]
    losses: ClassVar[tuple[str, ...]] = ("answer", "labels")

    loss: str = "answer"
    answer: str = "score"
    generated_tokens: int = 10
    dev_examples: int = 200

    def __post_init__(self) -> None:
        for name, allowed in (("loss", self.losses), ("answer", ("score", "generate"))):
            if getattr(self, name) not in allowed:
                choices = " or ".join(allowed)
                raise TelepathyError(f"{name} of {self.kind} must be {choices}, not {getattr(self, name)!r}.")
        for name, value in asdict(self).items():
            if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0:
                raise TelepathyError(f"{name} of {self.kind} must be above 0, not {value}.")


@dataclass(frozen=True, kw_only=True)
class PromptTuningConfig(AdapterConfig):
    """Shape of a soft prompt.

    Attributes:
        soft_tokens: ``k``, number of learnt vectors.
        sees_input: the task's prompt follows them; if not, only its primer (as published), so that
            the answer is the same whatever is asked.
    """

    kind: ClassVar[str] = "prompt_tuning"

    soft_tokens: int = 8
    sees_input: bool = True


@dataclass(frozen=True, kw_only=True)
class LoraConfig(AdapterConfig):
    """Shape of low-rank updates.

    Attributes:
        rank: rank of every update.
        alpha: updates are scaled by ``alpha / rank``.
        targets: ``all-linear`` (all linear layers but the head) or names of modules (published: q_proj, v_proj).
        teach_end: the end of the sequence is part of the answer.
    """

    kind: ClassVar[str] = "lora"
    losses: ClassVar[tuple[str, ...]] = ("answer", "labels", "whole_prompt")

    rank: int = 8
    alpha: int = 16
    targets: str | Sequence[str] = "all-linear"
    teach_end: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.targets or (isinstance(self.targets, str) and self.targets != "all-linear"):
            raise TelepathyError(f"targets of lora must be all-linear or a list of module names, not {self.targets!r}.")


CONFIGS: dict[str, type[AdapterConfig]] = {config.kind: config for config in (PromptTuningConfig, LoraConfig)}


class Adapter(nn.Module):
    """Learnt weights in float32 on a frozen model; `prefixes` is how the model reads token rows with them.

    The frozen model stays in eval mode: `train` and `eval` reach the learnt weights only.
    """

    def __init__(self, lm: LanguageModel):
        super().__init__()
        self.lm = lm

    def prefixes(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Embed token rows, BOS first: ``[batch, positions, d]``, left-padded, and their mask."""
        return text_prefix(self.lm, rows)

    def precision(self) -> AbstractContextManager:
        """In what precision the model computes with the learnt weights; enter it around each forward pass."""
        return nullcontext()

    def detach(self) -> None:
        """Give the frozen model back as it was."""


class SoftPrompt(Adapter):
    """``k`` vectors between the BOS (where models park their attention) and the text.

    peft's embedding holds them; peft's own forward would put them before the BOS and loses the
    positions under left padding. Stored in units of their size at the start, so that one learning
    rate fits models whose embeddings differ by orders of magnitude.
    """

    size: Tensor

    def __init__(self, lm: LanguageModel, start: Tensor):
        import peft

        super().__init__(lm)
        settings = peft.PromptTuningConfig(
            task_type=peft.TaskType.CAUSAL_LM,
            num_virtual_tokens=len(start),
            token_dim=lm.width,
            num_transformer_submodules=1,
        )
        self.prompt = peft.PromptEmbedding(settings, lm.model.get_input_embeddings())
        self.register_buffer("size", start.float().pow(2).mean().sqrt().clamp(min=1e-6))
        self.prompt.embedding.weight = nn.Parameter(start.float() / self.size)
        self.to(lm.compute.device)

    def vectors(self) -> Tensor:
        """The soft prompt ``[k, d]`` in float32, as the model reads it."""
        return self.size * self.prompt.embedding.weight

    def prefixes(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Embed token rows with the soft prompt after the BOS: ``[batch, positions + k, d]`` and mask."""
        embeds, mask = text_prefix(self.lm, rows)
        soft = self.vectors().to(embeds.dtype)
        texts = [embeds.shape[1] - len(row) + 1 for row in rows]
        whole = [torch.cat([line[:text], soft, line[text:]]) for line, text in zip(embeds, texts, strict=True)]
        return torch.stack(whole), F.pad(mask, (0, len(soft)), value=1)


class LoraUpdates(Adapter):
    """Low-rank updates that peft puts into the model's layers, in place."""

    def __init__(self, lm: LanguageModel, config: LoraConfig):
        import peft

        super().__init__(lm)
        targets = config.targets if isinstance(config.targets, str) else list(config.targets)
        settings = peft.LoraConfig(
            r=config.rank, lora_alpha=config.alpha, target_modules=targets, task_type=peft.TaskType.CAUSAL_LM
        )
        try:
            whole = peft.get_peft_model(lm.model, settings, autocast_adapter_dtype=True)
        except ValueError as error:
            raise TelepathyError(f"LoRA cannot be put into {lm.name}: {str(error).splitlines()[0]}") from error
        whole.eval()
        # A tuple hides the frozen model from this module's parameters and modes.
        self._whole = (whole,)
        learnt = {name: value for name, value in whole.named_parameters() if value.requires_grad}
        self.updates = nn.ParameterDict({name.replace(".", "/"): value for name, value in learnt.items()})

    @contextmanager
    def precision(self) -> Iterator[None]:
        """The frozen model's own: left alone, peft takes each layer's input to float32, which is slower."""
        from peft.helpers import disable_input_dtype_casting

        with self.lm.compute.mixed_precision(), disable_input_dtype_casting(self._whole[0]):
            yield

    def detach(self) -> None:
        """Take the updates out of the model's layers."""
        self._whole[0].unload()
        if hasattr(self.lm.model, "peft_config"):
            del self.lm.model.peft_config


@dataclass
class AdaptedReceiver:
    """A receiver with its adapter, for one task."""

    lm: LanguageModel
    task: Task
    config: AdapterConfig
    adapter: Adapter

    @property
    def trainable_parameters(self) -> int:
        """Number of learnt weights."""
        return sum(value.numel() for value in self.adapter.parameters() if value.requires_grad)

    def prompts(self, frame: pd.DataFrame) -> list[list[int]]:
        """Token rows of the examples as the adapter reads them."""
        if isinstance(self.config, PromptTuningConfig) and not self.config.sees_input:
            return [[self.lm.bos_id, *self.lm.token_ids(self.task.primer)] for _ in range(len(frame))]
        return prompt_rows(self.lm, self.task, frame)

    def scored(self, frame: pd.DataFrame, rows: list[list[int]]) -> pd.DataFrame:
        """Predictions by label log-likelihood (a number is generated) for prompts as token rows."""

        def prefixes(chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
            return self.adapter.prefixes([rows[row] for row in chosen])

        batches = length_batches([len(row) for row in rows], BATCH_TOKENS)
        with self.adapter.precision():
            return answer(self.lm, self.task, frame, prefixes, batches)

    def answer(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Answer every example.

        Returns:
            Predictions as `telepathy.scoring.answers.answer` gives them.
        """
        rows = self.prompts(frame)
        if self.config.answer == "score" or not self.task.labels:
            return self.scored(frame, rows)
        with self.adapter.precision():
            texts = write_after(self.lm, rows, self.config.generated_tokens, self.adapter.prefixes)
        return generated_predictions(self.task, frame, texts, partial(contains_label, labels=self.task.labels))

    def save_pretrained(self, folder: str | Path, **about: Any) -> None:
        """Write ``model.safetensors`` (learnt weights only) and ``config.json``."""
        settings = {"kind": self.config.kind, **asdict(self.config)}
        with atomic_path(folder) as partial_folder:
            partial_folder.mkdir(parents=True)
            state = {name: value.detach().cpu().contiguous() for name, value in self.adapter.state_dict().items()}
            save_file(state, partial_folder / "model.safetensors")
            hashes = {"model.safetensors": sha256_of(partial_folder / "model.safetensors")}
            described = {"adapter": settings, "files": hashes, "receiver": self.lm.name, "task": self.task.name}
            write_json(partial_folder / "config.json", {**described, "prompt": self.task.prompt_hash, **about})

    def detach(self) -> None:
        """Give the frozen model back as it was; this object is of no use afterwards."""
        self.adapter.detach()


def adapter_config(kind: str, **settings: Any) -> AdapterConfig:
    """Build the configuration of one kind of adapter.

    Raises:
        TelepathyError: if there is no such kind, or a setting contradicts it.
    """
    if kind not in CONFIGS:
        raise TelepathyError(f"There is no adapter {kind!r}: choose one of {', '.join(CONFIGS)}.")
    return CONFIGS[kind](**settings)


def load_adapter(lm: LanguageModel, task: Task, folder: str | Path) -> tuple[AdaptedReceiver, dict[str, Any]]:
    """Put a saved adapter on its receiver; also return what its ``config.json`` says (safetensors only).

    Raises:
        TelepathyError: if the folder holds no adapter, or one of another task's prompt or another model.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
        raise TelepathyError(f"{folder} holds no trained adapter (config.json and model.safetensors).")
    about = read_json(folder / "config.json")
    if about["prompt"] != task.prompt_hash:
        raise TelepathyError(f"{folder} was trained with another prompt than that of the task {task.name}.")
    config = adapter_config(**about["adapter"])
    check_files(folder, about.get("files", {}), f"delete {folder} to train it anew")
    state = load_file(folder / "model.safetensors")
    adapter: Adapter
    if isinstance(config, PromptTuningConfig):
        adapter = SoftPrompt(lm, torch.ones(config.soft_tokens, lm.width))
    else:
        assert isinstance(config, LoraConfig)
        adapter = LoraUpdates(lm, config)
    try:
        adapter.load_state_dict(state)
    except RuntimeError as error:
        adapter.detach()
        raise TelepathyError(f"{folder} does not fit {lm.name}: it was trained on {about['receiver']}.") from error
    return AdaptedReceiver(lm, task, config, adapter.eval()), about


def new_adapter(lm: LanguageModel, task: Task, train: pd.DataFrame, config: AdapterConfig, seed: int) -> Adapter:
    """Start an adapter; the seed decides its random weights and words."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(config, LoraConfig):
            return LoraUpdates(lm, config)
        assert isinstance(config, PromptTuningConfig)
        return SoftPrompt(lm, first_vectors(lm, task, train, config.soft_tokens, seed))


@torch.no_grad()
def first_vectors(lm: LanguageModel, task: Task, train: pd.DataFrame, soft_tokens: int, seed: int) -> Tensor:
    """Start of a soft prompt: the label words, then vocabulary rows of words that the task uses.

    Unused rows of a vocabulary are often zero or untrained, so the rest is drawn from the tokens of
    some training prompts.

    Returns:
        Input embeddings ``[k, d]`` in float32.
    """
    rng = np.random.default_rng(seed)
    words = sorted({row[0] for row in LabelSet.of(lm, task).tokens}) if task.labels else []
    if len(words) > soft_tokens:
        words = rng.choice(words, soft_tokens, replace=False).tolist()
    prompts = prompt_rows(lm, task, train.iloc[:200])
    used = sorted({token for row in prompts for token in row[1:]} - set(words))
    missing = soft_tokens - len(words)
    ids = words + rng.choice(used, missing, replace=missing > len(used)).tolist()
    return lm.embed(torch.tensor(ids, device=lm.compute.device)).float()
