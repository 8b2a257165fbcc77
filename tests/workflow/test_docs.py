"""The guides are run as a reader would: files are written, commands typed, and what they show is looked for."""

import ast
import os
import re
import shlex
import statistics
from dataclasses import MISSING, fields
from pathlib import Path

import pandas as pd
import pytest
import yaml

from telepathy.config import schema
from telepathy.report.reference import reference
from telepathy.tasks.spec import Task, load_task
from tests.unit.hub_server import HubServer
from tests.unit.test_families import FAMILIES

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w*)(?: (\S+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
DOCUMENTS = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")])


def blocks(name):
    return BLOCK.findall((ROOT / "docs" / f"{name}.md").read_text())


def follow(house, name, **environment):
    """Do what a guide says, in its order."""
    said = ""
    for language, file, content in blocks(name):
        if file:
            house.path(file).write_text(content)
        elif language == "sh":
            done = [house.run(*shlex.split(line), COLUMNS="200", **environment) for line in content.splitlines()]
            said = " ".join("".join(one.text for one in done).split())
        else:
            assert language == "text", f"{name}: a block that is neither a file, a command nor what one shows"
            for line in content.splitlines():
                assert " ".join(line.split()) in said, f"{name}: {line!r} is not in {said[-2000:]}"


def test_the_cluster_guide_and_the_profile_name_every_rule_that_asks_for_a_gpu():
    rules = "".join(path.read_text() for path in sorted((ROOT / "rules").glob("*.smk")))
    bodies = re.findall(r"^rule (\w+):\n(.*?)(?=^\S|\Z)", rules, re.MULTILINE | re.DOTALL)
    asking = {name for name, body in bodies if re.search(r"^ +gpu=", body, re.MULTILINE)}
    guide = next(content for language, _, content in blocks("cluster") if "set-resources" in content)
    profile = (ROOT / "profiles/slurm/profile.yaml").read_text().partition("# set-resources:")[2]
    assert "train_bridge" in asking
    assert set(yaml.safe_load(guide)["set-resources"]) == asking
    assert set(re.findall(r"^#   (\w+):", profile, re.MULTILINE)) == asking


@pytest.mark.parametrize("name", ["statistics", "recipe"])
def test_a_guide_without_models_does_what_it_says(house_copy, name):
    follow(house_copy, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own_models", "python_api"])
def test_a_guide_does_what_it_says(made_copy, name):
    follow(made_copy, name)


@pytest.mark.slow
def test_the_guide_to_an_own_task_does_what_it_says_and_an_edit_of_the_data_reruns_all(made_copy):
    follow(made_copy, "own_task")
    command = ("--configfile", "my_study.yaml", "--", "results/mine/summary.csv")
    assert "Nothing to be done" in made_copy.snakemake("--dry-run", *command).text
    with made_copy.path("notes.csv").open("a") as data:
        data.write("Hail broke the glass of the greenhouse.,cold\n")
    found = {rule for rule, _ in made_copy.snakemake("--dry-run", *command).jobs()}
    assert {"fetch_data", "cache_task", "encode_task", "train_bridge"} <= found
    assert "fetch_model" not in found


@pytest.mark.slow
def test_the_guide_to_an_own_bridge_does_what_it_says_and_an_edit_of_the_plugin_reruns_its_uses(made_copy, tmp_path):
    hub = HubServer()
    try:
        home = {"HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "a-secret-token"}
        follow(made_copy, "own_bridge", HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="0", **home)
    finally:
        hub.shutdown()
        hub.server_close()
    exported = made_copy.path("results/own_bridge/export/movies")
    assert hub.files["model.safetensors"] == (exported / "model.safetensors").read_bytes()
    card = (exported / "README.md").read_text()
    for said in ("smollm2-135m-instruct", "gemma-3-270m", "Movie sentences", "Apache-2.0", "Gemma Terms of Use", "0.3"):
        assert said in card, said
    written = [*exported.iterdir(), *made_copy.path("logs").rglob("*.log")]
    assert not [path for path in written if b"a-secret-token" in path.read_bytes()]
    with made_copy.path("my_bridges.py").open("a") as plugin:
        plugin.write("\n# An edit.\n")
    command = ("--dry-run", "--configfile", "my_bridge_study.yaml", "--", "results/own_bridge/summary.csv")
    found = {rule for rule, _ in made_copy.snakemake(*command).jobs()}
    assert {"train_bridge", "evaluate_bridge", "run_own_method"} <= found
    assert not found & {"fetch_model", "fetch_data", "cache_task", "encode_task"}


def test_a_plugin_that_does_not_exist_is_refused_before_any_job(house_copy):
    house_copy.path("mine.yaml").write_text("plugins: [absent.py]\n")
    done = house_copy.snakemake("--dry-run", "--configfile", "mine.yaml", check=False)
    assert done.status != 0
    assert "at plugins, there is no Python file" in done.text


def test_the_quick_start_is_short():
    start = next(content for _, file, content in blocks("python_api") if file == "quick_start.py")
    assert len(start.splitlines()) < 15


def test_the_reference_of_settings_is_what_the_schemas_say():
    assert (ROOT / "docs" / "configuration.md").read_text() == reference(), "run `make docs`"


def described(entry, place):
    """Every key below a schema, with its place."""
    for name, value in entry.get("properties", {}).items():
        yield f"{place}.{name}", value
        yield from described(value, f"{place}.{name}")


def test_every_setting_is_described():
    task = yaml.safe_load((ROOT / "telepathy/tasks/task.schema.yaml").read_text())
    kinds = schema()["$defs"]
    shared = {name: entry for name, entry in kinds.items() if entry.get("type") == "object"}
    entries = {"config": schema(), "task": task, **shared, **kinds["method"]}
    keys = [pair for name, entry in entries.items() for pair in described(entry, name)]
    assert [place for place, value in keys if "const" not in value and not value.get("description")] == []


def test_the_defaults_that_a_tasks_schema_tells_are_those_of_tasks():
    told = yaml.safe_load((ROOT / "telepathy/tasks/task.schema.yaml").read_text())["properties"]
    for field in fields(Task):
        if "default" in told[field.name]:
            default = field.default if field.default is not MISSING else field.default_factory()
            assert told[field.name]["default"] == default, field.name


def sections(document):
    """Anchors of a document's headings, as GitHub names them."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document):
    links = re.findall(r"\]\((?!https?://)([^)#]*)#?([^)]*)\)", document.read_text())
    targets = [(document.parent / link if link else document, anchor) for link, anchor in links]
    assert [path for path, _ in targets if not path.exists()] == []
    assert [anchor for path, anchor in targets if anchor and anchor not in sections(path)] == []


@pytest.mark.parametrize("name", ["own_task"])
def test_every_task_of_a_guide_is_one(tmp_path, name):
    tasks = [content for language, _, content in blocks(name) if language == "yaml" and "\nprompt:" in content]
    assert len(tasks) == 2
    for content in tasks:
        (tmp_path / "task.yaml").write_text(content)
        load_task(tmp_path / "task.yaml")


def recipe(study):
    """A study's published summary, and what the guide to the recipe shows of it."""
    summary = pd.read_csv(ROOT / "docs" / "results" / study / "summary.csv")
    shown = (ROOT / "docs" / "recipe.md").read_text().split(f"<!-- {study}: ")[1].split(f"<!-- end of {study} -->")[0]
    return summary, shown


def accuracy_cells(text):
    """Mean and spread of every cell of accuracy tables, by task, title and soft tokens."""
    found, tasks = {}, []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if cells[:1] == ["accuracy in percent"]:
            tasks = [head.split(" (n ")[0] for head in cells[2:]]
        elif tasks and len(cells) == len(tasks) + 2 and not cells[0].startswith("---"):
            shown = {(task, cells[0], int(cells[1] or 0)): cell for task, cell in zip(tasks, cells[2:]) if cell}
            found |= {place: [float(part) for part in cell.split(" ± ")] for place, cell in shown.items()}
        else:
            tasks = tasks if cells else []
    return found


@pytest.mark.parametrize("study", ["tokens", "unseen", "ladder", "ablation"])
def test_the_accuracy_tables_of_the_recipe_are_those_of_their_results(study):
    summary, text = recipe(study)
    titles = {
        name: entry["title"] for name, entry in yaml.safe_load((ROOT / "config.yaml").read_text())["methods"].items()
    }
    expected = {}
    for (task, method, k), runs in summary.groupby(["task", "method", "soft_tokens"]):
        percent = (100 * runs["accuracy"]).tolist()
        spread = [statistics.stdev(percent)] if len(percent) > 1 else []
        expected[task, titles[method], k] = [statistics.mean(percent), *spread]
    found = accuracy_cells(text)
    assert found.keys() == expected.keys()
    for place, numbers in found.items():
        assert numbers == pytest.approx(expected[place], abs=0.0501), place


def test_the_seeds_of_the_recipe_are_those_of_its_results():
    summary, text = recipe("robustness")
    shares = summary.assign(percent=100 * summary["accuracy"]).set_index(["task", "method", "soft_tokens"])
    rows = re.findall(
        r"^\| (\w+) \| `(\w+)` \| (\d+) \| (\d+) \| ([\d.]+) ± ([\d.]+) \| ([\d.]+) \| (.*) \|$", text, re.MULTILINE
    )
    assert len(rows) == (shares.groupby(level=[0, 1, 2]).size() > 1).sum()
    for task, method, k, seeds, mean, spread, lowest, rest in rows:
        own = shares.loc[[(task, method, int(k))]]
        percent = own["percent"].tolist()
        assert len(percent) == int(seeds)
        assert float(mean) == pytest.approx(sum(percent) / len(percent), abs=0.0501)
        assert float(spread) == pytest.approx(statistics.stdev(percent), abs=0.0501)
        assert float(lowest) == pytest.approx(min(percent), abs=0.0501)
        probe, collapsed = (part.strip() for part in rest.split("|"))
        name = "linear_probe_reversed" if method.endswith("_reversed") else "linear_probe"
        if (task, name, 0) in shares.index:
            best, majority = shares.loc[(task, name, 0), "percent"], 100 * own["majority"].iloc[0]
            assert float(probe) == pytest.approx(best, abs=0.0501)
            assert int(collapsed) == sum(share < majority + (best - majority) / 2 for share in percent)
        else:
            assert probe == collapsed == ""


def test_the_guide_names_the_families_that_are_tested():
    said = (ROOT / "docs" / "own_models.md").read_text()
    listed = re.search(r"plain forward passes of transformers for:\n\n(.*?)\n\n", said, re.DOTALL).group(1)
    assert set(re.split(r",\s+", listed)) == {family.split(",")[0] for family in FAMILIES}


def messages():
    """Every text of the library, with … for what varies."""
    for path in (ROOT / "telepathy").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


@pytest.mark.parametrize(
    "heading", re.findall(r'^### "(.*)"$', (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
)
def test_an_error_of_the_troubleshooting_guide_is_one_that_the_library_raises(heading):
    pattern = ".*".join(re.escape(part.strip()) for part in heading.split("…"))
    assert any(re.search(pattern, text, re.DOTALL) for text in messages())


def test_the_workflow_catalogue_gives_flags_that_work(house):
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    done = house.run("snakemake", "--dry-run", *usage["mandatory-flags"]["flags"].split())
    assert "Job stats:" in done.text


def test_the_citation_names_the_pipeline_and_the_publication():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= set(cited)
    assert "LatentWire" in cited["references"][0]["title"]


def test_no_document_names_a_path_of_one_machine():
    pattern = re.compile(rf"{re.escape(os.sep)}(?:root|home|work|tmp)/")
    assert [path.name for path in DOCUMENTS if pattern.search(path.read_text())] == []
