"""Timing, rooflines, arms and tables of the benchmarks, at tiny size."""

import math
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.autograd import DeviceType
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig

from telepathy.benchmarks import speed
from telepathy.benchmarks.arms import Arms, _said
from telepathy.benchmarks.latency import COLUMNS, LatencyConfig, batches_of, measure_latency
from telepathy.benchmarks.plain import plain_answer, plain_loss
from telepathy.benchmarks.roofline import Machine, Work, bridge_work, measure_machine, model_work
from telepathy.benchmarks.speed import GOALS, SpeedConfig, measure_speed
from telepathy.benchmarks.timing import Arm, Clock, interleaved, median_interval, worked_ms
from telepathy.bridges import BridgeConfig, build_bridge
from telepathy.devices import Compute, peak_memory_mb
from telepathy.errors import TelepathyError
from telepathy.features import encode_task
from telepathy.files import write_csv
from telepathy.inference import Telepathy
from telepathy.methods.bridge import BridgeData
from telepathy.models.loading import LanguageModel
from telepathy.report.speed import arm_title, write_speed_table
from telepathy.training.bridge import BridgeLearner, ReceiverSide
from tests.unit.conftest import build_lm

CPU = Compute(device=torch.device("cpu"), dtype=torch.float32)
BF16 = Compute(device=torch.device("cpu"), dtype=torch.bfloat16)
TEXTS = ["a fine film", "dull", "the card was lost", "I know it", "nobody wants it", "a new card", "like", "grain"]
RELAYS = {"text_relay_4", "text_relay_4_fixed"}
SINGLE = {"bridge", "direct_receiver", "direct_sender", "label_relay"}


@pytest.fixture
def task(make_task):
    return make_task(labels=["negative", "positive", {"name": "mixed", "verbaliser": "good and dull"}])


@pytest.fixture
def model(task, tokenizer):
    sender, receiver = build_lm("llama", tokenizer, "reads"), build_lm("gemma3", tokenizer, "hears")
    torch.manual_seed(1)
    bridge = build_bridge(
        BridgeConfig(architecture="perceiver", soft_tokens=3, width=16, sender_width=32, receiver_width=32)
    )
    return Telepathy(bridge, sender, receiver, task, 1, ReceiverSide())


@pytest.fixture
def frame():
    labels = ["negative", "positive", "mixed", "negative"] * 2
    return pd.DataFrame({"id": [f"all-{row}" for row in range(8)], "text": TEXTS, "label": labels})


@pytest.fixture
def data(model, task, frame, tmp_path):
    (tmp_path / "examples").mkdir()
    for split in ("train", "dev", "test"):
        frame.to_parquet(tmp_path / "examples" / f"{split}.parquet")
    encode_task(
        model.sender, task, dict.fromkeys(("train", "dev", "test"), frame), tmp_path / "features", [model.layer]
    )
    return BridgeData(task=task, examples=tmp_path / "examples", features=tmp_path / "features", limits={})


def on_meta(config):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return LanguageModel(name="shape", model=model, tokenizer=None, compute=BF16, source={})


LARGE = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
LARGE |= {"num_key_value_heads": 8}
H100 = Machine(bytes_per_second=3.0e12, operations_per_second=7.0e14)


def test_floors_at_full_size_are_those_of_a_calculation_by_hand():
    llama, mistral = on_meta(LlamaConfig(**LARGE, vocab_size=128256)), on_meta(MistralConfig(**LARGE, vocab_size=32768))
    # A layer has 218,112,000 weights (two norms, 4 attention and 3 feed-forward matrices), 2 bytes each.
    assert H100.milliseconds(model_work(llama, 1, 60, 60, 31)) == pytest.approx(4.5, abs=0.05)
    assert H100.milliseconds(model_work(llama, 1, 60, 60, 16)) == pytest.approx(2.3, abs=0.05)
    receiver = model_work(mistral, 1, 12, 12, None, 32768)
    assert H100.milliseconds(receiver) == pytest.approx(4.7, abs=0.05)
    step = model_work(llama, 1, 1, 85, None, 128256)
    assert H100.milliseconds(*[step] * 50, receiver) == pytest.approx(255, abs=1)


