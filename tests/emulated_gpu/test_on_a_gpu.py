"""What the library does on a GPU only: it gives what the CPU gives, and waits for nothing that a graph records."""

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from telepathy.benchmarks.arms import Arms
from telepathy.benchmarks.timing import Clock
from telepathy.bridges import BridgeConfig, build_bridge, load_bridge
from telepathy.config import method_settings
from telepathy.devices import choose_compute
from telepathy.features import FeatureStore, encode_task
from telepathy.inference import Telepathy
from telepathy.methods.adapters import adapter_config
from telepathy.methods.bridge import BridgeData, evaluate_bridge, train_bridge
from telepathy.methods.prompted import few_shot, zero_shot
from telepathy.methods.tuning import tune_receiver
from telepathy.models.loading import decoder_layers, load_language_model
from telepathy.tasks.prompts import prompt_ids
from telepathy.training import loop
from telepathy.training.bridge import BridgeLearner, ReceiverSide
from telepathy.training.loop import TrainingConfig
from tests.unit.conftest import build_lm
from tests.unit.test_inference import TEXTS

LAYER = 1
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
SMALL = {"sender_layer": LAYER, "width": 16, "steps": 5, "alignment_steps": 2, "batch_size": 4}
SHORT = TrainingConfig(steps=3, batch_size=4, learning_rate=0.05, evaluations=1, checkpoint_every=2)


@pytest.fixture(params=["positive", "good and fine"])
def task(make_task, request):
    """Labels of one token, and of several."""
    return make_task(labels=["negative", {"name": "positive", "verbaliser": request.param}], max_tokens=60)


@pytest.fixture
def frame():
    labels = ["negative", "positive"] * 4
    return pd.DataFrame({"id": [f"film-{row}" for row in range(8)], "text": TEXTS * 2, "label": labels})


def moved(lm):
    """A copy of a model on the GPU."""
    compute = choose_compute("auto", "float32")
    return replace(lm, model=copy.deepcopy(lm.model).to(compute.device), compute=compute)


def runtime(sender, receiver, task, primer_position="before", **options):
    torch.manual_seed(1)
    shape = {"soft_tokens": 3, "width": 16, "sender_width": sender.width, "receiver_width": receiver.width}
    bridge = build_bridge(BridgeConfig(architecture="perceiver", **shape))
    return Telepathy(bridge, sender, receiver, task, LAYER, ReceiverSide(primer_position=primer_position), **options)


def shares(model, texts):
    return torch.tensor([list(row.values()) for row in model.probabilities(texts)])


def test_a_gpu_is_found_and_used(gpu):
    compute = choose_compute()
    assert (compute.device.type, compute.dtype) == ("cuda", torch.bfloat16)


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_a_model_is_loaded_to_the_gpu_as_it_is_to_the_cpu(lms, tmp_path, gpu, family):
    for part in (lms[family].model, lms[family].tokenizer):
        part.save_pretrained(tmp_path / "model")
    loaded = load_language_model(tmp_path / "model", choose_compute("auto", "float32"))
    assert {parameter.device.type for parameter in loaded.model.parameters()} == {"cuda"}
    ids = torch.tensor([[1, 50, 60, 70]])
    with torch.no_grad():
        expected = lms[family].model(input_ids=ids).logits
        torch.testing.assert_close(loaded.model(input_ids=ids.to("cuda")).logits.cpu(), expected, **CLOSE)


@pytest.mark.parametrize("primer_position", ["before", "after"])
@pytest.mark.parametrize("families", [("llama", "gemma3"), ("gemma3", "gpt2"), ("gpt2", "llama")])
def test_recorded_answers_are_those_of_the_cpu(lms, task, gpu, families, primer_position):
    sender, receiver = (lms[family] for family in families)
    expected = shares(runtime(sender, receiver, task, primer_position), TEXTS)
    model = runtime(moved(sender), moved(receiver), task, primer_position)
    for _ in range(2):  # recorded, then replayed
        torch.testing.assert_close(shares(model, TEXTS), expected, **CLOSE)
    apart = torch.cat([shares(model, [text]) for text in TEXTS])
    torch.testing.assert_close(apart, expected, **CLOSE)


