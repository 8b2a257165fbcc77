import json
import random

import numpy as np
import pandas as pd
import pytest

from telepathy.errors import TelepathyError
from telepathy.files import sha256_of
from telepathy.tasks.data import _labels, cache_task, check_classes, read_raw, with_every_class
from telepathy.tasks.fetching import fetch_data
from telepathy.tasks.spec import known_tasks, load_task

SPLITS = ("train", "dev", "test")


def reviews(count, start=0):
    return [
        {"text": f"film number {row}", "mood": ("negative", "positive")[row % 2]} for row in range(start, start + count)
    ]


@pytest.fixture
def cached(tmp_path):
    """Write raw files, cache the task and read the three frames back."""

    def cache(task, place="cached", **parts):
        raw = tmp_path / "raw"
        raw.mkdir(exist_ok=True)
        for name, rows in parts.items():
            frame = pd.DataFrame(rows)
            if task.source["format"] == "parquet":
                frame.to_parquet(raw / name)
            else:
                frame.to_csv(raw / name, index=False)
        (raw / "source.json").write_text("{}")
        (raw / ".snakemake_timestamp").touch()  # Snakemake puts one into every folder that a rule makes.
        cache_task(task, raw, tmp_path / place)
        return {split: pd.read_parquet(tmp_path / place / f"{split}.parquet") for split in SPLITS}

    return cache


def sizes(train, dev, test):
    return {"train": train, "dev": dev, "test": test, "seed": 0}


def test_splits_have_the_sizes_that_were_asked_for(make_task, cached):
    frames = cached(make_task(splits=sizes(7, 5, 3)), all=reviews(30))
    assert [len(frames[split]) for split in SPLITS] == [7, 5, 3]


def test_splits_of_one_file_share_no_text(make_task, cached):
    frames = cached(make_task(splits=sizes(20, 5, 5)), all=reviews(30))
    assert pd.concat(frames.values())["text"].is_unique


def test_dev_comes_out_of_the_training_file(make_task, cached):
    frames = cached(make_task(splits=sizes(20, 5, 5)), train=reviews(25), test=reviews(5, start=100))
    assert frames["dev"]["id"].str.startswith("train-").all()


def test_test_comes_out_of_the_test_file(make_task, cached):
    frames = cached(make_task(splits=sizes(20, 5, 5)), train=reviews(25), test=reviews(5, start=100))
    assert set(frames["test"]["text"]) == {f"film number {row}" for row in range(100, 105)}


def test_a_text_of_test_is_in_neither_train_nor_dev(make_task, cached):
    parts = {"train": reviews(30), "test": reviews(10, start=20)}
    frames = cached(make_task(splits=sizes(100, 5, 100)), **parts)
    assert not set(frames["test"]["text"]) & {*frames["train"]["text"], *frames["dev"]["text"]}


def test_a_text_of_test_that_is_cut_off_test_is_still_not_in_train(make_task, cached):
    parts = {"train": reviews(30), "test": reviews(10, start=20)}
    frames = cached(make_task(splits=sizes(100, 5, 1)), **parts)
    assert {*frames["train"]["text"], *frames["dev"]["text"]} == {f"film number {row}" for row in range(20)}


def test_spaces_around_a_text_of_test_do_not_smuggle_it_into_train(make_task, cached):
    parts = {
        "train": [*reviews(9), {"text": "  twin ", "mood": "negative"}],
        "test": [{"text": "twin", "mood": "negative"}],
    }
    frames = cached(make_task(splits=sizes(100, 1, 100)), **parts)
    assert "twin" not in {*frames["train"]["text"], *frames["dev"]["text"]}


def test_words_beyond_the_limit_do_not_smuggle_a_text_of_test_into_train(make_task, cached):
    others = [{"text": f"{row} is it", "mood": "negative"} for row in range(9)]
    parts = {"train": [*others, {"text": "a b c", "mood": "negative"}], "test": [{"text": "a b d", "mood": "negative"}]}
    frames = cached(make_task(splits=sizes(100, 1, 100), max_words=2), **parts)
    assert "a b" not in {*frames["train"]["text"], *frames["dev"]["text"]}


def test_a_text_that_occurs_twice_is_kept_once(make_task, cached):
    frames = cached(make_task(splits=sizes(100, 1, 1)), all=reviews(10) + reviews(10))
    assert sum(map(len, frames.values())) == 10