@pytest.mark.parametrize("tokens", [1, 7])
def test_operations_are_those_that_pytorch_counts(lm, tokens):
    ids = torch.randint(3, 90, (2, tokens))
    # Of the kernels of attention only the plain one consists of operations that the counter knows.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        lm.model(input_ids=ids, logits_to_keep=1)
    counted = model_work(lm, 2, tokens, tokens, None, lm.model.config.vocab_size).operations
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_bytes_are_weights_head_rows_and_cache(llama):
    layer = sum(value.numel() for value in llama.model.model.layers[0].parameters())
    assert model_work(llama, 3, 1, 10, 1, 5).bytes == 4 * (layer + 5 * 32 + 2 * 3 * 10 * 2 * 8)


def test_a_bridge_works_more_on_more_tokens(model):
    short, long = bridge_work(model.bridge, 1, 10), bridge_work(model.bridge, 1, 20)
    assert short.bytes == long.bytes == 4 * sum(value.numel() for value in model.bridge.parameters())
    assert short.operations < long.operations


def test_a_pass_takes_the_longer_of_its_two_times():
    machine = Machine(bytes_per_second=1000, operations_per_second=100)
    assert machine.milliseconds(Work(1000, 1), Work(1, 200)) == pytest.approx(1000 + 2000)


def test_the_machine_is_measured():
    machine = measure_machine(CPU, seconds=0.05)
    assert 1e8 < machine.bytes_per_second < 1e13
    assert 1e8 < machine.operations_per_second < 1e16


def test_arms_are_warmed_up_and_interleaved_on_the_same_inputs():
    calls = []

    def arm(name):
        return Arm(run=lambda batch: calls.append((name, batch[0])) or ([], [len(batch)]))

    found = interleaved({"a": arm("a"), "b": arm("b")}, [[1], [2]], 1, 3, Clock(CPU), CPU)
    assert [name for name, _ in calls] == ["b", "a", "a", "b", "b", "a", "a", "b"]
    assert [value for name, value in calls if name == "a"] == [2, 1, 2, 1]
    assert all(len(trials.total) == 3 and trials.tokens == [[1]] * 3 for trials in found.values())


def test_warm_ups_go_from_the_shortest_batch_to_the_longest():
    seen = []
    arm = Arm(run=lambda batch: seen.append(len(batch[0])) or ([], [0]))
    batches = [["a" * length] for length in (7, 3, 9, 1, 5)]
    interleaved({"a": arm}, batches, 3, 2, Clock(CPU), CPU)
    assert seen == [3, 7, 9, 7, 3]
    seen.clear()
    interleaved({"a": arm}, batches, 7, 1, Clock(CPU), CPU)
    assert seen[:7] == sorted(seen[:7]) and set(seen[:7]) == {1, 3, 5, 7, 9}


def test_peak_memory_is_that_of_an_arm_alone():
    held = [torch.ones(300 * 2**18), torch.ones(40 * 2**18)]  # 300 and 40 MiB

    def grows(size):
        return Arm(run=lambda batch: (float(torch.ones(size * 2**18)[-1]), [0]))

    before = peak_memory_mb(CPU)
    del held
    found = interleaved({"large": grows(200), "small": grows(20)}, [[1]], 1, 2, Clock(CPU), CPU)
    large, small = found["large"].memory_mb, found["small"].memory_mb
    assert small + 100 < large < before


def test_time_is_measured_without_the_preparation():
    arm = Arm(run=lambda batch: (time.sleep(0.02), [0]), prepare=lambda batch: time.sleep(0.6))
    total = interleaved({"a": arm}, [[1]], 0, 2, Clock(CPU), CPU)["a"].total
    assert all(20 <= value < 600 for value in total)


