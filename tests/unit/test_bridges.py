import json
import math

import pytest
import torch
from safetensors.torch import load_file
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from telepathy.bridges import BridgeConfig, build_bridge, load_bridge
from telepathy.bridges.base import _ARCHITECTURES
from telepathy.bridges.perceiver import Attention
from telepathy.errors import TelepathyError

SENDER, RECEIVER, K = 12, 20, 3
ARCHITECTURES = sorted(_ARCHITECTURES)
LENGTHS = (9, 5, 2)


def config(architecture="perceiver", **changes):
    shape = {"soft_tokens": K, "sender_width": SENDER, "receiver_width": RECEIVER, "width": 16, "heads": 2}
    return BridgeConfig(architecture=architecture, **{**shape, **changes})


def make(architecture="perceiver", **changes):
    torch.manual_seed(0)
    return build_bridge(config(architecture, **changes)).eval()


@pytest.fixture
def states():
    """Sender states of three lengths whose padding is noise, and their mask."""
    torch.manual_seed(1)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    return torch.randn(len(LENGTHS), max(LENGTHS), SENDER), mask


@pytest.fixture(params=ARCHITECTURES)
def bridge(request):
    """Each architecture in turn."""
    return make(request.param)


def normed(x):
    """Layer norm with neither scale nor shift."""
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()


def direction(x):
    return x / x.norm(dim=-1, keepdim=True)


def test_the_four_architectures_are_registered():
    assert set(ARCHITECTURES) >= {"linear", "mean_pool", "mlp", "perceiver"}


def test_soft_tokens_are_k_vectors_of_the_receivers_width(bridge, states):
    assert bridge(*states).shape == (3, K, RECEIVER)


def test_soft_tokens_are_float32_whatever_the_states_are(bridge, states):
    assert bridge(states[0].to(torch.bfloat16), states[1]).dtype == torch.float32


def test_more_padding_does_not_change_soft_tokens(bridge, states):
    wider = F.pad(states[0], (0, 0, 0, 4), value=7.0), F.pad(states[1], (0, 4))
    torch.testing.assert_close(bridge(*wider), bridge(*states), rtol=1e-5, atol=1e-6)


def test_what_stands_in_the_padding_does_not_matter(bridge, states):
    changed = torch.where(states[1].unsqueeze(-1), states[0], torch.full_like(states[0], 1e3))
    torch.testing.assert_close(bridge(changed, states[1]), bridge(*states), rtol=1e-5, atol=1e-6)


def test_soft_tokens_do_not_depend_on_the_rest_of_the_batch(bridge, states):
    alone = bridge(states[0][1:2, :5], states[1][1:2, :5])
    torch.testing.assert_close(alone[0], bridge(*states)[1], rtol=1e-5, atol=1e-6)


def test_soft_tokens_depend_on_the_states(bridge, states):
    assert not torch.allclose(bridge(*states), bridge(states[0] + torch.randn_like(states[0]), states[1]), atol=1e-3)


def test_the_first_position_is_not_read(bridge, states):
    changed = states[0].clone()
    changed[:, 0] = 1e3
    assert torch.equal(bridge(changed, states[1]), bridge(*states))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_first_position_is_read_if_asked_for(architecture, states):
    bridge = make(architecture, skip_first=False)
    changed = states[0].clone()
    changed[:, 0] += torch.randn(SENDER)
    assert not torch.allclose(bridge(changed, states[1]), bridge(*states), atol=1e-3)


def test_every_parameter_gets_a_gradient(bridge, states):
    bridge(*states).pow(3).sum().backward()
    assert [name for name, value in bridge.named_parameters() if value.grad is None] == []


def test_a_saved_bridge_loads_bit_for_bit(bridge, states, tmp_path):
    bridge.match_embeddings(torch.randn(50, RECEIVER))
    bridge.save_pretrained(tmp_path / "bridge")
    loaded, _ = load_bridge(tmp_path / "bridge")
    assert torch.equal(loaded(*states), bridge(*states))


def test_a_loaded_bridge_has_the_configuration_that_was_saved(bridge, tmp_path):
    bridge.save_pretrained(tmp_path / "bridge")
    assert load_bridge(tmp_path / "bridge")[0].config == bridge.config


def test_a_loaded_bridge_is_in_eval_mode(bridge, tmp_path):
    bridge.train().save_pretrained(tmp_path / "bridge")
    assert not load_bridge(tmp_path / "bridge")[0].training


def test_what_is_said_about_a_bridge_comes_back(tmp_path):
    make().save_pretrained(tmp_path / "bridge", task="films", sender={"layer": 3})
    assert load_bridge(tmp_path / "bridge")[1] == {"task": "films", "sender": {"layer": 3}}


def test_a_saved_bridge_is_safetensors_and_json(tmp_path):
    bridge = make()
    bridge.save_pretrained(tmp_path / "bridge")
    saved = load_file(tmp_path / "bridge" / "model.safetensors")
    shape = json.loads((tmp_path / "bridge" / "config.json").read_text())["bridge"]
    assert (set(saved), shape["soft_tokens"]) == (set(bridge.state_dict()), K)


