import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from telepathy.errors import TelepathyError
from telepathy.methods.probe import ProbeConfig, linear_probe


class Store:
    """Pooled states in memory, as a feature store gives them."""

    def __init__(self, states):
        self.states, self.index = states, {"pooled_layers": sorted({layer for layer, _ in states})}

    def pooled(self, layer, kind):
        return self.states[layer, kind]


def split(rows, seed):
    """Layer 2's mean carries the label with some noise; nothing else does."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=rows)
    noise = {
        (layer, kind): rng.normal(size=(rows, 4)).astype(np.float32) for layer in (1, 2) for kind in ("mean", "last")
    }
    noise[2, "mean"][:, 1] = 3 * labels + rng.normal(size=rows)
    names = np.array(["negative", "positive"])[labels]
    return Store(noise), pd.DataFrame({"id": [f"{seed}-{row}" for row in range(rows)], "label": names})


@pytest.fixture
def data():
    parts = {"train": split(120, 1), "dev": split(80, 2), "test": split(80, 3)}
    return {name: part[0] for name, part in parts.items()}, {name: part[1] for name, part in parts.items()}


def test_the_probe_finds_the_layer_and_pooling_that_carry_the_label(make_task, data):
    _, chosen = linear_probe(make_task(), *data, ProbeConfig())
    assert (chosen["selected"]["layer"], chosen["selected"]["pooling"]) == (2, "mean")


def test_the_probe_answers_as_scikit_learn_does_from_scratch(make_task, data):
    stores, frames = data
    predictions, chosen = linear_probe(make_task(), stores, frames, ProbeConfig())
    scaler = StandardScaler().fit(stores["train"].pooled(2, "mean"))
    model = LogisticRegression(C=chosen["selected"]["strength"], max_iter=5000)
    model.fit(scaler.transform(stores["train"].pooled(2, "mean")), frames["train"]["label"])
    expected = model.predict_log_proba(scaler.transform(stores["test"].pooled(2, "mean")))
    np.testing.assert_allclose(np.stack(predictions["scores"]), expected, atol=5e-3)
    assert predictions["prediction"].tolist() == model.classes_[expected.argmax(1)].tolist()


def test_the_selection_holds_dev_accuracy_of_everything_that_was_tried(make_task, data):
    _, chosen = linear_probe(make_task(), *data, ProbeConfig(strengths=(0.01, 1.0)))
    tried = pd.DataFrame(chosen["selection"])
    assert len(tried) == 2 * 2 * 2
    assert chosen["selected"]["dev_accuracy"] == tried["dev_accuracy"].max()


def test_test_examples_play_no_part_in_the_choice(make_task, data):
    stores, frames = data
    _, before = linear_probe(make_task(), stores, frames, ProbeConfig())
    flipped = frames["test"]["label"].map({"negative": "positive", "positive": "negative"})
    _, after = linear_probe(
        make_task(), stores, {**frames, "test": frames["test"].assign(label=flipped)}, ProbeConfig()
    )
    assert before == after


def test_parameters_are_weights_and_intercept(make_task, data):
    _, chosen = linear_probe(make_task(), *data, ProbeConfig())
    assert chosen["trainable_parameters"] == 4 + 1


def test_a_layer_that_was_not_pooled_is_refused_with_those_that_were(make_task, data):
    with pytest.raises(TelepathyError, match="no pooled layer 7; they have 1, 2"):
        linear_probe(make_task(), *data, ProbeConfig(layers=(7,)))


def test_a_task_without_a_label_set_is_refused(number_task, data):
    with pytest.raises(TelepathyError, match="of kind number: a linear probe needs a set of labels"):
        linear_probe(number_task, *data, ProbeConfig())


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"poolings": ("max",)}, "mean and last, not max"),
        ({"strengths": (0.0,)}, "above 0, not 0"),
        ({"layers": ()}, "one of its layers"),
        ({"iterations": 0}, "1 at least, not 0"),
    ],
)
def test_settings_that_contradict_are_refused_with_their_value(settings, sentence):
    with pytest.raises(TelepathyError, match=sentence):
        ProbeConfig(**settings)