def test_a_gpus_work_is_that_of_its_kernels_without_the_spans_about_them():
    def event(device, nanoseconds, span=False, hidden=False):
        said = {"device_type": device, "duration_ns": nanoseconds}
        said |= {"is_user_annotation": span, "is_hidden_event": hidden}
        return SimpleNamespace(**{name: lambda value=value: value for name, value in said.items()})

    cpu, gpu = DeviceType.CPU, DeviceType.CUDA
    events = [event(gpu, 3_000_000), event(gpu, 500_000), event(cpu, 7_000_000), event(gpu, 9_000_000, span=True)]
    assert worked_ms([*events, event(gpu, 1, hidden=True)]) == 3.5
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        torch.ones(3)
    assert worked_ms(profile.profiler.kineto_results.events()) == 0


def test_stages_are_timed_apart():
    clock = Clock(CPU)
    slow = clock.around("sender", lambda: time.sleep(0.02))
    arm = Arm(run=lambda batch: (slow(), slow(), time.sleep(0.03), [0])[2:])
    trials = interleaved({"a": arm}, [[1]], 0, 2, clock, CPU)["a"]
    assert all(stages["sender"] >= 40 for stages in trials.stages)
    assert all(value >= stages["sender"] + 30 for value, stages in zip(trials.total, trials.stages, strict=True))


def test_the_interval_of_a_median_covers_it_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = [
        low <= math.log(2) <= high for _, low, high in (median_interval(rng.exponential(size=40)) for _ in range(200))
    ]
    assert 0.88 <= np.mean(covered) <= 1.0


def test_one_value_is_its_own_interval():
    assert median_interval([3.0]) == (3.0, 3.0, 3.0)
    assert median_interval([1.0, 2.0, 9.0])[0] == 2.0


def test_every_arm_of_equal_work_chooses_labels(model, frame, task):
    examples = frame.to_dict("records")
    arms = Arms(model, Clock(CPU), compiled=False).equal_work([4])
    assert set(arms) == SINGLE | RELAYS
    for name, arm in arms.items():
        labels, counts = arm.run(arm.prepare(examples))
        assert set(labels) <= set(task.label_names) and len(labels) == len(examples), name
        assert (max(counts) > 0) == (name in RELAYS), name
    assert arms["text_relay_4_fixed"].run(examples)[1] == [4] * 8


def test_padding_to_a_bucket_does_not_change_what_an_arm_chooses(model, frame):
    examples = frame.to_dict("records")
    expected = {name: arm.run(examples)[0] for name, arm in Arms(model, Clock(CPU), False).equal_work([]).items()}
    model.buckets = [64]
    arms = Arms(model, Clock(CPU), False)
    for reader in (arms.sender, arms.receiver):
        reader.bucket = model.bucket
        assert reader.prefix([[1, 80], [1]])[0].shape[1] == 64
    assert {name: arm.run(examples)[0] for name, arm in arms.equal_work([]).items()} == expected


def test_the_published_arms_decode_what_the_publication_decoded(model, frame):
    examples = frame.to_dict("records")[:2]
    found = {
        name: arm.run(arm.prepare(examples))[1] for name, arm in Arms(model, Clock(CPU), False).as_published().items()
    }
    assert found == {
        "bridge": [10, 10],
        "bridge_no_answer": [0],
        "text_relay_50": [60, 60],
        "direct_receiver": [10, 10],
    }


def test_what_was_said_ends_with_the_end_of_the_sequence(llama):
    assert _said(torch.tensor([[5, 6, 2, 0, 0], [5, 6, 7, 8, 9], [2, 0, 0, 0, 0]]), llama) == [3, 5, 1]


def test_the_least_work_grows_with_what_an_arm_does(model, frame):
    arms, examples = Arms(model, Clock(CPU), False), frame.to_dict("records")
    machine = Machine(1e9, 1e12)
    time = lambda name, tokens=0: machine.milliseconds(*arms.least_work(name, "equal_work", examples, tokens))  # noqa: E731
    least = {name: time(name) for name in SINGLE} | {tokens: time("text_relay_4", tokens) for tokens in (4, 30)}
    assert least["direct_sender"] < least["label_relay"] < least[4] < least[30]
    assert least["bridge"] < least["label_relay"]


