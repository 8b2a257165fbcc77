"""The emulated GPU gives what the CPU gives, and refuses what a GPU refuses."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F


def loss_and_gradients(device):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3)).to(device)
    inputs, gold = torch.arange(24.0, device=device).view(4, 6) / 24, torch.tensor([0, 2, 1, 0], device=device)
    loss = F.cross_entropy(network(inputs), gold)
    loss.backward()
    return [loss.detach(), *[parameter.grad for parameter in network.parameters()]]


def test_values_and_gradients_are_those_of_the_cpu(gpu):
    found = loss_and_gradients("cuda")
    assert {value.device.type for value in found} == {"cuda"}
    for value, expected in zip(found, loss_and_gradients("cpu"), strict=True):
        torch.testing.assert_close(value.cpu(), expected)


def test_an_optimiser_takes_the_step_of_the_cpu(gpu):
    def stepped(device):
        weight = nn.Parameter(torch.arange(3.0, device=device))
        (weight**2).sum().backward()
        torch.optim.AdamW([weight], lr=0.1, fused=True).step()
        return weight.detach().cpu()

    torch.testing.assert_close(stepped("cuda"), stepped("cpu"))


def test_a_change_in_a_view_is_a_change_in_what_it_shows(gpu):
    table = torch.zeros(2, 3, device="cuda")
    table[1].add_(1)
    assert table.tolist() == [[0, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize(
    "mix",
    [
        lambda on, off: on + off,
        lambda on, off: torch.cat([on, off]),
        lambda on, off: F.linear(on, off),
        lambda on, off: off[on.long()],
        lambda on, off: F.embedding(off.long(), on),
    ],
)
def test_tensors_of_two_devices_do_not_mix(gpu, mix):
    with pytest.raises(RuntimeError, match="same device"):
        mix(torch.ones(2, 2, device="cuda"), torch.ones(2, 2))


def test_a_number_of_the_cpu_may_join(gpu):
    assert (torch.ones(2, device="cuda") * torch.tensor(3.0)).tolist() == [3, 3]


WAITS = {
    "reads a number": lambda tensor: tensor.sum().item(),
    "copies to the CPU": lambda tensor: tensor.cpu(),
    "copies from the CPU": lambda tensor: tensor + torch.tensor([1.0, 2.0], device="cuda"),
    "takes rows by a mask": lambda tensor: tensor[tensor > 0],
    "asks where": lambda tensor: tensor.nonzero(),
    "decides by a value": lambda tensor: bool((tensor > 0).all()),
    "waits": lambda tensor: torch.cuda.synchronize(),
}


@pytest.mark.parametrize("what", WAITS)
def test_nothing_waits_while_a_graph_is_recorded(gpu, what):
    tensor = torch.tensor([3.0, -1.0], device="cuda")
    gpu.waits.clear()
    WAITS[what](tensor)
    assert len(gpu.waits) == 1, gpu.waits
    with pytest.raises(RuntimeError, match="capturing"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        WAITS[what](tensor)


REFUSED = {
    "sums of floats one by one": lambda: torch.ones(3, device="cuda").cumsum(0),
    "a loss over places, summed": lambda: F.cross_entropy(
        torch.ones(1, 2, 3, device="cuda"), torch.zeros(1, 3, dtype=torch.long, device="cuda")
    ),
    "the second smallest": lambda: torch.ones(3, device="cuda").kthvalue(2),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_gpu_does_in_no_fixed_order_is_refused_where_determinism_is_demanded(gpu, what):
    REFUSED[what]()
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.ones(3, dtype=torch.long, device="cuda").cumsum(0).tolist() == [1, 2, 3]
        with pytest.raises(RuntimeError, match="no deterministic implementation"):
            REFUSED[what]()
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_recording_computes_nothing_and_a_replay_all_of_it(gpu):
    given, total = torch.ones(2, device="cuda"), torch.zeros((), device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        doubled = 2 * given
        total += doubled.sum()
    assert total.item() == 0
    assert doubled.isnan().all()
    for count in (1, 2):
        given.fill_(count)
        graph.replay()
    assert doubled.tolist() == [4, 4]
    assert total.item() == 2 * 2 + 4 * 2


@pytest.mark.parametrize("shared", [True, False])
def test_graphs_that_share_memory_write_over_each_others_results(gpu, shared):
    first, second = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
    inputs = torch.ones(2, device="cuda")
    with torch.cuda.graph(first):
        one = inputs + 1
    with torch.cuda.graph(second, pool=first.pool() if shared else None):
        two = inputs + 2
    first.replay()
    assert one.tolist() == [2.0, 2.0]
    second.replay()
    assert two.tolist() == [3.0, 3.0]
    assert one.isnan().all().item() is shared
    first.replay()
    assert one.tolist() == [2.0, 2.0]


def test_without_it_there_is_no_gpu():
    assert not torch.cuda.is_available()