@pytest.mark.parametrize("absent", ["config.json", "model.safetensors"])
def test_a_folder_without_a_whole_bridge_is_refused_with_its_path(tmp_path, absent):
    make().save_pretrained(tmp_path / "bridge")
    (tmp_path / "bridge" / absent).unlink()
    with pytest.raises(TelepathyError, match=f"{tmp_path / 'bridge'} holds no trained bridge"):
        load_bridge(tmp_path / "bridge")


def test_an_unknown_architecture_is_refused_with_those_that_exist():
    with pytest.raises(TelepathyError, match=f"no bridge architecture 'transformer': .* {', '.join(ARCHITECTURES)}"):
        build_bridge(config("transformer"))


def test_heads_that_do_not_divide_the_width_are_refused_with_both():
    with pytest.raises(TelepathyError, match="bridge of width 16 cannot have 3 heads"):
        config(heads=3)


def test_heads_must_divide_the_receivers_width_where_that_is_the_width():
    with pytest.raises(TelepathyError, match="bridge of width 20 cannot have 3 heads"):
        config(width=0, heads=3)


@pytest.mark.parametrize("name", ["soft_tokens", "sender_width", "receiver_width", "depth", "heads"])
def test_sizes_below_one_are_refused_by_name(name):
    with pytest.raises(TelepathyError, match=f"A bridge needs {name} of 1 at least, not 0"):
        config(**{name: 0})


def test_soft_tokens_are_as_large_as_the_median_embedding(bridge, states):
    table = torch.randn(101, RECEIVER) * torch.arange(1, 102)[:, None]
    bridge.match_embeddings(table)
    expected = sorted(math.sqrt(sum(value**2 for value in row) / RECEIVER) for row in table.tolist())[50]
    found = bridge(*states).pow(2).mean(-1).sqrt()
    torch.testing.assert_close(found, torch.full_like(found, expected), rtol=1e-3, atol=0)


@pytest.mark.parametrize("skipped", [0, 1])
def test_states_are_standardised_as_scikit_learn_does(bridge, states, skipped):
    bridge = make(bridge.config.architecture, skip_first=bool(skipped))
    values, mask = 5 + 3 * states[0] * torch.arange(1, SENDER + 1), states[1]
    bridge.match_states(values, mask)
    counted = [values[row, skipped:length] for row, length in enumerate(LENGTHS)]
    expected = StandardScaler().fit(torch.cat(counted).numpy()).transform(counted[0].numpy())
    torch.testing.assert_close(bridge.read(values, mask)[0][0].numpy(), expected, rtol=1e-4, atol=1e-4)


def test_a_bridge_that_does_not_standardise_reads_the_states_as_they_are(states):
    bridge = make(standardise=False)
    bridge.match_states(5 + 3 * states[0], states[1])
    assert torch.equal(bridge.read(*states)[0], states[0][:, 1:])


def test_soft_tokens_start_near_the_mean_embedding_only_if_asked_for(bridge, states):
    table = 1 + torch.randn(400, RECEIVER)
    angles = {}
    for near in (True, False):
        started = make(bridge.config.architecture, near_mean=near)
        started.match_embeddings(table)
        angles[near] = F.cosine_similarity(started(*states), table.mean(0), dim=-1)
    assert angles[True].min() > 0.8
    assert angles[False].mean() < 0.5


def test_soft_tokens_that_start_near_the_mean_differ_from_text_to_text(bridge, states):
    bridge.match_embeddings(1 + torch.randn(400, RECEIVER))
    tokens = bridge(*states)
    assert (tokens[0] - tokens[1]).norm() > 0.01 * tokens[0].norm()


def explicit_attention(attention, queries, states, mask):
    """Attention of one example, head by head and query by query; returns the outputs and the mean weights."""
    width = queries.shape[-1]
    size = width // attention.heads
    key_weight, value_weight = attention.key_value.weight[:width], attention.key_value.weight[width:]
    outputs, seen = [], []
    for query in queries:
        mixed, weights = [], torch.zeros(len(states))
        for head in range(attention.heads):
            part = slice(head * size, (head + 1) * size)
            keys = [key_weight[part] @ state for state in states]
            values = [value_weight[part] @ state for state in states]
            scores = [float((attention.query.weight[part] @ query) @ key) / math.sqrt(size) for key in keys]
            exps = [math.exp(score) if real else 0.0 for score, real in zip(scores, mask)]
            shares = [value / sum(exps) for value in exps]
            weights += torch.tensor(shares) / attention.heads
            mixed.append(sum(share * value for share, value in zip(shares, values)))
        outputs.append(attention.out.weight @ torch.cat(mixed))
        seen.append(weights)
    return torch.stack(outputs), torch.stack(seen)


@pytest.fixture
def attention():
    torch.manual_seed(2)
    return Attention(SENDER, 3).requires_grad_(False)