def test_an_id_names_the_file_and_the_row(make_task, cached):
    rows = reviews(30)
    frames = cached(make_task(), train=rows, test=reviews(10, start=50))
    named = frames["train"].set_index("id")["text"]
    assert all(rows[int(key.removeprefix("train-"))]["text"] == text for key, text in named.items())


def test_an_id_keeps_its_text_when_the_sizes_of_the_splits_change(make_task, cached):
    small = pd.concat(cached(make_task(splits=sizes(5, 3, 2)), "small", all=reviews(40)).values())
    large = pd.concat(cached(make_task(splits=sizes(20, 8, 6)), "large", all=reviews(40)).values())
    both = small.merge(large, on="id", suffixes=("", "_large"))
    assert (both["text"] == both["text_large"]).all()


def test_a_smaller_test_split_is_the_start_of_the_larger_one(make_task, cached):
    small = cached(make_task(splits=sizes(5, 3, 2)), "small", all=reviews(40))["test"]
    large = cached(make_task(splits=sizes(5, 3, 6)), "large", all=reviews(40))["test"]
    assert list(small["id"]) == list(large["id"][:2])


def test_more_training_examples_do_not_change_dev(make_task, cached):
    small = cached(make_task(splits=sizes(5, 3, 2)), "small", all=reviews(40))["dev"]
    large = cached(make_task(splits=sizes(30, 3, 2)), "large", all=reviews(40))["dev"]
    assert list(small["id"]) == list(large["id"])


def test_the_same_seed_gives_the_same_splits(make_task, cached):
    one = cached(make_task(), "one", all=reviews(40))
    two = cached(make_task(), "two", all=reviews(40))
    assert all(one[split].equals(two[split]) for split in SPLITS)


def test_another_seed_gives_another_test_split(make_task, cached):
    one = cached(make_task(), "one", all=reviews(400))
    two = cached(make_task(splits={**sizes(20, 10, 10), "seed": 1}), "two", all=reviews(400))
    assert set(one["test"]["id"]) != set(two["test"]["id"])


def test_a_missing_column_is_named_with_those_that_there_are(make_task, cached):
    with pytest.raises(TelepathyError, match=r"has no column mood; it has text, feeling"):
        cached(make_task(), all=[{"text": "x", "feeling": "positive"}])


def test_a_missing_column_of_options_is_named(make_task, cached):
    task = make_task(
        kind="multiple_choice",
        labels=["A", "B"],
        label={"column": "key"},
        choices=["first", "second"],
        prompt="{text} {options}",
    )
    with pytest.raises(TelepathyError, match="has no column second"):
        cached(task, all=[{"text": "x", "first": "1", "key": "A"}])


def test_a_missing_column_of_a_derived_task_is_named(make_task, cached):
    task = make_task(
        kind="boolean",
        label=None,
        labels=None,
        fields={"text": "text", "question": "question"},
        derive={"kind": "topic_question", "topics": {"grain": "grain", "ship": "shipping"}},
        prompt="{text} {question}",
    )
    with pytest.raises(TelepathyError, match="has no column label"):
        cached(task, all=[{"text": "x", "topic": "grain"}])


def test_an_unknown_label_is_named_with_those_that_there_are(make_task, cached):
    with pytest.raises(TelepathyError, match="does not know: mixed; it knows negative, positive"):
        cached(make_task(), all=[*reviews(30), {"text": "x", "mood": "mixed"}])


def test_a_label_number_beyond_the_index_is_named(make_task, cached):
    task = make_task(label={"column": "mood", "index": ["negative", "positive"]})
    with pytest.raises(TelepathyError, match="does not know: -1"):
        cached(task, all=[{"text": "x", "mood": "-1"}])


@pytest.mark.parametrize("kind", ["bool", "boolean", "object", "int8", "Int64", "float64"])
def test_label_numbers_of_any_type_are_read(make_task, kind):
    task = make_task(label={"column": "mood", "index": ["negative", "positive"]})
    column = pd.Series([True, False, True]).astype(kind)
    assert _labels(task, pd.DataFrame({"mood": column})).tolist() == ["positive", "negative", "positive"]


def test_a_label_number_that_is_no_whole_number_is_named(make_task, cached):
    task = make_task(label={"column": "mood", "index": ["negative", "positive"]})
    with pytest.raises(TelepathyError, match=r"does not know: 0\.9"):
        cached(task, all=[*({"text": f"film {row}", "mood": "1"} for row in range(20)), {"text": "x", "mood": "0.9"}])


