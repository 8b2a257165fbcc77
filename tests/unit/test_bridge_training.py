import json
import math
import os
import signal
from dataclasses import replace
from functools import partial

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from telepathy.bridges import BridgeConfig, build_bridge, load_bridge
from telepathy.config import method_settings
from telepathy.devices import seed_step
from telepathy.errors import TelepathyError
from telepathy.features import FeatureStore, encode_task
from telepathy.methods.bridge import BridgeData, evaluate_bridge, train_bridge
from telepathy.scoring.labels import LabelSet, label_log_likelihoods, text_prefix
from telepathy.training import bridge as bridge_training
from telepathy.training import loop
from telepathy.training.alignment import SHARPNESS, AnswerAlignment, LabelAlignment, alignment_learner, repeated_line
from telepathy.training.bridge import (
    PART,
    BridgeLearner,
    ReceiverSide,
    answer_loss,
    answer_rows,
    drop_features,
    effective_rank,
    line_end,
    mean_similarity,
    receiver_prefix,
    shared_beginning,
)
from telepathy.training.steps import alignment_steps
from tests.unit.test_checkpoints import in_a_child

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
PREFIXES = [[1, 80, 81, 82, 83], [1, 90, 91], [1, 70, 71, 72]]
ANSWERS = [[50], [60, 61, 62], [60, 63]]
LABELS = LabelSet(("a", "b", "c", "d", "e"), ((50,), (60, 61, 62), (60, 63), (60, 61, 64), (51, 65, 66)))
WORDS = {"negative": ["dull", "nobody wants it", "the card was stolen"], "positive": ["fine", "I like it", "I know it"]}


def logits_after(lm, ids):
    with torch.no_grad():
        return lm.model(input_ids=torch.tensor([ids])).logits[0, -1].double()


def slow_loss(lm, prompts, answers, first=None):
    """One whole forward pass for every token of every answer; ``first``: all that the first token competes with."""
    total = 0.0
    for prompt, row in zip(prompts, answers):
        for place, token in enumerate(row):
            logits = logits_after(lm, [*prompt, *row[:place]])
            if first is not None and place == 0:
                logits, token = logits[first], first.index(token)
            total -= float(torch.log_softmax(logits, dim=0)[token])
    return total / len(answers)


def test_the_loss_is_the_cross_entropy_of_the_answers(lm):
    loss = answer_loss(lm, *text_prefix(lm, PREFIXES), ANSWERS)
    assert loss.item() == pytest.approx(slow_loss(lm, PREFIXES, ANSWERS), rel=1e-4)


def test_with_labels_the_first_token_competes_with_first_tokens_and_the_rest_with_the_vocabulary(lm):
    loss = answer_loss(lm, *text_prefix(lm, PREFIXES), ANSWERS, LABELS)
    assert loss.item() == pytest.approx(slow_loss(lm, PREFIXES, ANSWERS, [50, 51, 60]), rel=1e-4)


def choice_loss(lm, prompt, row, labels):
    """Cross-entropy of the choice that scoring makes."""
    scores = label_log_likelihoods(lm, *text_prefix(lm, [prompt]), labels)[0].double()
    return -float(scores.log_softmax(0)[labels.tokens.index(tuple(row))])


@pytest.mark.parametrize("prompt", PREFIXES)
def test_with_labels_the_loss_is_never_below_that_of_the_choice_among_labels(lm, prompt):
    for row in LABELS.tokens:
        loss = answer_loss(lm, *text_prefix(lm, [prompt]), [row], LABELS).item()
        assert loss >= choice_loss(lm, prompt, row, LABELS) - 1e-4


def test_of_labels_of_one_token_the_loss_is_that_of_the_choice(lm):
    labels = LabelSet(("a", "b", "c"), ((50,), (60,), (51,)))
    for row in labels.tokens:
        loss = answer_loss(lm, *text_prefix(lm, PREFIXES[:1]), [row], labels).item()
        assert loss == pytest.approx(choice_loss(lm, PREFIXES[0], row, labels), rel=1e-4, abs=1e-5)


def test_the_loss_is_a_mean_over_examples(llama):
    apart = [answer_loss(llama, *text_prefix(llama, [row]), [said]).item() for row, said in zip(PREFIXES, ANSWERS)]
    together = answer_loss(llama, *text_prefix(llama, PREFIXES), ANSWERS).item()
    assert together == pytest.approx(sum(apart) / 3, rel=1e-4)


@pytest.fixture
def soft():
    torch.manual_seed(0)
    return torch.randn(2, 3, 32)


def words(lm, *ids):
    table = lm.embed(torch.tensor(list(ids), dtype=torch.long))
    return table.expand(2, -1, -1)


def test_the_primer_stands_before_the_soft_tokens(lm, make_task, soft):
    task = make_task()
    expected = torch.cat([words(lm, 1, *lm.token_ids("Sentiment:")), soft], dim=1)
    assert torch.equal(receiver_prefix(lm, task, soft, ReceiverSide()), expected)


