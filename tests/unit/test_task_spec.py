import pytest
import yaml

from telepathy.errors import TelepathyError
from telepathy.tasks.spec import known_tasks, load_task

SHIPPED = sorted(known_tasks().items())


@pytest.mark.parametrize("name, path", SHIPPED, ids=[name for name, _ in SHIPPED])
def test_a_shipped_task_loads_under_the_name_of_its_file(name, path):
    assert load_task(path).name == name


@pytest.mark.parametrize("name, path", SHIPPED, ids=[name for name, _ in SHIPPED])
def test_a_shipped_task_maps_its_data_to_labels_that_it_has(name, path):
    task = load_task(path)
    rule = task.label or {}
    made = {
        *rule.get("map", {}).values(),
        *rule.get("index", ()),
        *(rule[key] for key in ("above", "below") if key in rule),
    }
    assert made <= set(task.label_names)


@pytest.mark.parametrize("name, path", SHIPPED, ids=[name for name, _ in SHIPPED])
def test_a_shipped_task_that_stands_in_names_a_known_task(name, path):
    task = load_task(path)
    assert task.stands_for is None or task.stands_for in known_tasks()


@pytest.mark.parametrize("name, path", SHIPPED, ids=[name for name, _ in SHIPPED])
def test_a_shipped_task_pins_its_data(name, path):
    source = load_task(path).source
    hashes = [entry for entry in source["files"].values() if isinstance(entry, dict) and "sha256" in entry]
    assert "revision" in source or "generator" in source or len(hashes) == len(source["files"])


@pytest.mark.parametrize("name, path", SHIPPED, ids=[name for name, _ in SHIPPED])
def test_the_question_of_a_shipped_task_is_not_what_is_shortened_where_there_is_a_passage(name, path):
    task = load_task(path)
    assert "passage" not in task.fields or task.shorten == "passage"


def test_an_unknown_key_is_refused_by_name(make_task):
    with pytest.raises(TelepathyError, match="'primmer' was unexpected"):
        make_task(primmer="Sentiment:")


def test_a_missing_key_is_refused_by_name(make_task):
    with pytest.raises(TelepathyError, match="'licence' is a required property"):
        make_task(licence=None)


def test_an_unknown_key_of_a_label_is_refused_with_its_place(make_task):
    with pytest.raises(TelepathyError, match=r"labels\.0"):
        make_task(labels=[{"name": "negative", "verbalizer": "bad"}, "positive"])


@pytest.mark.parametrize("verbaliser", ["", "  "])
def test_an_empty_verbaliser_is_refused_with_its_label(make_task, verbaliser):
    with pytest.raises(TelepathyError, match=r"verbaliser is empty \(positive\)"):
        make_task(labels=["negative", {"name": "positive", "verbaliser": verbaliser}])


def test_two_labels_with_one_verbaliser_are_refused(make_task):
    with pytest.raises(TelepathyError, match="same verbaliser: bad"):
        make_task(labels=[{"name": "negative", "verbaliser": "bad"}, {"name": "awful", "verbaliser": " bad"}])


def test_two_labels_with_one_name_are_refused(make_task):
    with pytest.raises(TelepathyError, match="same name: negative"):
        make_task(labels=["negative", {"name": "negative", "verbaliser": "bad"}])


def test_one_label_is_not_enough(make_task):
    with pytest.raises(TelepathyError, match="two labels at least, it has 1"):
        make_task(labels=["positive"])


def test_an_unknown_field_in_the_prompt_is_refused_by_name(make_task):
    with pytest.raises(TelepathyError, match="unknown fields in its prompt: title"):
        make_task(prompt="{title}: {text}")


def test_a_field_without_a_name_in_the_prompt_is_refused(make_task):
    with pytest.raises(TelepathyError, match="unknown fields in its prompt"):
        make_task(prompt="{text} {}")


@pytest.mark.parametrize("prompt", ["{text", "text}"])
def test_a_prompt_with_half_a_pair_of_braces_is_refused(make_task, prompt):
    with pytest.raises(TelepathyError, match="prompt"):
        make_task(prompt=prompt)


def test_a_prompt_without_the_field_that_is_shortened_is_refused(make_task):
    with pytest.raises(TelepathyError, match="shortens the field text, which its prompt does not have"):
        make_task(fields={"text": "text", "title": "title"}, prompt="{title}:")


def test_options_belong_to_multiple_choice_only(make_task):
    with pytest.raises(TelepathyError, match="unknown fields in its prompt: options"):
        make_task(prompt="{text} {options}")


def test_a_number_task_needs_its_answer_column(make_task):
    with pytest.raises(TelepathyError, match="needs the key answer"):
        make_task(kind="number")


def test_a_multiple_choice_task_needs_its_choices(make_task):
    with pytest.raises(TelepathyError, match="needs the keys choices and label"):
        make_task(kind="multiple_choice")


def test_a_label_task_needs_its_label_column(make_task):
    with pytest.raises(TelepathyError, match="needs the key label"):
        make_task(label=None)


def test_a_boolean_task_says_no_and_yes_unless_told_otherwise(make_task):
    assert make_task(kind="boolean", labels=None).label_names == ["no", "yes"]


def test_a_label_is_its_own_verbaliser_unless_told_otherwise(make_task):
    task = make_task(labels=["negative", {"name": "positive", "verbaliser": "good"}])
    assert [label.verbaliser for label in task.labels] == ["negative", "good"]


def test_a_file_that_is_not_yaml_is_refused_by_path(tmp_path):
    (tmp_path / "a.yaml").write_text("name: [")
    with pytest.raises(TelepathyError, match=r"a\.yaml is not YAML"):
        load_task(tmp_path / "a.yaml")


def test_an_absent_file_is_refused_with_the_known_tasks(tmp_path):
    with pytest.raises(TelepathyError, match=r"known tasks are .*boolq"):
        load_task(tmp_path / "a.yaml")


def test_the_schema_is_not_a_task():
    assert "task.schema" not in known_tasks()


def test_the_known_tasks_are_the_files_that_declare_a_prompt():
    folder = SHIPPED[0][1].parent
    declared = {
        path.stem
        for path in folder.iterdir()
        if path.suffix == ".yaml" and "prompt" in yaml.safe_load(path.read_text())
    }
    assert set(known_tasks()) == declared


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "A review: {text}"},
        {"primer": "Mood:"},
        {"max_tokens": 99},
        {"labels": ["negative", {"name": "positive", "verbaliser": "good"}]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_prompt_hash_changes_with_what_models_read(make_task, change):
    assert make_task(**change).prompt_hash != make_task().prompt_hash


def test_the_prompt_hash_does_not_change_with_the_splits(make_task):
    splits = {"train": 5, "dev": 5, "test": 5, "seed": 0}
    assert make_task(splits=splits).prompt_hash == make_task().prompt_hash
