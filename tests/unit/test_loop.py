import math
import signal
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import get_cosine_schedule_with_warmup

from telepathy.errors import TelepathyError
from telepathy.training.loop import TrainingConfig, batch_rows, fit, trained_state

CONFIG = {"steps": 12, "batch_size": 4, "learning_rate": 0.05, "evaluations": 3, "keep": "last"}


class Regression:
    """Least squares on ten examples; dev metrics can be dictated."""

    def __init__(self, scores=None):
        torch.manual_seed(0)
        self.module, self.scores = nn.Linear(3, 1), scores
        self.inputs, self.targets = torch.randn(10, 3), torch.randn(10, 1)
        self.seen, self.kept, self.modes = [], [], []

    @property
    def trainable(self):
        return self.module

    @property
    def examples(self):
        return len(self.inputs)

    def loss(self, rows):
        self.seen.append(list(rows))
        self.modes.append(self.module.training)
        return (self.module(self.inputs[rows]) - self.targets[rows]).pow(2).mean()

    def evaluate(self):
        self.kept.append(self.module.weight.detach().clone())
        self.modes.append(self.module.training)
        with torch.no_grad():
            loss = float((self.module(self.inputs) - self.targets).pow(2).mean())
        accuracy, loss = (-loss, loss) if self.scores is None else self.scores[len(self.kept) - 1]
        return {"accuracy": accuracy, "loss": loss}


def config(**changes):
    return TrainingConfig(**{**CONFIG, **changes})


def adamw(learner, rates, rows, decay=0.01, clip=1.0):
    """AdamW as Loshchilov and Hutter write it, after clipping; returns losses and gradient norms."""
    values = [value for value in learner.module.parameters()]
    first, second = [torch.zeros_like(value) for value in values], [torch.zeros_like(value) for value in values]
    losses, norms = [], []
    for step, (rate, batch) in enumerate(zip(rates, rows), start=1):
        loss = learner.loss(batch)
        gradients = torch.autograd.grad(loss, values)
        norm = math.sqrt(sum(float(gradient.double().pow(2).sum()) for gradient in gradients))
        losses.append(loss.item())
        norms.append(norm)
        with torch.no_grad():
            for value, gradient, mean, square in zip(values, gradients, first, second):
                gradient = gradient * min(1.0, clip / norm)
                mean.mul_(0.9).add_(0.1 * gradient)
                square.mul_(0.999).add_(0.001 * gradient**2)
                value.mul_(1 - rate * decay)
                corrected = (square / (1 - 0.999**step)).sqrt() + 1e-8
                value.sub_(rate * (mean / (1 - 0.9**step)) / corrected)
    return losses, norms


@pytest.fixture
def trained():
    """A learner after the loop, with its history, and one trained by hand on the same batches."""
    learner, slow, chosen = Regression(), Regression(), config()
    history = fit(learner, chosen, seed=3)
    rates = [chosen.learning_rate * chosen.rate(step) for step in range(chosen.steps)]
    losses, norms = adamw(slow, rates, learner.seen)
    return learner, history, slow, losses, norms


def test_training_is_adamw_with_clipped_gradients(trained):
    learner, _, slow, _, _ = trained
    torch.testing.assert_close(learner.module.state_dict(), slow.module.state_dict(), rtol=1e-5, atol=1e-6)


def test_a_tight_clip_is_kept(trained):
    learner, slow, chosen = Regression(), Regression(), config(clip=0.1, weight_decay=0.3)
    fit(learner, chosen, seed=3)
    rates = [chosen.learning_rate * chosen.rate(step) for step in range(chosen.steps)]
    adamw(slow, rates, learner.seen, decay=0.3, clip=0.1)
    torch.testing.assert_close(learner.module.state_dict(), slow.module.state_dict(), rtol=1e-5, atol=1e-6)


def test_the_history_has_the_mean_loss_since_the_last_evaluation(trained):
    _, history, _, losses, _ = trained
    means = [np.mean(losses[start : start + 4]) for start in (0, 4, 8)]
    assert [record["train_loss"] for record in history] == pytest.approx(means, rel=1e-5)


def test_the_history_has_the_largest_gradient_norm_since_the_last_evaluation(trained):
    _, history, _, _, norms = trained
    largest = [max(norms[start : start + 4]) for start in (0, 4, 8)]
    assert [record["gradient_norm"] for record in history] == pytest.approx(largest, rel=1e-5)


def test_the_history_has_the_steps_of_its_evaluations(trained):
    assert [record["step"] for record in trained[1]] == [4, 8, 12]


def test_the_batches_are_those_of_the_seed(trained):
    assert trained[0].seen == [batch_rows(10, 4, step, 3) for step in range(12)]


def test_dev_is_scored_in_eval_mode_and_only_dev(trained):
    assert trained[0].modes == ([True] * 4 + [False]) * 3


def test_progress_is_told_of_every_record():
    told = []
    history = fit(Regression(), config(), seed=3, progress=told.append)
    assert told == history


