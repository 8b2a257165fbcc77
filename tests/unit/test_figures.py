import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import QuadMesh
from sklearn.metrics import confusion_matrix
from sklearn.neighbors import KNeighborsClassifier

from telepathy.files import write_json, write_parquet
from telepathy.report.figures import style
from telepathy.report.figures.accuracy import draw_accuracy, draw_tokens
from telepathy.report.figures.confusion import confusion, draw_confusion
from telepathy.report.figures.inspection import draw_attention, draw_soft_tokens, draw_words
from telepathy.report.figures.speed import draw_latency, draw_pareto
from telepathy.report.figures.training import draw_training
from tests.unit.made_up_study import HOSTILE, LABELS, RUNS, make_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draw a figure and return it as matplotlib holds it, after both of its files were really written."""
    kept = []
    real = style.drawing

    @contextmanager
    def watched(*arguments):
        with real(*arguments) as figure:
            kept.append(figure)
            yield figure

    monkeypatch.setattr(style, "drawing", watched)

    def draw(function, *arguments):
        pdf, svg = tmp_path / "figure.pdf", tmp_path / "figure.svg"
        function(*arguments, pdf=pdf, svg=svg)
        assert pdf.read_bytes().startswith(b"%PDF") and b"<svg" in svg.read_bytes()
        return kept[-1]

    return draw


def notes(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def accuracies(study, task):
    """Mean over seeds by method and k, in percent, from the predictions alone."""
    found = {}
    for run in study.runs:
        if run[0] == task:
            frame = pd.read_parquet(study.run(*run[:4]) / "predictions.parquet")
            right = [one == other for one, other in zip(frame["prediction"], frame["label"])]
            found.setdefault(run[1:3], []).append(100 * sum(right) / len(right))
    return {key: np.mean(values) for key, values in found.items()}


def test_the_accuracy_figure_has_a_mark_at_each_methods_accuracy(study, drawn):
    figure = drawn(draw_accuracy, study.folder / "statistics.csv", study.folder / "summary.csv", study.names)
    for axes, task in zip(figure.axes, study.names["tasks"]):
        expected = sorted(accuracies(study, task).values())
        marks = [line for line in axes.lines if line.get_marker() in "osDX" and line.get_markersize() == 5]
        assert sorted(float(line.get_xdata()[0]) for line in marks) == pytest.approx(expected)
        assert len(axes.get_yticklabels()) == len(expected)


def test_the_accuracy_figure_has_a_circle_at_each_of_several_seeds(study, drawn):
    figure = drawn(draw_accuracy, study.folder / "statistics.csv", study.folder / "summary.csv", study.names)
    circles = [line for line in figure.axes[0].lines if line.get_markersize() == 3]
    assert [sorted(line.get_xdata()) for line in circles] == [pytest.approx([80, 90])]


def test_an_ablation_is_left_to_its_table(study, drawn):
    names = {**study.names, "methods": {**study.names["methods"], "text_relay": {"title": "x", "group": "ablation"}}}
    figure = drawn(draw_accuracy, study.folder / "statistics.csv", study.folder / "summary.csv", names)
    assert len(figure.axes[0].get_yticklabels()) == len(accuracies(study, "moods")) - 1


def test_the_line_over_soft_tokens_is_the_accuracy_at_each_k(study, drawn):
    figure = drawn(draw_tokens, study.folder / "statistics.csv", study.names)
    expected = accuracies(study, "moods")
    line = figure.axes[0].lines[0]
    assert line.get_xdata().tolist() == [8, 24]
    assert line.get_ydata().tolist() == pytest.approx([expected["bridge", 8], expected["bridge", 24]])


def test_one_number_of_soft_tokens_gives_a_note(tmp_path, drawn):
    study = make_study(tmp_path, [run for run in RUNS if run[2] != 24])
    assert (
        "several numbers of soft tokens" in notes(drawn(draw_tokens, study.folder / "statistics.csv", study.names))[0]
    )


def test_training_curves_are_those_of_the_history(study, drawn):
    folders = [path for path in study.files("bridge") if path.is_dir()]
    loss, accuracy = drawn(draw_training, folders, study.names).axes[:2]
    assert len(loss.lines) / 2 == len(accuracy.lines) == 3
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [1.2, 1, 1 / 2, 1 / 3])
    np.testing.assert_allclose(loss.lines[1].get_ydata(), [np.nan, 1.1, 1.1 / 2, 1.1 / 3])
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), [10, 30, 60, 90])


def test_no_trained_bridge_gives_a_note(study, drawn):
    assert notes(drawn(draw_training, [], study.names)) == ["No bridge was trained."] * 2


def test_confusion_counts_are_those_of_scikit_learn(study):
    labels = LABELS["moods"]
    frame = pd.read_parquet(study.run("moods", "text_relay", 0, 0) / "predictions.parquet")
    counts = confusion(frame, labels)
    np.testing.assert_array_equal(counts[:, :2], confusion_matrix(frame["label"], frame["prediction"], labels=labels))
    assert not counts[:, 2].any()


def test_an_answer_that_is_no_label_is_counted_apart():
    frame = pd.DataFrame({"label": ["a", "a", "b", "b"], "prediction": ["a", None, "c", "b"]})
    np.testing.assert_array_equal(confusion(frame, ["a", "b"]), [[1, 0, 1], [0, 1, 1]])


def test_confusion_panels_are_shares_of_the_true_label_over_all_seeds(study, drawn):
    figure = drawn(draw_confusion, study.files("predictions.parquet"), LABELS, study.names)
    frames = [pd.read_parquet(study.run("moods", "bridge", 8, seed) / "predictions.parquet") for seed in (1, 2)]
    both = pd.concat(frames)
    expected = 100 * confusion_matrix(both["label"], both["prediction"], labels=LABELS["moods"], normalize="true")
    mesh = next(part for part in figure.axes[0].collections if isinstance(part, QuadMesh))
    np.testing.assert_allclose(np.asarray(mesh.get_array()).reshape(2, 2), expected)
    assert len([axes for axes in figure.axes if axes.collections]) == 4  # no panel for numbers and controls


def test_numbers_have_no_confusion_matrix(study, drawn):
    sums = [path for path in study.files("predictions.parquet") if "sums" in path.parts]
    assert "No task of this study has labels." in notes(drawn(draw_confusion, sums, {}, study.names))


def test_a_method_with_all_answers_wrong_is_drawn(tmp_path, drawn):
    study = make_study(tmp_path, [("moods", "bridge", 8, 1, 0.0), ("moods", "text_relay", 0, 0, 0.0)])
    figure = drawn(draw_confusion, study.files("predictions.parquet"), LABELS, study.names)
    assert [text.get_text() for text in figure.axes[0].texts] == ["0", "100", "100", "0"]
    figure = drawn(draw_accuracy, study.folder / "statistics.csv", study.folder / "summary.csv", study.names)
    assert figure.axes[0].get_title(loc="left") == "Moods & more"


def test_a_point_of_the_pareto_figure_is_an_arms_time_and_accuracy(study, drawn):
    figure = drawn(draw_pareto, study.folder / "latency.csv", study.folder / "statistics.csv", "moods", 8, study.names)
    lines = {container.get_label(): container.lines[0] for container in figure.axes[0].containers}
    points = {label: (line.get_xdata()[0], line.get_ydata()[0]) for label, line in lines.items()}
    expected = accuracies(study, "moods")
    assert points["bridge"] == (60, pytest.approx(expected["bridge", 8]))
    assert set(points) == {"bridge", "text relay 30", "direct receiver"}
    assert points["text relay 30"] == (900, pytest.approx(expected["text_relay", 0]))


def test_the_pareto_figure_has_the_accuracy_of_the_bridge_that_was_timed(study, drawn):
    files = study.folder / "latency.csv", study.folder / "statistics.csv"
    figure = drawn(draw_pareto, *files, "moods", 24, study.names)
    bridge = next(bar for bar in figure.axes[0].containers if bar.get_label() == "bridge")
    assert bridge.lines[0].get_ydata()[0] == pytest.approx(accuracies(study, "moods")["bridge", 24])


def test_the_front_joins_the_arms_that_no_other_beats_in_both(study, drawn):
    figure = drawn(draw_pareto, study.folder / "latency.csv", study.folder / "statistics.csv", "moods", 8, study.names)
    front = next(line for line in figure.axes[0].lines if str(line.get_label()).startswith("no other"))
    assert front.get_xdata().tolist() == [30, 60]  # the relay is slower and worse than the bridge


def test_the_parts_of_a_bar_add_up_to_the_median(study, drawn):
    bars = drawn(draw_latency, study.folder / "latency.csv").axes[0].patches
    ends = {}
    for bar in bars:
        place = round(bar.get_y() + bar.get_height() / 2)
        ends[place] = max(ends.get(place, 0), bar.get_x() + bar.get_width())
    assert ends == pytest.approx({0: 30, 1: 60, 2: 900, 3: 950})


def test_no_measured_arm_gives_a_note(study, tmp_path, drawn):
    empty = tmp_path / "latency.csv"
    pd.read_csv(study.folder / "latency.csv").head(0).to_csv(empty, index=False)
    assert "No arm" in notes(drawn(draw_latency, empty))[0]
    assert "No arm" in notes(drawn(draw_pareto, empty, study.folder / "statistics.csv", "moods", 8, study.names))[0]


@pytest.fixture
def inspection(tmp_path):
    """What the rule inspect_bridge writes, for two labels whose soft tokens are far apart."""
    draw = np.random.default_rng(0)
    labels = ["negative", "positive"] * 30
    vectors = draw.normal(size=(60, 5)) + 20 * np.array([[label == "positive"] for label in labels])
    table = pd.DataFrame(vectors, columns=[f"c{place}" for place in range(5)]).assign(id=range(60), label=labels)
    write_parquet(tmp_path / "moods.parquet", table)
    tokens = ["<s>", "$", "\x1b[31m", "\n", *[f"word{place}" for place in range(70)]]
    attention = draw.dirichlet(np.ones(len(tokens)), size=4).tolist()
    example = {"id": "t0", "label": HOSTILE, "tokens": tokens, "attention": attention}
    words = {
        label: [[{"word": f"{label}{place}", "cosine": 0.1 * place}] for place in range(4)] for label in labels[:2]
    }
    run = {"task": "moods", "method": "bridge", "k": 4, "seed": 1}
    apart = {label: hits[::-1] for label, hits in words.items()}
    write_json(tmp_path / "moods.json", {"run": run, "examples": [example], "words": words, "apart": apart})
    return tmp_path, np.array(attention)


def test_soft_tokens_of_one_label_lie_together(inspection, study, drawn):
    figure = drawn(draw_soft_tokens, [inspection[0] / "moods.parquet"], study.names)
    groups = [np.asarray(part.get_offsets()) for part in figure.axes[0].collections]
    places, labels = np.concatenate(groups), [0] * len(groups[0]) + [1] * len(groups[1])
    assert [len(group) for group in groups] == [30, 30]
    assert KNeighborsClassifier(5).fit(places, labels).score(places, labels) == 1


def test_soft_tokens_that_are_all_alike_give_a_note(tmp_path, study, drawn):
    write_parquet(tmp_path / "moods.parquet", pd.DataFrame({"id": range(9), "label": ["a"] * 9, "c0": [1.0] * 9}))
    assert "all alike" in notes(drawn(draw_soft_tokens, [tmp_path / "moods.parquet"], study.names))[0]


def test_the_attention_figure_shows_every_token_once_with_its_share(inspection, study, drawn):
    folder, attention = inspection
    figure = drawn(draw_attention, [folder / "moods.json"], study.names)
    shown = [np.asarray(part.get_array()) for axes in figure.axes for part in axes.collections]
    np.testing.assert_allclose(np.concatenate(shown, axis=1), 100 * attention)
    labels = [label.get_text() for axes in figure.axes for label in axes.get_xticklabels()]
    assert len(labels) == attention.shape[1]
    assert "\x1b" not in "".join(labels)


def test_a_bridge_without_attention_gives_a_note(inspection, study, drawn):
    example = {"id": "t0", "label": "a", "tokens": ["x"], "attention": None}
    write_json(inspection[0] / "none.json", {"run": {"task": "moods"}, "examples": [example]})
    assert "no attention" in notes(drawn(draw_attention, [inspection[0] / "none.json"], study.names))[0]


def test_the_words_figure_names_the_word_of_each_soft_token_and_label(inspection, study, drawn):
    found = notes(drawn(draw_words, [inspection[0] / "moods.json"], study.names))
    places = [0, 1, 2, 3, 3, 2, 1, 0]
    assert found == [f"{label}{place}" for place in places for label in ("negative", "positive")]


def test_the_same_data_give_the_same_bytes_in_another_process(study, tmp_path):
    code = """
