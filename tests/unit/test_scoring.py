import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from telepathy.errors import TelepathyError
from telepathy.scoring import answers as answers_module
from telepathy.scoring import labels as labels_module
from telepathy.scoring.answers import (
    answer,
    answer_rows_of_tokens,
    common_beginning,
    generated_predictions,
    label_predictions,
    score_predictions,
)
from telepathy.scoring.generation import generate
from telepathy.scoring.labels import (
    LabelSet,
    beginning,
    continuation_ids,
    label_log_likelihoods,
    label_scores,
    text_prefix,
)

PROMPTS = ["the card was lost and the bank sent a new card", "dull", "a film that I know"]
LABELS = LabelSet(("one", "two", "three", "four"), ((50,), (60, 61), (60, 62, 63), (60, 61, 64)))
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture
def rows(lm):
    """Prompts of three lengths, BOS first."""
    return [[1, *lm.tokenizer(text, add_special_tokens=False)["input_ids"]] for text in PROMPTS]


def log_likelihood(lm, prompt, label):
    """One whole forward pass for one label after one prompt."""
    with torch.no_grad():
        logits = lm.model(input_ids=torch.tensor([[*prompt, *label]])).logits[0].double()
    shares = torch.log_softmax(logits, dim=-1)
    return sum(float(shares[len(prompt) + place - 1, token]) for place, token in enumerate(label))


def slow_scores(lm, rows, labels=LABELS):
    return torch.tensor([[log_likelihood(lm, row, label) for label in labels.tokens] for row in rows])


def test_labels_are_scored_as_whole_continuations(lm, rows):
    scores = label_log_likelihoods(lm, *text_prefix(lm, rows), LABELS)
    torch.testing.assert_close(scores, slow_scores(lm, rows), **CLOSE)


def test_labels_of_one_token_are_scored_by_that_token(lm, rows):
    labels = LabelSet(("a", "b"), ((50,), (70,)))
    scores = label_log_likelihoods(lm, *text_prefix(lm, rows), labels)
    torch.testing.assert_close(scores, slow_scores(lm, rows, labels), **CLOSE)


def test_relative_scores_differ_by_one_number_an_example(lm, rows):
    scores = label_scores(lm, *text_prefix(lm, rows), LABELS, relative=True)
    difference = scores - slow_scores(lm, rows)
    torch.testing.assert_close(difference, difference[:, :1].expand_as(difference), **CLOSE)


def test_scores_do_not_depend_on_how_many_labels_go_together(lm, rows, monkeypatch):
    monkeypatch.setattr(labels_module, "ROWS", 3)
    scores = label_log_likelihoods(lm, *text_prefix(lm, rows), LABELS)
    torch.testing.assert_close(scores, slow_scores(lm, rows), **CLOSE)


def test_no_forward_pass_over_label_tails_has_more_rows_than_allowed(llama, monkeypatch):
    monkeypatch.setattr(labels_module, "ROWS", 4)
    prefix, mask = text_prefix(llama, [[1, 80, 81], [1, 82]])
    sizes = []
    layer = llama.model.model.layers[0]
    hook = layer.register_forward_hook(lambda _module, args, _output: sizes.append(len(args[0])))
    label_log_likelihoods(llama, prefix, mask, LABELS)
    hook.remove()
    assert sizes == [2, 4, 2]


@pytest.mark.parametrize("places, expected", [(48, [1, 3]), (47, [1, 2, 1]), (20, [1, 1, 1, 1]), (3, [1, 1, 1, 1])])
def test_the_longer_the_prompts_the_fewer_labels_go_together(llama, monkeypatch, places, expected):
    monkeypatch.setattr(labels_module, "PLACES", places)
    row = [1, *range(80, 95)]
    sizes = []
    layer = llama.model.model.layers[0]
    hook = layer.register_forward_hook(lambda _module, args, _output: sizes.append(len(args[0])))
    scores = label_log_likelihoods(llama, *text_prefix(llama, [row]), LABELS)
    hook.remove()
    assert sizes == expected
    torch.testing.assert_close(scores, slow_scores(llama, [row]), **CLOSE)


def test_a_beginning_that_was_run_before_counts_as_part_of_the_prompt(lm, rows):
    start, ends = [1, 80, 81, 82], [row[1:6] for row in rows]
    width = max(map(len, ends))
    prefix, mask = text_prefix(lm, ends)
    mask = torch.cat([torch.ones(3, 4, dtype=mask.dtype), mask], dim=1)
    scores = label_log_likelihoods(lm, prefix, mask, LABELS, beginning(lm, start))
    same_length = [row for row in range(3) if len(ends[row]) == width]
    expected = slow_scores(lm, [start + ends[row] for row in same_length])
    torch.testing.assert_close(scores[same_length], expected, **CLOSE)


