"""Labels as the demo's own models tokenise and score them."""

from pathlib import Path

import pytest
import torch

from telepathy.devices import Compute, use_threads
from telepathy.models.loading import load_language_model
from telepathy.scoring.labels import LabelSet, continuation_ids, label_log_likelihoods, text_prefix
from telepathy.tasks.prompts import prompt_ids
from telepathy.tasks.spec import known_tasks, load_task
from tests.workflow.conftest import make_in_project

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("smollm2-135m-instruct", "gemma-3-270m")
STAND_INS = ("movies", "newsgroups", "r8", "r52", "topicqa")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=MODELS)
def lm(request):
    """One of the demo's models in float32, fetched by its rule where it is not there yet."""
    target = f"resources/models/{request.param}"
    make_in_project(target)
    use_threads(1)
    return load_language_model(ROOT / target, Compute(device=torch.device("cpu"), dtype=torch.float32))


def log_likelihood(lm, text, start):
    """Sum of log p of a text's tokens from one place on, in one whole forward pass."""
    ids = [lm.bos_id, *lm.token_ids(text)]
    with torch.no_grad():
        shares = lm.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(shares[place - 1, ids[place]]) for place in range(start, len(ids)))


def test_labels_that_share_a_first_token_are_told_apart(lm):
    names = ["money market", "money supply", "trade"]
    tokens = tuple(tuple(continuation_ids(lm, "Topic:", name)) for name in names)
    assert tokens[0][0] == tokens[1][0]
    labels = LabelSet(tuple(names), tokens)
    prompt = "Report: the bank sold bonds\nTopic:"
    head = [lm.bos_id, *lm.token_ids(prompt)]
    scores = label_log_likelihoods(lm, *text_prefix(lm, [head]), labels)[0]
    slow = [log_likelihood(lm, f"{prompt} {name}", len(head)) for name in names]
    torch.testing.assert_close(scores.double(), torch.tensor(slow, dtype=torch.float64), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", STAND_INS)
def test_labels_of_a_stand_in_stand_after_its_primer_as_in_running_text(lm, name):
    task = load_task(known_tasks()[name])
    labels = LabelSet.of(lm, task)
    for label, tokens in zip(task.labels, labels.tokens, strict=True):
        assert lm.tokenizer.decode(tokens).strip() == label.verbaliser
        assert lm.token_ids(f"{task.primer} {label.verbaliser}") == [*lm.token_ids(task.primer), *tokens]


def test_a_label_that_merges_with_the_primer_is_scored_on_its_own(lm):
    # A primer that ends in a space would take the label's own space.
    tokens = continuation_ids(lm, "Sentiment: ", "positive")
    assert lm.tokenizer.decode(tokens).strip() == "positive"


def test_a_long_text_is_cut_by_tokens_and_the_question_stays(lm):
    task = load_task(known_tasks()["topicqa"])
    example = {"text": "grain ship oil " * 400, "question": "is this report about grain?"}
    ids = prompt_ids(lm, task, example)
    text = lm.tokenizer.decode(ids)
    assert len(ids) <= task.max_tokens
    assert text.endswith("Question: is this report about grain?\nAnswer (no or yes):")
