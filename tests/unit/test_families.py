"""The whole path with tiny models of many families, each written by transformers and loaded from its folder."""

import json

import pandas as pd
import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from telepathy.config import method_settings
from telepathy.devices import Compute
from telepathy.errors import TelepathyError
from telepathy.features import encode_task
from telepathy.files import write_json
from telepathy.methods.bridge import BridgeData, evaluate_bridge, train_bridge
from telepathy.models.compiled import compiled_view
from telepathy.models.loading import decoder_layers, head_logits, hidden_states, load_language_model, pad
from telepathy.scoring.labels import LabelSet, beginning, label_log_likelihoods, text_prefix
from telepathy.training.bridge import answer_loss

CPU = Compute(device=torch.device("cpu"), dtype=torch.float32)
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
PROMPTS = [[1, 40, 41, 42, 43, 44, 45, 46], [1, 50, 51], [1, 60, 61, 62, 63, 64]]
LABELS = LabelSet(("a", "b", "c", "d", "e"), ((50,), (60, 61, 62), (60, 63), (60, 61, 64), (51, 65, 66)))

TOKENS = {"vocab_size": 400, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
PLAIN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128}
GROUPED = {**PLAIN, "num_key_value_heads": 2, "intermediate_size": 48}
WINDOW = {**GROUPED, "head_dim": 8, "sliding_window": 4}
OPT = {**PLAIN, "ffn_dim": 48}
OLD_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
FAMILIES = {
    "llama": GROUPED,
    "llama, tied head": {**GROUPED, "tie_word_embeddings": True},
    "mistral, window": {**GROUPED, "sliding_window": 4},
    "qwen2": GROUPED,
    "qwen3": {**GROUPED, "head_dim": 8},
    "gemma": {**GROUPED, "head_dim": 8},
    "gemma2": {**WINDOW, "final_logit_softcapping": 0.5, "attn_logit_softcapping": 1.0},
    "gemma3_text": WINDOW,
    "gemma3, sees pictures": {
        "text_config": {**TOKENS, **WINDOW},
        "vision_config": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16},
    },
    "gpt2": OLD_GPT,
    "gptj": {**OLD_GPT, "rotary_dim": 4},
    "gpt_neox": {**PLAIN, "intermediate_size": 48},
    "phi": GROUPED,
    "phi3": GROUPED,
    "opt": {**OPT, "word_embed_proj_dim": 32},
    "opt, narrow embeddings": {**OPT, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
    "falcon": PLAIN,
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128},
    "starcoder2": GROUPED,
    "olmo2": GROUPED,
    "cohere": {**GROUPED, "logit_scale": 0.3},
    "granite": {**GROUPED, "logits_scaling": 7.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5},
}


