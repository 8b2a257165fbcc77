"""Before a receiver is run at all: point the soft tokens at its own words for the right answer.

A receiver reads a soft token by its likeness to the words that it knows, and copies a label's word
that stands before it many times over. So a bridge is first trained as a classifier in the receiver's
embedding space: the soft tokens of an example should point, away from the mean embedding, where the
tokens of its label point. No receiver runs, so a step is cheaper than one through the receiver, and a
seed need not start where the receiver's gradient says nothing (a likely cause of the published bridge's collapse).
Where answers are not labels but numbers, the soft tokens point at the tokens of the answer, line after line.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from telepathy.batches import within_memory
from telepathy.models.loading import pad
from telepathy.training.bridge import BridgeLearner

PULL = 0.2  # More of it makes soft tokens easier to read, and costs some of the choice between labels.
SHARPNESS = 10.0  # Cosines are multiplied by it in the end: of two labels at right angles one can then win clearly.


class AlignmentLearner(ABC):
    """The same bridge and examples as a `BridgeLearner`, without the receiver, for `telepathy.training.loop.fit`.

    Args:
        learner: gives bridge, states, answers and the receiver's embeddings.
        embeddings: a sample of the receiver's embeddings, ``[words, d_receiver]``, whose mean is the origin.
        sharpness: what cosines are multiplied by at the first step. It falls to `SHARPNESS` on a geometric path.
            A choice among many labels needs more of it to be learnt, and less so that soft tokens end near words.
    """

    def __init__(self, learner: BridgeLearner, embeddings: Tensor, sharpness: float = SHARPNESS):
        self.learner, self.first_sharpness, self.sharpness = learner, sharpness, sharpness
        self.mean = embeddings.float().mean(0).to(learner.receiver.compute.device)

    @property
    def trainable(self) -> nn.Module:
        """The bridge."""
        return self.learner.bridge

    @property
    def examples(self) -> int:
        """Number of training examples."""
        return self.learner.examples

    def directions(self, tokens: Tensor) -> Tensor:
        """Where tokens ``[...]`` point from the mean embedding: unit vectors ``[..., d_receiver]`` in float32."""
        return F.normalize(self.learner.receiver.embed(tokens.to(self.mean.device)).float() - self.mean, dim=-1)

    @abstractmethod
    def scores(self, pointing: Tensor) -> Tensor:
        """Likeness of soft tokens to every candidate, ``[batch, ..., candidates]``.

        Args:
            pointing: of the soft tokens, ``[batch, k, d_receiver]``.
        """

    @abstractmethod
    def gold(self, split: str, rows: Sequence[int]) -> Tensor:
        """The right candidates of some examples of ``train`` or ``dev``, ``[batch, ...]``."""

    def begin(self, share: float) -> None:
        """Sharpen likeness as is due once this share of the steps is taken."""
        self.sharpness = SHARPNESS * (self.first_sharpness / SHARPNESS) ** (1 - share)

    def pointing(self, soft_tokens: Tensor) -> Tensor:
        """Where soft tokens point from the mean embedding: unit vectors of the same shape."""
        return F.normalize(soft_tokens - self.mean, dim=-1)

    def loss(self, rows: Sequence[int]) -> Tensor:
        """Cross-entropy of the sharpened likeness against what is right, and `beside`."""
        pointing = self.pointing(self.learner.training_tokens(rows))
        gold = self.gold("train", rows).to(pointing.device)
        scores = self.scores(pointing)
        return _cross_entropy(self.sharpness * scores, gold) + self.beside(pointing, scores, gold)

    @abstractmethod
    def beside(self, pointing: Tensor, scores: Tensor, gold: Tensor) -> Tensor | float:
        """What is asked of soft tokens beside the choice of the right candidate.

        Args:
            pointing: of the soft tokens, ``[batch, k, d_receiver]``.
            scores: their likeness to every candidate.
            gold: the right candidates, ``[batch, ...]``.
        """

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """On dev: accuracy of the most alike candidates (all of an example's must be right), the last step's
        cross-entropy, and the mean cosine with the right ones.
        """
        states, losses, hits, cosines = self.learner.dev_states, 0.0, 0, 0.0
        likeness = lambda rows: self.scores(self.pointing(self.learner.soft_tokens(states, rows))).cpu()  # noqa: E731
        for rows, scores in within_memory(self.learner.dev_batches, likeness):
            gold = self.gold("dev", rows)
            losses += float(_cross_entropy(SHARPNESS * scores, gold)) * len(rows)
            hits += int((scores.argmax(-1) == gold).reshape(len(rows), -1).all(1).sum())
            cosines += float(right_scores(scores, gold).mean()) * len(rows)
        total = len(self.learner.dev)
        return {"loss": losses / total, "accuracy": hits / total, "cosine": cosines / total}


class LabelAlignment(AlignmentLearner):
    """Candidates are the task's labels: all soft tokens together point at the tokens of one, again and again.

    The last of them points at the label's last token: the receiver, which goes on with what repeats, begins anew.
    For the choice alone, all soft tokens might point halfway between a label's tokens; a receiver could then not
    tell which follows which. So where labels have several tokens, each soft token must also be nearer to its own than
    to the label's others, and is drawn to it: after the first token of a label the whole vocabulary competes, and what
    is far from all words is read as none of them.
    """

    def __init__(self, learner: BridgeLearner, embeddings: Tensor, sharpness: float = SHARPNESS):
        super().__init__(learner, embeddings, sharpness)
        assert learner.labels is not None
        k = learner.bridge.config.soft_tokens
        lines = [repeated_line(label, k) for label in learner.labels.tokens]
        own = [sorted(set(line)) for line in lines]
        self.labels = self.directions(torch.tensor(lines))
        words, real = pad(own, own[0][0])
        turns = torch.tensor([[tokens.index(token) for token in line] for tokens, line in zip(own, lines)])
        self.words = self.directions(words)
        self.absent, self.turns = ~real.bool().to(self.mean.device), turns.to(self.mean.device)
        place = {name: index for index, name in enumerate(learner.labels.names)}
        frames = {"train": learner.train, "dev": learner.dev}
        self._gold = {split: torch.tensor([place[name] for name in frame["label"]]) for split, frame in frames.items()}

    def scores(self, pointing: Tensor) -> Tensor:
        """Mean cosine over the soft tokens with every label, ``[batch, labels]``."""
        return torch.einsum("bkd,nkd->bn", pointing, self.labels) / pointing.shape[1]

    def beside(self, pointing: Tensor, scores: Tensor, gold: Tensor) -> Tensor | float:
        """Cross-entropy of the choice, at every place, of the right one of the label's tokens, and a pull towards it.

        0 where every label has one token.
        """
        if self.words.shape[1] == 1:
            return 0.0
        cosines = torch.einsum("bkd,bnd->bkn", pointing, self.words[gold])
        likeness = (self.sharpness * cosines).masked_fill(self.absent[gold].unsqueeze(1), -torch.inf)
        return _cross_entropy(likeness, self.turns[gold]) + PULL * (1 - right_scores(scores, gold).mean())

    def gold(self, split: str, rows: Sequence[int]) -> Tensor:
        """Places of the right labels, ``[batch]``."""
        return self._gold[split][list(rows)]


class AnswerAlignment(AlignmentLearner):
    """Candidates are the tokens of all answers; soft tokens are the line of the answer, again and again.

    The last of them points at the end of the line, so that the receiver, which goes on with lines that repeat,
    says the answer once more. It must take the tokens for what they are: digits are so much alike that a soft token
    may be nearer to one than to all others and yet be no digit. So they are drawn to the right token too.
    """

    def __init__(self, learner: BridgeLearner, embeddings: Tensor, sharpness: float = SHARPNESS):
        super().__init__(learner, embeddings, sharpness)
        answers = {"train": learner.answers, "dev": learner.dev_answers}
        tokens = sorted({token for rows in answers.values() for row in rows for token in row})
        place = {token: index for index, token in enumerate(tokens)}
        self.tokens = self.directions(torch.tensor(tokens))
        k = learner.bridge.config.soft_tokens
        self._gold = {
            split: torch.tensor([[place[token] for token in repeated_line(row, k)] for row in rows])
            for split, rows in answers.items()
        }

    def beside(self, pointing: Tensor, scores: Tensor, gold: Tensor) -> Tensor:
        """One minus the mean cosine of the soft tokens with their right tokens."""
        return 1 - right_scores(scores, gold).mean()

    def scores(self, pointing: Tensor) -> Tensor:
        """Cosine of every soft token with every token, ``[batch, k, tokens]``."""
        return pointing @ self.tokens.T

    def gold(self, split: str, rows: Sequence[int]) -> Tensor:
        """Places of the right tokens, ``[batch, k]``."""
        return self._gold[split][list(rows)]


def right_scores(scores: Tensor, gold: Tensor) -> Tensor:
    """Of scores ``[..., candidates]`` those of the right candidates ``[...]``."""
    return scores.gather(-1, gold.unsqueeze(-1)).squeeze(-1)


def repeated_line(line: Sequence[int], places: int) -> list[int]:
    """Repeat a line so that its last token is at the last place; of a longer one there is the beginning alone."""
    line = line[:places]
    return [line[(place - places) % len(line)] for place in range(places)]


def alignment_learner(learner: BridgeLearner, embeddings: Tensor, sharpness: float = SHARPNESS) -> AlignmentLearner:
    """The alignment that fits a task: at labels where there are any, else at the tokens of the answer."""
    return (AnswerAlignment if learner.labels is None else LabelAlignment)(learner, embeddings, sharpness)


def _cross_entropy(scores: Tensor, gold: Tensor) -> Tensor:
    return F.cross_entropy(scores.flatten(0, -2), gold.flatten())
