"""Before a receiver is run at all: point the soft tokens at its own words for the right label.

A receiver reads a soft token by its likeness to the words that it knows, and copies a label's word
that stands before it many times over. So a bridge is first trained as a classifier in the receiver's
embedding space: the soft tokens of an example should point, away from the mean embedding, where the
tokens of its label point. No receiver runs, so a step is cheaper than one through the receiver, and a
seed need not start where the receiver's gradient says nothing (a likely cause of the published bridge's collapse).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from telepathy.training.bridge import BridgeLearner

SHARPNESS = 10.0  # Cosines are multiplied by it: of two labels at right angles one can then win clearly.


def label_directions(learner: BridgeLearner, mean: Tensor) -> Tensor:
    """Where each label's tokens point from the mean embedding, repeated over the places of the soft tokens.

    Args:
        learner: gives the receiver, the label set and ``k``.
        mean: the receiver's mean embedding, ``[d_receiver]``.

    Returns:
        Unit vectors ``[labels, k, d_receiver]`` in float32.
    """
    assert learner.labels is not None
    device = learner.receiver.compute.device
    places = torch.arange(learner.bridge.config.soft_tokens, device=device)
    rows = [
        learner.receiver.embed(torch.tensor(tokens, device=device)[places % len(tokens)])
        for tokens in learner.labels.tokens
    ]
    return F.normalize(torch.stack(rows).float() - mean, dim=-1)


class AlignmentLearner:
    """The same bridge and examples as a `BridgeLearner`, without the receiver, for `telepathy.training.loop.fit`.

    Args:
        learner: of a task with labels.
        embeddings: a sample of the receiver's embeddings, ``[words, d_receiver]``, whose mean is the origin.
    """

    def __init__(self, learner: BridgeLearner, embeddings: Tensor):
        assert learner.labels is not None
        self.learner = learner
        self.mean = embeddings.float().mean(0).to(learner.receiver.compute.device)
        self.directions = label_directions(learner, self.mean)
        place = {name: index for index, name in enumerate(learner.labels.names)}
        self.gold = torch.tensor([place[name] for name in learner.train["label"]])
        self.dev_gold = torch.tensor([place[name] for name in learner.dev["label"]])

    @property
    def trainable(self) -> nn.Module:
        """The bridge."""
        return self.learner.bridge

    @property
    def examples(self) -> int:
        """Number of training examples."""
        return len(self.gold)

    def scores(self, soft_tokens: Tensor) -> Tensor:
        """Likeness to every label: the mean cosine over the soft tokens, ``[batch, labels]``."""
        pointing = F.normalize(soft_tokens - self.mean, dim=-1)
        return torch.einsum("bkd,nkd->bn", pointing, self.directions) / pointing.shape[1]

    def loss(self, rows: Sequence[int]) -> Tensor:
        """Cross-entropy of the sharpened likeness against the right label."""
        scores = self.scores(self.learner.training_tokens(rows))
        return F.cross_entropy(SHARPNESS * scores, self.gold[list(rows)].to(scores.device))

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Dev accuracy of the most alike label, and the loss."""
        losses, hits = 0.0, 0
        for rows in self.learner.dev_batches:
            scores = self.scores(self.learner.soft_tokens(self.learner.dev_states, rows)).cpu()
            losses += float(F.cross_entropy(SHARPNESS * scores, self.dev_gold[rows], reduction="sum"))
            hits += int((scores.argmax(1) == self.dev_gold[rows]).sum())
        return {"loss": losses / len(self.dev_gold), "accuracy": hits / len(self.dev_gold)}