@pytest.mark.parametrize(
    "name, passes", [("bridge", 12), ("bridge_no_answer", 3), ("text_relay_50", 60), ("direct_receiver", 10)]
)
def test_the_least_work_as_published_is_what_its_forward_passes_compute(model, frame, name, passes):
    arms, examples = Arms(model, Clock(CPU), False), frame.to_dict("records")[:1]
    arm = arms.as_published()[name]
    prepared = arm.prepare(examples)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        arm.run(prepared)
    needless = 0  # logits at places where no token is chosen
    if name.startswith("bridge"):
        needless += _head(model.sender, len(prepared[0]))
    if name == "bridge_no_answer":
        needless += _head(model.receiver, model.bridge.config.soft_tokens + model.fixed_tokens)
    works = arms.least_work(name, "as_published", examples, 0)
    assert len(works) == passes
    close = (
        0.2 if name == "text_relay_50" else 0.02
    )  # its message is longer in the receiver's tokens than in the sender's
    assert sum(work.operations for work in works) == pytest.approx(counter.get_total_flops() - needless, rel=close)


def _head(lm, places):
    return 2 * places * lm.model.config.vocab_size * lm.width


def test_each_input_is_in_one_batch():
    assert batches_of(list("abcdef"), 2) == [["a", "b"], ["c", "d"], ["e", "f"]]
    assert batches_of(list("abc"), 4) == [["a", "b", "c", "a"]]


def test_one_static_cache_a_batch_size_serves_messages_of_all_lengths(model, frame):
    arms = Arms(model, Clock(CPU), compiled=False)
    arms.equal_work([4, 7])
    batches = [frame.to_dict("records")[start : start + 2] for start in (0, 2, 4)]
    calls = [(batch, tokens) for batch in batches for tokens in (7, 4)] + [(batches[0][:1], 4)]
    expected = [arms._messages(arms.asked, batch, tokens, fixed=True) for batch, tokens in calls]
    arms.static = True
    assert [arms._messages(arms.asked, batch, tokens, fixed=True) for batch, tokens in calls] == expected
    assert set(arms.caches) == {1, 2}


def test_what_was_timed_outlives_what_breaks_off(model, data, tmp_path, task):
    config = LatencyConfig(batch_sizes=[1, 2], warmups=0, trials=1, inputs=2, relays=[4], modes=["eager", "compiled"])

    def load(compiled):
        if compiled:
            raise KeyboardInterrupt
        return Telepathy(model.bridge, model.sender, model.receiver, task, 1, ReceiverSide())

    with pytest.raises(KeyboardInterrupt):
        measure_latency(load, data.examples, config, tmp_path / "latency.csv")
    assert set(pd.read_csv(tmp_path / "latency.csv")["batch_size"]) == {1, 2}


def test_the_latency_table_has_a_row_an_arm_protocol_and_batch(model, data, task, tmp_path):
    config = LatencyConfig(
        batch_sizes=[1, 2],
        warmups=0,
        trials=2,
        batch_trials=1,
        inputs=4,
        relays=[4],
        modes=["eager"],
        batched_relays=False,
    )
    fresh = lambda compiled: Telepathy(model.bridge, model.sender, model.receiver, task, 1, ReceiverSide())  # noqa: E731
    table = measure_latency(fresh, data.examples, config, tmp_path / "latency.csv")
    assert list(table.columns) == COLUMNS
    kept = table[table["protocol"] == "equal_work"]
    assert set(kept.loc[kept["batch_size"] == 1, "arm"]) == SINGLE | RELAYS
    assert set(kept.loc[kept["batch_size"] == 2, "arm"]) == SINGLE
    assert (table["roofline_ratio"] > 1).all() and kept["device_ms"].isna().all()
    assert set(table["task"]) == {task.name}
    bridge = kept[(kept["arm"] == "bridge") & (kept["batch_size"] == 1)].iloc[0]
    assert 0 < bridge["sender_ms"] + bridge["bridge_ms"] + bridge["receiver_ms"] <= bridge["p95_ms"]
    assert (table["low_ms"] <= table["median_ms"]).all() and (table["median_ms"] <= table["high_ms"]).all()
    np.testing.assert_allclose(table["examples_per_s"], 1e3 * table["batch_size"] / table["median_ms"], rtol=0.01)
    files = {ending: tmp_path / f"table.{ending}" for ending in ("tex", "csv", "html")}
    write_speed_table(tmp_path / "latency.csv", "A study & more", "table4_speed", **files)
    text = (tmp_path / "table.tex").read_text()
    assert f"{bridge['median_ms']:.1f}" in text and r"A study \& more" in text
    assert set(pd.read_csv(files["csv"])["95 %"]) == {"--"}
    write_csv(tmp_path / "latency.csv", table.assign(n=6))
    write_speed_table(tmp_path / "latency.csv", "A study", "table4_speed", **files)
    interval = f"{bridge['low_ms']:.1f}–{bridge['high_ms']:.1f}"
    assert interval in set(pd.read_csv(files["csv"])["95 %"])
    assert len(pd.read_csv(files["csv"])) == files["html"].read_text().count("<tr>") - 1 == len(table)


