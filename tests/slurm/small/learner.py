"""A regression that may take long over each step, and says what it learnt."""

import hashlib
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

SECONDS = 2.0


class Slow:
    """Least squares with dropout; slow steps give something time to happen to it."""

    def __init__(self, seconds: float):
        torch.manual_seed(0)
        self.trainable = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.3), nn.Linear(4, 1))
        self.inputs, self.targets = torch.randn(10, 3), torch.randn(10, 1)
        self.steps, self.seconds = 0, seconds

    @property
    def examples(self) -> int:
        return len(self.inputs)

    def loss(self, rows: Sequence[int]) -> Tensor:
        time.sleep(self.seconds)
        self.steps += 1
        return (self.trainable(self.inputs[rows]) - self.targets[rows]).pow(2).mean()

    def evaluate(self) -> dict[str, float]:
        with torch.no_grad():
            loss = float((self.trainable(self.inputs) - self.targets).pow(2).mean())
        return {"accuracy": -loss, "loss": loss}


def digest(learner: Slow) -> str:
    """Hash of the weights."""
    values = b"".join(value.numpy().tobytes() for value in learner.trainable.state_dict().values())
    return hashlib.sha256(values).hexdigest()
