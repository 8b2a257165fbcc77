import copy
import platform

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from telepathy.devices import Compute
from telepathy.models import frozen
from telepathy.models.frozen import FrozenLinear, lay_out_once
from telepathy.models.loading import load_language_model

X86 = platform.machine().lower() in ("x86_64", "amd64") and torch.backends.mkldnn.is_available()
BF16 = X86 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
# What a layer becomes on this CPU: where nothing is laid out, all of the tests below must hold for plain layers.
KINDS = {torch.float32: FrozenLinear if X86 else nn.Linear, torch.bfloat16: FrozenLinear if BF16 else nn.Linear}
DTYPES = list(KINDS)
SHAPES = [(7,), (0, 7), (1, 1, 7), (1, 5, 7), (3, 4, 7), (64, 7)]


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Linear(7, 5)


def laid_out(layer, dtype=torch.float32):
    """A copy in which weights are laid out once where this CPU can, and not where it cannot."""
    model = nn.Sequential(copy.deepcopy(layer).to(dtype).requires_grad_(False))
    lay_out_once(model)
    assert type(model[0]) is KINDS[dtype]
    return model[0]


def close(found, reference, dtype):
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found.double(), reference.double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_products_and_gradients_are_those_of_linear_algebra(layer, dtype, shape, bias):
    if not bias:
        layer.bias = None
    laid = laid_out(layer, dtype)
    inputs = torch.randn(shape).to(dtype).requires_grad_()
    found = laid(inputs)
    weight = laid.weight.double()
    offset = laid.bias.double() if bias else 0
    close(found, inputs.double() @ weight.T + offset, dtype)
    gradient = torch.randn_like(found)
    found.backward(gradient)
    close(inputs.grad, gradient.double() @ weight, dtype)
    assert found.dtype == inputs.grad.dtype == dtype and inputs.grad.shape == inputs.shape


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_part_of_a_sequence_may_be_read(layer, dtype):
    laid = laid_out(layer, dtype)
    sequence = torch.randn(1, 6, 7).to(dtype)
    for part in (sequence[:, -1:], sequence[:, ::2], sequence.transpose(0, 1)):
        close(laid(part), part.double() @ laid.weight.double().T + laid.bias.double(), dtype)


def test_weights_that_somebody_wrote_to_are_laid_out_anew(layer):
    laid, inputs = laid_out(layer), torch.randn(3, 7)
    before = laid(inputs)
    laid.weight.mul_(2)
    close(laid(inputs) - laid.bias, 2 * (before - laid.bias), torch.float32)
    laid.weight.data = layer.weight.detach().clone()
    close(laid(inputs), before, torch.float32)


def test_weights_that_ask_for_gradients_get_them(layer):
    laid, inputs = laid_out(layer).requires_grad_(True), torch.randn(3, 7)
    for some in (laid, layer):
        some(inputs).square().sum().backward()
    close(laid.weight.grad, layer.weight.grad, torch.float32)


def test_inputs_of_another_precision_are_left_to_autocast(layer):
    laid, inputs = laid_out(layer), torch.randn(3, 7).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        close(laid(inputs), layer(inputs), torch.bfloat16)
    with pytest.raises(RuntimeError, match="dtype"):
        laid(inputs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("absent", ["x86", "onednn"])
def test_no_layer_is_laid_out_where_the_cpu_is_not_served(layer, monkeypatch, dtype, absent):
    if absent == "x86":
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "arm64"})
    else:
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    model = nn.Sequential(layer.to(dtype)).requires_grad_(False)
    lay_out_once(model)
    assert type(model[0]) is nn.Linear


def test_bfloat16_is_left_as_it_is_where_the_cpu_lacks_it(layer, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    model = nn.Sequential(layer, copy.deepcopy(layer).bfloat16()).requires_grad_(False)
    lay_out_once(model)
    assert type(model[0]) is KINDS[torch.float32] and type(model[1]) is nn.Linear


def test_what_was_first_used_without_gradients_has_them_later(layer):
    laid, inputs = laid_out(layer), torch.randn(3, 7)
    with torch.inference_mode():
        laid(inputs)
    inputs.requires_grad_()
    laid(inputs).sum().backward()
    close(inputs.grad, layer.weight.sum(0).expand(3, -1), torch.float32)


def test_a_compiler_sees_a_plain_layer(layer):
    laid, inputs = laid_out(layer), torch.randn(3, 7)
    compiled = torch.compile(laid, fullgraph=True, backend="eager")
    close(compiled(inputs), laid(inputs), torch.float32)


@pytest.mark.parametrize("limit, kept", [("LARGEST_MODEL", 4 * (7 * 5 + 5 * 2)), ("LARGEST_LAYER", 4 * 7 * 5)])
def test_large_weights_are_left_as_they_are(layer, monkeypatch, limit, kept):
    model = nn.Sequential(layer, nn.Linear(5, 2)).requires_grad_(False)
    monkeypatch.setattr(frozen, limit, kept - 1)
    lay_out_once(model)
    assert type(model[0]) is nn.Linear and type(model[1]) is (
        KINDS[torch.float32] if limit == "LARGEST_LAYER" else nn.Linear
    )
    monkeypatch.setattr(frozen, limit, kept)
    lay_out_once(model)
    assert {type(part) for part in model} == {KINDS[torch.float32]}


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_loaded_model_computes_as_transformers_own(lms, family, dtype, tmp_path):
    lms[family].model.save_pretrained(tmp_path)
    lms[family].tokenizer.save_pretrained(tmp_path)
    loaded = load_language_model(tmp_path, Compute(device=torch.device("cpu"), dtype=dtype))
    own = type(loaded.model).from_pretrained(tmp_path, dtype=dtype).eval().requires_grad_(False)
    assert any(type(part) is KINDS[dtype] for part in loaded.model.modules())
    embedded = own.get_input_embeddings()(torch.tensor([[1, 40, 41, 42]])).detach()
    found = []
    for model in (loaded.model, own):
        inputs = embedded.clone().requires_grad_()
        logits = model(inputs_embeds=inputs).logits
        logits[0, -1, :5].sum().backward()
        found.append((logits.detach(), inputs.grad))
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, rtol=1e-3 if dtype == torch.float32 else 5e-2, atol=1e-3)


def test_lora_learns_on_frozen_layers_as_on_plain_ones(lms, tmp_path):
    lms["llama"].model.save_pretrained(tmp_path)
    lms["llama"].tokenizer.save_pretrained(tmp_path)
    loaded = load_language_model(tmp_path, Compute(device=torch.device("cpu"), dtype=torch.float32)).model
    own = type(loaded).from_pretrained(tmp_path, dtype=torch.float32)
    gradients = []
    for model in (loaded, own):
        torch.manual_seed(0)
        adapted = get_peft_model(model, LoraConfig(target_modules="all-linear", init_lora_weights=False))
        adapted(torch.tensor([[1, 40, 41, 42]])).logits[0, -1, :5].sum().backward()
        gradients.append({name: weight.grad for name, weight in adapted.named_parameters() if weight.requires_grad})
    assert len(gradients[0]) == len(gradients[1]) > 4
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], gradient, rtol=1e-4, atol=1e-5)
