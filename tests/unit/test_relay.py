import pandas as pd
import pytest
import torch

from telepathy.errors import TelepathyError
from telepathy.methods.prompted import zero_shot
from telepathy.methods.relay import (
    RelayConfig,
    answer_messages,
    label_relay,
    message_task,
    text_relay,
    write_messages,
)
from telepathy.methods.writing import write_after
from telepathy.tasks.prompts import prompt_ids

FRAME = pd.DataFrame(
    {
        "id": ["a", "b", "c"],
        "text": ["a fine film", "a dull film that nobody wants", "the card was lost"],
        "label": ["positive", "negative", "negative"],
    }
)


@pytest.fixture
def task(make_task):
    return make_task(max_tokens=60)


def greedy(lm, ids, tokens):
    """The likeliest token after a whole forward pass, again and again."""
    ids = list(ids)
    start = len(ids)
    while len(ids) < start + tokens:
        with torch.no_grad():
            token = int(lm.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if token in lm.eos_ids:
            break
        ids.append(token)
    return lm.tokenizer.decode(ids[start:], skip_special_tokens=True).strip()


def test_writing_is_greedy_for_rows_of_different_lengths(lm):
    rows = [[lm.bos_id, *lm.token_ids(text)] for text in FRAME["text"]]
    assert write_after(lm, rows, 6) == [greedy(lm, row, 6) for row in rows]


def test_a_summary_is_asked_for_the_text_alone(llama, task):
    written = write_messages(llama, task, FRAME, RelayConfig(message_tokens=5))
    for text, message in zip(FRAME["text"], written, strict=True):
        prompt = f"Summarise the following text in one sentence.\n\nText: {text}\n\nSummary:"
        expected = greedy(llama, [llama.bos_id, *llama.token_ids(prompt)], 5)
        assert message == expected.split("\n\n")[0].strip()


TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<{{ message.role }} on {{ date_string }}>{{ message.content }}"
    "</{}>{% endfor %}{% if add_generation_prompt %}<model>{% endif %}"
)


@pytest.mark.parametrize("chat", [True, False])
def test_a_sender_with_a_chat_template_is_told_as_its_user_and_as_published_in_plain_text(
    llama, task, chat, monkeypatch
):
    monkeypatch.setattr(llama.tokenizer, "chat_template", TEMPLATE)
    said = [{"role": "user", "content": "Summarise the following text in one sentence.\n\nText: {text}"}]
    whole = llama.tokenizer.apply_chat_template(
        said, tokenize=False, add_generation_prompt=True, date_string="26 Jul 2024"
    )
    plain = "Summarise the following text in one sentence.\n\nText: {text}\n\nSummary:"
    prompt = whole.removeprefix(llama.tokenizer.bos_token) if chat else plain
    written = write_messages(llama, task, FRAME, RelayConfig(message_tokens=5, chat=chat))
    for text, message in zip(FRAME["text"], written, strict=True):
        ids = [llama.bos_id, *llama.token_ids(prompt.replace("{text}", text))]
        assert message == greedy(llama, ids, 5).split("\n\n")[0].strip()


def test_what_a_chat_template_adds_takes_no_room_from_the_text(llama, task, monkeypatch):
    long = {"text": "word " * 200, "label": "positive", "id": "a"}
    rooms = []
    for template in (None, TEMPLATE):
        monkeypatch.setattr(llama.tokenizer, "chat_template", template)
        ids = prompt_ids(llama, message_task(llama, task, "summary", chat=True), long)
        rooms.append(llama.tokenizer.decode(ids).count("word"))
    assert abs(rooms[0] - rooms[1]) <= 2  # words that a seam of tokens may take
    assert min(rooms) > 10


def test_the_published_relay_cuts_the_text_by_characters(llama, task):
    long = FRAME.assign(text=FRAME["text"].str.cat([" and more"] * 3))
    cut = FRAME.assign(text=long["text"].str[:6])
    config = RelayConfig(message_tokens=5, characters=6)
    assert write_messages(llama, task, long, config) == write_messages(llama, task, cut, RelayConfig(message_tokens=5))


def test_the_receiver_answers_the_tasks_own_prompt_with_the_message_as_its_text(llama, task):
    messages = ["fine", "dull", "lost"]
    heard = answer_messages(llama, task, FRAME, messages, RelayConfig())
    expected = zero_shot(llama, task, FRAME.assign(text=messages))
    assert [scores.round(3).tolist() for scores in heard["scores"]] == [
        scores.round(3).tolist() for scores in expected["scores"]
    ]


def test_the_published_receiver_is_not_told_the_labels(llama, task):
    config = RelayConfig(label_list=False, answer="generate", generated_tokens=4)
    heard = answer_messages(llama, task, FRAME, ["fine", "dull", "lost"], config)
    prompts = [[llama.bos_id, *llama.token_ids(f"{message}\nSentiment:")] for message in ("fine", "dull", "lost")]
    assert heard["text"].tolist() == [greedy(llama, prompt, 4) for prompt in prompts]


def test_a_relay_keeps_its_messages(llama, task):
    config = RelayConfig(message_tokens=4)
    relayed = text_relay(llama, llama, task, FRAME, config)
    assert relayed["message"].tolist() == write_messages(llama, task, FRAME, config)
    assert relayed["id"].tolist() == ["a", "b", "c"]


def test_a_label_relay_is_the_senders_zero_shot_answer(llama, task):
    sent = zero_shot(llama, task, FRAME)
    relayed = label_relay(llama, task, FRAME)
    assert relayed["prediction"].tolist() == sent["prediction"].tolist() == relayed["message"].tolist()


def test_labels_of_other_examples_are_refused(llama, task):
    sent = zero_shot(llama, task, FRAME)
    with pytest.raises(TelepathyError, match="films are of other examples"):
        label_relay(None, task, FRAME.iloc[::-1], sent)


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"style": "poem"}, "summary, label_and_reason, chain_of_thought, not 'poem'"),
        ({"answer": "guess"}, "score or generate, not 'guess'"),
        ({"message_tokens": 0}, "message_tokens of 1 at least, not 0"),
        ({"characters": -1}, "characters of 0 at least, not -1"),
    ],
)
def test_settings_that_contradict_are_refused_with_their_value(settings, sentence):
    with pytest.raises(TelepathyError, match=sentence):
        RelayConfig(**settings)
