"""The runtime against a naive path: whole forward passes, one example and one label at a time."""

import pandas as pd
import pytest
import torch

import telepathy
from telepathy.bridges import BridgeConfig, build_bridge, load_bridge
from telepathy.errors import TelepathyError
from telepathy.inference import Telepathy
from telepathy.models.compiled import Recorded, compiled_view
from telepathy.models.loading import hidden_states
from telepathy.tasks.prompts import prompt_ids
from tests.unit.conftest import build_lm

LAYER = 1
TEXTS = ["a fine film", "dull", "the card was lost and the card was stolen, so the bank sent a new card", "I know it"]
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(params=["positive", "good and fine"])
def task(make_task, request):
    """Labels of one token, and of several."""
    return make_task(labels=["negative", {"name": "positive", "verbaliser": request.param}, "mixed film"])


@pytest.fixture
def receiver(tokenizer):
    return build_lm("gemma3", tokenizer, "hears")


@pytest.fixture
def sender(tokenizer):
    return build_lm("llama", tokenizer, "reads")


@pytest.fixture
def saved(tmp_path, sender, receiver):
    """Write an untrained bridge for a task."""

    def save(task, primer_position="before", architecture="perceiver"):
        torch.manual_seed(1)
        shape = {"architecture": architecture, "soft_tokens": 3, "width": 16}
        bridge = build_bridge(BridgeConfig(**shape, sender_width=sender.width, receiver_width=receiver.width))
        bridge.save_pretrained(
            tmp_path / "bridge",
            task=task.name,
            sender={"name": sender.name, "layer": LAYER},
            receiver={"name": receiver.name, "primer_position": primer_position, "bos": True},
            prompt=task.prompt_hash,
        )
        return tmp_path / "bridge"

    return save


@pytest.fixture
def load(saved, sender, receiver):
    def loaded(task, primer_position="before", architecture="perceiver", **options):
        folder = saved(task, primer_position, architecture)
        return Telepathy.from_pretrained(folder, sender=sender, receiver=receiver, task=task, **options)

    return loaded


def naive_scores(model, folder, text, primer_position):
    """Log-likelihood of every label from whole forward passes of both models."""
    sender, receiver, task = model.sender, model.receiver, model.task
    bridge, _ = load_bridge(folder)
    ids = torch.tensor([prompt_ids(sender, task, {"text": text})])
    with torch.no_grad():
        states = sender.model(input_ids=ids, output_hidden_states=True).hidden_states[LAYER].bfloat16()
        soft = bridge(states, torch.ones_like(ids, dtype=torch.bool))
        primer = receiver.token_ids(task.primer)
        before, after = ([1, *primer], []) if primer_position == "before" else ([1], primer)
        scores = []
        for label in model.labels.tokens:
            parts = [receiver.embed(torch.tensor([before])), soft]
            parts.append(receiver.embed(torch.tensor([[*after, *label]], dtype=torch.long)))
            logits = receiver.model(inputs_embeds=torch.cat(parts, dim=1)).logits[0].log_softmax(-1)
            start = len(before) + soft.shape[1] + len(after) - 1
            scores.append(sum(float(logits[start + place, token]) for place, token in enumerate(label)))
    return torch.tensor(scores)


@pytest.mark.parametrize("primer_position", ["before", "after"])
@pytest.mark.parametrize("buckets", [None, (32, 64), (8,)])
def test_answers_are_those_of_whole_forward_passes(load, task, tmp_path, primer_position, buckets):
    model = load(task, primer_position, buckets=buckets)
    expected = torch.stack([naive_scores(model, tmp_path / "bridge", text, primer_position) for text in TEXTS])
    shares = torch.tensor([list(row.values()) for row in model.probabilities(TEXTS)])
    torch.testing.assert_close(shares, expected.softmax(1), **CLOSE)
    assert model(TEXTS) == [task.label_names[best] for best in expected.argmax(1)]


def test_one_example_is_answered_as_in_a_batch(load, task):
    model = load(task)
    assert [model(text) for text in TEXTS] == model(TEXTS)
    assert model({"text": TEXTS[0]}) == model(TEXTS[0])
    torch.testing.assert_close(model.soft_tokens(TEXTS)[1], model.soft_tokens(TEXTS[1]), **CLOSE)
    alone, together = model.probabilities(TEXTS[2]), model.probabilities(TEXTS)[2]
    assert alone == pytest.approx(together, abs=1e-5)


