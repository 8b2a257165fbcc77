"""From texts to answers: two frozen models and a trained bridge as one fast callable."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from telepathy.batches import in_order, length_batches
from telepathy.bridges import Bridge, load_bridge
from telepathy.devices import choose_compute
from telepathy.errors import TelepathyError
from telepathy.methods.bridge import check_trained_for
from telepathy.methods.trained import take
from telepathy.models.compiled import Recorded, compiled_view
from telepathy.models.loading import LanguageModel, hidden_states, load_language_model, pad, source_of
from telepathy.models.room import check_room
from telepathy.runtime import BridgeRuntime
from telepathy.tasks.data import choice_count
from telepathy.tasks.parsing import parse_number
from telepathy.tasks.prompts import prompt_ids
from telepathy.tasks.spec import Task, known_tasks, load_task
from telepathy.training.bridge import ReceiverSide

BUCKETS = (32, 64, 96, 128, 192, 256, 384, 512)
"""Lengths in tokens to which texts are padded on a GPU, so that few shapes are recorded."""

BATCH_TOKENS = 4096
"""Most places of a padded batch; where its rows are filled up to a power of two, before that."""

Example = str | Mapping[str, Any]


class Telepathy(BridgeRuntime):
    """A trained bridge between two frozen models, as a function from texts to answers.

    On a CUDA device texts are padded to bucketed lengths, and every stage (sender, bridge, receiver)
    is compiled, recorded once a shape as a CUDA graph and replayed after that, without recompilation.

    Example:
        >>> model = Telepathy.from_pretrained("results/demo/runs/movies/bridge/k8/seed1/bridge")
        >>> model("A fine film.")
        'positive'
        >>> model(["A fine film.", "A dull film."])
        ['positive', 'negative']

    Attributes, beside those of `BridgeRuntime`:
        sender: the model that reads the text, up to `layer`.
        layer: hidden-state index of the sender that the bridge reads.
        sender_stage: what `encode` runs.
    """

    def __init__(
        self,
        bridge: Bridge,
        sender: LanguageModel,
        receiver: LanguageModel,
        task: Task,
        layer: int,
        side: ReceiverSide,
        buckets: Sequence[int] | None = None,
        compiled: bool | None = None,
    ):
        """Join the parts; `from_pretrained` finds them.

        Args:
            bridge: maps sender states to soft tokens.
            sender: frozen causal LM.
            receiver: frozen causal LM.
            task: what is asked.
            layer: hidden-state index that is read.
            side: how the receiver reads soft tokens.
            buckets: lengths to pad to, in tokens; None for `BUCKETS` where stages are recorded, else none.
            compiled: fuse the layers' small operations with `torch.compile`, and on a GPU record the
                stages; None for yes on a GPU and no on a CPU.
        """
        cuda = receiver.compute.device.type == "cuda"
        fuse = cuda if compiled is None else compiled
        super().__init__(bridge, receiver, task, side, compiled=fuse, relative=True)
        self.sender, self.layer = sender, layer
        self.buckets = sorted(buckets if buckets is not None else BUCKETS if cuda and fuse else ())
        self._reader = compiled_view(sender, whole=True) if fuse else sender
        self.sender_stage = Recorded(self._read, cuda and fuse)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        sender: LanguageModel | str | Path | None = None,
        receiver: LanguageModel | str | Path | None = None,
        task: Task | str | Path | None = None,
        models: str | Path = "resources/models",
        device: str = "auto",
        dtype: str = "auto",
        buckets: Sequence[int] | None = None,
        compiled: bool | None = None,
    ) -> "Telepathy":
        """Load a trained bridge with the two models that it was trained for.

        Args:
            folder: what the rule train_bridge wrote (config.json, model.safetensors).
            sender: the model or its folder; None for ``models/<name in the bridge's config.json>``.
            receiver: likewise.
            task: the task or its YAML; None for the library's task of the name in config.json.
            models: folder of model folders.
            device: auto, cpu or cuda, for models that are loaded here.
            dtype: auto, bfloat16 or float32, likewise; auto is bfloat16 where the hardware has it.
            buckets: see `Telepathy`.
            compiled: see `Telepathy`.

        Raises:
            TelepathyError: if the folder has no weights, the models or the prompt are not those of
                the training (naming both), or the GPU is too small (saying how much is needed).
        """
        bridge, about = load_bridge(folder)
        compute = choose_compute(device, dtype)
        wanted = {"sender": sender, "receiver": receiver}
        places = {
            role: Path(models) / about[role]["name"] if given is None else given for role, given in wanted.items()
        }
        asked = task if isinstance(task, Task) else load_task(task or _task_file(about["task"]))
        named = {role: _named(place) for role, place in places.items()}
        check_trained_for(folder, about, named["receiver"], named["sender"], asked.prompt_hash)
        check_room([place for place in places.values() if not isinstance(place, LanguageModel)], compute)
        loaded: dict[str, LanguageModel] = {}
        for place in places.values():
            if str(place) not in loaded:
                loaded[str(place)] = place if isinstance(place, LanguageModel) else load_language_model(place, compute)
        ready = {role: loaded[str(place)] for role, place in places.items()}
        side = ReceiverSide(**take(ReceiverSide, about["receiver"]))
        layer = about["sender"]["layer"]
        return cls(bridge, ready["sender"], ready["receiver"], asked, layer, side, buckets, compiled)

    def __call__(self, examples: Example | Sequence[Example]) -> Any:
        """Answer one example or several.

        Args:
            examples: a text (where the task has one field), a mapping of the task's fields, or a
                sequence of either, or a frame with the fields as columns. A text that is too long is cut as in
                training.

        Returns:
            The chosen label (for a task of numbers the number, None where none was said); a list of
            them for a sequence.

        Raises:
            TelepathyError: if an example lacks a field, a field is no text, or a prompt cannot fit.
        """
        if self.labels is None:
            return self._unpacked(examples, self._numbers)
        names = self.labels.names
        return self._unpacked(examples, lambda some: [names[best] for best in self._all_scores(some).argmax(1)])

    def probabilities(self, examples: Example | Sequence[Example]) -> Any:
        """Return the share of every label, ``{label: share}``, in the order of the task; a list for a sequence.

        Raises:
            TelepathyError: if the task has no labels.
        """
        if self.labels is None:
            raise TelepathyError(f"The task {self.task.name} has no labels, so an answer has no probabilities.")
        names = self.labels.names
        shares = lambda some: [dict(zip(names, row)) for row in self._all_scores(some).softmax(1).tolist()]  # noqa: E731
        return self._unpacked(examples, shares)

    def soft_tokens(self, examples: Example | Sequence[Example]) -> Tensor:
        """Return what the bridge hands over, ``[batch, k, d_receiver]`` float32 on the CPU; ``[k, d]`` for one."""
        config = self.bridge.config
        empty = torch.empty(0, config.soft_tokens, config.receiver_width)

        def work(some: Sequence[Example]) -> list[Tensor]:
            return self._batched(some, lambda rows: self.translate(*self.encode(rows)).float().cpu())

        found = self._unpacked(examples, work)
        return found if isinstance(found, Tensor) else torch.stack(found) if found else empty

    @torch.inference_mode()
    def attention(self, examples: Example | Sequence[Example]) -> Any:
        """Return what each soft token reads: the sender's tokens, and weights ``[k, tokens]``; a list for a sequence.

        Raises:
            TelepathyError: if the bridge's architecture has no attention.
        """
        weigh: Callable[[Tensor, Tensor], Tensor] | None = getattr(self.bridge, "attention", None)
        if weigh is None:
            raise TelepathyError(f"A bridge of the architecture {self.bridge.config.architecture} has no attention.")

        def work(some: Sequence[Example]) -> list[tuple[list[str], Tensor]]:
            rows = self._token_rows(some)
            words = [self.sender.tokenizer.convert_ids_to_tokens(row) for row in rows]
            weights = self._batched(some, lambda rows: weigh(*self.encode(rows)).float().cpu())
            return [(text, row[:, : len(text)]) for text, row in zip(words, weights, strict=True)]

        return self._unpacked(examples, work)

    @torch.inference_mode()
    def encode(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Run the sender up to `layer` over token rows, BOS first.

        Returns:
            States ``[batch, bucket, d_sender]`` in bfloat16 (the precision of feature stores), and the
            mask of real tokens.
        """
        ids, mask = pad(rows, self.sender.pad_id)
        surplus = self.bucket(ids.shape[1]) - ids.shape[1]
        ids = F.pad(ids, (0, surplus), value=self.sender.pad_id).to(self.sender.compute.device)
        mask = F.pad(mask, (0, surplus)).to(self.sender.compute.device)
        return self.sender_stage(ids, mask), mask.bool()

    def _read(self, ids: Tensor, mask: Tensor) -> Tensor:
        return hidden_states(self._reader, ids, mask, [self.layer])[self.layer].to(torch.bfloat16)

    def bucket(self, length: int) -> int:
        """Return the smallest bucket that holds so many tokens; beyond the largest, its next multiple."""
        if not self.buckets:
            return length
        fitting = [bucket for bucket in self.buckets if bucket >= length]
        return fitting[0] if fitting else -(-length // self.buckets[-1]) * self.buckets[-1]

    def _token_rows(self, examples: Sequence[Example]) -> list[list[int]]:
        return [prompt_ids(self.sender, self.task, self._fields(example)) for example in examples]

    def _fields(self, example: Example) -> Mapping[str, Any]:
        names = [*self.task.fields, *(["choices"] if self.task.kind == "multiple_choice" else [])]
        if not isinstance(example, str | Mapping):
            raise TelepathyError(
                f"An example of the task {self.task.name} is a text or a mapping of its fields, "
                f"not {type(example).__name__}."
            )
        given = {self.task.shorten: example} if isinstance(example, str) else example
        missing = [name for name in names if name not in given]
        if missing:
            raise TelepathyError(
                f"An example of the task {self.task.name} needs the fields {', '.join(names)}; "
                f"{', '.join(missing)} is missing."
            )
        for name in self.task.fields:
            if not isinstance(given[name], str):
                raise TelepathyError(
                    f"The field {name} of an example of the task {self.task.name} is a text, "
                    f"not {type(given[name]).__name__}."
                )
        return given

    def _batched(self, examples: Sequence[Example], work: Callable[[list[list[int]]], Any]) -> list[Any]:
        """Do work on token rows, like lengths together, and return its results in the order of the examples.

        Where there are buckets the number of rows is a power of two too: rows are repeated to fill it.
        """
        rows = self._token_rows(examples)

        def filled(batch: Sequence[int]) -> list[Any]:
            size = 1 << (len(batch) - 1).bit_length() if self.buckets else len(batch)
            return list(work([rows[row] for row in batch] + [rows[batch[0]]] * (size - len(batch))))[: len(batch)]

        return in_order(length_batches([self.bucket(len(row)) for row in rows], BATCH_TOKENS) if rows else [], filled)

    def _all_scores(self, examples: Sequence[Example]) -> Tensor:
        assert self.labels is not None
        scores = self._batched(examples, lambda rows: self.score(self.translate(*self.encode(rows))))
        table = torch.stack(scores) if scores else torch.empty(0, len(self.labels.names))
        if self.task.kind == "multiple_choice":
            counts = torch.tensor([choice_count(self._fields(example)) for example in examples])
            table = table.masked_fill(torch.arange(table.shape[1]) >= counts[:, None], -torch.inf)
        return table

    def _numbers(self, examples: Sequence[Example]) -> list[str | None]:
        def work(rows: list[list[int]]) -> list[str]:
            return self.write(self.translate(*self.encode(rows)))

        return [parse_number(text) for text in self._batched(examples, work)]

    @staticmethod
    def _unpacked(examples: Example | Sequence[Example], work: Callable[[Sequence[Example]], list[Any]]) -> Any:
        if isinstance(examples, str | Mapping):
            return work([examples])[0]
        if isinstance(examples, pd.DataFrame):
            examples = examples.to_dict("records")
        if not isinstance(examples, Iterable):
            raise TelepathyError(
                f"Give a text, a mapping of fields, or a sequence of either, not {type(examples).__name__}."
            )
        return work(list(examples))


def _named(model: LanguageModel | str | Path) -> tuple[str, dict[str, Any]]:
    """Name and source of a model, or of a folder that is not loaded yet."""
    if isinstance(model, LanguageModel):
        return model.name, model.source
    return Path(model).name, source_of(model)


def _task_file(name: str) -> Path:
    tasks = known_tasks()
    if name not in tasks:
        raise TelepathyError(
            f"The bridge was trained on the task {name}, which the library does not ship: give the path of its YAML "
            "as task."
        )
    return tasks[name]