def new_model(kind, **shape):
    """A random model whose weights, biases too, are large enough that every mistake shows."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **({} if "text_config" in shape else TOKENS), **shape)
    model = (AutoModelForSeq2SeqLM if kind == "t5" else AutoModelForCausalLM).from_config(config)
    for name, value in model.named_parameters():
        if value.ndim > 1 or name.endswith("bias"):
            nn.init.normal_(value, std=0.3)
    return model


def write_model(folder, tokenizer, model):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def loaded(tokenizer, tmp_path_factory):
    """Load one family from the folder that transformers wrote; the session keeps it."""
    kept = {}

    def load(family):
        if family not in kept:
            folder = tmp_path_factory.mktemp("family") / family.replace(", ", "_").replace(" ", "_")
            kept[family] = load_language_model(
                write_model(folder, tokenizer, new_model(family.split(",")[0], **FAMILIES[family])), CPU
            )
        return kept[family]

    return load


@pytest.fixture(params=FAMILIES)
def family(request, loaded):
    """Each family in turn."""
    return loaded(request.param)


def log_likelihood(lm, prompt, said):
    """One whole forward pass for every token that is said."""
    total = 0.0
    for place, token in enumerate(said):
        with torch.no_grad():
            logits = lm.model(input_ids=torch.tensor([[*prompt, *said[:place]]])).logits[0, -1]
        total += float(torch.log_softmax(logits.double(), dim=0)[token])
    return total


def test_a_loaded_model_says_what_the_written_one_said(tokenizer, tmp_path):
    model = new_model("gpt_neox", **FAMILIES["gpt_neox"]).eval()
    lm = load_language_model(write_model(tmp_path / "neox", tokenizer, model), CPU)
    ids = torch.tensor([PROMPTS[0]])
    with torch.no_grad():
        torch.testing.assert_close(lm.model(input_ids=ids).logits, model(input_ids=ids).logits)


@pytest.mark.parametrize("layer", [0, 1])
def test_states_are_those_that_transformers_gives(family, layer):
    ids, mask = pad(PROMPTS, family.pad_id)
    with torch.inference_mode():
        found = hidden_states(family, ids, mask, [layer])[layer][mask.bool()]
        said = family.model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[layer]
    torch.testing.assert_close(found, said[mask.bool()], **CLOSE)
    assert found.shape[1] == family.state_width


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("name", ["llama", "gemma3, sees pictures", "gpt2", "gpt_neox", "opt"])
def test_a_compiled_view_answers_as_the_model_and_leaves_it_alone(loaded, name, whole):
    family = loaded(name)
    torch._dynamo.reset()
    expected = label_log_likelihoods(family, *text_prefix(family, PROMPTS), LABELS)
    view = compiled_view(family, whole=whole, backend="eager")
    torch.testing.assert_close(label_log_likelihoods(view, *text_prefix(family, PROMPTS), LABELS), expected, **CLOSE)
    compiled = [module for module in view.model.modules() if "forward" in vars(module)]
    assert len(compiled) >= len(decoder_layers(family.model))
    assert all("forward" not in vars(module) for module in family.model.modules())


def test_labels_under_left_padding_score_as_in_whole_forward_passes(family):
    found = label_log_likelihoods(family, *text_prefix(family, PROMPTS), LABELS)
    expected = [[log_likelihood(family, prompt, row) for row in LABELS.tokens] for prompt in PROMPTS]
    torch.testing.assert_close(found, torch.tensor(expected), **CLOSE)


def test_labels_after_a_shared_beginning_score_as_in_whole_forward_passes(family):
    start = [1, 33, 34, 35]
    prefix = family.embed(torch.tensor([row[-2:] for row in PROMPTS]))
    mask = torch.ones(len(PROMPTS), len(start) + 2, dtype=torch.long)
    found = label_log_likelihoods(family, prefix, mask, LABELS, beginning(family, start))
    expected = [[log_likelihood(family, start + prompt[-2:], row) for row in LABELS.tokens] for prompt in PROMPTS]
    torch.testing.assert_close(found, torch.tensor(expected), **CLOSE)


def test_padding_at_the_end_leaves_labels_of_one_token_as_they_are_after_a_shared_beginning(family):
    start, rests = [1, 33, 34, 35, 36, 37], [prompt[1:] for prompt in PROMPTS]
    labels = LabelSet(("a", "b"), ((50,), (70,)))
    prefix, mask = text_prefix(family, rests, side="right")
    mask = torch.cat([torch.ones(len(rests), len(start), dtype=torch.long), mask], dim=1)
    found = label_log_likelihoods(family, prefix, mask, labels, beginning(family, start))
    expected = [[log_likelihood(family, start + rest, row) for row in labels.tokens] for rest in rests]
    torch.testing.assert_close(found, torch.tensor(expected), **CLOSE)


def test_the_loss_is_that_of_whole_forward_passes_and_reaches_the_prefix(family):
    prefix, mask = text_prefix(family, PROMPTS)
    prefix = prefix.detach().requires_grad_()
    rows = [LABELS.tokens[1], LABELS.tokens[0], LABELS.tokens[2]]
    loss = answer_loss(family, prefix, mask, rows)
    loss.backward()
    expected = -sum(log_likelihood(family, prompt, row) for prompt, row in zip(PROMPTS, rows)) / len(rows)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert prefix.grad[mask.bool()].abs().sum() > 0


def test_logits_of_some_tokens_are_those_of_the_whole_model(family):
    ids, tokens = torch.tensor([PROMPTS[0]]), [7, 300, 2]
    with torch.no_grad():
        found = head_logits(family, family.model.base_model(input_ids=ids)[0], tokens)
        torch.testing.assert_close(found, family.model(input_ids=ids).logits[..., tokens], **CLOSE)


def test_greedy_text_under_left_padding_is_that_of_whole_forward_passes(family):
    prefix, mask = text_prefix(family, PROMPTS)
    written = family.model.generate(
        inputs_embeds=prefix, attention_mask=mask, max_new_tokens=3, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    for prompt, row in zip(PROMPTS, written[:, -3:].tolist()):
        said = list(prompt)
        for token in row:
            with torch.no_grad():
                assert token == int(family.model(input_ids=torch.tensor([said])).logits[0, -1].argmax())
            said.append(token)


WORDS = {"negative": ["dull", "nobody wants it", "stolen"], "positive": ["fine", "I like it", "I know it"]}


@pytest.fixture
def trained(make_task, tmp_path):
    """Encode with one model, train a bridge into another for a few steps and answer the test examples."""

    def train(sender, receiver):
        task, split = make_task(), [(text, label) for label, texts in WORDS.items() for text in texts]
        frame = pd.DataFrame([{"id": text, "text": text, "label": label} for text, label in split])
        examples = tmp_path / "examples"
        examples.mkdir()
        for name in ("train", "dev", "test"):
            frame.to_parquet(examples / f"{name}.parquet")
        write_json(examples / "source.json", {})
        encode_task(sender, task, dict.fromkeys(("train", "dev", "test"), frame), tmp_path / "features", layers=[1])
        data = BridgeData(task=task, examples=examples, features=tmp_path / "features", limits={})
        methods = {"methods": {"bridge": {"kind": "bridge", "width": 16, "heads": 2, "sender_layer": 1, "steps": 30}}}
        settings = method_settings(methods, "bridge") | {"batch_size": 6, "evaluations": 3, "learning_rate": 1e-2}
        train_bridge(data, receiver, settings, k=2, seed=0, target=tmp_path / "bridge")
        losses = [record["loss"] for record in json.loads((tmp_path / "bridge/training.json").read_text())["history"]]
        return losses, evaluate_bridge(data, receiver, tmp_path / "bridge")

    return train


@pytest.mark.parametrize("name", FAMILIES)
def test_a_bridge_learns_between_any_two_families(loaded, trained, name):
    families = list(FAMILIES)
    other = families[(families.index(name) + 5) % len(families)]
    losses, predictions = trained(loaded(name), loaded(other))
    assert min(losses[1:]) < losses[0]
    assert predictions["prediction"].isin(WORDS).all()


def without(tokenizer, folder, *names):
    """Write the tokenizer without some of its special tokens."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in settings.items() if key not in names}))