@pytest.mark.parametrize("empty", ["", "  ", None])
def test_an_example_without_a_number_under_a_threshold_is_left_out(make_task, cached, empty):
    label = {"column": "stars", "threshold": 3, "above": "positive", "below": "negative"}
    rows = [{"text": f"film {row}", "stars": row % 5 if row % 4 else empty} for row in range(40)]
    found = pd.concat(cached(make_task(label=label, splits=sizes(100, 1, 1)), all=rows).values())
    kept = {f"film {row}": row % 5 for row in range(40) if row % 4 and row % 5 != 3}
    assert dict(zip(found["text"], found["label"])) == {
        text: "positive" if stars > 3 else "negative" for text, stars in kept.items()
    }


def test_what_is_no_number_under_a_threshold_is_named(make_task, cached):
    label = {"column": "stars", "threshold": 3, "above": "positive", "below": "negative"}
    with pytest.raises(TelepathyError, match="does not know: n/a"):
        cached(make_task(label=label), all=[{"text": "x", "stars": "n/a"}])


@pytest.mark.parametrize(
    "label, sentence",
    [
        ({"column": "mood", "index": ["negative", "positive", "ugly"]}, "labels that it does not list: ugly"),
        ({"column": "mood", "map": {"1": "positive", "2": "glad"}}, "labels that it does not list: glad"),
        ({"column": "stars", "threshold": 3, "above": "good", "below": "negative"}, "does not list: good"),
        ({"column": "stars", "threshold": 3, "above": "positive"}, "needs the keys above and below"),
    ],
)
def test_a_rule_that_gives_other_labels_than_the_tasks_is_refused(make_task, label, sentence):
    with pytest.raises(TelepathyError, match=sentence):
        make_task(label=label)


@pytest.mark.parametrize(
    "form, content",
    [
        ("csv", ""),
        ("csv", 'text,mood\n"a,b\n'),
        ("csv", "text,mood\na,b\nc,d,e,f\n"),
        ("jsonl", "{"),
        ("parquet", "no"),
    ],
)
def test_a_file_that_is_not_what_the_yaml_says_is_refused_in_one_sentence(make_task, tmp_path, form, content):
    file = tmp_path / "all"
    file.write_text(content)
    task = make_task(source={"files": {"all": "x"}, "format": form})
    with pytest.raises(TelepathyError, match=f"The all data of task films is no readable {form}: [^\n]+"):
        read_raw(task, file)


@pytest.mark.parametrize("empty", ["", "   "])
def test_an_example_without_text_is_left_out(make_task, cached, empty):
    frames = cached(make_task(splits=sizes(100, 1, 1)), all=[*reviews(10), {"text": empty, "mood": "negative"}])
    assert set(pd.concat(frames.values())["text"]) == {f"film number {row}" for row in range(10)}


def test_an_example_whose_text_is_null_is_left_out(make_task, cached):
    task = make_task(source={"files": {"all": "x"}, "format": "parquet"}, splits=sizes(100, 1, 1))
    frames = cached(task, all=[*reviews(10), {"text": None, "mood": "negative"}])
    assert set(pd.concat(frames.values())["text"]) == {f"film number {row}" for row in range(10)}


def test_an_empty_split_is_refused_by_name(make_task, cached):
    with pytest.raises(TelepathyError, match="has no train examples"):
        cached(make_task(splits=sizes(20, 10, 10)), all=reviews(15))


def test_a_failed_cache_leaves_no_folder(make_task, cached, tmp_path):
    with pytest.raises(TelepathyError):
        cached(make_task(), all=reviews(15))
    assert not (tmp_path / "cached").exists()


def test_a_threshold_drops_what_lies_on_it(make_task, cached):
    task = make_task(
        label={"column": "stars", "threshold": 3, "above": "positive", "below": "negative"}, splits=sizes(100, 1, 1)
    )
    rows = [{"text": f"film {row}", "stars": stars} for row, stars in enumerate([1, 2, 3, 4, 5, 3.5, 2.5, 3])]
    found = pd.concat(cached(task, all=rows).values()).set_index("id")["label"].to_dict()
    expected = {"all-0": "negative", "all-1": "negative", "all-3": "positive", "all-4": "positive"}
    assert found == {**expected, "all-5": "positive", "all-6": "negative"}


