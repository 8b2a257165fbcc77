import io
import json

import pandas as pd
import pytest
import yaml
from rich.console import Console

from telepathy.__main__ import main
from telepathy.config import memory_needed
from telepathy.models.check import check_model
from telepathy.models.loading import load_tokenizer_only
from telepathy.tasks.check import check_data, check_task
from telepathy.tasks.prompts import prompt_ids, render_prompt
from telepathy.tasks.show import show_report

SIZES = {"train": 60, "dev": 50, "test": 50}


@pytest.fixture
def films(make_task):
    """A task that is as large as its YAML wants."""
    return lambda **changes: make_task(**{"splits": {**SIZES, "seed": 0}, **changes})


def frames(texts="film {}", labels=("negative", "positive"), sizes=SIZES, **columns):
    """Splits whose answers take turns."""
    made = {}
    for split, size in sizes.items():
        table = {"id": [f"{split}-{row}" for row in range(size)]}
        table["text"] = [texts.format(f"{split} {row}") for row in range(size)]
        table["label"] = [labels[row % len(labels)] for row in range(size)]
        table |= {name: [value(row) for row in range(size)] for name, value in columns.items()}
        made[split] = pd.DataFrame(table)
    return made


def report_text(report):
    console = Console(file=io.StringIO(), width=200)
    show_report(report, console)
    return console.file.getvalue()


def test_a_sound_task_has_nothing_wrong(films, llama):
    report = check_task(films(), frames(), [llama])
    assert (report.problems, report.remarks) == ([], [])
    assert "Nothing is wrong." in report_text(report)


def test_the_balance_is_that_of_the_data(films, llama):
    report = check_task(films(), frames(labels=("negative", "negative", "positive")), [llama])
    assert report.balance.loc["negative"].to_dict() == {"train": 40, "dev": 34, "test": 34}
    assert report.balance.loc["positive"].to_dict() == {"train": 20, "dev": 16, "test": 16}


def test_lengths_and_prompt_are_those_that_a_run_reads(films, llama, metaspace_lm):
    task, splits = films(), frames()
    report = check_task(task, splits, [llama, metaspace_lm])
    for view, lm in zip(report.views, (llama, metaspace_lm)):
        lengths = sorted(
            len(prompt_ids(lm, task, row)) for frame in splits.values() for row in frame.to_dict("records")
        )
        assert (view.lengths[0], view.lengths[2]) == (lengths[0], lengths[-1])
        assert view.prompt == lm.tokenizer.decode(prompt_ids(lm, task, splits["train"].iloc[0].to_dict()))
    assert report.example == render_prompt(task, splits["train"].iloc[0].to_dict())


def test_the_pieces_of_a_label_are_its_text_with_the_leading_space(films, llama):
    labels = check_task(films(), frames(), [llama]).views[0].labels
    assert {name: "".join(pieces) for name, pieces in labels.items()} == {
        "negative": " negative",
        "positive": " positive",
    }


