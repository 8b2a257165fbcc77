import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.metrics.pairwise import cosine_similarity

from telepathy.analysis.inspection import inspect_bridge, nearest_words
from telepathy.bridges import BridgeConfig, build_bridge
from telepathy.features import FeatureStore, encode_task
from telepathy.files import read_json, write_json
from telepathy.methods.bridge import BridgeData
from telepathy.tasks.prompts import render_prompt

RUN = {"task": "films", "method": "bridge", "k": 3, "seed": 1}


@pytest.fixture
def data(make_task, llama, tmp_path) -> BridgeData:
    task = make_task()
    words = ["fine", "dull", "I like it", "nobody wants it", "a new card", "the bank"]
    labels = ["positive", "negative"] * 3
    frame = pd.DataFrame({"id": [f"t{row}" for row in range(6)], "text": words, "label": labels})
    examples = tmp_path / "task"
    examples.mkdir()
    frame.to_parquet(examples / "test.parquet")
    write_json(examples / "source.json", {})
    encode_task(llama, task, {"test": frame}, tmp_path / "features", layers=[1])
    return BridgeData(task=task, examples=examples, features=tmp_path / "features", limits={})


def made(architecture, data, llama, gemma, tmp_path):
    torch.manual_seed(0)
    config = BridgeConfig(
        architecture=architecture, soft_tokens=3, sender_width=llama.width, receiver_width=gemma.width, width=16
    )
    bridge = build_bridge(config)
    bridge.save_pretrained(tmp_path / "bridge", sender={"name": "llama", "layer": 1}, receiver={"name": "gemma3"})
    table, facts = tmp_path / "out.parquet", tmp_path / "out.json"
    inspect_bridge(data, llama, gemma, tmp_path / "bridge", RUN, table, facts)
    return bridge.eval(), pd.read_parquet(table), read_json(facts)


def direct(bridge, data):
    states = FeatureStore(data.features, "test", data.task).layer(1)
    with torch.no_grad():
        return torch.cat([bridge(*states.batch([row])) for row in range(len(states))])


def test_the_components_keep_the_distances_between_soft_tokens(data, lms, tmp_path):
    bridge, table, _ = made("perceiver", data, lms["llama"], lms["gemma3"], tmp_path)
    assert table["id"].tolist() == data.frame("test")["id"].tolist()
    kept = pdist(table.filter(regex="^c").to_numpy())
    np.testing.assert_allclose(kept, pdist(direct(bridge, data).flatten(1).numpy()), rtol=1e-3, atol=1e-4)


def test_one_example_a_label_is_shown_with_the_tokens_of_its_prompt(data, lms, tmp_path):
    _, _, facts = made("perceiver", data, lms["llama"], lms["gemma3"], tmp_path)
    assert facts["run"] == RUN
    assert [example["id"] for example in facts["examples"]] == ["t0", "t1"]
    for example in facts["examples"]:
        row = data.frame("test").set_index("id").loc[example["id"]]
        assert "".join(example["tokens"][1:]) == render_prompt(data.task, row.to_dict())


def test_each_soft_token_spends_its_attention_on_the_tokens_after_the_first(data, lms, tmp_path):
    _, _, facts = made("perceiver", data, lms["llama"], lms["gemma3"], tmp_path)
    for example in facts["examples"]:
        attention = np.array(example["attention"])
        assert attention.shape == (3, len(example["tokens"]))
        np.testing.assert_allclose(attention.sum(1), 1, atol=1e-3)
        assert (attention[:, 0] == 0).all()


def test_a_bridge_without_attention_says_so(data, lms, tmp_path):
    _, _, facts = made("linear", data, lms["llama"], lms["gemma3"], tmp_path)
    assert [example["attention"] for example in facts["examples"]] == [None, None]


def said(words):
    return [[hit["word"] for hit in hits] for hits in words]


def test_words_of_a_label_are_those_of_its_mean_soft_tokens(data, lms, tmp_path):
    bridge, _, facts = made("perceiver", data, lms["llama"], lms["gemma3"], tmp_path)
    tokens = direct(bridge, data)
    for label, rows, other in (("negative", [1, 3, 5], [0, 2, 4]), ("positive", [0, 2, 4], [1, 3, 5])):
        mean = tokens[rows].mean(0)
        assert said(facts["words"][label]) == said(nearest_words(lms["gemma3"], mean))
        half = (mean - tokens[other].mean(0)) / 2
        assert said(facts["apart"][label]) == said(nearest_words(lms["gemma3"], half, centred=True))


def test_nearest_words_are_those_of_the_highest_centred_cosine(lm):
    vectors = torch.randn(4, lm.width, generator=torch.Generator().manual_seed(1))
    words = {}
    for row in range(len(lm.tokenizer)):
        text = lm.tokenizer.decode([row])
        if text.startswith(" ") and len(text) > 2 and set(text[1:]) <= set("abcdefghijklmnopqrstuvwxyz"):
            words[text[1:]] = lm.embed(torch.tensor(row)).float().numpy()
    table = np.stack(list(words.values()))
    cosines = cosine_similarity(vectors.numpy() - table.mean(0), table - table.mean(0))
    for row, hits in zip(cosines, nearest_words(lm, vectors)):
        best = np.argsort(-row)[: len(hits)]
        assert [hit["word"] for hit in hits] == [list(words)[place] for place in best]
        np.testing.assert_allclose([hit["cosine"] for hit in hits], row[best], atol=1e-3)
