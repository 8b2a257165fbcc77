from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from telepathy.devices import Compute
from telepathy.errors import TelepathyError
from telepathy.methods import tuning
from telepathy.methods.adapters import (
    AdaptedReceiver,
    SoftPrompt,
    adapter_config,
    first_vectors,
    load_adapter,
    new_adapter,
)
from telepathy.methods.prompted import zero_shot
from telepathy.methods.tuning import AdapterLearner, tune_receiver, whole_prompt_loss
from telepathy.training.loop import TrainingConfig

from .conftest import build_lm

WORDS = {"negative": ["dull", "bad", "poor"], "positive": ["fine", "good", "rich"]}
LORA = adapter_config("lora")
SHORT = TrainingConfig(steps=30, batch_size=4, learning_rate=0.05, evaluations=3, checkpoint_every=0)


def films(rows):
    labels = [["negative", "positive"][row % 2] for row in range(rows)]
    texts = [f"a {WORDS[label][row // 2 % 3]} film" for row, label in enumerate(labels)]
    return pd.DataFrame({"id": [f"film-{row}" for row in range(rows)], "text": texts, "label": labels})


@pytest.fixture
def task(make_task):
    return make_task(max_tokens=60)


@pytest.fixture
def fresh(request, tokenizer):
    """A model of its own, which LoRA may change."""
    return build_lm("llama", tokenizer)


def answers(adapted, frame):
    return torch.tensor([list(row) for row in adapted.answer(frame)["scores"]])


@pytest.mark.parametrize("kind", ["lora", "prompt_tuning"])
def test_training_lowers_the_loss_on_dev(fresh, task, kind):
    config = adapter_config(kind)
    _, history = tune_receiver(fresh, task, films(12), films(6), config, SHORT, seed=1)
    assert history[-1]["loss"] < history[0]["loss"]


@pytest.mark.parametrize("kind", ["lora", "prompt_tuning"])
def test_a_saved_adapter_answers_as_the_trained_one(fresh, tokenizer, task, tmp_path, kind):
    adapted, _ = tune_receiver(fresh, task, films(12), films(6), adapter_config(kind), SHORT, seed=1)
    adapted.save_pretrained(tmp_path / "adapter")
    loaded, about = load_adapter(build_lm("llama", tokenizer), task, tmp_path / "adapter")
    torch.testing.assert_close(answers(loaded, films(6)), answers(adapted, films(6)), rtol=0, atol=0)
    assert about["adapter"]["kind"] == kind


@pytest.mark.parametrize("kind", ["lora", "prompt_tuning"])
def test_the_frozen_weights_stay_as_they_were(fresh, tokenizer, task, kind):
    adapted, _ = tune_receiver(fresh, task, films(12), films(6), adapter_config(kind), SHORT, seed=1)
    adapted.detach()
    before = build_lm("llama", tokenizer).model.state_dict()
    after = fresh.model.state_dict()
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("change", ["text", "precision"])
def test_training_does_not_go_on_from_a_checkpoint_of_other_texts_or_precision(tokenizer, task, monkeypatch, change):
    seen = []
    monkeypatch.setattr(tuning, "fit", lambda *given, **more: seen.append(given[3]) or [])
    changed = films(12).assign(text="quite another film") if change == "text" else films(12)
    for frame, dtype in ((films(12), torch.float32), (films(12), torch.float32), (changed, torch.bfloat16)):
        lm = build_lm("llama", tokenizer)
        if change == "precision":
            lm = replace(lm, compute=Compute(device=lm.compute.device, dtype=dtype))
        tune_receiver(lm, task, frame, films(6), adapter_config("prompt_tuning"), SHORT, seed=1)
    assert seen[0] == seen[1] != seen[2]


def test_lora_is_peft_merged_into_the_layers(fresh, task):
    """The adapted forward equals one whose weights are W + alpha / r * B A."""
    adapted, _ = tune_receiver(fresh, task, films(12), films(6), adapter_config("lora"), SHORT, seed=1)
    learnt = answers(adapted, films(6))
    weights = dict(fresh.model.named_modules())
    merged = {}
    for name, module in weights.items():
        if hasattr(module, "lora_A") and module.lora_A:
            update = module.lora_B["default"].weight @ module.lora_A["default"].weight
            merged[name] = module.base_layer.weight + 16 / 8 * update
    assert len(merged) == 2 * 7
    adapted.detach()
    plain = dict(fresh.model.named_modules())
    for name, weight in merged.items():
        plain[name].weight.data = weight.detach()
    again = torch.tensor([list(row) for row in zero_shot(fresh, task, films(6))["scores"]])
    torch.testing.assert_close(again, learnt, rtol=1e-4, atol=1e-4)