import sys
from telepathy.report.figures.confusion import draw_confusion
folder, *files = sys.argv[1:]
names = {"methods": {"bridge": {"title": "Bridge", "group": "main"}}, "tasks": {"moods": "Moods"}}
draw_confusion(files, {"moods": ["negative", "positive"]}, names, folder + "/a.pdf", folder + "/a.svg")
"""
    files = [str(path) for path in study.files("predictions.parquet")]
    made = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        environment = {**os.environ, "PYTHONHASHSEED": seed, "SOURCE_DATE_EPOCH": seed}
        subprocess.run([sys.executable, "-c", code, str(folder), *files], check=True, env=environment)
        made.append([(folder / name).read_bytes() for name in ("a.pdf", "a.svg")])
    assert made[0] == made[1]
    assert not re.search(rb"<dc:date>", made[0][1])


def test_places_in_a_figure_have_no_digits_that_another_process_would_round_otherwise(study, drawn):
    # matplotlib's layout is solved in the order of addresses in memory, and an SVG's ids are hashes of all digits.
    figure = drawn(draw_accuracy, study.folder / "statistics.csv", study.folder / "summary.csv", study.names)
    assert len(figure.axes) > 1
    for axes in figure.axes:
        places = axes.get_position(original=True).get_points()
        np.testing.assert_array_equal(places, np.round(places, 6))


def test_every_figure_has_a_caption_of_one_paragraph():
    captions = Path(style.__file__).parents[1] / "captions"
    for path in captions.glob("*.rst"):
        assert len(path.read_text().strip().splitlines()) == 1, path