def test_a_learner_is_told_at_each_step_what_share_of_them_is_taken(tmp_path):
    class Told(Regression):
        shares = ()

        def begin(self, share):
            self.shares = (*self.shares, share)

    cut, resumed = Told(), Told()
    cut.begin = lambda share: None if share < 0.5 else signal.raise_signal(signal.SIGTERM)
    with pytest.raises(TelepathyError, match="SIGTERM"):
        fit(cut, config(steps=8), seed=3, checkpoints=tmp_path)
    fit(resumed, config(steps=8), seed=3, checkpoints=tmp_path)
    assert resumed.shares == (5 / 8, 6 / 8, 7 / 8)


def test_frozen_parameters_stay():
    learner = Regression()
    learner.module.bias.requires_grad_(False)
    before = learner.module.bias.clone()
    fit(learner, config(), seed=3)
    assert torch.equal(learner.module.bias, before)


@pytest.mark.parametrize("steps, warmup", [(100, 0.1), (30, 0.25), (7, 0.5)])
def test_the_cosine_is_that_of_transformers(steps, warmup):
    chosen, rising = config(steps=steps, warmup=warmup), round(steps * warmup)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, rising, steps)
    factor = schedule.lr_lambdas[0]
    found = [chosen.rate(step) for step in range(rising, steps)]
    assert found == pytest.approx([factor(step) for step in range(rising, steps)])


