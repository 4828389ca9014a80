"""Packed layers: eager's outputs to the last bit or two, one and the same bits in every batch, nothing else changed."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from batch_scoring.packing import PackedLinear, packed

WIDTH = 24


class Own(nn.Linear):
    """A linear layer of a user's own kind."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return super().forward(values) + 1


class Nested(nn.Module):
    """Layers in lists, dictionaries and places that are empty."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()) for _ in range(2))
        self.heads = nn.ModuleDict({"one": nn.Linear(WIDTH, 3), "two": nn.Linear(WIDTH, 3, bias=False)})
        self.register_module("none", None)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            values = block(values)
        return self.heads["one"](values) + self.heads["two"](values)


def one_relu_twice() -> nn.Module:
    relu = nn.ReLU()
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), relu, nn.Linear(WIDTH, WIDTH), relu, nn.Linear(WIDTH, 2))


def one_block_twice() -> nn.Module:
    block = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU())
    return nn.Sequential(block, block)


def hooked() -> nn.Module:
    network = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 2), nn.ReLU())
    network[0].register_forward_hook(lambda _module, _inputs, output: output * 2)
    network[3].register_forward_pre_hook(lambda _module, inputs: (inputs[0] + 1,))
    return network


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "perceptron": lambda: nn.Sequential(
        nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 2)
    ),
    "a layer alone": lambda: nn.Sequential(nn.Linear(WIDTH, 1)),
    "nested": Nested,
    "one ReLU in two places": one_relu_twice,
    "one block in two places": one_block_twice,
    "hooks": hooked,
    "a layer of its own kind": lambda: nn.Sequential(Own(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 2)),
    "parametrised": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, 8)), nn.ReLU()),
    "two dimensions more": lambda: nn.Sequential(nn.Unflatten(1, (2, 12)), nn.Linear(12, 5), nn.ReLU(), nn.Flatten()),
    "encoder": lambda: nn.Sequential(
        nn.Unflatten(1, (3, 8)),
        nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), 2, enable_nested_tensor=False
        ),
        nn.Flatten(), nn.Linear(WIDTH, 2),
    ),
}  # fmt: skip


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[request.param]().eval().requires_grad_(False)


def kinds(network: nn.Module) -> list[type]:
    return [type(module) for module in network.modules()]


def test_the_outputs_are_eagers_to_the_last_bits(network: nn.Module) -> None:
    values = torch.randn(640, WIDTH)
    with torch.inference_mode():
        torch.testing.assert_close(packed(network)(values), network(values), rtol=2e-6, atol=2e-6)


def test_a_row_has_the_same_bits_in_every_batch_on_the_grid(network: nn.Module) -> None:
    mine, values = packed(network), torch.randn(4_160, WIDTH)
    with torch.inference_mode():
        expected = mine(values)
        for size in (64, 192, 1_024, 4_096):
            assert torch.equal(torch.cat([mine(part) for part in values.split(size)]), expected)


def test_the_network_itself_stays_as_it_is(network: nn.Module) -> None:
    before, weights = kinds(network), {name: id(weight) for name, weight in network.named_parameters()}
    packed(network)
    assert kinds(network) == before
    assert {name: id(weight) for name, weight in network.named_parameters()} == weights


def test_every_plain_layer_is_packed_and_a_relu_behind_it_is_in_it() -> None:
    perceptron = packed(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)))
    assert kinds(perceptron)[1:] == [PackedLinear, nn.Identity, PackedLinear, nn.Tanh, PackedLinear]
    assert kinds(packed(hooked()))[1:] == [nn.Linear, nn.ReLU, PackedLinear, nn.ReLU]
    assert kinds(packed(nn.Sequential(Own(4, 4), nn.ReLU())))[1:] == [Own, nn.ReLU]
    assert nn.Linear not in kinds(packed(Nested()))


def test_other_numbers_than_float32_are_left_to_torch() -> None:
    network = nn.Sequential(nn.Linear(WIDTH, 4)).double()
    assert kinds(packed(network)) == kinds(network)


def test_no_rows_are_no_outputs() -> None:
    assert packed(nn.Sequential(nn.Linear(WIDTH, 4), nn.ReLU()))(torch.empty(0, WIDTH)).shape == (0, 4)


def test_where_the_operators_are_missing_the_network_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise RuntimeError("mkldnn is not available")

    network = nn.Sequential(nn.Linear(WIDTH, 4))
    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", missing)
    assert packed(network) is network