def test_the_primer_stands_after_the_soft_tokens_if_asked_for(lm, make_task, soft):
    side = ReceiverSide(primer_position="after")
    expected = torch.cat([words(lm, 1), soft, words(lm, *lm.token_ids("Sentiment:"))], dim=1)
    assert torch.equal(receiver_prefix(lm, make_task(), soft, side), expected)


@pytest.mark.parametrize("position, order", [("before", (0, 1)), ("after", (1, 0))])
def test_there_is_no_bos_if_none_is_asked_for(llama, make_task, soft, position, order):
    parts = [words(llama, *llama.token_ids("Sentiment:")), soft]
    found = receiver_prefix(llama, make_task(), soft, ReceiverSide(primer_position=position, bos=False))
    assert torch.equal(found, torch.cat([parts[place] for place in order], dim=1))


def test_the_prefix_has_the_receivers_precision(llama, make_task, soft):
    half = replace(llama, compute=replace(llama.compute, dtype=torch.bfloat16))
    assert receiver_prefix(half, make_task(), soft, ReceiverSide()).dtype == torch.bfloat16


@pytest.mark.parametrize("side", [ReceiverSide(), ReceiverSide(primer_position="after"), ReceiverSide(bos=False)])
@pytest.mark.parametrize("labels", [None, LABELS])
def test_a_shared_beginning_changes_neither_the_loss_nor_its_gradient(lm, make_task, soft, side, labels):
    task, rows = make_task(), [LABELS.tokens[0], LABELS.tokens[1]]
    past, shared = shared_beginning(lm, task, side)
    found = []
    for cut, cache in ((0, None), (shared, past)):
        leaf = soft.clone().requires_grad_()
        prefix = receiver_prefix(lm, task, leaf, side)
        loss = answer_loss(lm, prefix[:, cut:], torch.ones(prefix.shape[:2], dtype=torch.long), rows, labels, cache)
        loss.backward()
        found.append((loss.detach(), leaf.grad))
    assert shared > 0
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_nothing_is_shared_where_the_soft_tokens_come_first(llama, make_task):
    assert shared_beginning(llama, make_task(), ReceiverSide(primer_position="after", bos=False)) == (None, 0)


def test_an_unknown_place_of_the_primer_is_refused():
    with pytest.raises(TelepathyError, match="primer_position must be before or after, not 'between'"):
        ReceiverSide(primer_position="between")


def test_the_answer_of_a_label_follows_the_primer(llama, make_task):
    rows = answer_rows(llama, make_task(), pd.DataFrame({"label": ["positive", "negative"]}), [2])
    assert [llama.tokenizer.decode(row) for row in rows] == [" positive", " negative"]


def test_the_answer_of_a_number_ends_as_is_asked(llama, number_task):
    (row,) = answer_rows(llama, number_task, pd.DataFrame({"answer": ["12"]}), [2])
    assert llama.tokenizer.decode(row) == " 12</s>"


def test_a_bridge_is_taught_to_end_a_number_with_its_line(data, lms, number_task):
    for lm in lms.values():
        assert lm.tokenizer.decode(line_end(lm)) == "\n"
    number_data = replace(data, task=number_task)
    frames = {split: data.frame(split).assign(answer="12") for split in ("train", "dev")}
    states = FeatureStore(data.features, "train", data.task).layer(1)
    bridge = learner(data, lms["llama"]).bridge
    sides = [(states, frames[split]) for split in ("train", "dev")]
    learning = BridgeLearner(bridge, lms["llama"], number_data.task, *sides, ReceiverSide())
    for rows in (learning.answers, learning.dev_answers):
        assert {lms["llama"].tokenizer.decode(row) for row in rows} == {" 12\n"}


def test_where_a_tokenizer_knows_no_newline_a_number_ends_the_sequence(metaspace_lm):
    assert metaspace_lm.token_ids("0\n") == metaspace_lm.token_ids("0")
    assert line_end(metaspace_lm) == metaspace_lm.eos_ids[:1]


def test_soft_tokens_of_many_examples_are_those_of_each_alone(data, lm):
    learning = learner(data, lm)
    rows = [*range(learning.examples - 1, -1, -1), *range(learning.examples)]
    assert len(rows) > 2 * PART["cpu"] and len(set(learning.states.lengths()[rows])) > 1
    with torch.no_grad():
        alone = torch.cat([learning.soft_tokens(learning.states, [row]) for row in rows])
        torch.testing.assert_close(learning.soft_tokens(learning.states, rows), alone, rtol=1e-4, atol=1e-6)


def test_orthogonal_soft_tokens_are_not_similar():
    assert mean_similarity(torch.eye(4)[None, :3] * 7).item() == pytest.approx(0, abs=1e-6)


