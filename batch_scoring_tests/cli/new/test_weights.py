"""What a file of weights tells of its network."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from batch_scoring.cli.new import weights
from batch_scoring.errors import SampleError


class Net(nn.Module):
    """A churn network as they are published."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))


NAMES = list(Net().state_dict())


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in Net().state_dict().items()}


def saved(content: object, folder: Path) -> weights.Weights:
    torch.save(content, folder / "net.pt")
    return weights.read(folder / "net.pt")


FILES: dict[str, tuple[Any, str, str]] = {
    "a state dict": (prefixed(""), "", ""),
    "DataParallel": ({"model_state_dict": prefixed("module.")}, "model_state_dict", "module."),
    "compiled within DataParallel": (prefixed("module._orig_mod."), "", "module._orig_mod."),
    "Lightning with the network in an attribute": (
        {"pytorch-lightning_version": "2.4", "state_dict": {**prefixed("model."), "loss.weight": torch.ones(2)}},
        "state_dict",
        "model.",
    ),
    "Lightning with the network itself": (
        {"pytorch-lightning_version": "2.4", "state_dict": prefixed("")},
        "state_dict",
        "",
    ),
    "an optimiser beside it": (
        {"optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}, "net": prefixed("")},
        "net",
        "",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_weights_are_found_under_their_own_names(tmp_path: Path, case: str) -> None:
    content, entry, prefix = FILES[case]
    found = saved(content, tmp_path)
    assert (found.entry, found.prefix, list(found.shapes)) == (entry, prefix, NAMES)
    assert found.shapes["layers.0.weight"] == (8, 4) and found.outputs == 1
    assert found.left_out == (("loss.weight",) if "attribute" in case else ())


def test_a_sequential_in_an_attribute_keeps_its_name(tmp_path: Path) -> None:
    state = {
        f"model.{name}": value for name, value in nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)).state_dict().items()
    }
    found = saved({"pytorch-lightning_version": "2.4", "state_dict": state}, tmp_path)
    assert found.prefix == "" and found.outputs == 2


ARGUMENTS: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "none": ({}, {}, False),
    "three dimensions": (
        {"output_dim": 1, "input_dim": 4, "hidden_dim": 8},
        {"input_dim": 4, "hidden_dim": 8, "output_dim": 1},
        False,
    ),
    "of Lightning": (
        {"hyper_parameters": {"hidden_dims": [8, 4], "lr": 0.1, "not a name": 1, "deep": {"a": 1}}, "epoch": 3},
        {"hidden_dims": [8, 4], "lr": 0.1},
        True,
    ),
    "with what no call or JSON can have": (
        {"hparams": {"lambda": 1, "self": 2, "depth": 3, "nan": float("nan"), "deep": [[1], [float("inf")]]}},
        {"depth": 3},
        True,
    ),
    "in a config": ({"config": {"hidden": 8}}, {"hidden": 8}, True),
    "of many columns": ({"config": {"sizes": [(3, 2)] * 90}}, {"sizes": [(3, 2)] * 90}, True),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments_are_what_the_file_has(tmp_path: Path, case: str) -> None:
    beside, expected, are_needed = ARGUMENTS[case]
    found = saved({"state_dict": prefixed(""), **beside}, tmp_path)
    assert found.arguments == expected and found.needs_arguments is are_needed


def test_an_average_of_the_weights_is_named_beside_them(tmp_path: Path) -> None:
    found = saved({"model": prefixed(""), "ema": prefixed(""), "version": "v7"}, tmp_path)
    assert (found.entry, found.others, found.version) == ("model", ("ema",), "v7")


def test_what_holds_no_weights_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match=r"--checkpoint .*none\.pt cannot be read: No such file"):
        weights.read(tmp_path / "none.pt")
    with pytest.raises(SampleError, match=r"net\.pt: it holds a list; expected a state dict") as refused:
        saved([1, 2], tmp_path)
    assert refused.value.exit_code == 2 and "\n" not in str(refused.value)