def test_arms_have_titles():
    assert arm_title("text_relay_30") == "Text relay, up to 30 tokens"
    assert arm_title("text_relay_50_fixed") == "Text relay, 50 tokens"
    assert arm_title("bridge") == "Bridge"


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"trials": 0}, "trials of 1 at least, not 0"),
        ({"warmups": -1}, "warmups of 0 at least, not -1"),
        ({"modes": ["fast"]}, "modes of a benchmark are eager or compiled, not fast"),
        ({"protocols": ["unfair"]}, "protocols of a benchmark are equal_work or as_published, not unfair"),
    ],
)
def test_a_mistake_in_the_settings_is_named(change, sentence):
    with pytest.raises(TelepathyError, match=sentence):
        LatencyConfig(**change)


def test_the_plain_loss_is_that_of_our_training(model, data, frame):
    model.sender.model.float()
    states = data.states("train", model.layer, model.sender.depth)
    learner = BridgeLearner(
        model.bridge, model.receiver, model.task, (states, frame), (states, frame), ReceiverSide(), loss="vocabulary"
    )
    torch.testing.assert_close(
        plain_loss(model, frame.to_dict("records")), learner.loss(range(len(frame))), rtol=1e-4, atol=1e-4
    )


def test_the_plain_answer_is_a_label_or_nothing(model, frame):
    assert plain_answer(model, frame.to_dict("records")[0]) in {*model.task.label_names, None}


def test_speed_is_measured_side_by_side(model, data, tmp_path, monkeypatch):
    pd.DataFrame({"rule": ["a", "b"], "seconds": [60.0, 120.0]}).to_csv(tmp_path / "costs.csv")
    config = SpeedConfig(batch_size=2, rounds=2, evaluated=4, one_by_one=1)
    table = measure_speed(model, data, config, tmp_path / "costs.csv", tmp_path / "speed.csv").set_index("what")
    assert set(table["goal"].dropna()) == set(GOALS.values())
    rates = table[table["unit"] == "examples/s"]
    np.testing.assert_allclose(rates["ratio"], rates["ours"] / rates["reference"], rtol=0.05)
    relay = table.loc["bridge against text relay of 30 tokens, batch 1"]
    assert relay["ratio"] == pytest.approx(relay["reference"] / relay["ours"], rel=0.05)
    least = Machine(bytes_per_second=1e9, operations_per_second=1e9)
    monkeypatch.setattr(speed, "measure_machine", lambda compute: least)
    row = speed._latency(model, data, config)[1]
    arms = Arms(model, Clock(CPU), compiled=False)
    works = [
        arms.least_work("bridge", "equal_work", [example], 0)
        for example in data.frame("test").head(2).to_dict("records")
    ]
    assert row["reference"] == pytest.approx(np.mean([least.milliseconds(*work) for work in works]))
    assert all(not weight.requires_grad and weight.grad is None for weight in model.receiver.model.parameters())