def test_parallel_and_opposite_soft_tokens_are_wholly_similar():
    row = torch.tensor([1.0, 2.0, 3.0])
    assert mean_similarity(torch.stack([row, 2 * row, -row])[None]).item() == pytest.approx(1)


def test_the_similarity_of_two_soft_tokens_is_their_squared_cosine():
    angle = 0.7
    pair = torch.tensor([[[1.0, 0.0], [math.cos(angle), math.sin(angle)]]])
    assert mean_similarity(pair).item() == pytest.approx(math.cos(angle) ** 2)


def test_the_similarity_is_a_mean_over_examples():
    one, none = torch.ones(2, 4), torch.eye(4)[:2]
    assert mean_similarity(torch.stack([one, none])).item() == pytest.approx(0.5)


def test_one_soft_token_resembles_no_other():
    assert mean_similarity(torch.randn(5, 1, 4)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_the_effective_rank_counts_directions_of_equal_spread(rank):
    directions = torch.eye(6, 12)[:rank]
    flat = torch.cat([directions, -directions]) + 3.0
    assert effective_rank(flat.view(2 * rank, 3, 4)) == pytest.approx(rank, rel=1e-3)


def test_the_effective_rank_of_unequal_spreads_is_the_exponential_of_their_entropy():
    flat = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert effective_rank(flat.view(4, 1, 2)) == pytest.approx(expected, rel=1e-4)


def test_soft_tokens_that_are_all_alike_have_no_rank():
    assert effective_rank(torch.randn(1, 3, 4).expand(8, -1, -1)) == 0.0


def examples(count, split):
    rows = []
    for row in range(count):
        mood = ("negative", "positive")[row % 2]
        rows.append({"id": f"{split}-{row}", "text": f"{row} films, {WORDS[mood][row % 3]}", "label": mood})
    return pd.DataFrame(rows)


@pytest.fixture
def data(tmp_path, make_task, llama):
    """Examples whose words give their label away, and a sender's states of them."""
    task, frames = (
        make_task(),
        {"train": examples(48, "train"), "dev": examples(12, "dev"), "test": examples(12, "test")},
    )
    (tmp_path / "task").mkdir()
    for split, frame in frames.items():
        frame.to_parquet(tmp_path / "task" / f"{split}.parquet")
    (tmp_path / "task" / "source.json").write_text('{"files": {}}')
    encode_task(llama, task, frames, tmp_path / "features", layers=[1])
    return BridgeData(task=task, examples=tmp_path / "task", features=tmp_path / "features", limits={})


def settings(**changes):
    """Settings of a bridge, the schema's defaults included."""
    own = {"kind": "bridge", "sender_layer": 1, "width": 32, "steps": 40, "learning_rate": 0.01, "batch_size": 8}
    own["alignment_steps"] = 10
    return method_settings({"methods": {"bridge": {**own, **changes}}}, "bridge")


@pytest.fixture
def deterministic():
    """Undo at the end what a run demands of PyTorch for the rest of a process."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def trained(data, lms, tmp_path, deterministic):
    """A bridge from the Llama to the GPT-2, trained for real."""
    train_bridge(data, lms["gpt2"], settings(), k=2, seed=1, target=tmp_path / "bridge")
    return tmp_path / "bridge"


def learner(data, receiver, **more):
    torch.manual_seed(0)
    config = BridgeConfig(
        architecture="perceiver", soft_tokens=2, sender_width=32, receiver_width=32, width=16, heads=2
    )
    states = {split: FeatureStore(data.features, split, data.task).layer(1) for split in ("train", "dev")}
    train, dev = ((states[split], data.frame(split)) for split in ("train", "dev"))
    return BridgeLearner(build_bridge(config), receiver, data.task, train, dev, ReceiverSide(), **more)


def soft_prompt(learning, lm, split, row):
    """Primer and soft tokens of one example, alone."""
    states = {"train": learning.states, "dev": learning.dev_states}[split]
    with torch.no_grad():
        soft = learning.bridge(*states.batch([row]))
    return torch.cat([lm.embed(torch.tensor([[1, *lm.token_ids("Sentiment:")]])), soft], dim=1)


def label_score(lm, prompt, text):
    """Log-likelihood of a label after embeddings, a whole forward pass for each token."""
    total = 0.0
    for token in lm.token_ids(f" {text}"):
        with torch.no_grad():
            total += float(torch.log_softmax(lm.model(inputs_embeds=prompt).logits[0, -1], dim=0)[token])
        prompt = torch.cat([prompt, lm.embed(torch.tensor([[token]]))], dim=1)
    return total


def test_the_loss_of_a_batch_is_that_of_its_answers(data, lm):
    learning, rows = learner(data, lm), [5, 0, 7]
    names = data.frame("train")["label"]
    slow = [-label_score(lm, soft_prompt(learning, lm, "train", row), names[row]) for row in rows]
    assert learning.loss(rows).item() == pytest.approx(sum(slow) / 3, rel=1e-4)


def test_the_penalty_on_like_soft_tokens_is_added_to_the_loss(data, llama):
    rows = [5, 0, 7]
    plain, penalised = learner(data, llama), learner(data, llama, diversity=0.5)
    likeness = [F.cosine_similarity(*plain.soft_tokens(plain.states, [row])[0], dim=0) ** 2 for row in rows]
    extra = penalised.loss(rows) - plain.loss(rows)
    assert extra.item() == pytest.approx(0.5 * sum(likeness).item() / 3, rel=1e-3)


def test_dev_is_scored_as_a_choice_between_the_labels(data, lm):
    learning, frame = learner(data, lm), data.frame("dev")
    prompts = [soft_prompt(learning, lm, "dev", row) for row in range(len(frame))]
    scores = torch.tensor([[label_score(lm, prompt, name) for name in data.task.label_names] for prompt in prompts])
    gold = torch.tensor([data.task.label_names.index(name) for name in frame["label"]])
    metrics = learning.evaluate()
    assert metrics["accuracy"] == pytest.approx((scores.argmax(1) == gold).float().mean().item())
    assert metrics["loss"] == pytest.approx(F.cross_entropy(scores, gold).item(), rel=1e-3)


@pytest.mark.parametrize("loss", ["labels", "vocabulary"])
def test_every_parameter_of_the_bridge_gets_a_gradient(data, lm, loss):
    learning = learner(data, lm, loss=loss)
    learning.loss([0, 1, 2]).backward()
    without = [name for name, value in learning.bridge.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []


def test_no_parameter_of_the_receiver_gets_a_gradient(data, lm):
    learner(data, lm).loss([0, 1, 2]).backward()
    assert [name for name, value in lm.model.named_parameters() if value.grad is not None] == []


def pointed(learning, lm, split, row):
    """Mean cosine of each soft token, seen from the mean embedding, with the label's token of its place; by hand."""
    states = {"train": learning.states, "dev": learning.dev_states}[split]
    mean = lm.model.get_input_embeddings().weight.mean(0)
    with torch.no_grad():
        soft = learning.bridge(*states.batch([row]))[0]
    found = []
    for name in learning.labels.names:
        tokens = lm.token_ids(f" {name}")
        cosines = [
            F.cosine_similarity(vector - mean, lm.embed(torch.tensor(tokens[place % len(tokens)])) - mean, dim=0)
            for place, vector in enumerate(soft)
        ]
        found.append(sum(cosines) / len(cosines))
    return torch.stack(found)


def aligning(data, lm):
    learning = learner(data, lm)
    return learning, alignment_learner(learning, lm.model.get_input_embeddings().weight.detach())


def test_alignment_is_a_choice_between_labels_by_cosine(data, lm):
    (learning, alignment), rows = aligning(data, lm), [5, 0, 7]
    gold = torch.tensor([data.task.label_names.index(name) for name in data.frame("train")["label"].iloc[rows]])
    scores = torch.stack([pointed(learning, lm, "train", row) for row in rows])
    assert alignment.loss(rows).item() == pytest.approx(F.cross_entropy(SHARPNESS * scores, gold).item(), rel=1e-4)


def test_alignment_is_sharpest_at_its_start(data, lm):
    learning, _ = aligning(data, lm)
    alignment, rows = alignment_learner(learning, lm.model.get_input_embeddings().weight.detach(), 90.0), [5, 0, 7]
    gold = torch.tensor([data.task.label_names.index(name) for name in data.frame("train")["label"].iloc[rows]])
    scores = torch.stack([pointed(learning, lm, "train", row) for row in rows])
    assert alignment.loss(rows).item() == pytest.approx(F.cross_entropy(90 * scores, gold).item(), rel=1e-4)
    for share, sharpness in ((0.0, 90.0), (0.5, 30.0), (1.0, 10.0)):  # each half of the way a third
        alignment.begin(share)
        assert alignment.loss(rows).item() == pytest.approx(F.cross_entropy(sharpness * scores, gold).item(), rel=1e-4)


def test_alignment_scores_dev_by_the_most_alike_label(data, lm):
    learning, alignment = aligning(data, lm)
    gold = torch.tensor([data.task.label_names.index(name) for name in data.frame("dev")["label"]])
    scores = torch.stack([pointed(learning, lm, "dev", row) for row in range(len(gold))])
    metrics = alignment.evaluate()
    assert metrics["accuracy"] == pytest.approx((scores.argmax(1) == gold).float().mean().item())
    assert metrics["loss"] == pytest.approx(F.cross_entropy(SHARPNESS * scores, gold).item(), rel=1e-4)
    right = [scores[row, label].item() for row, label in enumerate(gold)]
    assert metrics["cosine"] == pytest.approx(sum(right) / len(right), rel=1e-4)


def test_scores_of_dev_are_the_same_where_memory_holds_one_example(data, lm, monkeypatch):
    learning, alignment = aligning(data, lm)
    expected = alignment.evaluate(), learning.evaluate()
    plain, tried = learning.soft_tokens, []

    def soft_tokens(states, rows):
        tried.append(len(rows))
        if len(rows) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return plain(states, rows)

    monkeypatch.setattr(learning, "soft_tokens", soft_tokens)
    assert alignment.evaluate() == pytest.approx(expected[0])
    assert learning.evaluate() == pytest.approx(expected[1], rel=1e-4)
    assert max(tried) > 1 == min(tried)


def test_soft_tokens_point_at_the_labels_tokens_again_and_again_up_to_the_last(data, lm):
    learning = learner(data, lm)
    learning.labels = LabelSet(("negative", "positive"), ((50, 60, 61), (51, 70)))
    learning.bridge.config = replace(learning.bridge.config, soft_tokens=5)
    mean = torch.randn(32)
    directions = LabelAlignment(learning, mean.unsqueeze(0)).labels
    for label, turns in enumerate(((60, 61, 50, 60, 61), (70, 51, 70, 51, 70))):
        for place, token in enumerate(turns):
            away = lm.embed(torch.tensor(token)) - mean
            torch.testing.assert_close(directions[label, place], away / away.norm())


def test_each_soft_token_is_told_from_the_other_tokens_of_its_label_and_drawn_to_its_own(data, lm):
    learning, mean = learner(data, lm), torch.randn(32)
    learning.labels = LabelSet(("negative", "positive"), ((50, 61), (70,)))
    learning.bridge.config = replace(learning.bridge.config, soft_tokens=2)
    lines = {"negative": [50, 61], "positive": [70, 70]}
    alignment = LabelAlignment(learning, mean.unsqueeze(0), 20.0)
    away = {token: lm.embed(torch.tensor(token)) - mean for token in (50, 61, 70)}
    losses = []
    for row in range(6):
        with torch.no_grad():
            soft = learning.bridge(*learning.states.batch([row]))[0] - mean
        likeness = {
            name: 20 * sum(F.cosine_similarity(soft[place], away[line[place]], dim=0) for place in range(2)) / 2
            for name, line in lines.items()
        }
        name = data.frame("train")["label"].iloc[row]
        choice = torch.stack([likeness["negative"], likeness["positive"]])
        loss = F.cross_entropy(choice, torch.tensor(["negative", "positive"].index(name)))
        for place, token in enumerate(lines[name]):
            own = sorted(set(lines[name]))
            near = torch.stack([20 * F.cosine_similarity(soft[place], away[other], dim=0) for other in own])
            loss = loss + F.cross_entropy(near, torch.tensor(own.index(token))) / 2
        losses.append(loss + 0.2 * (1 - likeness[name] / 20))
    assert {*data.frame("train")["label"].iloc[:6]} == {"negative", "positive"}
    assert alignment.loss(range(6)).item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-4)


