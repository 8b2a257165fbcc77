"""Load a frozen causal language model from its folder and read its hidden states."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from telepathy.devices import Compute, choose_compute
from telepathy.errors import TelepathyError
from telepathy.files import check_files, read_json
from telepathy.models.families import model_class, read_config
from telepathy.models.frozen import lay_out_once
from telepathy.models.room import check_room


@dataclass
class LanguageModel:
    """A frozen causal LM with its tokenizer.

    Attributes:
        name: the folder's name, the key of ``models`` in config.yaml.
        model: a transformers ``PreTrainedModel`` with a causal head.
        tokenizer: its ``PreTrainedTokenizerBase``.
        compute: device and precision in which it runs.
        source: what was fetched (revision or sha256), for provenance.
    """

    name: str
    model: Any
    tokenizer: Any
    compute: Compute
    source: dict

    @property
    def width(self) -> int:
        """Width ``d`` of the input embeddings."""
        return int(self.model.get_input_embeddings().embedding_dim)

    @property
    def state_width(self) -> int:
        """Width of the hidden states; OPT-350m, for one, has narrower embeddings."""
        return int(text_config(self.model).hidden_size)

    @property
    def depth(self) -> int:
        """Number of transformer layers of the whole model."""
        return int(text_config(self.model).num_hidden_layers)

    @property
    def max_positions(self) -> int:
        """Longest sequence in tokens."""
        config = text_config(self.model)
        limit: Any = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", 2048)
        return int(limit)

    @property
    def bos_id(self) -> int:
        """Token for the first position, where models park their attention.

        A model without a BOS token gets its end-of-sequence token, which is what such models saw
        between documents.
        """
        for candidate in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if candidate is not None:
                return int(candidate)
        raise TelepathyError(f"The tokenizer of {self.name} has neither a BOS nor an EOS token.")

    @property
    def pad_id(self) -> int:
        """Token for padded places; always masked, so any valid id serves."""
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else self.bos_id

    @property
    def eos_ids(self) -> list[int]:
        """Tokens that end a generation."""
        eos = self.model.generation_config.eos_token_id if self.model.generation_config else None
        eos = eos if eos is not None else self.tokenizer.eos_token_id
        return [] if eos is None else list(eos) if isinstance(eos, list | tuple) else [int(eos)]

    def token_ids(self, text: str) -> list[int]:
        """Tokenise without any special token: callers place the BOS themselves."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def embed(self, ids: Tensor) -> Tensor:
        """Return input embeddings ``[..., d]``, scaled as the model scales them."""
        return self.model.get_input_embeddings()(ids)


def load_language_model(folder: str | Path, compute: Compute) -> LanguageModel:
    """Load a model folder made by `telepathy.models.sources.fetch_model`, frozen and in eval mode.

    Only safetensors are read and no code of the folder is run. The sha256 of every file is compared at every load: of
    weights, which are plain numbers, while they are read, and of all else before.

    Raises:
        TelepathyError: if the folder has no configuration or no safetensors weights, a file is not the
            one that was fetched, a GPU cannot hold the weights, or the model is of a family that cannot take
            part (see `telepathy.models.families`).
    """
    folder = Path(folder)
    source = source_of(folder)
    files = source.get("files", {})
    weights = {name: value for name, value in files.items() if name.endswith(".safetensors")}
    remedy = f"delete {folder} to fetch the model anew"
    check_files(folder, {name: files[name] for name in files.keys() - weights.keys()}, remedy)
    if read_json(folder / "config.json").get("auto_map"):
        raise TelepathyError(
            f"{folder} asks to run its own code, which is never done: choose a model without auto_map."
        )
    check_room([folder], compute)
    transformers_logging.disable_progress_bar()
    config = read_config(folder)
    tokenizer = _load_tokenizer(folder)
    with ThreadPoolExecutor(max_workers=1) as pool:
        whole = pool.submit(check_files, folder, weights, remedy)
        try:
            model = _read_weights(folder, config, compute)
        finally:
            whole.result()  # whatever went wrong: if a file is damaged, this says so
    model = _text_only(model).to(compute.device).eval().requires_grad_(False)
    _refuse_encoder(folder.name, model)
    _forget_unknown_tokens(tokenizer, model)
    lay_out_once(model)
    model.get_output_embeddings().register_forward_pre_hook(lambda _head, args: (_packed(args[0]),))
    return LanguageModel(name=folder.name, model=model, tokenizer=tokenizer, compute=compute, source=source)


