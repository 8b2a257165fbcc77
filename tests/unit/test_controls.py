import numpy as np
import pytest
import torch

from telepathy.errors import TelepathyError
from telepathy.features import LayerStates
from telepathy.methods.controls import control_states, partners

LENGTHS = [3, 5, 2, 4, 6]


@pytest.fixture
def states():
    """Every state says which example and which token it is of."""
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)])
    rows = [[float(example), float(token)] for example, n in enumerate(LENGTHS) for token in range(n)]
    bits = torch.tensor(rows).to(torch.bfloat16).view(torch.uint16).numpy()
    return LayerStates(bits, offsets)


def test_zeroed_states_are_zero_and_keep_their_number(states):
    zeroed, mask = control_states("zeroed", states, 0).batch([4, 2])
    assert not zeroed.any()
    assert mask.sum(1).tolist() == [6, 2]


@pytest.mark.parametrize("seed", range(4))
def test_mismatched_states_are_all_of_one_other_example(states, seed):
    control = control_states("mismatched", states, seed)
    given = []
    for row in range(len(LENGTHS)):
        batch, mask = control.batch([row])
        owners = set(batch[0, mask[0], 0].tolist())
        assert len(owners) == 1
        given.append(int(owners.pop()))
        assert mask.sum() == LENGTHS[given[-1]] == control.lengths()[row]
    assert sorted(given) == list(range(len(LENGTHS)))
    assert all(other != row for row, other in enumerate(given))


def test_shuffled_states_mix_examples_but_keep_a_first_token_first(states):
    control = control_states("shuffled", states, 1)
    batch, mask = control.batch(range(len(LENGTHS)))
    assert (batch[:, 0, 1] == 0).all()
    inner = batch[:, 1:][mask[:, 1:]]
    assert (inner[:, 1] > 0).all()
    assert len(set(inner[:, 0].tolist())) > 1


def test_a_shuffled_row_does_not_depend_on_its_batch(states):
    control = control_states("shuffled", states, 1)
    together, _ = control.batch([0, 4])
    alone, mask = control.batch([4])
    torch.testing.assert_close(together[1, : int(mask.sum())], alone[0, : int(mask.sum())])


@pytest.mark.parametrize("examples", [2, 3, 10])
@pytest.mark.parametrize("seed", range(3))
def test_partners_are_a_permutation_without_a_fixed_point(examples, seed):
    chosen = partners(examples, seed)
    assert sorted(chosen) == list(range(examples))
    assert (chosen != np.arange(examples)).all()


def test_one_example_has_no_partner():
    with pytest.raises(TelepathyError, match="two examples at least, not 1"):
        partners(1, 0)


def test_an_unknown_control_is_refused_with_the_known_ones(states):
    with pytest.raises(TelepathyError, match="choose one of zeroed, shuffled, mismatched"):
        control_states("nosuch", states, 0)