def test_alignment_of_labels_of_one_token_is_the_choice_between_them_alone(data, lm):
    learning = learner(data, lm)
    learning.labels = LabelSet(("negative", "positive"), ((50,), (70,)))
    alignment = LabelAlignment(learning, torch.randn(1, 32))
    assert alignment.beside(torch.randn(3, 4, 32), torch.rand(3, 2), torch.tensor([0, 1, 1])) == 0


@pytest.fixture
def numbers(data, lm):
    """A learner of two soft tokens whose answers are not labels but rows of tokens, its alignment, and the mean."""
    learning, mean = learner(data, lm), torch.randn(32)
    learning.labels = None
    learning.answers = [[50 + row % 3, 60, 2] if row % 2 else [70, 2] for row in range(learning.examples)]
    learning.dev_answers = [[50, 2]] * len(data.frame("dev"))
    alignment = alignment_learner(learning, mean.unsqueeze(0))
    assert isinstance(alignment, AnswerAlignment)
    return learning, alignment, mean


def test_alignment_at_an_answer_is_a_choice_of_one_token_a_place_and_near_to_it(data, lm, numbers):
    learning, alignment, mean = numbers
    tokens = [2, 50, 51, 52, 60, 70]  # all that stand in answers
    words = lm.embed(torch.tensor(tokens)) - mean
    losses = []
    for row, line in ((3, [50, 60]), (4, [70, 2])):  # of [50, 60, 2] there is room for the beginning
        with torch.no_grad():
            soft = learning.bridge(*learning.states.batch([row]))[0]
        for place in range(2):
            cosines = F.cosine_similarity((soft[place] - mean).unsqueeze(0), words)
            right = tokens.index(line[place])
            losses.append(F.cross_entropy(SHARPNESS * cosines, torch.tensor(right)).item() + 1 - cosines[right].item())
    assert alignment.loss([3, 4]).item() == pytest.approx(sum(losses) / 4, rel=1e-4)