def test_the_rate_rises_in_equal_steps_to_the_peak():
    assert [config(steps=40, warmup=0.1).rate(step) for step in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_without_a_warm_up_the_first_step_has_the_peak():
    assert config(warmup=0.0).rate(0) == 1.0


def test_a_constant_rate_stays_after_the_warm_up():
    chosen = config(steps=20, warmup=0.1, schedule="constant")
    assert [chosen.rate(step) for step in range(2, 20)] == [1.0] * 18


@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 2**31))
def test_every_epoch_is_a_permutation(examples, batch_size, seed):
    steps = -(-3 * examples // batch_size)
    rows = [row for step in range(steps) for row in batch_rows(examples, batch_size, step, seed)]
    for epoch in range(3):
        assert sorted(rows[epoch * examples : (epoch + 1) * examples]) == list(range(examples))


def test_epochs_differ():
    assert batch_rows(50, 50, 0, seed=1) != batch_rows(50, 50, 1, seed=1)


def test_seeds_differ():
    assert batch_rows(50, 50, 0, seed=1) != batch_rows(50, 50, 0, seed=2)


@given(st.integers(1, 60), st.integers(1, 80))
def test_the_last_step_is_evaluated(steps, evaluations):
    assert max(config(steps=steps, evaluations=evaluations).evaluation_steps()) == steps


@given(st.integers(1, 60), st.integers(1, 60))
def test_there_are_as_many_evaluations_as_asked_for_where_steps_suffice(steps, evaluations):
    found = config(steps=steps, evaluations=evaluations).evaluation_steps()
    assert len(found) == min(steps, evaluations)


UP_AND_DOWN = [(0.5, 1.0), (0.9, 0.6), (0.7, 0.1)]


def test_the_weights_of_the_best_dev_accuracy_are_kept():
    learner = Regression(UP_AND_DOWN)
    fit(learner, config(keep="best"), seed=3)
    assert torch.equal(learner.module.weight, learner.kept[1])


def test_the_weights_of_the_last_step_are_kept_if_asked_for():
    learner = Regression(UP_AND_DOWN)
    fit(learner, config(keep="last"), seed=3)
    assert torch.equal(learner.module.weight, learner.kept[2])


def test_the_start_is_scored_and_kept_if_nothing_is_better():
    learner = Regression([(0.9, 1.0), *UP_AND_DOWN[:1], (0.8, 0.1), (0.7, 0.1)])
    start = learner.module.weight.detach().clone()
    history = fit(learner, config(keep="best"), seed=3, score_start=True)
    assert [record["step"] for record in history] == [0, 4, 8, 12]
    assert "train_loss" not in history[0] and history[0]["learning_rate"] == 0
    assert torch.equal(learner.module.weight, start)


@pytest.mark.parametrize("losses, best", [((0.5, 0.4, 0.6), 1), ((0.3, 0.4, 0.6), 0), ((0.6, 0.5, 0.4), 2)])
def test_the_dev_loss_breaks_a_tie_of_accuracies(losses, best):
    learner = Regression([(0.8, loss) for loss in losses])
    fit(learner, config(keep="best"), seed=3)
    assert torch.equal(learner.module.weight, learner.kept[best])


class Breaking(Regression):
    """Its loss is not a number from one step on."""

    def loss(self, rows):
        loss = super().loss(rows)
        return loss * float("nan") if len(self.seen) == 5 else loss


class Exploding(Regression):
    """Its loss is finite at one step, its gradient is not."""

    def loss(self, rows):
        loss = super().loss(rows)
        return loss + (self.module.weight.sum() * 0).sqrt() if len(self.seen) == 5 else loss


def test_a_loss_that_is_not_a_number_breaks_off_with_step_rate_and_norm():
    message = "broke off at step 5: the loss is nan, the gradient norm nan, the learning rate .*lower learning_rate"
    with pytest.raises(TelepathyError, match=message):
        fit(Breaking(), config(), seed=3)


def test_the_rate_at_which_training_broke_off_is_named():
    chosen = config(schedule="constant", learning_rate=0.037)
    with pytest.raises(TelepathyError, match=r"the learning rate 0\.037;"):
        fit(Breaking(), chosen, seed=3)


def test_a_gradient_that_is_not_finite_breaks_off():
    with pytest.raises(TelepathyError, match=r"step 5: the loss is \d.*, the gradient norm (nan|inf)"):
        fit(Exploding(), config(), seed=3)


def test_weights_are_left_as_they_were_where_training_breaks_off():
    broken, whole = Breaking(), Regression()
    with pytest.raises(TelepathyError):
        fit(broken, config(), seed=3)
    rates = [CONFIG["learning_rate"] * config().rate(step) for step in range(4)]
    adamw(whole, rates, broken.seen[:4])
    torch.testing.assert_close(broken.module.state_dict(), whole.module.state_dict(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["steps", "batch_size", "evaluations"])
def test_counts_below_one_are_refused_by_name(name):
    with pytest.raises(TelepathyError, match=f"Training needs {name} of 1 at least, not 0"):
        config(**{name: 0})


@pytest.mark.parametrize("warmup", [-0.1, 1.0])
def test_a_warm_up_that_is_no_share_is_refused(warmup):
    with pytest.raises(TelepathyError, match=f"between 0 and 1, not {warmup}"):
        config(warmup=warmup)


@pytest.mark.parametrize(
    "name, value, allowed", [("schedule", "linear", "cosine or constant"), ("keep", "first", "best or last")]
)
def test_an_unknown_choice_is_refused_with_those_that_exist(name, value, allowed):
    with pytest.raises(TelepathyError, match=f"{name} must be {allowed}, not '{value}'"):
        config(**{name: value})


def test_the_trained_state_is_what_trains_and_the_buffers():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    module[0].bias.requires_grad_(False)
    buffers = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert set(trained_state(module)) == {"0.weight", "1.weight", "1.bias"} | buffers


def test_the_trained_state_is_a_copy():
    module = nn.Linear(2, 2)
    state = trained_state(module)
    module.weight.data.zero_()
    assert state["weight"].any()


class Cramped(Regression):
    """Memory for no more than so many examples at once."""

    def __init__(self, room):
        super().__init__()
        self.room = room

    def loss(self, rows):
        if len(rows) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().loss(rows)


@pytest.mark.parametrize("room", [1, 2, 3])
def test_out_of_memory_halves_the_parts_and_keeps_the_batch(room, capsys):
    roomy, cramped = Regression(), Cramped(room)
    expected = fit(roomy, config(), seed=3)
    history = fit(cramped, config(), seed=3)
    torch.testing.assert_close(cramped.module.weight, roomy.module.weight, rtol=1e-4, atol=1e-5)
    for record, wanted in zip(history, expected, strict=True):
        assert record == pytest.approx(wanted, rel=1e-4)
    part = {1: 1, 2: 2, 3: 2}[room]
    assert {len(rows) for rows in cramped.seen} == {part}
    assert [*chain(*cramped.seen)] == [*chain(*roomy.seen)]
    assert f"in parts of {part} from here on" in capsys.readouterr().out


def test_parts_of_unequal_size_count_by_their_examples():
    roomy, cramped = Regression(), Cramped(3)
    fit(roomy, config(batch_size=5), seed=3)
    fit(cramped, config(batch_size=5), seed=3)
    assert {len(rows) for rows in cramped.seen} == {3, 2}
    torch.testing.assert_close(cramped.module.weight, roomy.module.weight, rtol=1e-4, atol=1e-5)


def test_one_example_that_does_not_fit_is_an_error():
    with pytest.raises(TelepathyError, match="does not hold one training example"):
        fit(Cramped(0), config(), seed=3)


def test_another_error_of_a_learner_is_not_taken_for_lack_of_memory():
    learner = Regression()
    learner.targets = torch.randn(10, 2, 7)
    with pytest.raises(RuntimeError, match="size of tensor"):
        fit(learner, config(), seed=3)


def test_the_size_of_the_parts_survives_a_resume(tmp_path):
    cut, whole = Cramped(2), Cramped(2)
    short = config(checkpoint_every=6)
    calls = []
    original = cut.loss

    def stop_after(rows):
        calls.append(rows)
        if len(calls) > 20:
            raise KeyboardInterrupt
        return original(rows)

    cut.loss = stop_after
    with pytest.raises(KeyboardInterrupt):
        fit(cut, short, seed=3, checkpoints=tmp_path)
    resumed = Cramped(2)
    seen = []
    inner = resumed.loss
    resumed.loss = lambda rows: seen.append(len(rows)) or inner(rows)
    fit(resumed, short, seed=3, checkpoints=tmp_path)
    fit(whole, short, seed=3)
    assert set(seen) == {2}
    torch.testing.assert_close(resumed.module.weight, whole.module.weight, rtol=0, atol=0)
