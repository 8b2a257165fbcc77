from dataclasses import dataclass

import pandas as pd
import pytest

from telepathy.config import method_settings, runs_table
from telepathy.errors import TelepathyError
from telepathy.methods.own import _METHODS, OwnMethod, register_method, run_own_method

SEEN = {}


@dataclass(frozen=True, kw_only=True)
class ConstantConfig:
    """What is said."""

    answer: str = "positive"
    times: int | None = None


class Constant(OwnMethod):
    """One answer to all; remembers what it was given."""

    config_class = ConstantConfig

    def answer(self, inputs):
        SEEN["inputs"] = inputs
        times = len(inputs.test) if self.config.times is None else self.config.times
        return [None if self.config.answer == "nothing" else self.config.answer] * times


@pytest.fixture(autouse=True)
def registered():
    """The method above, known for one test."""
    register_method("constant")(Constant)
    yield
    del _METHODS["constant"]


SPLITS = {
    name: pd.DataFrame({"id": [f"{name}-{row}" for row in range(4)], "text": list("abcd"), "label": labels})
    for name, labels in (
        ("train", ["negative"] * 4),
        ("dev", ["positive"] * 4),
        ("test", ["negative", "positive", "positive", "negative"]),
    )
}


def run(task, splits=SPLITS, models=None, **options):
    configured = {"methods": {"mine": {"kind": "own", "method": "constant", "options": options}}}
    return run_own_method(method_settings(configured, "mine"), task, splits, models or {}, seed=3)


def test_predictions_stand_beside_the_labels_in_the_order_of_the_examples(make_task):
    predictions = run(make_task())
    assert predictions["id"].tolist() == SPLITS["test"]["id"].tolist()
    assert predictions["label"].tolist() == SPLITS["test"]["label"].tolist()
    assert predictions["prediction"].tolist() == ["positive"] * 4


def test_a_method_never_sees_the_answers_of_the_test_examples(make_task, number_task):
    run(make_task())
    assert list(SEEN["inputs"].test.columns) == ["id", "text"]
    splits = {name: frame.rename(columns={"label": "answer", "text": "question"}) for name, frame in SPLITS.items()}
    run(number_task, splits, answer="12")
    assert list(SEEN["inputs"].test.columns) == ["id", "question"]


def test_a_method_gets_training_answers_models_and_seed(make_task, llama):
    run(make_task(), models={"sender": llama})
    inputs = SEEN["inputs"]
    assert (inputs.train["label"].tolist(), inputs.models, inputs.seed) == (["negative"] * 4, {"sender": llama}, 3)


def test_no_answer_has_no_prediction(make_task):
    assert run(make_task(), answer="nothing")["prediction"].isna().all()


@pytest.mark.parametrize("said, number", [("7", "7"), ("1,000.0", "1000"), ("007", "7"), (7, "7"), (2.5, "2.5")])
def test_a_number_is_written_as_the_tasks_answers_are(number_task, said, number):
    splits = {name: frame.rename(columns={"label": "answer", "text": "question"}) for name, frame in SPLITS.items()}
    assert run(number_task, splits, answer=said)["prediction"].tolist() == [number] * 4


def test_an_answer_that_is_no_number_is_refused(number_task):
    splits = {name: frame.rename(columns={"label": "answer", "text": "question"}) for name, frame in SPLITS.items()}
    with pytest.raises(TelepathyError, match="answered 'many', which is no number"):
        run(number_task, splits, answer="many")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"answer": "glad"}, "method constant answered glad, which the task films does not have.* negative, positive"),
        ({"times": 3}, "method constant gave 3 answers to 4 test examples"),
        ({"volume": 11}, "method constant has no option volume; it has answer, times"),
    ],
)
def test_what_a_method_does_wrong_is_refused_in_one_sentence(make_task, options, message):
    with pytest.raises(TelepathyError, match=message):
        run(make_task(), **options)


def test_a_method_that_no_plugin_registers_is_refused_with_those_that_are(make_task, monkeypatch):
    monkeypatch.setenv("TELEPATHY_PLUGINS", "")
    settings = {"method": "absent", "options": {}}
    with pytest.raises(TelepathyError, match="No plugin registers a method 'absent'; registered are: constant"):
        run_own_method(settings, make_task(), SPLITS, {}, seed=0)


def test_an_own_method_runs_once_a_seed_without_soft_tokens():
    study = {"seeds": [1, 2], "tasks": {"films": {"soft_tokens": 4}}, "runs": [{"tasks": ["films"], "methods": ["m"]}]}
    table = runs_table({"methods": {"m": {"kind": "own", "method": "constant"}}, "studies": {"s": study}})
    assert table[["k", "seed"]].to_numpy().tolist() == [[0, 1], [0, 2]]