def test_soft_tokens_are_the_answers_line_again_and_again_up_to_its_end(data, lm, numbers):
    learning, _, mean = numbers
    learning.bridge.config = replace(learning.bridge.config, soft_tokens=5)
    gold = AnswerAlignment(learning, mean.unsqueeze(0)).gold("train", [3, 4])
    assert gold.tolist() == [[4, 0, 1, 4, 0], [0, 5, 0, 5, 0]]  # 60 end 50 60 end; end 70 end 70 end


@pytest.mark.parametrize(
    ("line", "places", "found"),
    [("12.", 3, "12."), ("12.", 6, "12.12."), ("12.", 8, "2.12.12."), ("1234.", 2, "12"), (".", 3, "...")],
)
def test_a_line_is_repeated_up_to_its_end(line, places, found):
    assert repeated_line([ord(letter) for letter in line], places) == [ord(letter) for letter in found]


def test_an_answer_is_right_if_all_its_tokens_are(data, lm, numbers, monkeypatch):
    learning, alignment, _ = numbers
    gold = F.one_hot(torch.tensor([[1, 0]]), 6).float()
    half = F.one_hot(torch.tensor([[1, 1]]), 6).float()
    batch = len(learning.dev_batches[0])
    for scores, accuracy in ((gold, 1.0), (half, 0.0)):
        monkeypatch.setattr(alignment, "scores", lambda soft, scores=scores: scores.expand(len(soft), -1, -1))
        assert alignment.evaluate()["accuracy"] == accuracy
    assert batch > 1


