"""The arms of the comparison: every one goes from texts to chosen labels, and knows the least work that this takes."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import StaticCache

from telepathy.benchmarks.roofline import Work, bridge_work, model_work
from telepathy.benchmarks.timing import Arm, Clock
from telepathy.inference import Telepathy
from telepathy.methods.relay import message_task
from telepathy.models.compiled import Recorded, compiled_view
from telepathy.models.loading import LanguageModel
from telepathy.scoring.generation import continuation
from telepathy.scoring.labels import LabelSet, label_scores, text_prefix
from telepathy.tasks.prompts import prompt_ids
from telepathy.tasks.spec import Task

EQUAL_WORK, AS_PUBLISHED = "equal_work", "as_published"
PUBLISHED_MESSAGE, PUBLISHED_ANSWER = 50, 10
"""Tokens that the publication's relay wrote, and that every arm decoded as an answer."""

Examples = Sequence[Mapping[str, Any]]
Labels = tuple[list[str], list[int]]
"""Chosen labels, and tokens generated for each example."""


class Reader:
    """One model that reads prompts and picks a label, with the care that the runtime has.

    Args:
        lm: the model.
        task: prompt and labels.
        buckets: lengths to which prompts are padded (on the left), in tokens.
        compiled: fuse small operations, and record them on a GPU.
    """

    def __init__(self, lm: LanguageModel, task: Task, bucket: Callable[[int], int], compiled: bool):
        self.lm, self.task, self.bucket = lm, task, bucket
        self.labels = LabelSet.of(lm, task)
        cuda = lm.compute.device.type == "cuda"
        several = max(map(len, self.labels.tokens)) > 1
        view = compiled_view(lm, whole=not several) if compiled else lm
        self.stage = Recorded(
            lambda prefix, mask: label_scores(view, prefix, mask, self.labels, relative=True), cuda and compiled
        )

    def prefix(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Embeddings ``[batch, bucket, d]`` and mask of token rows, left-padded."""
        prefix, mask = text_prefix(self.lm, rows)
        surplus = self.bucket(prefix.shape[1]) - prefix.shape[1]
        return F.pad(prefix, (0, 0, surplus, 0)), F.pad(mask, (surplus, 0))

    @torch.inference_mode()
    def choose(self, examples: Examples, room: int | None = None) -> list[str]:
        """The likeliest label of every example."""
        rows = [prompt_ids(self.lm, self.task, example, room) for example in examples]
        best = self.stage(*self.prefix(rows)).argmax(1).tolist()
        return [self.labels.names[place] for place in best]


class Arms:
    """All arms of one runtime.

    Args:
        model: the trained bridge between its models; its task has labels.
        clock: times the stages sender, bridge and receiver.
        compiled: the mode; the runtime was made in the same.
    """

    def __init__(self, model: Telepathy, clock: Clock, compiled: bool):
        self.model, self.clock, self.task = model, clock, model.task
        self.static = compiled and model.receiver.compute.device.type == "cuda"
        self.caches: dict[int, StaticCache] = {}
        self.longest = 0
        for name in ("sender", "bridge", "receiver"):
            stage = f"{name}_stage"
            setattr(model, stage, clock.around(name, getattr(model, stage)))
        bucket = model.bucket if compiled else lambda length: length
        self.sender = Reader(model.sender, self.task, bucket, compiled)
        self.receiver = Reader(model.receiver, self.task, bucket, compiled)
        self.asked = message_task(model.sender, self.task, "summary", chat=True)
        self.asked_as_published = message_task(model.sender, self.task, "summary", chat=False)
        self.verbalisers = {label.name: label.verbaliser for label in self.task.labels}

    def equal_work(self, relays: Sequence[int]) -> dict[str, Arm]:
        """Arms from text to chosen label; ``relays`` are the lengths of messages in tokens."""
        arms = {"bridge": Arm(run=self._bridge), "direct_receiver": Arm(run=self._direct_receiver)}
        arms |= {"direct_sender": Arm(run=self._direct_sender), "label_relay": Arm(run=self._label_relay)}
        self.longest = max([self.longest, *relays])
        for tokens in relays:
            arms[f"text_relay_{tokens}"] = Arm(run=partial(self._text_relay, tokens=tokens, fixed=False))
            arms[f"text_relay_{tokens}_fixed"] = Arm(run=partial(self._text_relay, tokens=tokens, fixed=True))
        return arms

    def as_published(self) -> dict[str, Arm]:
        """The publication's protocol: unequal work, and the bridge's tokens made outside the timer.

        The bridge decodes 10 tokens (its first latency) or none (its second), the relay 50 and 10,
        the receiver alone 10; the sender runs all its layers; nothing is compiled.
        """
        return {
            "bridge": Arm(run=partial(self._published_bridge, tokens=PUBLISHED_ANSWER), prepare=self._published_rows),
            "bridge_no_answer": Arm(run=partial(self._published_bridge, tokens=0), prepare=self._published_rows),
            "text_relay_50": Arm(run=self._published_relay),
            "direct_receiver": Arm(run=self._published_receiver),
        }

    def _bridge(self, examples: Examples) -> Labels:
        return self.model(examples), [0]

    def _direct_receiver(self, examples: Examples) -> Labels:
        with self.clock.stage("receiver"):
            return self.receiver.choose(examples), [0]

    def _direct_sender(self, examples: Examples) -> Labels:
        with self.clock.stage("sender"):
            return self.sender.choose(examples), [0]

    def _label_relay(self, examples: Examples) -> Labels:
        """The sender picks a label, the receiver reads it in the text's place and picks its own."""
        with self.clock.stage("sender"):
            said = [self.verbalisers[label] for label in self.sender.choose(examples)]
        with self.clock.stage("receiver"):
            return self.receiver.choose(self._with_texts(examples, said)), [0]

    def _text_relay(self, examples: Examples, tokens: int, fixed: bool) -> Labels:
        with self.clock.stage("sender"):
            messages, counts = self._messages(self.asked, examples, tokens, fixed)
        with self.clock.stage("receiver"):
            return self.receiver.choose(self._with_texts(examples, messages), self.task.max_tokens + tokens), counts

    def _with_texts(self, examples: Examples, texts: Sequence[str]) -> Examples:
        return [{**example, self.task.shorten: text} for example, text in zip(examples, texts, strict=True)]

    def _messages(self, asked: Task, examples: Examples, tokens: int, fixed: bool) -> Labels:
        """What the sender writes, asked so, and the length of each in tokens; ``fixed`` does not let it stop early."""
        lm = self.model.sender
        prefix, mask = self.sender.prefix([prompt_ids(lm, asked, example) for example in examples])
        options: dict[str, Any] = {"past_key_values": self._cache(len(prefix))} if self.static else {}
        if fixed:
            options["min_new_tokens"] = tokens
        ids = continuation(lm, prefix, mask, tokens, **options)
        counts = [tokens] * len(ids) if fixed else _said(ids, lm)
        return lm.tokenizer.batch_decode(ids, skip_special_tokens=True), counts

    @torch.inference_mode()
    def _cache(self, batch: int) -> StaticCache:
        """An empty key-value cache for the longest message, one for all messages of a batch size.

        With a cache of its own for each call, transformers would compile its decoding anew for another length, and
        record it anew for other addresses.
        """
        if batch not in self.caches:
            length = self.model.bucket(self.asked.max_tokens) + self.longest
            self.caches[batch] = StaticCache(config=self.model.sender.model.config, max_cache_len=length)
        self.caches[batch].reset()
        return self.caches[batch]

    def _published_rows(self, examples: Examples) -> Any:
        return [prompt_ids(self.model.sender, self.task, example) for example in examples]

    @torch.inference_mode()
    def _published_bridge(self, rows: Sequence[Sequence[int]], tokens: int) -> Labels:
        model = self.model
        embeds, mask = text_prefix(model.sender, rows)
        with self.clock.stage("sender"):
            out = model.sender.model(inputs_embeds=embeds, attention_mask=mask, output_hidden_states=True)
            states = out.hidden_states[model.layer].to(torch.bfloat16)
        soft = model.translate(states, mask.bool())
        with self.clock.stage("receiver"):
            prefix = model.receiver_prefix(soft)
            seen = torch.ones(prefix.shape[:2], dtype=torch.long, device=prefix.device)
            if not tokens:
                model.receiver.model(inputs_embeds=prefix.to(model.receiver.compute.dtype), attention_mask=seen)
                return [], [0]
            return self._answers(model.receiver, prefix, seen)

    @torch.inference_mode()
    def _published_relay(self, examples: Examples) -> Labels:
        with self.clock.stage("sender"):
            messages, counts = self._messages(self.asked_as_published, examples, PUBLISHED_MESSAGE, True)
        with self.clock.stage("receiver"):
            said, more = self._published_receiver(self._with_texts(examples, messages), PUBLISHED_MESSAGE)
        return said, [first + second for first, second in zip(counts, more, strict=True)]

    def _published_receiver(self, examples: Examples, longer: int = 0) -> Labels:
        lm, room = self.model.receiver, self.task.max_tokens + longer
        return self._answers(lm, *text_prefix(lm, [prompt_ids(lm, self.task, example, room) for example in examples]))

    def _answers(self, lm: LanguageModel, prefix: Tensor, mask: Tensor) -> Labels:
        ids = continuation(lm, prefix, mask, PUBLISHED_ANSWER, min_new_tokens=PUBLISHED_ANSWER)
        return lm.tokenizer.batch_decode(ids, skip_special_tokens=True), [ids.shape[1]] * len(ids)

    def least_work(self, name: str, protocol: str, examples: Examples, steps: float) -> list[Work]:
        """Forward passes that an arm needs at least, for `Machine.milliseconds`.

        Args:
            name: of the arm.
            protocol: ``equal_work`` or ``as_published``, whose fixed numbers of tokens and all layers count as needed.
            examples: one batch.
            steps: tokens that the sender wrote for the example with the longest message, at equal work.
        """
        lengths = pd.DataFrame([self._lengths(example) for example in examples]).mean()
        if protocol == AS_PUBLISHED:
            return self._published_work(name, lengths, len(examples))
        return self._equal_work(name, lengths, len(examples), steps)

    def _equal_work(self, name: str, lengths: pd.Series, batch: int, steps: float) -> list[Work]:
        model, answer = self.model, partial(self._scoring, self.receiver, batch)
        if name == "bridge":
            sender = model_work(model.sender, batch, lengths["sender"], lengths["sender"], model.layer)
            read = bridge_work(model.bridge, batch, lengths["sender"])
            return [sender, read, *answer(self._soft - model.shared, self._soft)]
        if name == "direct_receiver":
            return answer(lengths["receiver"], lengths["receiver"])
        first = self._scoring(self.sender, batch, lengths["sender"], lengths["sender"])
        if name == "direct_sender":
            return first
        if name == "label_relay":
            return [*first, *answer(lengths["bare"] + 1, lengths["bare"] + 1)]
        heard = lengths["bare"] + steps
        return [*_writing(model.sender, batch, lengths["asked"], steps), *answer(heard, heard)]

    def _published_work(self, name: str, lengths: pd.Series, batch: int) -> list[Work]:
        model = self.model
        answer = partial(_writing, model.receiver, batch, steps=PUBLISHED_ANSWER)
        if name == "direct_receiver":
            return answer(lengths["receiver"])
        if name == "text_relay_50":
            message = _writing(model.sender, batch, lengths["asked_as_published"], PUBLISHED_MESSAGE)
            return [*message, *answer(lengths["bare"] + PUBLISHED_MESSAGE)]
        sender = model_work(model.sender, batch, lengths["sender"], lengths["sender"])
        first = [sender, bridge_work(model.bridge, batch, lengths["sender"])]
        if name == "bridge_no_answer":
            return [*first, model_work(model.receiver, batch, self._soft, self._soft)]
        return [*first, *answer(self._soft)]

    @property
    def _soft(self) -> int:
        """Positions that the receiver sees where a bridge speaks: soft tokens, and what stands around them."""
        return self.model.bridge.config.soft_tokens + self.model.fixed_tokens

    def _scoring(self, reader: Reader, batch: int, tokens: float, context: float) -> list[Work]:
        """The pass over a prompt, and that over label tokens after the first where there are any."""
        labels = reader.labels.tokens
        passes = [model_work(reader.lm, batch, tokens, context, None, len(labels))]
        tails = [len(row) - 1 for row in labels if len(row) > 1]
        if tails:
            rows = reader.lm.model.config.vocab_size
            head = model_work(reader.lm, batch * sum(tails), 0, 0, 0, rows)
            passes.append(model_work(reader.lm, batch, sum(tails), context) + head)
        return passes

    def _lengths(self, example: Mapping[str, Any]) -> dict[str, int]:
        model = self.model
        bare = {**example, self.task.shorten: ""}
        return {
            "sender": len(prompt_ids(model.sender, self.task, example)),
            "receiver": len(prompt_ids(model.receiver, self.task, example)),
            "asked": len(prompt_ids(model.sender, self.asked, example)),
            "asked_as_published": len(prompt_ids(model.sender, self.asked_as_published, example)),
            "bare": len(prompt_ids(model.receiver, self.task, bare)),
        }


def _writing(lm: LanguageModel, batch: int, prompt: float, steps: float) -> list[Work]:
    """The pass over a prompt, which gives the first token, and one for each further token."""
    rows = lm.model.config.vocab_size
    step = model_work(lm, batch, 1, prompt + steps / 2, None, rows)
    return [model_work(lm, batch, prompt, prompt, None, rows), *[step] * max(0, round(steps) - 1)]


def _said(ids: Tensor, lm: LanguageModel) -> list[int]:
    """Tokens up to the end of each sequence, the end included."""
    ends = torch.isin(ids, torch.tensor(lm.eos_ids, device=ids.device))
    before = ends.long().cumsum(1) - ends.long()
    return (before == 0).sum(1).tolist()