def test_a_prefix_of_another_width_is_refused_with_both_widths(llama):
    with pytest.raises(ValueError, match="prefix is 31 wide, but llama takes 32"):
        label_log_likelihoods(llama, torch.zeros(1, 2, 31), torch.ones(1, 2, dtype=torch.long), LABELS)


def test_a_text_prefix_is_padded_on_the_left(llama, rows):
    _, mask = text_prefix(llama, rows)
    longest = max(map(len, rows))
    assert mask.tolist() == [[0] * (longest - len(row)) + [1] * len(row) for row in rows]


def test_a_continuation_is_what_running_text_has_after_the_context(llama):
    together = llama.token_ids("Sentiment: positive")
    assert llama.token_ids("Sentiment:") + continuation_ids(llama, "Sentiment:", "positive") == together


def test_a_continuation_after_a_sentencepiece_has_no_second_space(metaspace_lm):
    together = metaspace_lm.token_ids("Sentiment: positive")
    start = metaspace_lm.token_ids("Sentiment:")
    assert start + continuation_ids(metaspace_lm, "Sentiment:", "positive") == together


@pytest.fixture
def prepending_lm(llama):
    """A model whose tokenizer puts a space before any text, as Mistral's does, even before a space."""
    tokenizer = Tokenizer(models.BPE(vocab={"▁": 0, "n": 1, "o": 2, ":": 3}, merges=[]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return replace(llama, tokenizer=PreTrainedTokenizerFast(tokenizer_object=tokenizer))


def test_a_continuation_has_no_space_that_only_a_beginning_has(prepending_lm):
    assert prepending_lm.token_ids(" no") == [0, 0, 1, 2]
    assert continuation_ids(prepending_lm, "no:", "no") == [0, 1, 2]


@pytest.fixture
def merging_lm(llama):
    """A model whose tokenizer has one token for a colon with the space after it."""
    tokenizer = Tokenizer(models.BPE(vocab={"n": 0, "o": 1, ":": 2, " ": 3, ": ": 4}, merges=[(":", " ")]))
    tokenizer.decoder = decoders.Fuse()
    return replace(llama, tokenizer=PreTrainedTokenizerFast(tokenizer_object=tokenizer))


def test_a_continuation_is_tokenised_alone_where_a_token_spans_the_boundary(merging_lm):
    assert merging_lm.token_ids("no: no") == [0, 1, 4, 0, 1]
    assert continuation_ids(merging_lm, "no:", "no") == [3, 0, 1]


def test_spaces_around_a_continuation_do_not_count(llama):
    assert continuation_ids(llama, "Answer:", " yes ") == continuation_ids(llama, "Answer:", "yes")


def test_the_tokens_of_a_label_follow_the_primer(llama, make_task):
    found = LabelSet.of(llama, make_task(primer="Mood:"))
    texts = [llama.tokenizer.decode([*llama.token_ids("Mood:"), *row]) for row in found.tokens]
    assert texts == ["Mood: negative", "Mood: positive"]


def test_labels_are_scored_by_their_verbalisers(llama, make_task):
    task = make_task(labels=[{"name": "negative", "verbaliser": "dull"}, "positive"])
    assert llama.tokenizer.decode(LabelSet.of(llama, task).tokens[0]) == " dull"


def test_two_labels_with_the_same_tokens_are_refused(llama, make_task):
    blind = replace(llama, tokenizer=lower_cased(llama.tokenizer))
    with pytest.raises(TelepathyError, match="label film of task films has the same tokens as another label"):
        LabelSet.of(blind, make_task(labels=["film", "Film"]))


def lower_cased(tokenizer):
    """The same tokenizer, blind to case."""
    blind = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer)
    blind.backend_tokenizer.normalizer = normalizers.Lowercase()
    return blind


def greedy(lm, prompt, tokens):
    """A whole forward pass for every token."""
    written = []
    for _ in range(tokens):
        with torch.no_grad():
            logits = lm.model(input_ids=torch.tensor([[*prompt, *written]])).logits
        token = int(logits[0, -1].argmax())
        if token == 2:
            break
        written.append(token)
    return lm.tokenizer.decode(written, skip_special_tokens=True).strip().split("\n")[0].strip()


def test_generation_is_greedy_token_by_token(lm, rows):
    assert generate(lm, *text_prefix(lm, rows), 12) == [greedy(lm, row, 12) for row in rows]


@pytest.mark.parametrize("stop", ["</s>", "\u010a"])
def test_generation_ends_with_the_sequence_and_with_the_line(llama, tokenizer, stop):
    prompt = [1, *tokenizer(PROMPTS[0], add_special_tokens=False)["input_ids"]]
    with torch.no_grad():
        first = int(llama.model(input_ids=torch.tensor([prompt])).logits[0, -1].argmax())
        second = int(llama.model(input_ids=torch.tensor([[*prompt, first]])).logits[0, -1].argmax())
    # The same model, but for the names of two tokens at its head: what it said second is now the stop.
    stopping, swapped = (
        replace(llama, model=copy.deepcopy(llama.model)),
        [tokenizer.convert_tokens_to_ids(stop), second],
    )
    stopping.model.lm_head.weight[swapped] = stopping.model.lm_head.weight[swapped[::-1]]
    assert first not in swapped
    assert generate(stopping, *text_prefix(stopping, [prompt]), 12) == [tokenizer.decode([first]).strip()]


def frame(labels, **columns):
    return pd.DataFrame({"id": [f"test-{row}" for row in range(len(labels))], "label": labels, **columns})


GOLD = ["negative", "positive", "positive"]
SCORES = np.array([[-3.0, -2.0], [-4.0, -3.5], [-1.0, -6.0]])
MOODS = LabelSet(("negative", "positive"), ((5, 6, 7, 8), (9,)))


def test_the_prediction_is_the_likeliest_label(make_task):
    found = label_predictions(make_task(), frame(GOLD), MOODS, SCORES)
    assert found["prediction"].tolist() == ["positive", "positive", "negative"]


def test_the_normalised_prediction_is_the_likeliest_per_token(make_task):
    # Per token: -0.75 over -2, -1 over -3.5, -0.25 over -6.
    found = label_predictions(make_task(), frame(GOLD), MOODS, SCORES)
    assert found["prediction_normalised"].tolist() == ["negative", "negative", "negative"]


def test_the_calibrated_prediction_is_the_one_that_gains_most_over_no_content(make_task):
    # Over (-3.2, -2.5): 0.2 and 0.5, -0.8 and -1.0, 2.2 and -3.5.
    found = label_predictions(make_task(), frame(GOLD), MOODS, SCORES, base=np.array([-3.2, -2.5]))
    assert found["prediction_calibrated"].tolist() == ["positive", "negative", "negative"]


def test_there_is_no_calibrated_prediction_without_a_content_free_input(make_task):
    assert "prediction_calibrated" not in label_predictions(make_task(), frame(GOLD), MOODS, SCORES)


def test_predictions_keep_ids_labels_and_scores(make_task):
    found = label_predictions(make_task(), frame(GOLD), MOODS, SCORES)
    assert found["id"].tolist() == ["test-0", "test-1", "test-2"]
    assert found["label"].tolist() == GOLD
    assert np.array_equal(np.stack(found["scores"]), SCORES.astype(np.float32))


@pytest.mark.parametrize("rule", ["prediction", "prediction_normalised", "prediction_calibrated"])
def test_a_letter_without_an_option_is_never_predicted(choice_task, rule):
    letters = LabelSet(("A", "B", "C"), ((5,), (6,), (7,)))
    examples = frame(["A", "B", "A"], choices=[["x", "y"], ["x", "y", "z"], ["x"]])
    scores = np.array([[-5.0, -4.0, -1.0]] * 3)
    found = label_predictions(choice_task, examples, letters, scores, base=np.zeros(3))
    assert found[rule].tolist() == ["B", "C", "A"]


def test_answers_come_back_in_the_order_of_the_examples(llama, make_task, rows):
    task = make_task()
    labels = LabelSet.of(llama, task)

    def prefixes(chosen):
        return text_prefix(llama, [rows[row] for row in chosen])

    found = answer(llama, task, frame(GOLD), prefixes, [[2, 0], [1]])
    scores = torch.tensor(np.stack(found["scores"]))
    torch.testing.assert_close(scores, slow_scores(llama, rows, labels), **CLOSE)


@pytest.mark.parametrize("several", [True, False])
def test_a_shared_beginning_does_not_change_a_score(lm, make_task, rows, several, monkeypatch):
    labels = LabelSet(("negative", "positive"), ((60, 61), (62,)) if several else ((60,), (62,)))
    monkeypatch.setattr(LabelSet, "of", classmethod(lambda *_: labels))
    start = [1, 80, 81, 82, 83, 84]
    prompts = [start + row[1:] for row in rows]
    found = answer_rows_of_tokens(lm, make_task(), frame(GOLD), prompts, share_beginning=True)
    torch.testing.assert_close(torch.tensor(np.stack(found["scores"])), slow_scores(lm, prompts, labels), **CLOSE)


def test_prompts_that_begin_alike_are_batched_whatever_their_lengths(llama, make_task, rows, monkeypatch):
    labels, sizes = LabelSet(("negative", "positive"), ((60,), (62,))), []
    monkeypatch.setattr(LabelSet, "of", classmethod(lambda *_: labels))

    def scored(_lm, prefix, mask, labels, past):
        sizes.append(len(mask))
        return torch.zeros(len(mask), len(labels.names))

    monkeypatch.setattr(answers_module, "label_log_likelihoods", scored)
    answer_rows_of_tokens(llama, make_task(), frame(GOLD), rows, share_beginning=True)
    monkeypatch.setattr(answers_module, "SHARED_BATCH_TOKENS", 2 * max(map(len, rows)))
    answer_rows_of_tokens(llama, make_task(), frame(GOLD), rows, share_beginning=True)
    assert sizes == [3, 2, 1]


def test_a_content_free_prompt_calibrates(llama, make_task, rows):
    labels = LabelSet.of(llama, make_task())
    found = answer_rows_of_tokens(llama, make_task(), frame(GOLD), rows, content_free=[1, 90])
    gains = slow_scores(llama, rows, labels) - slow_scores(llama, [[1, 90]], labels)
    assert found["prediction_calibrated"].tolist() == [labels.names[place] for place in gains.argmax(1)]


def test_numbers_are_generated_and_parsed(llama, number_task, rows):
    examples = pd.DataFrame({"id": ["a", "b", "c"], "answer": ["1", "2", "3"]})
    found = answer_rows_of_tokens(llama, number_task, examples, rows)
    assert found["text"].tolist() == [greedy(llama, row, number_task.answer_tokens) for row in rows]


@pytest.mark.parametrize(
    "rows, alike",
    [
        ([[1, 2, 3, 4], [1, 2, 5, 6]], 2),
        ([[1, 2, 3], [1, 2, 3]], 2),
        ([[1, 2], [3, 4]], 0),
        ([[1], [1, 2]], 0),
        ([[1, 2, 3], [1, 2]], 1),
    ],
)
def test_rows_begin_alike_up_to_their_last_tokens(rows, alike):
    assert common_beginning(rows) == alike


def test_what_cannot_be_parsed_has_no_prediction(number_task):
    examples = pd.DataFrame({"id": ["a", "b"], "answer": ["7", "8"]})
    found = generated_predictions(number_task, examples, ["so it is 7", "I do not know"])
    assert found["prediction"].tolist() == ["7", None]


SAID = ["negative", "negative", None, "positive", "positive", "positive"]
TRUE = ["negative", "positive", "positive", "positive", "negative", "positive"]


@pytest.fixture
def metrics(make_task):
    """Metrics of six predictions, one of which could not be parsed."""
    predictions = frame(TRUE, prediction=pd.Series(SAID, dtype=object))
    predictions["prediction_normalised"] = TRUE[::-1]
    return score_predictions(make_task(), predictions)


def test_the_accuracy_is_that_of_scikit_learn(metrics):
    assert metrics["accuracy"] == pytest.approx(accuracy_score(TRUE, [word or "?" for word in SAID]))


def test_right_predictions_are_counted(metrics):
    assert (metrics["n"], metrics["correct"]) == (6, 3)


def test_what_could_not_be_parsed_is_counted(metrics):
    assert metrics["unparsed"] == 1


def test_the_majority_is_the_share_of_the_most_frequent_label(metrics):
    assert metrics["majority"] == pytest.approx(4 / 6)


def test_the_other_rule_has_its_own_accuracy(metrics):
    assert metrics["accuracy_normalised"] == pytest.approx(accuracy_score(TRUE, TRUE[::-1]))


def test_the_macro_f1_is_the_mean_over_labels(metrics):
    # Negative: 1 of 2 said, 1 of 2 true. Positive: 2 of 3 said, 2 of 4 true.
    negative, positive = 0.5, 2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4)
    assert metrics["macro_f1"] == pytest.approx((negative + positive) / 2)


def test_a_label_that_no_example_has_counts_in_the_macro_f1(make_task):
    task = make_task(labels=["negative", "positive", "mixed"])
    found = score_predictions(task, frame(TRUE, prediction=TRUE))
    expected = f1_score(TRUE, TRUE, labels=["negative", "positive", "mixed"], average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(expected) == pytest.approx(2 / 3)


def test_numbers_have_no_macro_f1(number_task):
    found = score_predictions(number_task, frame(["7", "8"], prediction=["7", "9"]))
    assert (found["accuracy"], "macro_f1" in found) == (0.5, False)