def test_an_empty_batch_has_no_answers(load, task):
    model = load(task)
    assert model([]) == []
    assert model.probabilities([]) == []
    assert model.soft_tokens([]).shape == (0, 3, 32)


def test_few_shapes_reach_the_models_where_there_are_buckets(load, task, sender):
    model = load(task, buckets=(32, 64))
    shapes = set()
    hook = sender.model.model.layers[0].register_forward_hook(lambda _m, args, _o: shapes.add(tuple(args[0].shape[:2])))
    for some in (TEXTS, TEXTS[:3], TEXTS[1:2], [TEXTS[2]] * 5, ["film " * 6]):
        model(some)
    hook.remove()
    assert {length for _, length in shapes} <= {32, 64}
    assert {size for size, _ in shapes} <= {1, 2, 4, 8}


def test_an_input_longer_than_any_bucket_is_padded_to_a_multiple_of_the_largest(load, task):
    model, plain = load(task, buckets=(8,)), load(task)
    long = "the card was lost " * 12
    assert model.bucket(len(prompt_ids(model.sender, task, {"text": long}))) % 8 == 0
    torch.testing.assert_close(model.soft_tokens([long, "dull"]), plain.soft_tokens([long, "dull"]), **CLOSE)


def test_a_text_is_cut_as_in_training(load, make_task):
    task = make_task(max_tokens=40)
    model = load(task)
    states, _ = model.encode([prompt_ids(model.sender, task, {"text": "card " * 200})])
    assert states.shape[1] == 40
    assert model("card " * 200) == model("card " * 400)


def test_the_sender_runs_no_layer_above_the_one_that_is_read(load, task, sender):
    model, ran = load(task), []
    modules = {"layer": sender.model.model.layers[LAYER], "head": sender.model.lm_head}
    hooks = [module.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, module in modules.items()]
    model(TEXTS)
    [hook.remove() for hook in hooks]
    assert ran == []


def test_states_have_the_precision_of_the_feature_store(load, task):
    model = load(task)
    rows = [prompt_ids(model.sender, task, {"text": text}) for text in TEXTS[:1]]
    expected = hidden_states(model.sender, torch.tensor(rows), torch.ones(1, len(rows[0])), [LAYER])[LAYER]
    torch.testing.assert_close(model.encode(rows)[0], expected.bfloat16())


def test_attention_is_over_the_texts_tokens(load, task):
    found = load(task, buckets=(64,)).attention(TEXTS)
    for (tokens, weights), text in zip(found, TEXTS, strict=True):
        assert weights.shape == (3, len(tokens))
        torch.testing.assert_close(weights.sum(1), torch.ones(3), **CLOSE)
        assert text.split()[0] in "".join(tokens).replace("Ġ", " ")


def test_a_bridge_without_attention_says_so(load, task):
    with pytest.raises(TelepathyError, match="architecture linear has no attention"):
        load(task, architecture="linear").attention(TEXTS)


def test_a_number_is_generated_and_parsed(load, number_task):
    model = load(number_task)
    answers = model([{"question": "How many cards are left?"}, {"question": "How many apples?"}])
    assert all(answer is None or float(answer) is not None for answer in answers)
    with pytest.raises(TelepathyError, match="films has no labels"):
        model.probabilities("How many?")


def test_an_option_that_an_example_does_not_have_is_never_chosen(load, choice_task):
    shares = load(choice_task).probabilities({"question": "Which card?", "choices": ["new", "old"]})
    assert list(shares) == ["A", "B", "C"]
    assert shares["C"] == 0.0
    assert sum(shares.values()) == pytest.approx(1)


def test_an_example_without_a_field_is_refused_with_its_name(load, choice_task):
    with pytest.raises(TelepathyError, match="needs the fields question, choices; choices is missing"):
        load(choice_task)({"question": "Which card?"})


@pytest.mark.parametrize(
    "given, sentence",
    [
        (3, "a sequence of either, not int"),
        ([None], "a text or a mapping of its fields, not NoneType"),
        (b"ab", "a text or a mapping of its fields, not int"),
        ({"text": None}, "The field text of an example of the task films is a text, not NoneType"),
        ([{"text": ["a", "b"]}], "is a text, not list"),
    ],
)
def test_what_is_no_text_is_refused(load, task, given, sentence):
    with pytest.raises(TelepathyError, match=sentence):
        load(task)(given)


