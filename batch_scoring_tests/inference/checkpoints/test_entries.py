"""The network's weights are found in a file by their names, or the message says what to choose."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.checkpoints.entries import choose
from batch_scoring.inference.checkpoints.readers import opened
from batch_scoring_tests.weight_files import same_bits, saved


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.last = nn.Linear(4, 1)


class Wrapper(nn.Module):
    """What an owner writes around a network that takes other inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Embedding(5, 3)
        self.decoder = nn.Linear(3, 5, bias=False)
        self.decoder.weight = self.encoder.weight


WEIGHTS = Net().state_dict()
OTHERS = Net().state_dict()


def prefixed(prefix: str, weights: dict[str, torch.Tensor] = WEIGHTS) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in weights.items()}


def found(folder: Path, content: object, network: nn.Module | None = None, **options: str) -> tuple[Any, str]:
    """The weights, and what was said about them."""
    with opened(saved(folder, content)) as opened_content:
        choice = choose(opened_content, network or Net(), **options)
        return {name: value.clone() for name, value in choice.read().items()}, choice.describe()


@pytest.mark.parametrize("entry", ["state_dict", "model_state_dict", "model_state", "model", "net", "EMA weights", ""])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.", "net.", "module._orig_mod.", "a.b.c."])
def test_the_entry_and_the_prefix_are_found_and_said(tmp_path: Path, entry: str, prefix: str) -> None:
    weights = prefixed(prefix)
    optimiser = {"state": {0: {"exp_avg": torch.zeros(4, 3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    content = {entry: weights, "optimizer_state_dict": optimiser, "epoch": 3} if entry else {**weights, "epoch": 3}
    tensors, said = found(tmp_path, content)
    assert same_bits(tensors, WEIGHTS)
    unusual = entry not in ("", "model_state_dict")
    assert said == ", ".join(filter(None, [f"entry {entry}" * unusual, f"prefix {prefix} removed" * bool(prefix)]))


def test_an_entry_within_an_entry_is_found(tmp_path: Path) -> None:
    tensors, said = found(tmp_path, {"checkpoint": {"model": prefixed("module.")}})
    assert same_bits(tensors, WEIGHTS) and said == "entry checkpoint.model, prefix module. removed"


@pytest.mark.parametrize(
    ("prefix", "said"), [("", "prefix net. added"), ("model.", "prefix model. removed, prefix net. added")]
)
def test_the_owners_wrapper_may_hold_the_network(tmp_path: Path, prefix: str, said: str) -> None:
    tensors, described = found(tmp_path, prefixed(prefix), Wrapper())
    assert same_bits(tensors, prefixed("net.")) and described == said


def test_a_name_that_the_class_has_itself_is_no_prefix(tmp_path: Path) -> None:
    tensors, said = found(tmp_path, prefixed("net."), Wrapper())
    assert same_bits(tensors, prefixed("net.")) and said == ""


def test_the_weights_of_a_loss_beside_the_network_are_left_out_and_said(tmp_path: Path) -> None:
    content = {"state_dict": {**prefixed("model."), "criterion.pos_weight": torch.ones(1)}}
    tensors, said = found(tmp_path, content)
    assert same_bits(tensors, WEIGHTS)
    assert said == "entry state_dict, prefix model. removed, left out criterion.pos_weight"


def test_one_of_two_tied_weights_is_enough(tmp_path: Path) -> None:
    weights = Tied().state_dict()
    del weights["decoder.weight"]
    tensors, _ = found(tmp_path, prefixed("model.", weights), Tied())
    assert same_bits(tensors, weights)


def test_of_two_that_fit_the_user_chooses(tmp_path: Path) -> None:
    content = {"model": WEIGHTS, "ema": prefixed("module.", OTHERS)}
    with pytest.raises(UnsoundError, match=r"--entry model or --entry ema --prefix module\.$"):
        found(tmp_path, content)
    tensors, _ = found(tmp_path, content, entry="ema")
    assert same_bits(tensors, OTHERS)
    content = {"state_dict": prefixed("student.") | prefixed("teacher.", OTHERS)}
    with pytest.raises(
        UnsoundError, match=r"--entry state_dict --prefix student\. or --entry state_dict --prefix teac"
    ):
        found(tmp_path, content)
    tensors, said = found(tmp_path, content, prefix="teacher.")
    assert same_bits(tensors, OTHERS) and "left out student.first.bias, " in said and said.endswith(" and 4 more")


def test_of_two_whose_names_fit_the_shapes_decide(tmp_path: Path) -> None:
    wide = {name: value.repeat(2) if value.dim() == 1 else value for name, value in WEIGHTS.items()}
    tensors, said = found(tmp_path, {"wide": wide, "model": WEIGHTS})
    assert same_bits(tensors, WEIGHTS) and said == "entry model"


def test_the_same_weights_under_two_entries_are_one_choice(tmp_path: Path) -> None:
    tensors, said = found(tmp_path, {"model": WEIGHTS, "best": WEIGHTS})
    assert same_bits(tensors, WEIGHTS) and said == "entry model"


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        ([1, 2], {}, "it holds a list; expected a state dict"),
        ({"epoch": 3}, {}, "it holds no tensors by name but epoch; expected a state dict"),
        ({}, {}, "it holds no tensors by name but nothing"),
        (Net(), {}, f"it holds a whole module, {__name__}.Net, which only its own code can load"),
        ({"model": Net()}, {}, r"torch.save(network.state_dict(), file)"),
        ({"w": torch.ones(1)}, {}, "none of its names is one of the network's (first.weight, "),
        ({"w": torch.ones(1)}, {}, "and 4 more); it has the file itself (w)"),
        (WEIGHTS, {"entry": "model"}, "it has no tensors in the entry model; it has them in the file itself"),
        (WEIGHTS, {"prefix": "model."}, "it has no tensors whose names begin with model."),
    ],
)
def test_where_nothing_fits_the_message_says_what_is_there(
    tmp_path: Path, content: object, options: dict[str, str], says: str
) -> None:
    with pytest.raises(UnsoundError) as raised:
        found(tmp_path, content, **options)
    assert says in str(raised.value)


def test_a_dict_that_holds_itself_is_searched_once(tmp_path: Path) -> None:
    content: dict[str, Any] = {"model": WEIGHTS}
    content["again"] = content["once more"] = content
    tensors, _ = found(tmp_path, content)
    assert same_bits(tensors, WEIGHTS)