def test_a_map_drops_values_that_it_does_not_name(make_task, cached):
    task = make_task(label={"column": "mood", "map": {"1": "positive", "0": "negative"}}, splits=sizes(100, 1, 1))
    rows = [{"text": f"film {row}", "mood": row % 3} for row in range(9)]
    found = pd.concat(cached(task, all=rows).values())
    assert found.set_index("id")["label"].to_dict() == {
        f"all-{row}": ("negative", "positive")[row % 3] for row in range(9) if row % 3 < 2
    }


def test_booleans_of_parquet_become_no_and_yes(make_task, cached):
    task = make_task(
        kind="boolean",
        labels=None,
        label={"column": "answer", "map": {"True": "yes", "False": "no"}},
        source={"files": {"all": "x"}, "format": "parquet"},
        splits=sizes(100, 1, 1),
    )
    rows = [{"text": f"passage {row}", "answer": row % 2 == 0} for row in range(6)]
    found = pd.concat(cached(task, all=rows).values()).set_index("id")["label"].to_dict()
    assert found == {f"all-{row}": "yes" if row % 2 == 0 else "no" for row in range(6)}


def test_the_answer_after_the_mark_is_kept_in_canonical_form(number_task, cached):
    rows = [{"question": f"how many {row}?", "answer": f"{row}+1000\n#### {row + 1000:,}"} for row in range(30)]
    found = pd.concat(cached(number_task, all=rows).values()).set_index("id")["answer"].to_dict()
    assert all(found[key] == str(int(key.removeprefix("all-")) + 1000) for key in found)


def test_an_answer_without_a_number_is_refused_with_its_text(number_task, cached):
    with pytest.raises(TelepathyError, match="without a number: 'none at all'"):
        cached(number_task, all=[{"question": "how many?", "answer": "none at all"}])


def test_options_of_several_columns_are_listed_in_their_order(make_task, cached):
    task = make_task(
        kind="multiple_choice",
        labels=["A", "B"],
        label={"column": "key", "index": ["A", "B"]},
        choices=["first", "second"],
        prompt="{text} {options}",
    )
    rows = [
        {"text": f"goal {row}", "first": f"do {row}", "second": f"leave {row}", "key": row % 2} for row in range(30)
    ]
    found = pd.concat(cached(task, all=rows).values()).set_index("id")["choices"]
    assert all(list(options) == [f"do {key[4:]}", f"leave {key[4:]}"] for key, options in found.items())


def test_options_of_one_column_of_lists_are_read(make_task, cached):
    task = make_task(
        kind="multiple_choice",
        labels=["A", "B"],
        label={"column": "key"},
        choices="choices",
        source={"files": {"all": "x"}, "format": "parquet"},
        prompt="{text} {options}",
    )
    rows = [
        {"text": f"goal {row}", "choices": {"label": ["A", "B"], "text": ["x", f"y{row}"]}, "key": "A"}
        for row in range(30)
    ]
    found = pd.concat(cached(task, all=rows).values()).set_index("id")["choices"]
    assert all(list(options) == ["x", f"y{key[4:]}"] for key, options in found.items())


@pytest.fixture
def topics(make_task, cached):
    task = make_task(
        kind="boolean",
        label=None,
        labels=None,
        fields={"text": "text", "question": "question"},
        derive={"kind": "topic_question", "topics": {"grain": "grain", "ship": "shipping", "earn": "earnings"}},
        prompt="{text} {question}",
        splits=sizes(400, 50, 50),
    )
    truth = {f"report {row}": ("grain", "ship", "earn")[row % 3] for row in range(500)}
    frames = cached(task, all=[{"text": text, "label": topic} for text, topic in truth.items()])
    return pd.concat(frames.values()), truth


def test_a_derived_question_is_answered_by_the_topic_of_its_passage(topics):
    frame, truth = topics
    names = {"grain": "grain", "ship": "shipping", "earn": "earnings"}
    right = [
        "yes" if names[truth[text]] in question else "no" for text, question in zip(frame["text"], frame["question"])
    ]
    assert list(frame["label"]) == right


def test_half_of_the_derived_questions_are_true(topics):
    share = (topics[0]["label"] == "yes").mean()
    assert abs(share - 0.5) < 4 * np.sqrt(0.25 / 500)


