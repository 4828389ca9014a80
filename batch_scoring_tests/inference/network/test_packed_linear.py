"""Packed layers: eager's outputs to the last bit or two, one and the same bits in every batch, nothing else changed."""

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from batch_scoring.inference.network.packed_linear import PackedLinear, PackedSequential, ProbeRows, packed, proven

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
        nn.Flatten(),
        nn.Linear(WIDTH, 2),
    ),
}


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


def test_every_plain_layer_is_packed_for_itself() -> None:
    perceptron = packed(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)))
    assert kinds(perceptron) == [PackedSequential, PackedLinear, nn.ReLU, PackedLinear, nn.Tanh, PackedLinear]
    assert kinds(packed(hooked()))[1:] == [nn.Linear, nn.ReLU, PackedLinear, nn.ReLU]
    assert nn.Linear not in kinds(packed(Nested()))


def own_forward() -> nn.Module:
    layer = nn.Linear(4, 4)
    layer.forward = lambda values: values + 1  # type: ignore[method-assign]
    return nn.Sequential(layer, nn.ReLU())


@pytest.mark.parametrize(
    "network",
    [nn.Sequential(Own(4, 4), nn.ReLU()), own_forward(), torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))],
)
def test_what_is_more_than_a_plain_layer_is_left_alone(network: nn.Module) -> None:
    assert packed(network) is network


def test_a_layer_that_stands_in_two_places_stays_one() -> None:
    layer = nn.Linear(4, 4)
    mine = packed(nn.ModuleDict({"one": nn.Sequential(layer), "two": nn.Sequential(layer)}))
    assert mine["one"][0] is mine["two"][0]


# what a sample of outputs does not show holds by construction


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("column", range(3))
def test_a_number_that_is_none_goes_through_a_relu_as_in_eager_torch(value: float, column: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 2)).eval()
    values = torch.randn(64, 3)
    values[5, column] = value
    with torch.inference_mode():
        expected, found = network(values), packed(network)(values)
    assert not expected[5].isfinite().any()
    assert torch.equal(found.isnan(), expected.isnan()) and torch.equal(found.isinf(), expected.isinf())


class TakenApart(nn.Module):
    """Sequences as networks use them that are not called as a whole."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.net = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if self.way == "residual":
            for layer in self.net:
                values = values + layer(values)
        elif self.way == "pre-activation":
            before = self.net[0](values)
            values = before + self.net[1](before)
        elif self.way == "slice":
            before = self.net[:1](values)
            values = self.net[1:](before) - before
        elif self.way == "named":
            kept = {}
            for name, layer in self.net.named_children():
                kept[name] = values = layer(values)
            values = sum(kept.values())
        else:
            values = self.net(values) - self.net[:3](values)
        return values


@pytest.mark.parametrize("way", ["residual", "pre-activation", "slice", "named", "whole and in part"])
def test_a_sequence_that_is_taken_apart_has_its_layers_own_outputs(way: str) -> None:
    torch.manual_seed(0)
    network, values = TakenApart(way).eval().requires_grad_(False), torch.randn(640, WIDTH)
    mine = packed(network)
    assert PackedLinear in kinds(mine)
    with torch.inference_mode():
        torch.testing.assert_close(mine(values), network(values), rtol=2e-6, atol=2e-6)


LAYOUTS: dict[str, Callable[[], torch.Tensor]] = {
    "one row without a dimension": lambda: torch.randn(WIDTH),
    "turned": lambda: torch.randn(WIDTH, 64).t(),
    "every second row": lambda: torch.randn(128, WIDTH)[::2],
    "some columns of more": lambda: torch.randn(64, WIDTH + 9)[:, 4 : WIDTH + 4],
    "one row many times": lambda: torch.randn(1, WIDTH).expand(64, WIDTH),
    "four dimensions": lambda: torch.randn(2, 3, 64, WIDTH).transpose(0, 2),
    "no rows": lambda: torch.randn(0, WIDTH),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("bias", [True, False])
def test_values_in_any_layout_are_taken_as_torch_takes_them(name: str, bias: bool) -> None:
    torch.manual_seed(0)
    layer, values = nn.Linear(WIDTH, 5, bias=bias).requires_grad_(False), LAYOUTS[name]()
    torch.testing.assert_close(PackedLinear(layer)(values), layer(values), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    "values", [torch.randn(64, WIDTH + 1), torch.randn(64, WIDTH - 1), torch.randn(64, WIDTH).double()]
)
def test_values_that_do_not_fit_are_refused_in_torchs_own_words(values: torch.Tensor) -> None:
    layer = nn.Linear(WIDTH, 5).requires_grad_(False)
    with pytest.raises(RuntimeError) as expected:
        layer(values)
    with pytest.raises(RuntimeError) as raised:
        PackedLinear(layer)(values)
    assert str(raised.value) == str(expected.value)


def test_autocast_is_torchs_business() -> None:
    layer, values = nn.Linear(WIDTH, 5).requires_grad_(False), torch.randn(64, WIDTH)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(PackedLinear(layer)(values), layer(values))


# what remains is proven on rows


class Scorable(nn.Module):
    """A network of the engine's form around another one."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        return self.inner(numeric)


class Learning(nn.Module):
    """Changes a layer's weights while it scores, as networks do that make weights of their inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, 2)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        self.layer.weight.data.fill_(0.5)
        return self.layer(values)


class LookingUp(nn.Module):
    """Knows its layers by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, 2)
        self.scales = {self.layer: 2.0}

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.layer(values) * self.scales[self.layer]


class Singular(nn.Module):
    """Does not let itself be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, 2)

    def __copy__(self) -> "Singular":
        raise TypeError("there is only one of me")

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.layer(values)


def probes(values: torch.Tensor | None = None) -> Iterator[ProbeRows]:
    rows = torch.randn(64, WIDTH) if values is None else values
    yield ProbeRows("these rows", (rows, torch.zeros(64, 0, dtype=torch.int64)))


@pytest.mark.parametrize(
    ("inner", "reason"),
    [
        (Learning(), "packed layers give other outputs for these rows: by"),
        (LookingUp(), "packed layers give other outputs for these rows: they raise KeyError"),
        (Singular(), "its layers cannot be packed: TypeError: there is only one of me"),
    ],
)
def test_a_network_that_packing_changes_stays_eager_and_says_why(inner: nn.Module, reason: str) -> None:
    network = Scorable(inner).eval().requires_grad_(False)
    found, why = proven(network, probes())
    assert found is network
    assert why.startswith(reason)


def test_a_missing_value_that_packed_layers_would_lose_leaves_the_network_eager(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fused(self: PackedLinear, values: torch.Tensor) -> torch.Tensor:  # what the engine did until 2026-11
        return torch.ops.mkldnn._linear_pointwise(values, self._packed, self.bias, "relu", [], "")

    network = Scorable(nn.Sequential(nn.Linear(WIDTH, 4), nn.ReLU())).eval().requires_grad_(False)
    values = torch.randn(64, WIDTH)
    monkeypatch.setattr(PackedLinear, "forward", fused)
    assert proven(network, probes(values))[0] is not network
    values[3, 7] = torch.nan
    assert proven(network, probes(values)) == (
        network,
        "packed layers give other outputs for these rows: NaN or infinity in other places",
    )


def test_a_network_that_packing_does_not_change_is_packed(network: nn.Module) -> None:
    found, why = proven(Scorable(copy.deepcopy(network)), probes())
    assert why == ""
    assert PackedLinear in kinds(found) or PackedLinear not in kinds(packed(network))


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
