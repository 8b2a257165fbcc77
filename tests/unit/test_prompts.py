import pytest

from telepathy.errors import TelepathyError
from telepathy.tasks.prompts import prompt_ids, render_prompt

LONG = "the card was lost and the bank sent a new card " * 40


def read(lm, ids):
    return lm.tokenizer.decode(ids[1:])


def test_a_prompt_is_the_template_with_its_fields(make_task):
    rendered = render_prompt(make_task(), {"text": " a {fine} film\n"})
    assert rendered == "Review: a {fine} film\nSentiment (negative or positive):"


def test_options_are_lettered_a_line_each(choice_task):
    rendered = render_prompt(choice_task, {"question": "where?", "choices": ["here", "there"]})
    assert rendered == "Question: where?\nA. here\nB. there\nAnswer (A, B or C):"


def test_the_first_token_is_the_bos(llama, make_task):
    assert prompt_ids(llama, make_task(), {"text": "a film"})[0] == llama.tokenizer.bos_token_id


def test_a_short_prompt_is_whole(llama, make_task):
    task = make_task()
    assert read(llama, prompt_ids(llama, task, {"text": "a film"})) == render_prompt(task, {"text": "a film"})


@pytest.mark.parametrize("room", [30, 45, 90])
def test_a_long_prompt_fits(llama, make_task, room):
    assert len(prompt_ids(llama, make_task(), {"text": LONG}, room)) <= room


@pytest.mark.parametrize("room", [30, 45, 90])
def test_a_long_prompt_uses_the_room_but_for_a_token_or_two(llama, make_task, room):
    assert len(prompt_ids(llama, make_task(), {"text": LONG}, room)) >= room - 2


@pytest.mark.parametrize("room", [30, 45, 90])
def test_the_label_list_of_a_long_prompt_stays_whole(llama, make_task, room):
    text = read(llama, prompt_ids(llama, make_task(), {"text": LONG}, room))
    assert text.endswith("\nSentiment (negative or positive):")


def test_a_long_text_keeps_its_beginning(llama, make_task):
    text = read(llama, prompt_ids(llama, make_task(), {"text": LONG}, 45)).removeprefix("Review: ")
    assert LONG.startswith(text.partition("\n")[0])


def test_the_question_after_a_long_passage_stays_whole(llama, make_task):
    task = make_task(
        fields={"passage": "passage", "question": "question"},
        shorten="passage",
        prompt="Passage: {passage}\nQuestion: {question}?\nAnswer (no or yes):",
    )
    question = "was the card that the bank sent stolen"
    text = read(llama, prompt_ids(llama, task, {"passage": LONG, "question": question}, 80))
    assert text.endswith(f"\nQuestion: {question}?\nAnswer (no or yes):")


def test_the_options_under_a_long_question_stay_whole(llama, choice_task):
    options = ["the bank", "the ship", "the film"]
    text = read(llama, prompt_ids(llama, choice_task, {"question": LONG, "choices": options}, 90))
    assert text.endswith("\nA. the bank\nB. the ship\nC. the film\nAnswer (A, B or C):")


def test_a_text_longer_than_the_context_fits_the_context(llama, make_task):
    assert len(prompt_ids(llama, make_task(max_tokens=4000), {"text": LONG})) <= 128


def test_the_limit_of_the_task_holds_where_no_room_is_given(llama, make_task):
    assert len(prompt_ids(llama, make_task(max_tokens=40), {"text": LONG})) <= 40


def test_an_empty_text_leaves_the_bare_template(llama, make_task):
    text = read(llama, prompt_ids(llama, make_task(), {"text": ""}))
    assert text == "Review: \nSentiment (negative or positive):"


def test_a_template_that_does_not_fit_is_refused_with_both_sizes(llama, make_task):
    bare = len(prompt_ids(llama, make_task(), {"text": ""}))
    with pytest.raises(
        TelepathyError, match=f"takes {bare} tokens of llama with an empty text, more than the {bare - 1}"
    ):
        prompt_ids(llama, make_task(), {"text": LONG}, bare - 1)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("room", range(36, 44))
def test_a_text_of_characters_of_several_tokens_is_cut_too(llama, make_task, room):
    assert len(prompt_ids(llama, make_task(), {"text": "\N{GRINNING FACE}" * 40}, room)) <= room
