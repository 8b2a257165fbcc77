"""The receiver's half of the runtime: sender states in, answers out."""

import torch
from torch import Tensor

from telepathy.bridges import Bridge
from telepathy.models.compiled import Recorded, compiled_view
from telepathy.models.loading import LanguageModel
from telepathy.scoring.generation import generate
from telepathy.scoring.labels import LabelSet, label_scores
from telepathy.tasks.spec import Task
from telepathy.training.bridge import ReceiverSide, embeddings_after, heard, receiver_prefix, shared_beginning


class BridgeRuntime:
    """A trained bridge and the frozen receiver that answers from its soft tokens.

    What stands before the soft tokens is run once, for all examples and all labels.

    Attributes:
        bridge: the trained bridge.
        receiver: the model that answers.
        task: primer and labels.
        side: how the receiver reads soft tokens.
        labels: the labels as the receiver says them; None for a task of numbers.
        shared: receiver positions before the soft tokens.
        fixed_tokens: receiver positions that are not soft tokens.
        bridge_stage, receiver_stage: what `translate` and `score` run.
    """

    def __init__(
        self,
        bridge: Bridge,
        receiver: LanguageModel,
        task: Task,
        side: ReceiverSide,
        compiled: bool = False,
        relative: bool = False,
    ):
        """Join the parts.

        Args:
            bridge: maps sender states to soft tokens.
            receiver: frozen causal LM.
            task: what is asked.
            side: how the receiver reads soft tokens.
            compiled: fuse the layers' small operations with `torch.compile`, and on a GPU record both stages.
            relative: score labels up to a number an example (see `label_scores`).
        """
        device = receiver.compute.device
        self.bridge, self.receiver, self.task, self.side = bridge.to(device).eval(), receiver, task, side
        self.labels = LabelSet.of(receiver, task) if task.labels else None
        self._past, self.shared = shared_beginning(receiver, task, side)
        self._after = embeddings_after(receiver, task, side)
        self.fixed_tokens = self.shared + self._after.shape[1]
        self._answerer = compiled_view(receiver, whole=False) if compiled else receiver
        self._relative = relative
        record = compiled and device.type == "cuda"
        self.bridge_stage = Recorded(self.bridge, record)
        self.receiver_stage = Recorded(self._score, record)

    @torch.inference_mode()
    def translate(self, states: Tensor, mask: Tensor) -> Tensor:
        """Map states ``[batch, tokens, d_sender]`` and their mask to soft tokens, ``[batch, k, d_receiver]``."""
        device = self.receiver.compute.device
        return self.bridge_stage(states.to(device), mask.to(device))

    @torch.inference_mode()
    def score(self, soft_tokens: Tensor) -> Tensor:
        """Score every label, ``[batch, n]`` in nats on the CPU; where ``relative``, up to a number an example."""
        return self.receiver_stage(soft_tokens).cpu()

    @torch.inference_mode()
    def write(self, soft_tokens: Tensor) -> list[str]:
        """Let the receiver write, greedily and at most the task's ``answer_tokens``."""
        prefix = self.receiver_prefix(soft_tokens)
        mask = torch.ones(prefix.shape[:2], dtype=torch.long, device=prefix.device)
        return generate(self.receiver, prefix, mask, self.task.answer_tokens)

    def receiver_prefix(self, soft_tokens: Tensor) -> Tensor:
        """Return all that the receiver reads, ``[batch, positions, d_receiver]``: BOS, primer and soft tokens."""
        return receiver_prefix(self.receiver, self.task, soft_tokens, self.side)

    def _score(self, soft: Tensor) -> Tensor:
        assert self.labels is not None
        prefix, mask = heard(soft, self._after, self.shared)
        return label_scores(self._answerer, prefix, mask, self.labels, self._past, relative=self._relative)