def test_every_tab_of_a_tsv_separates_whatever_quotes_stand_there(make_task, tmp_path):
    task = make_task(
        source={"files": {"all": "x"}, "format": "tsv", "columns": ["mood", "text"], "skip_rows": 1},
        splits=sizes(100, 1, 1),
    )
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "source.json").write_text("{}")
    lines = [f'positive\tHe said "{row}' for row in range(9)]
    (tmp_path / "raw" / "all").write_text("\n".join(["header to skip", *lines]) + "\n")
    cache_task(task, tmp_path / "raw", tmp_path / "cached")
    found = pd.concat(pd.read_parquet(tmp_path / "cached" / f"{split}.parquet") for split in SPLITS)
    assert set(found["text"]) == {f'He said "{row}' for row in range(9)}


def test_a_label_without_training_example_is_refused(make_task):
    with pytest.raises(TelepathyError, match="no training example of positive"):
        check_classes(make_task(), pd.DataFrame({"label": ["negative", "negative"]}))


@pytest.fixture
def local_source(tmp_path):
    (tmp_path / "films.csv").write_text("text,mood\na,positive\n")
    return {"file": str(tmp_path / "films.csv"), "sha256": sha256_of(tmp_path / "films.csv")}


def fetch(tmp_path, source):
    fetch_data("films", source, tmp_path / "raw", tmp_path / "downloads", tmp_path / "pins")


def test_local_data_arrive_byte_for_byte(tmp_path, local_source):
    fetch(tmp_path, {"files": {"all": local_source}})
    assert (tmp_path / "raw" / "all").read_bytes() == (tmp_path / "films.csv").read_bytes()


def test_data_with_another_sha256_are_refused_and_removed(tmp_path, local_source):
    with pytest.raises(TelepathyError, match="The all data of task films have sha256"):
        fetch(tmp_path, {"files": {"all": {**local_source, "sha256": "0" * 64}}})
    assert not (tmp_path / "raw").exists()


def test_a_missing_local_file_is_named(tmp_path):
    with pytest.raises(TelepathyError, match=r"There is no file .*absent\.csv"):
        fetch(tmp_path, {"files": {"all": str(tmp_path / "absent.csv")}})


def test_fetched_data_record_their_sha256(tmp_path, local_source):
    fetch(tmp_path, {"files": {"all": local_source}})
    assert json.loads((tmp_path / "raw" / "source.json").read_text())["files"] == {"all": local_source["sha256"]}


def test_the_generator_gives_the_examples_of_its_library(tmp_path):
    import reasoning_gym

    fetch(tmp_path, {"generator": "reasoning_gym", "files": {"all": {"dataset": "gsm_symbolic", "seed": 3, "size": 4}}})
    random.seed(99)  # the library's own draw must not hang on the global state
    expected = [item["question"] for item in reasoning_gym.create_dataset("gsm_symbolic", seed=3, size=4)]
    found = [json.loads(line)["question"] for line in (tmp_path / "raw" / "all").read_text().splitlines()]
    assert found == expected


def test_the_shipped_word_problems_name_a_generator_that_exists():
    import reasoning_gym

    source = load_task(known_tasks()["wordproblems"]).source
    assert {entry["dataset"] for entry in source["files"].values()} <= set(reasoning_gym.factory.DATASETS)


def some(labels):
    return pd.DataFrame({"id": [f"train-{place}" for place in range(len(labels))], "label": list(labels)})


def test_the_first_examples_that_hold_every_class_stay_the_first():
    frame = some("abacab")
    pd.testing.assert_frame_equal(with_every_class(frame, 4), frame.head(4))


def test_a_class_that_comes_later_takes_the_place_of_the_last_of_the_most_frequent_one():
    found = with_every_class(some("abaaabdcdc"), 6)
    # Of the first six, the a's at 4 and then at 3 go; the first d and the first c come.
    assert found["id"].tolist() == [f"train-{place}" for place in (0, 1, 2, 5, 6, 7)]
    assert found.index.tolist() == list(range(6))


def test_fewer_examples_than_classes_are_still_as_many_as_were_asked_for():
    assert with_every_class(some("aabcd"), 3)["label"].tolist() == ["a", "b", "c"]
    assert with_every_class(some("abcd"), 2)["label"].tolist() == ["a", "b"]