@pytest.mark.parametrize("row", range(3))
def test_attention_is_softmax_written_out(attention, states, row):
    queries = torch.randn(3, K, SENDER)
    expected, _ = explicit_attention(attention, queries[row], states[0][row], states[1][row])
    torch.testing.assert_close(attention(queries, *states)[row], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("row", range(3))
def test_attention_weights_are_softmax_written_out(attention, states, row):
    queries = torch.randn(3, K, SENDER)
    _, expected = explicit_attention(attention, queries[row], states[0][row], states[1][row])
    torch.testing.assert_close(attention.weights(queries, *states)[row], expected, rtol=1e-4, atol=1e-5)


def test_what_soft_tokens_read_sums_to_one(states):
    seen = make().attention(*states)
    torch.testing.assert_close(seen.sum(-1), torch.ones(3, K))


def test_soft_tokens_read_no_padding(states):
    seen = make().attention(*states)
    assert not seen.masked_select(~states[1].unsqueeze(1)).any()


def test_soft_tokens_do_not_read_the_first_position(states):
    assert not make().attention(*states)[..., 0].any()


def perceived(bridge, states, mask):
    """The perceiver of one example, written out."""
    weights = dict(bridge.named_parameters())
    states = normed(states[1:][mask[1:]])
    states = normed(states @ weights["enter.weight"].T + weights["enter.bias"])
    queries = bridge.queries + states.mean(0)
    everything = torch.ones(len(states), dtype=torch.bool)
    for block in bridge.blocks:
        queries = queries + explicit_attention(block.cross, normed(queries), states, everything)[0]
        if block.self_attention is not None:
            inner = normed(queries)
            queries = queries + explicit_attention(block.self_attention, inner, inner, [True] * K)[0]
        hidden = normed(queries) @ block.feed[0].weight.T + block.feed[0].bias
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        queries = queries + hidden @ block.feed[2].weight.T + block.feed[2].bias
    return normed(queries) @ weights["leave.weight"].T + weights["leave.bias"]


@pytest.mark.parametrize("self_attention", [False, True])
@pytest.mark.parametrize("row", range(3))
def test_a_perceiver_is_its_blocks_written_out(states, row, self_attention):
    bridge = make(self_attention=self_attention).requires_grad_(False)
    expected = direction(perceived(bridge, states[0][row], states[1][row]))
    torch.testing.assert_close(direction(bridge(*states)[row]), expected, rtol=1e-4, atol=1e-5)


def pooled(states, mask):
    """Mean and last state of every example without its first position, normalised."""
    rows = [normed(row[1:length]) for row, length in zip(states, mask.sum(1).tolist())]
    return torch.stack([row.mean(0) for row in rows]), torch.stack([row[-1] for row in rows])


def test_a_linear_bridge_is_one_map_of_mean_and_last_state(states):
    bridge = make("linear").requires_grad_(False)
    raw = torch.cat(pooled(*states), dim=1) @ bridge.map.weight.T + bridge.map.bias
    torch.testing.assert_close(direction(bridge(*states)), direction(raw.view(3, K, RECEIVER)), rtol=1e-4, atol=1e-5)


def test_an_mlp_bridge_is_two_maps_with_a_gelu_between(states):
    bridge = make("mlp").requires_grad_(False)
    hidden = torch.cat(pooled(*states), dim=1) @ bridge.map[0].weight.T + bridge.map[0].bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    raw = (hidden @ bridge.map[2].weight.T + bridge.map[2].bias).view(3, K, RECEIVER)
    torch.testing.assert_close(direction(bridge(*states)), direction(raw), rtol=1e-4, atol=1e-5)


def test_a_mean_pool_bridge_puts_one_map_of_the_mean_in_every_place(states):
    bridge = make("mean_pool").requires_grad_(False)
    raw = pooled(*states)[0] @ bridge.map.weight.T + bridge.map.bias
    expected = direction(raw)[:, None].expand(3, K, RECEIVER)
    torch.testing.assert_close(direction(bridge(*states)), expected, rtol=1e-4, atol=1e-5)


def test_states_are_taken_as_they_are_where_no_norm_is_asked_for(states):
    bridge = make("mean_pool", input_norm=False).requires_grad_(False)
    means = torch.stack([row[1:length].mean(0) for row, length in zip(states[0], LENGTHS)])
    raw = means @ bridge.map.weight.T + bridge.map.bias
    torch.testing.assert_close(direction(bridge(*states)[:, 0]), direction(raw), rtol=1e-4, atol=1e-5)


def test_queries_start_with_the_spread_that_was_asked_for():
    assert make(soft_tokens=500, query_std=0.02).queries.std().item() == pytest.approx(0.02, rel=0.05)


def test_a_width_of_zero_is_the_receivers():
    assert make(width=0).queries.shape == (K, RECEIVER)


def test_a_perceiver_has_as_many_blocks_as_its_depth():
    assert len(make(depth=5).blocks) == 5