@pytest.mark.parametrize(
    "missing, bos, padding", [(["pad_token"], 1, 1), (["bos_token"], 2, 0), (["pad_token", "bos_token"], 2, 2)]
)
def test_a_model_without_some_special_tokens_scores_as_any_other(tokenizer, tmp_path, missing, bos, padding):
    model = new_model("qwen2", **FAMILIES["qwen2"])
    model.save_pretrained(tmp_path / "bare")
    without(tokenizer, tmp_path / "bare", *missing)
    lm = load_language_model(tmp_path / "bare", CPU)
    assert (lm.bos_id, lm.pad_id) == (bos, padding)
    prompts = [[bos, *row[1:]] for row in PROMPTS]
    found = label_log_likelihoods(lm, *text_prefix(lm, prompts), LABELS)
    expected = [[log_likelihood(lm, prompt, row) for row in LABELS.tokens] for prompt in prompts]
    torch.testing.assert_close(found, torch.tensor(expected), **CLOSE)


@pytest.mark.parametrize(
    "kind, shape, reason",
    [
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}, "keeps a recurrent state in place of"),
        ("bert", {**PLAIN, "intermediate_size": 48}, "is an encoder, whose tokens see those after them"),
        ("t5", {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}, "is no causal language model"),
    ],
)
def test_a_family_that_cannot_take_part_is_refused_in_one_sentence(tokenizer, tmp_path, kind, shape, reason):
    write_model(tmp_path / kind, tokenizer, new_model(kind, **shape))
    with pytest.raises(TelepathyError, match=rf"The model {kind} \({kind}\) {reason}"):
        load_language_model(tmp_path / kind, CPU)


def test_a_model_that_brings_its_own_code_is_refused_and_the_code_not_run(tokenizer, tmp_path):
    folder = write_model(tmp_path / "own", tokenizer, new_model("gpt2", **OLD_GPT))
    settings = json.loads((folder / "config.json").read_text())
    mapping = {"AutoConfig": "code.OwnConfig", "AutoModelForCausalLM": "code.OwnModel"}
    (folder / "config.json").write_text(json.dumps({**settings, "model_type": "own", "auto_map": mapping}))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(TelepathyError, match="asks to run its own code, which is never done"):
        load_language_model(folder, CPU)
    assert not (tmp_path / "ran").exists()
