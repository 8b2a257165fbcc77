"""The DAG of every study, without a network and without running a job."""

import itertools
import re

import pytest
import yaml

PAPER = {
    "sst2": [4, 8, 16, 24, 32],
    "agnews": [8, 24, 32],
    "trec": [8, 24, 32],
    "boolq": [8, 16, 24],
    "gsm8k": [8, 24],
}
SEEDS = [42, 123, 456]


@pytest.fixture(scope="module")
def paper(house):
    return house.run("snakemake", "--dry-run")


def test_a_bare_dry_run_lists_every_bridge_of_the_paper(paper):
    runs = [wildcards for rule, wildcards in paper.jobs() if rule == "train_bridge"]
    found = {(run["task"], int(run["k"]), int(run["seed"])) for run in runs if run["method"] == "bridge"}
    expected = {(task, k, seed) for task, counts in PAPER.items() for k, seed in itertools.product(counts, SEEDS)}
    assert {run["study"] for run in runs} == {"paper"}
    assert found >= expected


def test_every_trained_bridge_of_the_paper_is_evaluated_once(paper):
    trained = [tuple(wildcards.items()) for rule, wildcards in paper.jobs() if rule == "train_bridge"]
    evaluated = [tuple(wildcards.items()) for rule, wildcards in paper.jobs() if rule == "evaluate_bridge"]
    assert len(trained) == len(set(trained))
    assert set(trained) <= set(evaluated)
    assert len(evaluated) == len(set(evaluated))


def test_both_models_answer_every_task_of_the_paper_from_the_prompt(paper):
    runs = {(run["task"], run["method"]) for rule, run in paper.jobs() if rule == "prompt_model"}
    assert runs >= set(itertools.product(PAPER, ["zero_shot_sender", "zero_shot_receiver"]))


def test_the_sender_encodes_every_task_of_the_paper_once(paper):
    encoded = [
        wildcards["task"]
        for rule, wildcards in paper.jobs()
        if rule == "encode_task" and wildcards["model"] == "llama-3.1-8b-instruct"
    ]
    assert sorted(encoded) == sorted(set(encoded))
    assert set(encoded) >= set(PAPER)


def test_the_paper_uses_the_publications_steps(house):
    tasks = yaml.safe_load(house.path("config.yaml").read_text())["studies"]["paper"]["tasks"]
    expected = {"sst2": (8, 2000), "agnews": (8, 3000), "boolq": (16, 3000), "gsm8k": (24, 5000)}
    found = {task: (tasks[task]["soft_tokens"], tasks[task]["settings"]["bridge"]["steps"]) for task in expected}
    assert found == expected


@pytest.mark.quiet
def test_the_dag_of_the_paper_is_built_in_five_seconds(house):
    # CPU time, which is wall time where nothing else runs, of all that comes after the start of Snakemake: reading
    # the rules, building the DAG, listing it. What `--version` takes too (importing Snakemake and its plugins, two
    # to three seconds) belongs to the machine and to Snakemake.
    def seconds(*arguments):
        return min(house.run("snakemake", *arguments).cpu_seconds for _ in range(3))

    assert seconds("--dry-run", "--quiet") - seconds("--version") < 5


def test_any_file_of_any_study_is_a_target_without_a_flag(house):
    target = "results/demo/runs/movies/bridge/k8/seed2/metrics.json"
    jobs = house.run("snakemake", "--dry-run", target).jobs()
    assert ("train_bridge", {"study": "demo", "task": "movies", "method": "bridge", "k": "8", "seed": "2"}) in jobs
    assert {wildcards.get("seed") for _, wildcards in jobs} <= {None, "2"}


@pytest.mark.parametrize("study", ["demo", "demo_slice", "small", "smoke"])
def test_the_study_is_made_whole_up_to_its_tables(house, study):
    done = house.run("snakemake", "--dry-run", "--config", f"study={study}")
    tables = {wildcards["table"] for rule, wildcards in done.jobs() if rule == "render_accuracy_table"}
    assert "table1_classification" in tables


def test_the_slurm_profile_is_found_as_typed(house):
    done = house.run("snakemake", "--profile", "slurm", "--dry-run", "--quiet")
    assert "profiles slurm" in done.text


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"study": "nosuch"}, "no study 'nosuch'; choose one of ablation, demo, demo_slice, ladder"),
        ({"studies": {"smoke": {"tasks": {"nosuch": {"soft_tokens": 4}}}}}, "no task 'nosuch'; choose one of agnews"),
        (
            {"studies": {"smoke": {"runs": [{"tasks": ["movies"], "methods": ["nosuch"]}]}}},
            "no method 'nosuch'; choose one of bridge",
        ),
        ({"methods": {"bridge": {"colour": "red"}}}, "'colour' was unexpected"),
        ({"studies": {"smoke": {"colour": "red"}}}, "'colour' was unexpected"),
        ({"methods": {"bridge": {"width": -1}}}, "-1 is less than the minimum of 0"),
        ({"methods": {"odd": {"kind": "nosuch"}}}, "no kind 'nosuch'; choose one of bridge"),
    ],
)
def test_a_mistake_in_the_configuration_is_named_with_what_is_allowed(house, tmp_path, change, sentence):
    (tmp_path / "change.yaml").write_text(yaml.safe_dump(change))
    arguments = ["--dry-run", "--configfile", "config.yaml", str(tmp_path / "change.yaml")]
    done = house.run("snakemake", *arguments, check=False)
    assert done.status != 0
    assert sentence in done.text


@pytest.mark.parametrize(
    "target, sentence",
    [
        ("results/nosuch/summary.csv", "no study 'nosuch'; choose one of ablation, demo, demo_slice, ladder"),
        ("results/demo/runs/nosuch/bridge/k8/seed1/metrics.json", "no task 'nosuch'; choose one of agnews"),
        ("results/demo/runs/movies/nosuch/k8/seed1/metrics.json", "no method 'nosuch'; choose one of bridge"),
    ],
)
def test_a_mistake_in_a_target_is_named_with_what_is_allowed(house, target, sentence):
    done = house.run("snakemake", "--dry-run", target, check=False)
    assert done.status != 0
    assert sentence in done.text


def test_only_training_and_encoding_ask_for_all_gpus(house, tmp_path):
    (tmp_path / "gpus.yaml").write_text("studies: {smoke: {gpus: 4}}\n")
    files = ("config.yaml", str(tmp_path / "gpus.yaml"))
    said = house.run("snakemake", "--dry-run", "results/smoke/summary.csv", "--configfile", *files).text
    asked = dict(re.findall(r"rule (\w+):\n(?:    .*\n)*?    resources: .*\bgpu=(\d)", said))
    assert {rule for rule, count in asked.items() if count == "4"} == {"train_bridge", "encode_task"}
    assert asked["evaluate_bridge"] == asked["prompt_model"] == "1"