def source_of(folder: str | Path) -> dict[str, Any]:
    """What a model folder says of where it came from (revision or sha256), without loading it.

    Raises:
        TelepathyError: if the folder has no configuration or no safetensors weights.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise TelepathyError(
            f"{folder} holds no model (config.json and *.safetensors): let Snakemake build {folder}, or copy one there."
        )
    return read_json(folder / "source.json") if (folder / "source.json").is_file() else {"path": folder.name}


def _read_weights(folder: Path, config: Any, compute: Compute) -> Any:
    try:
        return AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=compute.dtype,
            device_map=compute.device,  # to a GPU straight from the file
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
        )
    except SafetensorError as error:
        raise TelepathyError(f"The weights in {folder} are no safetensors ({error}): fetch the model anew.") from error


def with_model(
    function: Callable[..., None], role: str, folder: str | Path, compute: Mapping[str, str], **arguments: Any
) -> None:
    """Load a model and call a function with it: what each process of a job does (see `telepathy.parallel`).

    Args:
        function: called with the model and ``arguments``.
        role: name of its argument that takes the model.
        folder: of the model.
        compute: device and dtype, as `choose_compute` takes them.
    """
    function(**{role: load_language_model(folder, choose_compute(**compute))}, **arguments)


def _load_tokenizer(folder: Path) -> Any:
    with _no_garbage_collection():
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def load_tokenizer_only(folder: str | Path) -> LanguageModel:
    """Load a model folder's configuration and tokenizer without its weights: enough to tokenise prompts.

    Raises:
        TelepathyError: if there is none, or the family cannot take part.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise TelepathyError(
            f"{folder} holds no model (config.json): name a model's folder, or let Snakemake build it."
        )
    model = SimpleNamespace(config=read_config(folder))
    compute = Compute(device=torch.device("cpu"), dtype=torch.float32)
    return LanguageModel(name=folder.name, model=model, tokenizer=_load_tokenizer(folder), compute=compute, source={})


def _text_only(model: Any) -> Any:
    """The language model inside one that also sees pictures: it generates from embeddings, and saves their memory."""
    config = text_config(model)
    if config is model.config:
        return model
    with torch.device("meta"):
        text = model_class(config)(config)
    setattr(text, text.base_model_prefix, model.get_decoder())
    text.set_output_embeddings(model.get_output_embeddings())
    text.generation_config = model.generation_config
    return text


def _refuse_encoder(name: str, model: PreTrainedModel) -> None:
    """Refuse a model whose tokens see what comes after them; BERT and its like load as causal models too."""
    if getattr(model.config, "is_decoder", None) is not False:
        return
    tokens = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    with torch.inference_mode():
        alone, before = (model.base_model(input_ids=ids)[0][0, 0] for ids in (tokens[:, :1], tokens))
    if not torch.allclose(alone, before, rtol=1e-2, atol=1e-2):
        raise TelepathyError(
            f"The model {name} ({model.config.model_type}) is an encoder, whose tokens see those after them: "
            "choose a causal language model."
        )


def _forget_unknown_tokens(tokenizer: Any, model: PreTrainedModel) -> None:
    """Drop special tokens that have no embedding: some tokenizer classes add a default one that the model never had."""
    rows = model.get_input_embeddings().num_embeddings
    for name in ("pad_token", "bos_token", "eos_token"):
        token = getattr(tokenizer, f"{name}_id")
        if token is not None and token >= rows:
            setattr(tokenizer, name, None)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Spare the collector the half a million strings of a vocabulary: half of the time to load Gemma's."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def layer_index(layer: float, depth: int) -> int:
    """Turn a layer setting into an index of the hidden states.

    Args:
        layer: an index (0 is the embedding, ``depth`` the last layer), or a fraction of the depth
            strictly between 0 and 1.
        depth: number of transformer layers.

    Raises:
        TelepathyError: if there is no such layer.
    """
    index = round(layer * depth) if 0 < layer < 1 else int(layer)
    if layer < 0 or index > depth or (layer >= 1 and index != layer):
        raise TelepathyError(f"There is no layer {layer}: give 0 to {depth}, or a fraction between 0 and 1.")
    return index