def test_alignment_runs_no_receiver(data, lm):
    _, alignment = aligning(data, lm)
    ran = []
    hook = lm.model.base_model.register_forward_hook(lambda *_: ran.append(1))
    alignment.loss([0, 1]).backward()
    alignment.evaluate()
    hook.remove()
    assert not ran


def test_a_bridge_that_training_would_spoil_stays_as_alignment_left_it(data, lms, tmp_path, deterministic):
    folders = []
    for rate in (1e-9, 0.3):
        folders.append(tmp_path / f"at {rate}")
        changes = {"steps": 30, "alignment_steps": 27, "learning_rate": rate, "alignment_rate": 0.01}
        train_bridge(data, lms["gpt2"], settings(**changes), k=2, seed=1, target=folders[-1])
    assert history(folders[1])[0]["step"] == 0
    assert history(folders[1])[0]["accuracy"] > history(folders[1])[-1]["accuracy"]
    kept, spoilt = (load_file(folder / "model.safetensors") for folder in folders)
    torch.testing.assert_close(kept["leave.weight"], spoilt["leave.weight"], rtol=1e-4, atol=1e-6)


def test_the_sharpness_of_alignment_is_a_setting(data, lms, tmp_path, deterministic):
    losses = {}
    for sharpness in (10.0, 80.0):
        folder = tmp_path / str(sharpness)
        train_bridge(data, lms["gpt2"], settings(alignment_sharpness=sharpness), k=2, seed=1, target=folder)
        losses[sharpness] = json.loads((folder / "training.json").read_text())["alignment"][0]["train_loss"]
    assert losses[80.0] > 1.5 * losses[10.0]  # of a bridge that points anywhere


def test_settings_without_steps_have_no_alignment(data, lms, tmp_path, deterministic):
    train_bridge(data, lms["gpt2"], settings(alignment_steps=0), k=2, seed=1, target=tmp_path / "none")
    content = json.loads((tmp_path / "none/training.json").read_text())
    assert content["alignment"] == [] and content["history"][0]["step"] > 0


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
@pytest.mark.parametrize("loss", ["labels", "vocabulary"])
def test_a_compiled_step_has_the_loss_and_the_gradients_of_a_plain_one(data, lms, monkeypatch, family, loss):
    torch._dynamo.reset()
    quick = partial(bridge_training.compiled_view, backend="aot_eager")
    monkeypatch.setattr(bridge_training, "compiled_view", quick)
    plain, compiled = (learner(data, lms[family], loss=loss, diversity=0.1, compiled=how) for how in (False, True))
    for rows in (range(6), [3], [7, 0]):
        (expected, wanted), (found, gradients) = (step(each, rows) for each in (plain, compiled))
        torch.testing.assert_close(found, expected, **CLOSE)
        torch.testing.assert_close(gradients, wanted, **CLOSE)


def step(learning, rows):
    """Loss and gradients of a batch."""
    learning.bridge.zero_grad()
    loss = learning.loss(rows)
    loss.backward()
    return loss.detach(), [value.grad.clone() for value in learning.bridge.parameters() if value.grad is not None]


def test_a_bridge_is_trained_compiled_if_it_is_asked_to_be(data, lms, tmp_path, deterministic, monkeypatch):
    seen = []
    monkeypatch.setattr(bridge_training, "compiled_view", lambda lm, whole: seen.append(lm.name) or lm)
    for compiled in (False, True):
        train_bridge(data, lms["gpt2"], settings(compiled=compiled), k=2, seed=1, target=tmp_path / str(compiled))
    assert seen == ["gpt2"]
    plain, other = (load_bridge(tmp_path / str(compiled))[0].state_dict() for compiled in (False, True))
    torch.testing.assert_close(other, plain, rtol=1e-3, atol=1e-3)