def test_in_steady_state_nothing_is_recorded_and_only_texts_and_answers_are_copied(lms, task, gpu):
    model = runtime(moved(lms["llama"]), moved(lms["gemma3"]), task)
    model(TEXTS)
    recorded = {name: dict(stage.graphs) for name, stage in stages(model)}
    gpu.waits.clear()
    model(TEXTS[::-1])
    assert gpu.waits == ["_to_copy to the GPU"] * 2 + ["_to_copy from the GPU"]
    assert {name: dict(stage.graphs) for name, stage in stages(model)} == recorded


def test_all_shapes_of_a_stage_are_recorded_in_one_memory(lms, task, gpu):
    model = runtime(moved(lms["llama"]), moved(lms["gemma3"]), task, buckets=[8, 16, 32, 64])
    model(TEXTS)
    model(TEXTS[:1])
    for name, stage in stages(model):
        assert len(stage.graphs) > 1, name
        assert len({id(graph.pool()) for graph, _, _ in stage.graphs.values()}) == 1, name


def test_what_is_not_recorded_is_not_padded(lms, task, gpu):
    model = runtime(moved(lms["llama"]), moved(lms["gemma3"]), task, compiled=False)
    assert model.bucket(33) == 33 and runtime(model.sender, model.receiver, task).bucket(33) == 64


def stages(model):
    return [(name, getattr(model, f"{name}_stage")) for name in ("sender", "bridge", "receiver")]


def masks_seen(lm, calls):
    """Note for each call of the model's layers, in its compiled view too, whether there is a mask."""
    for layer in decoder_layers(lm.model):
        forward = layer.forward

        def watched(*args, forward=forward, **kwargs):
            calls.append(kwargs.get("attention_mask") is not None)
            return forward(*args, **kwargs)

        layer.forward = watched


@pytest.mark.parametrize("reader", ["sender", "direct"])
def test_layers_are_recorded_as_they_were_warmed_up_though_no_place_is_padded(tokenizer, make_task, gpu, reader):
    """Otherwise they would be compiled anew while the graph is recorded, which fails on a GPU."""
    task = make_task(max_tokens=60)
    sender, calls = moved(build_lm("llama", tokenizer)), []
    masks_seen(sender, calls)
    length = len(prompt_ids(sender, task, {"text": TEXTS[0]}))
    model = runtime(sender, moved(build_lm("gemma3", tokenizer)), task, buckets=[length, 2 * length])
    if reader == "sender":
        model.encode([prompt_ids(sender, task, {"text": TEXTS[0]})])
    else:
        Arms(model, Clock(model.receiver.compute), compiled=True).sender.choose([{"text": TEXTS[0]}])
    assert len(calls) > 1 and len(set(calls)) == 1, calls


def test_what_else_a_runtime_tells_is_that_of_the_cpu(lms, task, number_task, gpu):
    cpu, on_gpu = (runtime(move(lms["llama"]), move(lms["gemma3"]), task) for move in (lambda lm: lm, moved))
    torch.testing.assert_close(on_gpu.soft_tokens(TEXTS), cpu.soft_tokens(TEXTS), **CLOSE)
    for (words, found), (same, expected) in zip(on_gpu.attention(TEXTS), cpu.attention(TEXTS), strict=True):
        assert words == same
        torch.testing.assert_close(found, expected, **CLOSE)
    assert on_gpu([]) == []
    cpu, on_gpu = (runtime(move(lms["llama"]), move(lms["gemma3"]), number_task) for move in (lambda lm: lm, moved))
    assert on_gpu(TEXTS) == cpu(TEXTS)


@pytest.fixture
def cached(tmp_path, lms):
    """Cache a task's examples, and the features that the CPU gives."""

    def make(task, frame):
        (tmp_path / "task").mkdir()
        for split in ("train", "dev", "test"):
            frame.to_parquet(tmp_path / "task" / f"{split}.parquet")
        (tmp_path / "task" / "source.json").write_text('{"files": {}}')
        encode_task(lms["llama"], task, splits(frame), tmp_path / "features", [LAYER], [2])
        return BridgeData(task=task, examples=tmp_path / "task", features=tmp_path / "features", limits={})

    return make


