"""Controls: sender states that say nothing about the example, for a bridge that was trained on real ones.

Each is read like the `telepathy.features.LayerStates` that it stands for. A bridge whose accuracy
under a control stays above what constant or unrelated answers reach leaks the answer elsewhere.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from telepathy.errors import TelepathyError
from telepathy.features import LayerStates


class ZeroedStates(LayerStates):
    """Every state is zero; the number of tokens stays."""

    def __init__(self, states: LayerStates, seed: int = 0):
        super().__init__(states.bits, states.offsets)

    def batch(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return zeros ``[batch, longest, d]`` in bfloat16 and the mask ``[batch, longest]``."""
        states, mask = super().batch(rows)
        return torch.zeros_like(states), mask


class MismatchedStates(LayerStates):
    """Every example gets the states of another one, which no third example gets."""

    def __init__(self, states: LayerStates, seed: int = 0):
        super().__init__(states.bits, states.offsets)
        self.partners = partners(len(states), seed)

    def lengths(self) -> np.ndarray:
        """Tokens that every example gets, ``[examples]``."""
        return super().lengths()[self.partners]

    def batch(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the partners' states ``[batch, longest, d]`` in bfloat16 and their mask ``[batch, longest]``."""
        return super().batch([int(self.partners[row]) for row in rows])


class ShuffledStates(MismatchedStates):
    """Every state is that of a random token of all examples, and the length is another example's.

    First tokens are not drawn and stay first: they are the BOS, the same in every example and of
    another size than all others.
    """

    def __init__(self, states: LayerStates, seed: int = 0):
        super().__init__(states, seed)
        self.seed = seed
        self.inner = np.delete(np.arange(int(states.offsets[-1])), np.asarray(states.offsets[:-1]))
        if not len(self.inner):
            raise TelepathyError("Shuffled sender states need examples of two tokens or more.")

    def batch(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return drawn states ``[batch, longest, d]`` in bfloat16 and the mask ``[batch, longest]``.

        A pure function of seed and row: the batch that a row comes in does not matter.
        """
        states, mask = super().batch(rows)
        for place, row in enumerate(rows):
            length = int(mask[place].sum())
            drawn = np.random.default_rng([self.seed, int(row)]).choice(self.inner, length - 1)
            states[place, 1:length] = torch.from_numpy(self.bits[drawn].copy()).view(torch.bfloat16)
        return states, mask


CONTROLS: dict[str, type[LayerStates]] = {
    "zeroed": ZeroedStates,
    "shuffled": ShuffledStates,
    "mismatched": MismatchedStates,
}


def control_states(control: str, states: LayerStates, seed: int) -> LayerStates:
    """Put a control in the place of sender states.

    Raises:
        TelepathyError: if there is no such control, or too few examples for it.
    """
    if control not in CONTROLS:
        raise TelepathyError(f"There is no control {control!r}: choose one of {', '.join(CONTROLS)}.")
    return CONTROLS[control](states, seed)  # type: ignore[arg-type, call-arg]


def partners(examples: int, seed: int) -> np.ndarray:
    """Another example for every one, ``[examples]``: neighbours on a random circle, so never oneself.

    Raises:
        TelepathyError: if there is only one example.
    """
    if examples < 2:
        raise TelepathyError(f"Mismatched sender states need two examples at least, not {examples}.")
    circle = np.random.default_rng(seed).permutation(examples)
    chosen = np.empty(examples, dtype=np.int64)
    chosen[circle] = np.roll(circle, 1)
    return chosen