def test_dropped_features_are_the_mean_and_kept_ones_keep_the_expectation():
    states, mean = torch.randn(4, 5, 2000).to(torch.bfloat16), torch.randn(2000)
    seed_step(3, 7)
    dropped = drop_features(states, mean, [9, 2, 5, 30], 0.25)
    gone = (dropped == mean).all(1)  # an example loses a feature at all of its tokens
    assert gone.float().mean(1).tolist() == pytest.approx([0.25] * 4, abs=0.04)
    assert not torch.equal(gone[0], gone[1])
    whole = mean + (states.float() - mean) / 0.75
    kept = ~gone.unsqueeze(1).expand_as(whole)
    torch.testing.assert_close(dropped[kept], whole[kept])


def test_what_is_dropped_depends_on_step_and_row_and_not_on_the_batch():
    states, mean = torch.randn(3, 2, 50), torch.zeros(50)

    def gone(step, rows):
        seed_step(1, step)
        torch.randn(len(rows))  # others draw in between
        return drop_features(states[: len(rows)], mean, rows, 0.5) == 0

    assert torch.equal(gone(4, [8, 6, 7])[1:], gone(4, [6, 7]))
    assert not torch.equal(gone(4, [8]), gone(5, [8]))


def test_a_bridge_is_trained_with_dropped_features_and_judged_with_all(data, lms):
    plain, dropping = (learner(data, lms["gpt2"], input_dropout=share) for share in (0.0, 0.5))
    dropping.bridge.load_state_dict(plain.bridge.state_dict())
    seed_step(0, 0)
    assert dropping.loss([0, 1]).item() != pytest.approx(plain.loss([0, 1]).item(), rel=1e-4)
    assert dropping.evaluate() == plain.evaluate()


@pytest.mark.parametrize("steps, asked, aligned", [(340, 300, 300), (200, 300, 180), (1, 300, 0), (10, 0, 0)])
def test_alignment_is_a_part_of_the_steps_and_leaves_some_to_the_receiver(steps, asked, aligned):
    assert alignment_steps({"steps": steps, "alignment_steps": asked}) == aligned