@pytest.fixture
def data(cached, task, frame):
    """Those of the labels."""
    return cached(task, frame)


def splits(frame):
    return dict.fromkeys(("train", "dev", "test"), frame)


def test_features_are_those_of_the_cpu(data, task, frame, lms, tmp_path, gpu):
    encode_task(moved(lms["llama"]), task, splits(frame), tmp_path / "again", [LAYER], [2])
    for folder in (data.features, tmp_path / "again"):
        states, mask = FeatureStore(folder, "train", task).layer(LAYER).batch(range(8))
        found = states[mask].float()
        expected = found if folder == data.features else expected  # noqa: F821
        torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)  # kept in bfloat16


def test_encoding_copies_each_layer_once_a_batch(task, frame, lms, tmp_path, gpu):
    lm = moved(lms["llama"])
    gpu.waits.clear()
    encode_task(lm, task, {"train": frame}, tmp_path / "features", [1, 2])
    copied = [why for why in gpu.waits if why == "_to_copy from the GPU"]
    assert len(copied) == 2, gpu.waits


def test_features_are_dropped_on_the_gpu_where_states_are_copied_as_they_are_stored(data, lms, gpu, monkeypatch):
    states = FeatureStore(data.features, "train", data.task).layer(LAYER)
    split, lm = (states, data.frame("train")), moved(lms["gemma3"])
    bridge = runtime(lms["llama"], lm, data.task).bridge
    learner = BridgeLearner(bridge, lm, data.task, split, split, ReceiverSide(), input_dropout=0.5)
    dropped = []
    monkeypatch.setattr(bridge, "forward", lambda states, mask: dropped.append(states) or states[:, :3])
    gpu.waits.clear()
    learner.training_tokens([row % 8 for row in range(64)])  # the whole of a batch at once
    assert [(found.device.type, found.dtype) for found in dropped] == [("cuda", torch.float32)]
    assert gpu.pinned == 1
    assert gpu.waits == ["_to_copy to the GPU"] * 4, "states, their mask, what is kept, and the order of the rows"


def test_a_recorded_step_waits_for_what_it_is_given_only(data, lms, gpu):
    split, lm = (
        (FeatureStore(data.features, "train", data.task).layer(LAYER), data.frame("train")),
        moved(lms["gemma3"]),
    )
    bridge = runtime(lms["llama"], lm, data.task).bridge
    learner = BridgeLearner(bridge, lm, data.task, split, split, ReceiverSide(), loss="labels", compiled=True)
    losses = [learner.loss([0, 1, 2]) for _ in range(2)]
    assert losses[0].item() == losses[1].item()
    gpu.waits.clear()
    loss = learner.loss([5, 3, 4])  # other texts and labels: the same shapes
    loss.backward()
    assert set(gpu.waits) == {"_to_copy to the GPU"}, gpu.waits
    assert len(learner.receiver_stage.graphs) == 1


def test_a_recorded_loss_keeps_its_gradient_while_another_is_computed(data, lms, gpu):
    split, lm = (
        (FeatureStore(data.features, "train", data.task).layer(LAYER), data.frame("train")),
        moved(lms["gemma3"]),
    )
    bridge = runtime(lms["llama"], lm, data.task).bridge
    learner = BridgeLearner(bridge, lm, data.task, split, split, ReceiverSide(), compiled=True)
    weight = bridge.last.weight

    def gradient(*between):
        weight.grad = None
        loss = learner.loss([0, 1])
        others = [learner.loss(rows) for rows in between]
        loss.backward()
        return weight.grad.cpu(), loss.item(), others

    (alone, value, _), (kept, same, _) = gradient(), gradient([2, 3])
    torch.testing.assert_close(kept, alone, rtol=0, atol=0)
    assert value == same