def test_lora_in_bfloat16_multiplies_in_bfloat16_and_keeps_float32_weights(tokenizer, task):
    exact, rounded = (build_lm("llama", tokenizer, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    both = [AdaptedReceiver(lm, task, LORA, new_adapter(lm, task, films(6), LORA, seed=1)) for lm in (exact, rounded)]
    for adapted in both:
        for name, value in adapted.adapter.named_parameters():
            torch.nn.init.constant_(value, 0.02 if "lora_B" in name else 0.01)
    seen = set()
    for name, module in rounded.model.named_modules():
        if name.endswith("lora_A.default"):
            module.register_forward_hook(lambda _module, args, out: seen.update({args[0].dtype, out.dtype}))
    torch.testing.assert_close(answers(both[1], films(6)), answers(both[0], films(6)), rtol=0.05, atol=0)
    loss = AdapterLearner(both[1], films(12), films(6)).loss([0, 1, 2])
    loss.backward()
    assert seen == {torch.bfloat16}
    assert {value.grad.dtype for value in both[1].adapter.parameters()} == {torch.float32}


def test_lora_counts_its_own_weights(fresh, task):
    adapted, _ = tune_receiver(fresh, task, films(12), films(6), adapter_config("lora", rank=4), SHORT, seed=1)
    # Two layers of a Llama of width 32, key and value width 16, inner width 48.
    shapes = [(32, 32), (32, 16), (32, 16), (32, 32), (32, 48), (32, 48), (48, 32)]
    assert adapted.trainable_parameters == 2 * sum(4 * (wide + high) for wide, high in shapes)


def test_a_soft_prompt_stands_between_bos_and_text(lm, task):
    adapter = SoftPrompt(lm, torch.randn(3, lm.width))
    rows = [[1, 50, 51, 52], [1, 60]]
    embeds, mask = adapter.prefixes(rows)
    assert mask.tolist() == [[1] * 7, [0, 0, 1, 1, 1, 1, 1]]
    for line, row, width in zip(embeds, rows, mask.sum(1), strict=True):
        text = lm.embed(torch.tensor(row))
        expected = torch.cat([text[:1], adapter.vectors(), text[1:]])
        torch.testing.assert_close(line[-int(width) :], expected)


def test_a_soft_prompt_starts_at_label_words(llama, task):
    start = first_vectors(llama, task, films(12), 8, seed=0)
    labels = {llama.token_ids(" negative")[0], llama.token_ids(" positive")[0]}
    rows = llama.model.get_input_embeddings().weight
    for token in labels:
        assert any(torch.equal(vector, rows[token]) for vector in start)
    assert all((rows == vector).all(1).any() for vector in start)


def test_the_published_prompt_tuning_answers_a_constant(fresh, task):
    config = adapter_config("prompt_tuning", sees_input=False)
    adapted, _ = tune_receiver(fresh, task, films(12), films(6), config, SHORT, seed=1)
    assert adapted.answer(films(12))["prediction"].nunique() == 1


def test_loras_loss_is_on_answer_and_end_only(fresh, task):
    adapted, _ = tune_receiver(fresh, task, films(12), films(6), adapter_config("lora"), SHORT, seed=1)
    frame = films(2)
    learner = AdapterLearner(adapted, frame, frame)
    expected = []
    for row in frame.itertuples():
        head = [1, *fresh.token_ids(f"Review: {row.text}\nSentiment (negative or positive):")]
        tail = [*fresh.token_ids(f" {row.label}"), 2]
        logits = fresh.model(input_ids=torch.tensor([[*head, *tail]])).logits[0, len(head) - 1 : -1]
        expected.append(F.cross_entropy(logits, torch.tensor(tail), reduction="sum"))
    torch.testing.assert_close(learner.loss([0, 1]), torch.stack(expected).mean(), rtol=1e-4, atol=1e-4)


def test_the_published_loss_is_on_every_token(lm):
    rows = [[1, 50, 51, 52, 60], [1, 60, 61]]
    total = 0.0
    for row in rows:
        logits = lm.model(input_ids=torch.tensor([row])).logits[0, :-1]
        total = total + F.cross_entropy(logits, torch.tensor(row[1:]), reduction="sum")
    torch.testing.assert_close(whole_prompt_loss(lm, rows), total / 6, rtol=1e-4, atol=1e-4)


def test_the_same_seed_gives_the_same_weights(tokenizer, task):
    found = []
    for _ in range(2):
        lm = build_lm("llama", tokenizer)
        adapted, _ = tune_receiver(lm, task, films(12), films(6), adapter_config("lora"), SHORT, seed=5)
        found.append(adapted.adapter.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_an_adapter_of_another_prompt_is_refused(fresh, make_task, task, tmp_path):
    adapted, _ = tune_receiver(fresh, task, films(12), films(6), adapter_config("prompt_tuning"), SHORT, seed=1)
    adapted.save_pretrained(tmp_path / "adapter")
    with pytest.raises(TelepathyError, match="trained with another prompt"):
        load_adapter(fresh, make_task(primer="Mood:"), tmp_path / "adapter")


@pytest.mark.parametrize(
    "kind, settings, sentence",
    [
        ("lora", {"rank": 0}, "rank of lora must be above 0, not 0"),
        ("lora", {"loss": "odd"}, "answer or labels or whole_prompt, not 'odd'"),
        ("lora", {"targets": "some"}, "all-linear or a list of module names, not 'some'"),
        ("prompt_tuning", {"loss": "whole_prompt"}, "answer or labels, not 'whole_prompt'"),
        ("nosuch", {}, "choose one of prompt_tuning, lora"),
    ],
)
def test_settings_that_contradict_are_refused_with_their_value(kind, settings, sentence):
    with pytest.raises(TelepathyError, match=sentence):
        adapter_config(kind, **settings)


def test_lora_on_modules_that_a_model_does_not_have_is_refused(fresh, task):
    with pytest.raises(TelepathyError, match="LoRA cannot be put into llama"):
        tune_receiver(fresh, task, films(4), films(2), adapter_config("lora", targets=["nosuch"]), SHORT, seed=1)
