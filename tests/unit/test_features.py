import json

import pandas as pd
import pytest
import torch

from telepathy import features
from telepathy.errors import TelepathyError
from telepathy.features import FeatureStore, encode_task

TEXTS = ["a fine film", "the card was lost and the bank sent a new card", "dull", "a film that I know and like"]
SPLITS = {"train": pd.DataFrame({"text": TEXTS}), "test": pd.DataFrame({"text": TEXTS[:2]})}
BF16 = {"rtol": 2**-7, "atol": 2**-7}


@pytest.fixture
def task(make_task):
    return make_task()


@pytest.fixture
def store(llama, task, tmp_path):
    """A store with layer 1 whole and layer 2 pooled."""
    encode_task(llama, task, SPLITS, tmp_path / "features", layers=[1], pooled_layers=[2])
    return tmp_path / "features"


def alone(lm, text, layer):
    """What transformers says of one prompt without padding, ``[tokens, d]``."""
    prompt = f"Review: {text}\nSentiment (negative or positive):"
    ids = torch.tensor([[1, *lm.tokenizer(prompt, add_special_tokens=False)["input_ids"]]])
    with torch.no_grad():
        return lm.model(input_ids=ids, output_hidden_states=True).hidden_states[layer][0]


def last_before_norm(lm, text):
    """The state that the final norm of a Llama gets."""
    caught = []
    hook = lm.model.model.norm.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    alone(lm, text, 2)
    hook.remove()
    return caught[0][0]


@pytest.mark.parametrize("row", range(4))
def test_stored_states_are_those_of_the_prompt_alone(lm, task, tmp_path, row):
    encode_task(lm, task, SPLITS, tmp_path / "features", layers=[1])
    states, _ = FeatureStore(tmp_path / "features", "train", task).layer(1).batch([row])
    torch.testing.assert_close(states[0].float(), alone(lm, TEXTS[row], 1), **BF16)


def test_stored_states_are_rounded_to_bfloat16(llama, task, store):
    states, _ = FeatureStore(store, "train", task).layer(1).batch([2])
    rounded = alone(llama, TEXTS[2], 1).to(torch.bfloat16)
    assert (states[0] == rounded).float().mean() > 0.99


def test_stored_states_do_not_depend_on_the_size_of_a_batch(llama, task, store, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "BATCH_TOKENS", 1)
    encode_task(llama, task, SPLITS, tmp_path / "one", layers=[1])
    one, many = (
        FeatureStore(folder, "train", task).layer(1).batch(range(4))[0] for folder in (tmp_path / "one", store)
    )
    torch.testing.assert_close(one.float(), many.float(), **BF16)


@pytest.mark.parametrize("row", range(4))
def test_the_pooled_mean_leaves_the_first_position_out(llama, task, store, row):
    found = FeatureStore(store, "train", task).pooled(2, "mean")[row]
    expected = last_before_norm(llama, TEXTS[row])[1:].mean(0)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("row", range(4))
def test_the_pooled_last_state_is_that_of_the_last_token(llama, task, store, row):
    found = FeatureStore(store, "train", task).pooled(2, "last")[row]
    expected = last_before_norm(llama, TEXTS[row])[-1]
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4)


def test_every_example_has_as_many_states_as_tokens(llama, task, store):
    lengths = FeatureStore(store, "train", task).layer(1).lengths()
    assert lengths.tolist() == [len(alone(llama, text, 0)) for text in TEXTS]


def test_a_batch_of_states_is_padded_with_zeros(task, store):
    states, mask = FeatureStore(store, "train", task).layer(1).batch([2, 1])
    assert not states[~mask].any()


def test_the_mask_of_a_batch_is_true_at_the_tokens(task, store):
    layer = FeatureStore(store, "train", task).layer(1)
    _, mask = layer.batch([2, 1])
    short, long = (int(layer.lengths()[row]) for row in (2, 1))
    assert mask.tolist() == [[True] * short + [False] * (long - short), [True] * long]


def test_a_batch_keeps_the_order_that_was_asked_for(task, store):
    layer = FeatureStore(store, "train", task).layer(1)
    together, mask = layer.batch([3, 0])
    assert torch.equal(together[0][mask[0]], layer.batch([3])[0][0])


def test_every_split_holds_its_own_examples(task, store):
    assert [len(FeatureStore(store, split, task)) for split in ("train", "test")] == [4, 2]


def test_the_store_says_whose_states_it_holds(store, llama):
    index = json.loads((store / "index.json").read_text())
    assert (index["model"], index["depth"], index["width"], index["layers"]) == ("llama", 2, 32, [1])


@pytest.mark.parametrize("file", ["layer1.npy", "offsets.npy", "pooled.safetensors"])
def test_one_flipped_bit_is_refused_with_the_file(store, task, file):
    path = store / "train" / file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(TelepathyError, match=f"{path} is damaged .*: delete {store} to encode anew"):
        read_all(store, task)


def read_all(store, task):
    split = FeatureStore(store, "train", task)
    return split.layer(1).batch(range(4)), split.pooled(2, "mean")


def test_a_missing_file_is_refused_with_its_name(store, task):
    (store / "train" / "layer1.npy").unlink()
    with pytest.raises(TelepathyError, match=r"layer1\.npy is damaged"):
        read_all(store, task)


def test_only_what_is_read_is_hashed(store, task):
    (store / "train" / "layer1.npy").unlink()
    assert FeatureStore(store, "train", task).pooled(2, "mean").shape == (4, 32)


def test_reading_states_does_not_change_them(store, task):
    states = FeatureStore(store, "train", task).layer(1)
    read, _ = states.batch([0])
    read.zero_()
    assert states.batch([0])[0].any()


def test_damage_in_one_split_does_not_close_another(store, task):
    (store / "train" / "layer1.npy").unlink()
    assert len(FeatureStore(store, "test", task)) == 2


@pytest.mark.parametrize("change", [{"prompt": "Text: {text}\nMood:"}, {"max_tokens": 99}, {"primer": "Mood:"}])
def test_a_store_of_another_prompt_is_refused(store, make_task, change):
    with pytest.raises(TelepathyError, match="was encoded with another prompt of films: delete it to encode anew"):
        FeatureStore(store, "train", make_task(**change))


def test_a_layer_that_is_not_stored_is_refused_with_those_that_are(store, task):
    with pytest.raises(TelepathyError, match=f"{store} holds no layer 2: it holds 1"):
        FeatureStore(store, "train", task).layer(2)


def test_an_encoding_that_breaks_off_leaves_no_store(llama, task, tmp_path):
    with pytest.raises(KeyError):
        encode_task(llama, task, {"train": pd.DataFrame({"other": TEXTS})}, tmp_path / "features", layers=[1])
    assert not (tmp_path / "features").exists()


def test_a_model_that_nothing_reads_is_refused_with_its_name(llama, task, tmp_path):
    with pytest.raises(TelepathyError, match=r"No layer of llama is to be kept for task films: .* name one that does"):
        encode_task(llama, task, SPLITS, tmp_path / "features", layers=[])
    assert not (tmp_path / "features").exists()