def test_texts_may_come_in_a_frame_a_column_or_a_generator(load, task):
    model, frame = load(task), pd.DataFrame({"id": range(len(TEXTS)), "text": TEXTS})
    expected = model(TEXTS)
    assert model(frame) == model(frame["text"]) == model(text for text in TEXTS) == expected


@pytest.mark.parametrize("role, other", [("sender", "writes"), ("receiver", "listens")])
def test_other_models_than_those_of_the_training_are_refused_with_both_names(
    saved, task, sender, receiver, tokenizer, role, other
):
    models = {"sender": sender, "receiver": receiver, role: build_lm("llama", tokenizer, other)}
    expected = {"sender": sender, "receiver": receiver}[role].name
    with pytest.raises(TelepathyError, match=f"trained for the {role} {expected}, but got {other}"):
        Telepathy.from_pretrained(saved(task), task=task, **models)


def test_a_folder_without_weights_is_refused(saved, task, sender, receiver):
    folder = saved(task)
    (folder / "model.safetensors").unlink()
    with pytest.raises(TelepathyError, match="holds no trained bridge"):
        Telepathy.from_pretrained(folder, sender=sender, receiver=receiver, task=task)


def test_a_model_that_is_not_there_is_named(saved, task, tmp_path):
    with pytest.raises(TelepathyError, match="reads holds no model"):
        Telepathy.from_pretrained(saved(task), task=task, models=tmp_path)


def test_a_task_that_the_library_does_not_ship_must_be_given(saved, task, sender, receiver):
    with pytest.raises(TelepathyError, match="trained on the task films, which the library does not ship"):
        Telepathy.from_pretrained(saved(task), sender=sender, receiver=receiver)


def test_models_are_found_by_the_names_in_the_bridges_configuration(saved, task, sender, receiver, tmp_path):
    for lm in (sender, receiver):
        lm.model.save_pretrained(tmp_path / "models" / lm.name)
        lm.tokenizer.save_pretrained(tmp_path / "models" / lm.name)
    options = {"task": task, "models": tmp_path / "models", "device": "cpu", "dtype": "float32"}
    model = Telepathy.from_pretrained(saved(task), **options)
    expected = Telepathy.from_pretrained(saved(task), sender=sender, receiver=receiver, task=task)
    assert model.probabilities(TEXTS[0]) == pytest.approx(expected.probabilities(TEXTS[0]), abs=1e-5)


def test_folders_of_other_models_are_refused_before_any_is_loaded(saved, task, sender, receiver, tmp_path, monkeypatch):
    monkeypatch.setattr("telepathy.inference.load_language_model", lambda *_: pytest.fail("loaded"))
    for lm in (sender, receiver):
        lm.model.save_pretrained(tmp_path / lm.name)
    swapped = {"sender": tmp_path / receiver.name, "receiver": tmp_path / sender.name}
    with pytest.raises(TelepathyError, match=f"trained for the receiver {receiver.name}, but got {sender.name}"):
        Telepathy.from_pretrained(saved(task), task=task, **swapped)


@pytest.mark.parametrize("whole", [True, False])
def test_compiled_layers_give_what_the_layers_give_and_are_not_compiled_again(tokenizer, whole):
    plain = build_lm("llama", tokenizer)
    torch._dynamo.reset()
    fast = compiled_view(plain, whole=whole, backend="eager")
    batches = [torch.randint(3, 90, shape) for shape in ((2, 8), (2, 16), (4, 8), (4, 16))]
    for ids in batches:
        expected = hidden_states(plain, ids, torch.ones_like(ids), [2])[2]
        torch.testing.assert_close(hidden_states(fast, ids, torch.ones_like(ids), [2])[2], expected, **CLOSE)
    with torch.compiler.set_stance("fail_on_recompile"):
        for ids in batches:
            hidden_states(fast, ids, torch.ones_like(ids), [2])


def test_what_is_not_recorded_is_called():
    assert Recorded(torch.neg, record=False)(torch.ones(2)).tolist() == [-1.0, -1.0]


def test_the_package_offers_the_runtime():
    assert telepathy.Telepathy is Telepathy
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        _ = telepathy.nosuch