def killed_in_step(number, work):
    """Do some work and kill this process in the middle of the n-th step of training."""
    steps, whole_step = [], loop._gradients_that_fit

    def step(*arguments):
        steps.append(whole_step(*arguments))
        if len(steps) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return steps[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_gradients_that_fit", step)
        work()


@pytest.mark.parametrize("number", [2, 9, 11, 14, 30, 40])
def test_a_bridge_killed_in_alignment_or_after_ends_with_the_same_bytes(data, lms, tmp_path, number, deterministic):
    def train(name):
        folder, kept = tmp_path / name, tmp_path / f"{name} checkpoints"
        train_bridge(data, lms["gpt2"], settings(checkpoint_every=3), k=2, seed=1, target=folder, checkpoints=kept)
        return (folder / "model.safetensors").read_bytes(), evaluate_bridge(data, lms["gpt2"], folder), history(folder)

    weights, answers, scores = train("undisturbed")
    assert in_a_child(lambda: killed_in_step(number, lambda: train("killed"))) == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    assert number < 4 or list((tmp_path / "killed checkpoints").rglob("last.safetensors"))
    again = train("killed")
    assert (again[0] == weights, again[2]) == (True, scores)
    pd.testing.assert_frame_equal(again[1], answers, check_exact=True)


def history(folder):
    return json.loads((folder / "training.json").read_text())["history"]


def test_training_through_the_receiver_lowers_the_dev_loss(data, lms, tmp_path, deterministic):
    train_bridge(data, lms["gpt2"], settings(alignment_steps=0), k=2, seed=1, target=tmp_path / "bridge")
    assert history(tmp_path / "bridge")[-1]["loss"] < 0.7 * math.log(2)  # two labels at random


def test_a_trained_bridge_answers_test_examples_that_it_never_saw(data, lms, trained):
    predictions = evaluate_bridge(data, lms["gpt2"], trained)
    assert (predictions["prediction"] == predictions["label"]).mean() >= 0.9


def test_every_test_example_is_answered_in_its_order(data, lms, trained):
    predictions = evaluate_bridge(data, lms["gpt2"], trained)
    assert predictions["id"].tolist() == [f"test-{row}" for row in range(12)]


def test_scores_of_test_examples_are_those_of_their_soft_tokens(data, lms, trained):
    lm, (bridge, _) = lms["gpt2"], load_bridge(trained)
    states = FeatureStore(data.features, "test", data.task).layer(1)
    scores = evaluate_bridge(data, lm, trained)["scores"]
    for row in (0, 7):
        with torch.no_grad():
            soft = bridge(*states.batch([row]))
        prompt = torch.cat([lm.embed(torch.tensor([[1, *lm.token_ids("Sentiment:")]])), soft], dim=1)
        slow = [label_score(lm, prompt, name) for name in data.task.label_names]
        torch.testing.assert_close(torch.tensor(scores[row]), torch.tensor(slow), **CLOSE)


def test_training_leaves_the_receiver_as_it_was(data, lms, tmp_path, deterministic):
    before = {name: value.clone() for name, value in lms["gpt2"].model.state_dict().items()}
    train_bridge(data, lms["gpt2"], settings(steps=2), k=2, seed=1, target=tmp_path / "bridge")
    after = lms["gpt2"].model.state_dict()
    assert [name for name, value in before.items() if not torch.equal(value, after[name])] == []


def test_training_does_not_need_the_test_examples(data, lms, tmp_path, deterministic):
    (data.examples / "test.parquet").unlink()
    for path in (data.features / "test").iterdir():
        path.unlink()
    train_bridge(data, lms["gpt2"], settings(steps=2), k=2, seed=1, target=tmp_path / "bridge")
    assert (tmp_path / "bridge" / "model.safetensors").is_file()


def weights(data, receiver, folder, seed, **changes):
    train_bridge(data, receiver, settings(steps=3, **changes), k=2, seed=seed, target=folder)
    return load_file(folder / "model.safetensors")


def test_the_same_seed_gives_the_same_weights(data, lms, tmp_path, deterministic):
    one, two = (weights(data, lms["gpt2"], tmp_path / name, seed=1) for name in ("one", "two"))
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


def test_another_seed_begins_with_other_weights(data, lms, tmp_path, deterministic):
    still = {"learning_rate": 1e-9}
    one, two = (weights(data, lms["gpt2"], tmp_path / f"seed{seed}", seed, **still) for seed in (1, 2))
    assert (one["queries"] - two["queries"]).abs().mean() > 0.1


def test_checkpoints_are_removed_once_a_bridge_is_written(data, lms, tmp_path, deterministic):
    chosen = settings(steps=4, checkpoint_every=2)
    train_bridge(data, lms["gpt2"], chosen, 2, 1, tmp_path / "bridge", checkpoints=tmp_path / "checkpoints")
    assert not (tmp_path / "checkpoints").exists()


def test_soft_tokens_start_with_the_size_of_the_receivers_embeddings(trained, lms):
    table = lms["gpt2"].model.state_dict()["transformer.wte.weight"]
    expected = table.pow(2).mean(1).sqrt().median()
    torch.testing.assert_close(load_file(trained / "model.safetensors")["embedding_rms"], expected)


def test_what_a_bridge_needs_is_written_beside_it(trained, data):
    about = load_bridge(trained)[1]
    assert about.pop("training")["seed"] == 1
    assert about.pop("task_details")["labels"] == data.task.label_names
    assert about == {
        "task": "films",
        "sender": {"name": "llama", "layer": 1, "source": {"path": "llama"}},
        "receiver": {"name": "gpt2", "primer_position": "before", "bos": True, "source": {"path": "gpt2"}},
        "prompt": data.task.prompt_hash,
    }


def test_the_number_of_trained_parameters_is_written(trained):
    cost = json.loads((trained / "cost.json").read_text())
    saved = load_file(trained / "model.safetensors")
    measured = {"embedding_rms", "state_mean", "state_scale"}
    assert measured <= set(saved)
    assert cost["trainable_parameters"] == sum(value.numel() for name, value in saved.items() if name not in measured)


def test_a_class_without_a_training_example_is_refused(data, lms, tmp_path, deterministic):
    frame = data.frame("train")
    frame.assign(label="positive").to_parquet(data.examples / "train.parquet")
    with pytest.raises(TelepathyError, match="no training example of negative"):
        train_bridge(data, lms["gpt2"], settings(), k=2, seed=1, target=tmp_path / "bridge")


def test_a_bridge_for_another_receiver_is_refused_with_both(data, lms, trained):
    with pytest.raises(TelepathyError, match="was trained for the receiver gpt2, but got gemma3"):
        evaluate_bridge(data, lms["gemma3"], trained)


def test_a_bridge_for_another_sender_is_refused_with_both(data, lms, trained, tmp_path):
    encode_task(lms["gemma3"], data.task, {"test": data.frame("test")}, tmp_path / "other", layers=[1])
    with pytest.raises(TelepathyError, match="was trained for the sender llama, but got gemma3"):
        evaluate_bridge(replace(data, features=tmp_path / "other"), lms["gpt2"], trained)


def test_a_bridge_for_another_prompt_is_refused(data, lms, trained, make_task):
    other = make_task(primer="Mood:")
    with pytest.raises(TelepathyError, match=f"the prompt {data.task.prompt_hash}, but got {other.prompt_hash}"):
        evaluate_bridge(replace(data, task=other), lms["gpt2"], trained)
