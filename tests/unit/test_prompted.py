import numpy as np
import pandas as pd
import pytest
import torch

from telepathy.errors import TelepathyError
from telepathy.methods.prompted import draw_shots, few_shot, shots_that_fit, solved_example, zero_shot

WORDS = ["fine", "dull", "good", "bad", "long", "short", "new", "old", "rich", "poor"]


def films(rows, start=0):
    return pd.DataFrame(
        {
            "id": [f"film-{row}" for row in range(start, start + rows)],
            "text": [f"a {WORDS[row % 10]} film" for row in range(start, start + rows)],
            "label": [["negative", "positive"][row % 2] for row in range(rows)],
        }
    )


@pytest.fixture
def task(make_task):
    return make_task(max_tokens=60)


def slow_scores(lm, prompt, texts):
    """One whole forward pass for every label after one prompt."""
    found = []
    for text in texts:
        head = [lm.bos_id, *lm.token_ids(prompt)]
        tail = lm.token_ids(f" {text}")
        with torch.no_grad():
            shares = lm.model(input_ids=torch.tensor([[*head, *tail]])).logits[0].double().log_softmax(-1)
        found.append(sum(float(shares[len(head) + place - 1, token]) for place, token in enumerate(tail)))
    return found


def test_zero_shot_scores_labels_after_the_rendered_prompt(llama, task):
    frame = films(3)
    predictions = zero_shot(llama, task, frame)
    for text, scores in zip(frame["text"], predictions["scores"], strict=True):
        prompt = f"Review: {text}\nSentiment (negative or positive):"
        np.testing.assert_allclose(scores, slow_scores(llama, prompt, ["negative", "positive"]), rtol=1e-4, atol=1e-3)


def test_a_few_shot_prompt_is_solved_examples_then_the_question(lm, task):
    train, frame = films(20), films(2, start=100)
    predictions, shown = few_shot(lm, task, train, frame, shots=1, seed=3)
    chosen = [train.set_index("id").loc[name] for name in shown["shown"]]
    solved = [f"Review: {row['text']}\nSentiment (negative or positive): {row['label']}\n\n" for row in chosen]
    for text, scores in zip(frame["text"], predictions["scores"], strict=True):
        prompt = "".join([*solved, f"Review: {text}\nSentiment (negative or positive):"])
        expected = slow_scores(lm, prompt, ["negative", "positive"])
        np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-2)
    assert shown["dropped"] == 0


@pytest.mark.parametrize("seed", range(5))
def test_shots_are_so_many_of_every_class_and_from_train_only(task, seed):
    train = films(20)
    drawn = draw_shots(task, train, 3, seed)
    counts = pd.Series([example["label"] for example in drawn]).value_counts()
    assert counts.to_dict() == {"negative": 3, "positive": 3}
    assert len({example["id"] for example in drawn}) == 6
    assert {example["id"] for example in drawn} <= set(train["id"])


def test_the_seed_decides_the_shots(task):
    train = films(20)
    ids = [[example["id"] for example in draw_shots(task, train, 3, seed)] for seed in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2]


def test_a_prompt_that_is_too_long_drops_whole_examples_and_says_how_many(llama, task):
    train, frame = films(20), films(2, start=100)
    _, shown = few_shot(llama, task, train, frame, shots=5, seed=1, room=118)
    assert shown["shots"] == 10
    assert 0 < shown["dropped"] < 10
    assert len(shown["shown"]) == 10 - shown["dropped"]
    rows = train.set_index("id").loc[shown["shown"]]
    whole = [f"Review: {row.text}\nSentiment (negative or positive): {row.label}\n\n" for row in rows.itertuples()]
    assert shown["shot_tokens"] == len(llama.token_ids("".join(whole)))
    assert shown["shot_tokens"] + task.max_tokens <= 118


@pytest.mark.parametrize("room", [0, 20, 61, 118, 190, 5000])
def test_the_most_shots_that_fit_are_kept_and_the_most_frequent_class_loses_the_first(llama, task, room):
    rng = np.random.default_rng(room)
    drawn = films(12).assign(label=rng.choice(["negative", "positive"], 12)).to_dict("records")
    kept = list(drawn)
    while kept:  # one after another
        said = "".join(f"{solved_example(task, example)}\n\n" for example in kept)
        if len(llama.token_ids(said)) <= room:
            break
        labels = [example["label"] for example in kept]
        del kept[
            next(place for place in range(len(kept)) if labels.count(labels[place]) == max(map(labels.count, labels)))
        ]
    assert shots_that_fit(llama, task, drawn, room) == kept
    assert room > 20 or len(kept) < 12


@pytest.mark.parametrize(
    "train, shots, sentence",
    [
        (films(4), 3, "has 2 training examples of negative, fewer than the 3 shots"),
        (films(4).iloc[[0, 2]], 1, "has no training example of positive"),
        (films(4), 0, "need shots of 1 at least"),
    ],
)
def test_too_few_examples_are_refused_with_the_tasks_name(task, train, shots, sentence):
    with pytest.raises(TelepathyError, match=f"films.*{sentence}|{sentence}"):
        draw_shots(task, train, shots, 0)


def test_braces_in_a_shot_stay_as_they_are(llama, task):
    train = films(4).assign(text="{x} and }{")
    predictions, shown = few_shot(llama, task, train, films(1, start=100), shots=1, seed=0)
    assert len(predictions) == 1
    assert shown["dropped"] == 0