def text_config(model: PreTrainedModel) -> Any:
    """Configuration of the language model proper; one that also sees pictures keeps it inside its own."""
    return model.config.get_text_config()


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """Find the list of transformer layers in a causal LM of any family."""
    depth = text_config(model).num_hidden_layers
    for module in model.get_decoder().modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise TelepathyError(f"No list of {depth} layers was found in {type(model).__name__}.")


class _StopForward(Exception):
    """Raised inside a forward pass once the last wanted layer has answered."""


def hidden_states(lm: LanguageModel, ids: Tensor, mask: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
    """Run the model up to the last wanted layer and return its residual streams.

    No head, no final norm and no later layer is computed: the states are those that
    ``output_hidden_states`` would give at these indices (index ``i`` is the output of layer ``i``,
    0 the embedding), except that the last layer's is taken before the final norm.

    Args:
        ids: token ids, ``[batch, positions]``.
        mask: 1 at real tokens, ``[batch, positions]``.
        layers: indices between 0 and the model's depth.

    Returns:
        For every index a tensor ``[batch, positions, d]``.
    """
    found: dict[int, Tensor] = {}
    last = max(layers)
    stack = decoder_layers(lm.model)

    def keep(index: int):
        def hook(_module, _args, output):
            found[index] = output[0] if isinstance(output, tuple) else output
            if index == last:
                raise _StopForward

        return hook

    def keep_input(_module, args, kwargs):
        found[0] = args[0] if args else kwargs["hidden_states"]
        if last == 0:
            raise _StopForward

    hooks = [stack[index - 1].register_forward_hook(keep(index)) for index in sorted(set(layers)) if index > 0]
    if 0 in layers:
        hooks.append(stack[0].register_forward_pre_hook(keep_input, with_kwargs=True))
    try:
        lm.model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
    except _StopForward:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _packed(states: Tensor) -> Tensor:
    """Copy with the strides of a fresh tensor: oneDNN's bf16 matmul takes a second over a slice of a sequence.

    ``contiguous()`` would leave the strides of a slice of one sequence as they are.
    """
    return states.clone(memory_format=torch.contiguous_format)


def head_logits(lm: LanguageModel, states: Tensor, tokens: Sequence[int] | Tensor | None = None) -> Tensor:
    """Logits of final hidden states at some tokens of the vocabulary, as the model's own head gives them.

    Args:
        states: output of the model's decoder after its final norm, ``[..., d]``.
        tokens: ids whose logits are wanted; None for the whole vocabulary.

    Returns:
        Logits ``[..., tokens]`` in float32.
    """
    head, config = lm.model.get_output_embeddings(), text_config(lm.model)
    if tokens is None:
        logits = head(states).float()
    else:
        rows, bias = torch.as_tensor(tokens, device=head.weight.device), getattr(head, "bias", None)
        logits = F.linear(_packed(states), head.weight[rows], None if bias is None else bias[rows]).float()
    # Cohere multiplies, Granite divides, Gemma 2 caps; for others that would be work over a whole vocabulary.
    if scale := getattr(config, "logit_scale", None):
        logits = logits * scale
    if scaling := getattr(config, "logits_scaling", None):
        logits = logits / scaling
    cap = getattr(config, "final_logit_softcapping", None)
    return cap * torch.tanh(logits / cap) if cap else logits


def pad(rows: Sequence[Sequence[int]], fill: int, side: str = "right") -> tuple[Tensor, Tensor]:
    """Pad token rows to one length.

    Returns:
        ids and mask, both ``[batch, longest]`` of int64; the mask is 1 at real tokens.
    """
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), fill, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(rows):
        place = slice(longest - len(tokens), None) if side == "left" else slice(0, len(tokens))
        ids[row, place] = torch.tensor(tokens, dtype=torch.long)
        mask[row, place] = 1
    return ids, mask