@pytest.fixture
def deterministic():
    """Undo at the end what a run demands of PyTorch for the rest of a process."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss": "vocabulary", "diversity": 0.1},
        {"alignment_steps": 0},
        {"primer_position": "after"},
        {"compiled": True},
        {"compiled": True, "loss": "vocabulary", "primer_position": "after"},
    ],
)
@pytest.mark.parametrize("family", ["gemma3", "gpt2"])
def test_a_bridge_trains_and_answers_as_on_the_cpu(data, lms, tmp_path, gpu, deterministic, family, changes):
    folders = trained_on_both(data, lms[family], tmp_path, changes)
    expected, found = (scores_of(evaluate_bridge(data, lm, folder, "shuffled")) for lm, folder in folders)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_a_bridge_to_numbers_trains_and_writes_as_on_the_cpu(cached, number_task, lms, tmp_path, gpu, deterministic):
    asked = [f"How many cards are left of {row}?" for row in range(8)]
    answers = [str(37 * row) for row in range(8)]
    data = cached(number_task, pd.DataFrame({"id": answers, "question": asked, "answer": answers}))
    folders = trained_on_both(data, lms["gemma3"], tmp_path, {})
    expected, found = (list(evaluate_bridge(data, lm, folder)["text"]) for lm, folder in folders)
    assert found == expected


def trained_on_both(data, lm, tmp_path, changes):
    """Train a bridge on the CPU and on the GPU, compare the weights; returns both receivers and bridges."""
    settings = method_settings({"methods": {"bridge": {"kind": "bridge", **SMALL, **changes}}}, "bridge")
    folders = []
    for receiver in (lm, moved(lm)):
        folders.append((receiver, tmp_path / receiver.compute.device.type))
        train_bridge(data, receiver, settings, 2, 1, folders[-1][1], tmp_path / "checkpoints")
    expected, found = (load_bridge(folder)[0].state_dict() for _, folder in folders)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-3)
    return folders


def test_a_run_goes_on_from_a_checkpoint_bit_for_bit(data, lms, tmp_path, gpu, deterministic, monkeypatch):
    settings = method_settings({"methods": {"bridge": {"kind": "bridge", **SMALL, "checkpoint_every": 1}}}, "bridge")
    receiver = moved(lms["gemma3"])

    def train(name):
        train_bridge(data, receiver, settings, 2, 1, tmp_path / name, tmp_path / "checkpoints")
        return load_bridge(tmp_path / name)[0].state_dict()

    whole, taken, one_step = train("whole"), [], loop._one_step

    def breaks_off(*arguments):
        taken.append(None)
        if len(taken) == 4:
            raise KeyboardInterrupt
        return one_step(*arguments)

    monkeypatch.setattr(loop, "_one_step", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        train("broken")
    resumed = train("broken")
    assert len(taken) == 4 + 2, "of five steps three were taken before it broke off"
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


@pytest.mark.parametrize("kind", ["lora", "prompt_tuning"])
def test_an_adapter_trains_and_answers_as_on_the_cpu(tokenizer, task, frame, tmp_path, gpu, deterministic, kind):
    scores = []
    for move in (lambda lm: lm, moved):
        receiver = move(build_lm("llama", tokenizer))
        adapted, _ = tune_receiver(receiver, task, frame, frame, adapter_config(kind), SHORT, seed=1)
        adapted.save_pretrained(tmp_path / receiver.compute.device.type)
        scores.append(scores_of(adapted.answer(frame)))
    torch.testing.assert_close(scores[1], scores[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shots", [0, 1])
def test_prompts_are_answered_as_on_the_cpu(lms, task, frame, gpu, shots):
    expected, found = (
        scores_of(zero_shot(lm, task, frame) if not shots else few_shot(lm, task, frame, frame, shots, seed=1)[0])
        for lm in (lms["llama"], moved(lms["llama"]))
    )
    torch.testing.assert_close(found, expected, **CLOSE)


def scores_of(predictions):
    return torch.tensor(np.stack(predictions["scores"]))
