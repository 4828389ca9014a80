"""Weights come back as they were, however they are shared or laid out; damage is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from batch_scoring.errors import BundleError, UnsoundError
from batch_scoring.inference.bundle import read_bundle
from batch_scoring.inference.network import weights
from batch_scoring.inference.scorer import Scorer
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring_tests.broken_bundles import change_weights
from batch_scoring_tests.networks import WIDTH, Base, loaded, made, own_outputs, refusal, table, write


class Tied(Base):
    """encoder.weight is decoder.weight."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)
        self.encoder.weight = self.decoder.weight

    def body(self, values: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(values).tanh())


class Masked(Base):
    """A causal mask of -inf in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(WIDTH))

    def body(self, values: torch.Tensor) -> torch.Tensor:
        shares = (values.unsqueeze(1) * values.unsqueeze(2) + self.mask).softmax(dim=2)
        return (shares * values.unsqueeze(1)).sum(dim=2)


class Views(Base):
    """Buffers that overlap in one storage, one that is not contiguous, one expanded."""

    def __init__(self) -> None:
        super().__init__()
        whole = torch.linspace(-1, 1, WIDTH + 2)
        self.register_buffer("one", whole[:WIDTH])
        self.register_buffer("two", whole[2:])
        self.register_buffer("turned", torch.eye(WIDTH).cumsum(0).t())

    def body(self, values: torch.Tensor) -> torch.Tensor:
        return (values + self.one) @ self.turned * self.two


class Built(Base):
    """A buffer that no file holds: the class builds it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.arange(WIDTH) / WIDTH, persistent=False)

    def body(self, values: torch.Tensor) -> torch.Tensor:
        return values * self.steps


class Scheduled(Base):
    """It reads numbers while it is built, as networks with stochastic depth do: the meta device has none."""

    def __init__(self) -> None:
        super().__init__()
        self.rates = [rate.item() for rate in torch.linspace(0, 0.5, 3)]

    def body(self, values: torch.Tensor) -> torch.Tensor:
        return values * self.rates[1]


class Parametrised(Base):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH))

    def body(self, values: torch.Tensor) -> torch.Tensor:
        return self.layer(values)


class Lazy(Base):
    """Its shapes come with the first rows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(WIDTH)
        self.norm = nn.LazyBatchNorm1d()

    def body(self, values: torch.Tensor) -> torch.Tensor:
        return self.norm(self.layer(values))


class Own(Base):
    """It computes in half on purpose: its class says so."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH, dtype=torch.bfloat16)

    def body(self, values: torch.Tensor) -> torch.Tensor:
        return self.layer(values.bfloat16()).float()


@pytest.mark.parametrize("kind", [Tied, Masked, Views, Built, Scheduled, Parametrised, Lazy, Own])
def test_a_network_comes_back_as_it_was(tmp_path: Path, kind: type[Base]) -> None:
    network = made(kind)
    own_outputs(network, table(64))
    with torch.no_grad():
        network.head.weight.add_(0.1)  # trained, that is: not as it is built
    write(tmp_path, network)
    model = loaded(tmp_path, network)
    own, again = network.state_dict(), model.network.state_dict()
    assert own.keys() == again.keys() and all(torch.equal(own[name], again[name]) for name in own)
    rows = table(200, start=500)
    expected = own_outputs(network, rows)
    assert np.array_equal(own_outputs(model.network, rows), expected)
    assert np.allclose(Scorer(model, device="cpu").outputs(rows), expected, rtol=1e-5, atol=1e-6)


def test_a_tie_holds_again(tmp_path: Path) -> None:
    write(tmp_path, made(Tied))
    network = loaded(tmp_path, made(Tied)).network
    assert network.encoder.weight is network.decoder.weight


def test_a_tied_weight_may_be_written_once(tmp_path: Path) -> None:
    """As safetensors' own `save_model` does."""
    network = made(Tied)
    write(tmp_path, network)
    safetensors.torch.save_model(network, str(tmp_path / "model.safetensors"))
    change_weights(tmp_path, lambda weights: weights)
    assert set(safetensors.torch.load_file(tmp_path / "model.safetensors")) < set(network.state_dict())
    again = loaded(tmp_path, network).network
    assert again.encoder.weight is again.decoder.weight
    assert torch.equal(again.encoder.weight, network.encoder.weight)


def test_two_values_for_one_tied_weight_are_refused(tmp_path: Path) -> None:
    write(tmp_path, made(Tied))
    change_weights(tmp_path, lambda w: {**w, "decoder.weight": w["decoder.weight"] + 1})
    with pytest.raises(BundleError, match="weight shares its memory with another weight in Tied, and the file"):
        loaded(tmp_path, made(Tied))