def test_the_share_of_cut_prompts_is_counted_and_told(films, llama):
    splits = frames()
    for frame in splits.values():
        frame.loc[: len(frame) // 5 - 1, "text"] = "the card was lost and the card was stolen " * 20
    report = check_task(films(max_tokens=64), splits, [llama])
    assert report.views[0].cut == 0.2
    assert any("llama reads 20 % of the prompts without the end of text" in line for line in report.remarks)


@pytest.mark.parametrize(
    "changes, splits, sentence",
    [
        ({"prompt": "Review: {text}\nSentiment (negative or positive): "}, {}, "The prompt ends in a space"),
        ({"primer": "Sentiment: "}, {}, "The primer ends in a space"),
        ({"prompt": "Review: {text}\nSentiment:"}, {}, "The prompt does not say negative, positive: a model that only"),
        ({}, {"sizes": {**SIZES, "train": 20}}, "The train split has 20 examples, fewer than the 60"),
        ({}, {"sizes": {**SIZES, "dev": 12}}, "Only 12 dev examples choose the weights"),
        ({}, {"labels": ["negative"] * 19 + ["positive"]}, "96 % of the test answers are negative"),
        (
            {"labels": ["card", "card lost"], "prompt": "Say: {text}\nWhich (card or card lost):"},
            {"labels": ["card", "card lost"]},
            "card lost begins with card for llama",
        ),
    ],
)
def test_what_is_worth_a_thought_is_said_in_a_sentence(films, llama, changes, splits, sentence):
    report = check_task(films(**changes), frames(**splits), [llama])
    assert [line for line in report.remarks if sentence in line]
    assert report.problems == []
    assert sentence in " ".join(report_text(report).split())


def test_a_label_without_a_training_example_stops_a_run(films, llama):
    report = check_task(films(labels=["negative", "positive", "mixed"]), frames(), [llama])
    assert report.problems == ["No training example has the label mixed: remove it or take more examples."]


def test_a_prompt_that_does_not_fit_stops_a_run(films, llama):
    report = check_task(films(max_tokens=8), frames(), [llama])
    assert "with an empty text, more than the 8" in report.problems[0]


def test_an_answer_that_is_none_of_the_options_stops_a_run(choice_task, llama):
    splits = frames(labels=("A", "C"), question=lambda row: f"why {row}?", choices=lambda row: ["so", "not so"])
    report = check_task(choice_task, splits, [llama])
    assert report.problems == ["80 examples have an answer that is none of their options."]


def test_numbers_have_sizes_and_a_longest_answer(number_task, llama):
    splits = frames(question=lambda row: f"how many {row}?", answer=lambda row: "1234567890" * 4)
    report = check_task(number_task, splits, [llama])
    assert report.balance.loc["all"].to_dict() == SIZES
    assert any("The longest answer takes" in line and "answer_tokens is 16" in line for line in report.remarks)


def test_terminal_escapes_and_markup_in_the_data_are_inert(films, llama):
    said = report_text(check_task(films(), frames("[bold]\x1b[31mred\x07 {}"), [llama]))
    assert "[bold]" in said
    assert "\x1b[31m" not in said and "\x07" not in said


@pytest.fixture
def own(tmp_path, task_data, llama, lms):
    """A task YAML over a csv, and two models without weights."""
    rows = [(f"a film of {number} minutes", ("negative", "positive")[number % 2]) for number in range(200)]
    pd.DataFrame(rows, columns=["text", "mood"]).to_csv(tmp_path / "films.csv", index=False)
    task_data["source"]["files"]["all"] = str(tmp_path / "films.csv")
    task_data["splits"] = {**SIZES, "seed": 0}
    for lm in (llama, lms["gemma3"]):
        lm.model.config.save_pretrained(tmp_path / lm.name)
        lm.tokenizer.save_pretrained(tmp_path / lm.name)

    def write(**changes):
        (tmp_path / "films.yaml").write_text(yaml.safe_dump({**task_data, **changes}))
        return ["tasks", "check", str(tmp_path / "films.yaml"), "--downloads", str(tmp_path / "downloads")]

    return write


def test_the_command_shows_the_task_to_both_models(own, tmp_path, capsys):
    done = main([*own(), "--sender", str(tmp_path / "llama"), "--receiver", str(tmp_path / "gemma3")])
    said = capsys.readouterr().out
    assert done == 0
    for expected in (
        "Films (films, labels)",
        "llama reads",
        "gemma3 reads",
        "<s>Review: a film of",
        "Nothing is wrong",
    ):
        assert expected in said, expected


def test_texts_with_two_answers_are_counted(own, tmp_path, capsys):
    command = own()
    with (tmp_path / "films.csv").open("a") as rows:  # the first agrees with the row that is there, the others do not
        rows.write("a film of 4 minutes,negative\na film of 7 minutes,negative\na film of 9 minutes,negative\n")
    assert main(command) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "2 texts have different answers: the first of each is kept." in said


def test_the_command_refuses_data_that_do_not_fit_the_yaml(own, capsys):
    assert main(own(labels=["negative", "glad"])) == 1
    assert "labels that its YAML does not know: positive" in capsys.readouterr().err


def test_the_command_fails_where_a_run_would(own, tmp_path, capsys):
    assert main([*own(max_tokens=8), "--sender", str(tmp_path / "llama")]) == 1
    assert "The task films cannot be run as it is" in capsys.readouterr().err


def test_a_model_without_weights_tokenises_as_the_whole_one(own, tmp_path, llama, films):
    lm = load_tokenizer_only(tmp_path / "llama") if own() else None
    example = {"text": "the card was lost"}
    assert prompt_ids(lm, films(), example) == prompt_ids(llama, films(), example)


def test_data_are_split_as_in_a_run_and_nothing_is_left(own, tmp_path, films, llama):
    task = films(source={"files": {"all": str(tmp_path / "films.csv")}, "format": "csv"}) if own() else None
    before = set(tmp_path.iterdir())
    report = check_data(task, [llama], tmp_path / "downloads")
    assert report.balance.sum().to_dict() == SIZES
    assert set(tmp_path.iterdir()) == before


def test_the_facts_of_a_model_are_those_of_its_weights(own, tmp_path, llama, capsys):
    own()
    facts = check_model(tmp_path / "llama")
    parameters = sum(value.numel() for value in llama.model.parameters())
    expected = {"family": "llama", "layers": 2, "state_width": 32, "parameters": parameters, "first_token": "<s>"}
    assert expected.items() <= facts.items()
    assert facts["needed_mb"] == round(memory_needed(parameters))
    assert main(["models", "check", str(tmp_path / "llama")]) == 0
    assert "longest sequence  128" in capsys.readouterr().out


def test_a_model_that_does_not_fit_is_refused_with_what_it_needs(own, tmp_path, capsys):
    own()
    config = json.loads((tmp_path / "llama" / "config.json").read_text())
    huge = {"hidden_size": 65536, "intermediate_size": 262144, "num_hidden_layers": 80}
    (tmp_path / "llama" / "config.json").write_text(json.dumps({**config, **huge}))
    assert main(["models", "check", str(tmp_path / "llama")]) == 1
    assert "The model llama needs about" in capsys.readouterr().err


def test_a_folder_without_a_model_is_refused(tmp_path, capsys):
    assert main(["models", "check", str(tmp_path)]) == 1
    assert f"{tmp_path} holds no model (config.json)" in capsys.readouterr().err
