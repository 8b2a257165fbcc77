"""A study's planned jobs and its forecast, and the command of the GPU rows at tiny size."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from telepathy.benchmarks.__main__ import main
from telepathy.benchmarks.forecast import forecast_costs
from telepathy.benchmarks.plan import WORK, planned_jobs, summed_jobs
from telepathy.models.shapes import byte_tokenizer
from telepathy.tasks.spec import load_task

ROOT = Path(__file__).resolve().parents[2]
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())


@pytest.fixture
def rehearsal(tmp_path):
    """Benchmark files of two training jobs and a relay, and what they ran on."""

    def write(device="cuda", second=40.0):
        trained = (("train_bridge", "a", 20.0), ("train_bridge", "b", second))
        for rule, job, seconds in (*trained, ("relay_label", "c", 5.0)):
            file = tmp_path / "costs" / rule / f"{job}.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"s": seconds, "max_rss": 100 + seconds}) + "\n")
        metrics = tmp_path / "metrics.json"
        metrics.write_text(json.dumps({"provenance": {"compute": {"device": device}}}))
        return tmp_path / "costs", [metrics]

    return write


REHEARSED = [
    {"rule": "train_bridge", "kind": "bridge", "job": "a", "examples": 100, "words": 0, "positions": 0},
    {"rule": "train_bridge", "kind": "bridge", "job": "b", "examples": 200, "words": 0, "positions": 0},
    {"rule": "train_bridge", "kind": "bridge", "job": "never", "examples": 1000, "words": 0, "positions": 0},
    {"rule": "relay_label", "kind": "label_relay", "job": "c", "examples": 10, "words": 0, "positions": 0},
]
PLANNED = [
    {"rule": "train_bridge", "kind": "bridge", "jobs": 10, "examples": 36000, "words": 0, "positions": 0},
    {"rule": "relay_label", "kind": "label_relay", "jobs": 3, "examples": 90, "words": 0, "positions": 0},
]


def test_a_forecast_counts_the_examples_of_all_jobs(rehearsal, tmp_path):
    costs, metrics = rehearsal()
    table = forecast_costs(
        "paper", PLANNED, REHEARSED, costs, tmp_path / "logs", metrics, tmp_path / "forecast.csv"
    ).set_index("rule")
    bridge = table.loc["train_bridge"]
    # 60 seconds for 300 examples: 36,000 take 7,200 seconds.
    assert bridge["gpu_hours"] == pytest.approx(2.0)
    assert bridge["seconds_a_job"] == pytest.approx(720)
    assert (bridge["measured_jobs"], bridge["max_memory_mb"], bridge["status"]) == (2, 140, "measured")
    assert table.loc["relay_label", "status"] == "no gpu"
    assert table.loc["total", "gpu_hours"] == pytest.approx(2.0)
    assert table.loc["total", "jobs"] == 13
    assert pd.read_csv(tmp_path / "forecast.csv")["rule"].tolist() == ["train_bridge", "relay_label", "total"]


def test_a_forecast_says_how_much_of_a_gpu_the_largest_job_held(rehearsal, tmp_path):
    costs, metrics = rehearsal()
    for job, held in (("a", 30_000), ("b", 41_000)):
        log = tmp_path / "logs" / "train_bridge" / f"{job}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"step 1\nGPU memory: at most 99 MiB\nstep 2\nGPU memory: at most {held} MiB\n")
    logs = tmp_path / "logs"
    table = forecast_costs("paper", PLANNED, REHEARSED, costs, logs, metrics, tmp_path / "forecast.csv")
    held = table.set_index("rule")["max_gpu_memory_mb"]
    assert held["train_bridge"] == 41_000
    assert np.isnan(held["relay_label"])  # it wrote no log


@pytest.mark.parametrize(
    "second, start, each",
    [
        (25.0, 15.0, 0.05),  # 20 seconds for 100 examples and 25 for 200: 15 to begin
        (40.0, 0.0, 0.2),
        (
            50.0,
            0.0,
            0.24,
        ),  # less than nothing to begin: the best line through the origin, (100*20 + 200*50) / (100^2 + 200^2)
        (10.0, 15.0, 0.0),  # the longer job was the faster one: no seconds an example, and the mean to begin
    ],
)
def test_the_time_to_begin_is_told_from_that_of_the_examples(rehearsal, tmp_path, second, start, each):
    costs, metrics = rehearsal(second=second)
    table = forecast_costs(
        "paper", PLANNED, REHEARSED, costs, tmp_path / "logs", metrics, tmp_path / "forecast.csv"
    ).set_index("rule")
    bridge = table.loc["train_bridge"]
    assert bridge["start_seconds"] == pytest.approx(start, abs=1e-4)
    assert bridge["gpu_hours"] == pytest.approx((10 * start + 36000 * each) / 3600, abs=1e-4)
    assert bridge["seconds_a_job"] == pytest.approx(start + 3600 * each, abs=1e-3)


def test_jobs_of_one_size_say_only_their_proportion(rehearsal, tmp_path):
    costs, metrics = rehearsal()
    alike = [{**job, "examples": 150} for job in REHEARSED]
    table = forecast_costs(
        "paper", PLANNED, alike, costs, tmp_path / "logs", metrics, tmp_path / "forecast.csv"
    ).set_index("rule")
    assert table.loc["train_bridge", "gpu_hours"] == pytest.approx(60 / 300 * 36000 / 3600)
    assert table.loc["train_bridge", "start_seconds"] == 0


def test_the_rehearsal_tells_the_time_to_begin_of_every_kind_of_job():
    jobs = planned_jobs(CONFIG, "rehearsal").query("rule != 'measure_latency'").groupby(["rule", "kind"])["examples"]
    assert (jobs.max() >= 20 * jobs.min()).all()


def test_what_no_gpu_has_measured_is_marked_and_not_estimated(rehearsal, tmp_path):
    costs, metrics = rehearsal("cpu")
    table = forecast_costs(
        "paper", PLANNED, REHEARSED, costs, tmp_path / "logs", metrics, tmp_path / "forecast.csv"
    ).set_index("rule")
    assert table.loc[["train_bridge", "total"], "status"].tolist() == ["unmeasured", "unmeasured"]
    assert table["gpu_hours"].isna().all()


def test_a_rule_that_was_not_rehearsed_leaves_the_total_open(rehearsal, tmp_path):
    costs, metrics = rehearsal()
    planned = [
        *PLANNED,
        {"rule": "train_adapter", "kind": "lora", "jobs": 1, "examples": 5, "words": 0, "positions": 0},
    ]
    table = forecast_costs(
        "paper", planned, REHEARSED, costs, tmp_path / "logs", metrics, tmp_path / "forecast.csv"
    ).set_index("rule")
    assert table.loc["train_adapter", "status"] == "unmeasured"
    assert np.isnan(table.loc["total", "gpu_hours"])


def test_seconds_to_begin_of_examples_of_words_and_of_positions_are_told_apart(tmp_path):
    start, example, word, position = 12.0, 0.03, 0.0004, 0.002
    work = {"a": (10, 10, 40), "b": (900, 900, 300), "c": (200, 200, 9000), "d": (900, 200000, 5000)}
    rehearsed = [
        {"rule": "train_bridge", "kind": "bridge", "job": job, **dict(zip(WORK, done))} for job, done in work.items()
    ]
    for job in rehearsed:
        file = tmp_path / "costs" / "train_bridge" / f"{job['job']}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        seconds = start + example * job["examples"] + word * job["words"] + position * job["positions"]
        file.write_text(json.dumps({"s": seconds, "max_rss": 1}) + "\n")
    metrics = tmp_path / "metrics.json"
    metrics.write_text(json.dumps({"provenance": {"compute": {"device": "cuda"}}}))
    # Two bridges: one that aligns in most steps, and one, as published, in none.
    done = {"examples": 1600, "words": 400_000, "positions": 30000}
    planned = [{"rule": "train_bridge", "kind": "bridge", "jobs": 2, **done}]
    folders = tmp_path / "costs", tmp_path / "logs"
    row = forecast_costs("paper", planned, rehearsed, *folders, [metrics], tmp_path / "forecast.csv").iloc[0]
    assert row["start_seconds"] == pytest.approx(start, abs=1e-3)
    seconds = 2 * start + 1600 * example + 400_000 * word + 30000 * position
    assert row["gpu_hours"] == pytest.approx(seconds / 3600, abs=1e-4)


@pytest.mark.parametrize(
    "rule, kind",
    [
        ("train_bridge", "bridge"),
        ("train_adapter", "lora"),
        ("train_adapter", "prompt_tuning"),
        ("evaluate_adapter", "lora"),
        ("prompt_model", "zero_shot"),
        ("prompt_model", "few_shot"),
        ("relay_text", "text_relay"),
        ("evaluate_bridge", "bridge"),
        ("encode_task", ""),
    ],
)
def test_the_rehearsal_tells_what_a_job_does_apart(rule, kind):
    jobs = planned_jobs(CONFIG, "rehearsal").query("rule == @rule and kind == @kind")[list(WORK)].to_numpy(float)
    done = jobs[:, jobs.any(axis=0)]
    # Words of a prompt and of labels come together, in the task with 77 labels: of these one is enough.
    columns = np.column_stack([np.ones(len(done)), done if rule == "train_bridge" else done[:, :2]])
    assert np.linalg.cond(columns / columns.max(axis=0)) < 30


def test_a_list_of_77_labels_counts_in_prompts_and_where_labels_are_scored():
    """Banking77: 257 words of its prompt besides the text, 253 of its labels."""
    jobs = planned_jobs(CONFIG, "paper").set_index("job")
    read = jobs.loc["banking77_zero_shot_receiver_k0_seed0", list(WORK)]
    assert read.tolist() == [3080, 3080 * 257, 3080 * (253 - 77)]
    rehearsed = planned_jobs(CONFIG, "rehearsal").set_index("job").loc["rehearsallabels_zero_shot_receiver_k0_seed0"]
    for name in ("words", "positions"):
        assert rehearsed[name] / 400 == pytest.approx(read[name] / 3080, rel=0.1)
    short = jobs.loc["sst2_zero_shot_receiver_k0_seed0"]
    assert (short["words"], short["positions"]) == (872 * 5, 0)


def test_words_of_the_rehearsals_labels_are_a_token_each():
    tokenizer, task = byte_tokenizer(), load_task(ROOT / "telepathy/benchmarks/tasks/rehearsallabels.yaml")
    assert len(task.labels) == 77
    for label in task.labels:
        assert len(tokenizer(f" {label.verbaliser}")["input_ids"]) == len(label.verbaliser.split())


def test_no_more_steps_align_than_training_lets():
    jobs = planned_jobs(CONFIG, "rehearsal_tiny").query("rule == 'train_bridge'")
    # Of two steps one aligns, whatever alignment_steps says; the other reads four examples forward and back, and dev
    # has 12 before and after it, with two labels of one word.
    assert jobs[list(WORK)].to_numpy().tolist() == [[64, 64, (2 * 4 + 2 * 12) * (4 + 4)]]


def test_a_method_of_ones_own_has_its_jobs_too():
    study = {**CONFIG["studies"]["smoke"], "runs": [{"tasks": ["movies"], "methods": ["mine"]}]}
    config = {
        **CONFIG,
        "studies": {"smoke": study},
        "methods": {**CONFIG["methods"], "mine": {"kind": "own", "method": "x"}},
    }
    assert "run_own_method" in set(planned_jobs(config, "smoke")["rule"])


def test_a_benchmark_counts_a_pass_for_each_token_of_a_relay():
    passes = planned_jobs(CONFIG, "smoke").set_index("rule").loc["measure_latency", "examples"]
    # One trial at batch 1 with both relays of 4 tokens, read once, and one at batch 2 without; six passes else.
    assert passes == (6 + 2 * (4 + 1)) + 6


def test_training_reads_the_examples_of_its_steps_twice_and_encoding_those_of_all_splits_once():
    work = planned_jobs(CONFIG, "smoke").set_index(["rule", "job"])
    jobs, positions = work["examples"], work["positions"]
    assert jobs["train_bridge", "movies_bridge_k4_seed1"] == 4 * 4
    # Two steps of four examples forward and back, and the 16 of dev before, between and after, of 4 + 4 positions.
    assert positions["train_bridge", "movies_bridge_k4_seed1"] == (2 * 2 * 4 + 3 * 16) * 8
    assert jobs["evaluate_bridge", "movies_bridge_k4_seed1"] == 24
    assert jobs["encode_task", "smollm2-135m-instruct_movies"] == 32 + 16 + 24
    assert ("encode_task", "gemma-3-270m_movies") not in jobs


def test_the_rehearsal_has_jobs_of_every_rule_and_kind_of_the_paper():
    rehearsed = {(job["rule"], job["kind"]) for job in summed_jobs(CONFIG, "rehearsal")}
    assert rehearsed >= {(job["rule"], job["kind"]) for job in summed_jobs(CONFIG, "paper")}
    tiny = {(job["rule"], job["kind"]) for job in summed_jobs(CONFIG, "rehearsal_tiny")}
    assert tiny == rehearsed


def test_the_shapes_of_the_rehearsal_have_the_parameters_of_the_papers_models():
    for name, sizes in (("random-llama-3.1-8b", (128256, 2)), ("random-mistral-7b", (32768, 2))):
        shape = CONFIG["models"][name]["source"]["random"]
        width, inner, layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
        kept = shape["num_key_value_heads"] * width // shape["num_attention_heads"]
        weights = layers * (2 * width * (width + kept) + 3 * width * inner + 2 * width) + width
        total = weights + sizes[0] * width * sizes[1]
        assert shape["vocab_size"] == sizes[0]
        # 8,030,261,248 and 7,248,023,552 parameters, as the models' own cards count them.
        assert total == {"random-llama-3.1-8b": 8_030_261_248, "random-mistral-7b": 7_248_023_552}[name]


def test_the_command_of_the_gpu_rows_runs_at_tiny_size_and_marks_what_no_gpu_measured(tmp_path, capsys):
    assert main(["--study", "rehearsal_tiny", "--device", "cpu", "--out", str(tmp_path)]) == 0
    latency = pd.read_csv(tmp_path / "latency.csv")
    assert {"bridge", "text_relay_4_fixed", "direct_receiver"} <= set(latency["arm"])
    assert (latency["median_ms"] > 0).all()
    speed = pd.read_csv(tmp_path / "speed.csv")
    assert len(speed) == 4  # one mode: eager
    assert (speed["status"] == "unmeasured").all() and speed["value"].isna().all()
    assert "unmeasured" in capsys.readouterr().out


@pytest.mark.parametrize("study, sentence", [("demo", "has weights of its own"), ("small", "times nothing")])
def test_a_study_that_cannot_be_measured_is_refused(tmp_path, capsys, study, sentence):
    assert main(["--study", study, "--device", "cpu", "--out", str(tmp_path)]) == 1
    assert sentence in capsys.readouterr().err