@pytest.mark.parametrize(
    ("weight", "value"),
    [
        ("mask", torch.nan),
        ("mask", torch.inf),
        ("head.weight", -torch.inf),
        ("head.bias", torch.inf),
        ("word.weight", torch.nan),
    ],
)
def test_infinity_is_meant_only_where_the_class_builds_it(tmp_path: Path, weight: str, value: float) -> None:
    """The mask's own -inf is; another one, and any in a parameter, is damage."""
    write(tmp_path, made(Masked))
    change_weights(tmp_path, lambda w: {**w, weight: torch.full_like(w[weight], value)})
    with pytest.raises(BundleError, match=rf"{weight} has \d+ of \d+ values that are NaN or infinite"):
        loaded(tmp_path, made(Masked))


@pytest.mark.parametrize("change", [lambda n: n.half(), lambda n: n.bfloat16(), lambda n: n.double()])
def test_another_type_is_said_in_one_line(tmp_path: Path, change: Any) -> None:  # noqa: ANN401
    network = change(made(Base))
    message = refusal(tmp_path, network)
    assert message.endswith(
        f"model.safetensors: word.weight and 4 more are {network.head.bias.dtype}; Base expects torch.float32: save "
        "the network after network.to(torch.float32)"
    )


def test_a_network_on_another_device_is_said_so(tmp_path: Path) -> None:
    assert "word.weight is on the device meta; write the bundle of network.cpu()" in refusal(
        tmp_path, made(Base).to("meta")
    )


@pytest.mark.parametrize("wrap", [nn.DataParallel, nn.Sequential])
def test_a_network_that_something_is_around_is_said_so(tmp_path: Path, wrap: Any) -> None:  # noqa: ANN401
    message = refusal(tmp_path, wrap(made(Base)))
    assert "torch's own class; expected the pipeline's" in message and "network._orig_mod of a compiled one" in message


def test_a_buffer_that_is_not_kept_must_be_the_classs_own(tmp_path: Path) -> None:
    network = made(Built)
    network.steps.mul_(2)  # after training, and in no file
    assert "the golden rows differ by" in refusal(tmp_path, network)


def test_state_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    class Extra(Base):
        def get_extra_state(self) -> dict[str, int]:
            return {"calls": 3}

        def set_extra_state(self, state: dict[str, int]) -> None:
            pass

    assert "_extra_state of the network's state_dict() is not a tensor" in refusal(tmp_path, made(Extra))


def test_a_buffer_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    class Expanded(Base):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("offset", torch.zeros(1).expand(WIDTH))

    assert "model.safetensors cannot be loaded into Expanded: " in refusal(tmp_path, made(Expanded))


def test_arguments_for_which_there_is_no_memory_are_the_bundles_fault(tmp_path: Path) -> None:
    """Compared with the file before anything is allocated: not tried again as out of memory."""

    class Wide(Base):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.wide = nn.Linear(WIDTH, width)
            self.head = nn.Linear(width, self.outputs)

        def body(self, values: torch.Tensor) -> torch.Tensor:
            return self.wide(values)

    message = refusal(tmp_path, made(Wide, width=4), arguments={"width": 6 * 10**10})
    assert "head.weight has shape (2, 4); Wide expects (2, 60000000000)" in message


@pytest.mark.parametrize("is_buffer", [True, False])
def test_memory_for_what_no_file_holds_is_the_bundles_fault_too(tmp_path: Path, is_buffer: bool) -> None:
    class Table(Base):
        def __init__(self, size: int) -> None:
            super().__init__()
            if is_buffer:
                self.register_buffer("table", torch.zeros(size), persistent=False)
            else:
                self.table = torch.zeros(size)

    message = refusal(tmp_path, made(Table, size=4), arguments={"size": 10**13})
    assert "Table(**{'size': 10000000000000}) failed: RuntimeError(" in message and "40000000000000 bytes" in message


def test_a_script_that_goes_on_after_its_bundle_draws_the_same_numbers(tmp_path: Path) -> None:
    network = made(Base)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    write(tmp_path, network)
    assert torch.equal(torch.rand(3), expected)


def test_the_file_holds_every_name(tmp_path: Path) -> None:
    write(tmp_path, made(Tied))
    content = read_bundle(open_folder(str(tmp_path))).content["model.safetensors"]
    assert set(safetensors.torch.load(content)) == set(made(Tied).state_dict())


@pytest.mark.parametrize("kind", [Base, Scheduled, Parametrised, Lazy, Own])
def test_an_outline_has_the_names_and_types_of_the_network(kind: type[nn.Module]) -> None:
    before = torch.random.get_rng_state()
    found = weights.outline(kind, {}).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    expected = kind().state_dict()
    assert {name: value.dtype for name, value in found.items()} == {
        name: value.dtype for name, value in expected.items()
    }
    if kind is not Scheduled:
        assert all(value.device.type == "meta" for value in found.values()), "it takes no memory"


def test_an_outline_says_which_arguments_the_class_rejects() -> None:
    with pytest.raises(UnsoundError, match=r"Base\(\*\*{'width': 3}\) failed: TypeError"):
        weights.outline(Base, {"width": 3})
