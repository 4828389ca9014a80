"""Outputs that are probabilities already are refused with the way out; logits are taken, wherever they lie."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn
from torch.nn import functional

from batch_scoring.inference.bundle import read_bundle
from batch_scoring.inference.heads.classification import Classification
from batch_scoring.inference.heads.head import Head
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring_tests.networks import Base, made, own_outputs, refusal, table, write


class Ending(Base):
    """A network with something behind its logits."""

    end: Callable[[torch.Tensor], torch.Tensor]

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        return type(self).end(super().forward(numeric, categorical))


def ending(end: Callable[[torch.Tensor], torch.Tensor], outputs: int = 2) -> nn.Module:
    return made(type("Ending", (Ending,), {"end": staticmethod(end), "outputs": outputs}))


def by_hand(logits: torch.Tensor) -> torch.Tensor:
    shares = logits.exp()
    return shares / shares.sum(dim=1, keepdim=True)


def both_sides(logits: torch.Tensor) -> torch.Tensor:
    chance = torch.sigmoid(logits[:, 0])
    return torch.stack([1 - chance, chance], dim=1)


SQUASHED = {
    "softmax": lambda z: z.softmax(dim=1),
    "a module": nn.Softmax(dim=1),
    "softmax by hand": by_hand,
    "sigmoid of one logit": both_sides,
    "sigmoid": torch.sigmoid,
    "a sigmoid module": nn.Sigmoid(),
    "sigmoid, cut": lambda z: torch.sigmoid(z).clamp(1e-6, 1 - 1e-6),
    "sigmoid, in place": lambda z: z.sigmoid_(),
    "sigmoid, turned": lambda z: torch.sigmoid(z.t()).t().contiguous(),
    "sigmoid, put together": lambda z: torch.cat([torch.sigmoid(z[:, :1]), torch.sigmoid(z[:, 1:])], dim=1),
    "hard sigmoid": functional.hardsigmoid,
    "per cent": lambda z: 100 * z.softmax(dim=1),
    "a temperature behind": lambda z: z.softmax(dim=1) / 2,
    "sigmoid, classes swapped": lambda z: torch.sigmoid(z).flip(1),
    "sigmoid, picked": lambda z: torch.sigmoid(z)[:, [1, 0]],
    "sigmoid, taken apart": lambda z: torch.stack(torch.sigmoid(z).unbind(1), dim=1),
    "sigmoid, cut in two": lambda z: torch.cat(torch.sigmoid(z).split(1, dim=1)[::-1], dim=1),
    "sigmoid, in chunks": lambda z: torch.cat(torch.sigmoid(z).chunk(2, dim=1)[::-1], dim=1),
    "sigmoid, rounded": lambda z: torch.sigmoid(z).round(decimals=3),
    "sigmoid, of the other class": lambda z: 1 - torch.sigmoid(z),
}


@pytest.mark.parametrize("name", SQUASHED)
def test_probabilities_are_refused(tmp_path: Path, name: str) -> None:
    message = refusal(tmp_path, ending(SQUASHED[name]))
    assert "the network's outputs are probabilities already: they " in message
    assert "Return the logits: leave the last softmax or sigmoid out of forward(); or say outputs: prob" in message


def test_probabilities_of_three_classes_are_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, ending(lambda z: z.softmax(dim=1), outputs=3), classes=["a", "b", "c"])
    assert "add up to 1 in all of 160 rows" in message


LOGITS = {
    "between 0 and 1": lambda z: 0.5 + z.tanh() / 10,
    "bounded by a sigmoid": lambda z: 10 * torch.sigmoid(z) - 5,
    "a sigmoid between 0 and 1, scaled": lambda z: 0.9 * torch.sigmoid(z),
    "positive": functional.softplus,
    "gates inside": lambda z: z * torch.sigmoid(z),
    "nothing": lambda z: z,
    "centred": lambda z: z - z.mean(dim=1, keepdim=True),
    "the same for all": lambda z: torch.full_like(z, 0.5),
}


@pytest.mark.parametrize("name", LOGITS)
def test_logits_are_taken(tmp_path: Path, name: str) -> None:
    write(tmp_path, ending(LOGITS[name]))


def test_logarithms_of_probabilities_are_logits(tmp_path: Path) -> None:
    """softmax(log_softmax(z)) is softmax(z)."""
    network = ending(lambda z: z.log_softmax(dim=1))
    write(tmp_path, network)
    scores = read_bundle(open_folder(str(tmp_path))).reference["prob_class_1"].to_numpy()
    assert np.allclose(scores, np.exp(own_outputs(network, table())[:, 1]), atol=1e-6)


def test_a_regression_may_end_in_a_sigmoid(tmp_path: Path) -> None:
    network = ending(torch.sigmoid, outputs=1)
    write(tmp_path, network, task="regression", classes=[])
    found = read_bundle(open_folder(str(tmp_path))).reference["prediction"]
    assert found.type == pa.float64()
    assert np.array_equal(found.to_numpy(), own_outputs(network, table())[:, 0].astype(np.float64))


OF_TWO = Classification(classes=("no", "yes"), outputs="probabilities")
OF_ONE = Classification(classes=("no", "yes"), logits=1, outputs="probabilities")


@pytest.mark.parametrize(
    ("end", "outputs", "head"),
    [
        (lambda z: z.softmax(dim=1), 2, OF_TWO),
        (both_sides, 2, OF_TWO),
        (torch.sigmoid, 1, OF_ONE),
        (lambda z: torch.sigmoid(z).squeeze(), 1, OF_ONE),
    ],
)
def test_a_network_s_own_probabilities_are_the_scores(
    tmp_path: Path, end: Callable[[torch.Tensor], torch.Tensor], outputs: int, head: Head
) -> None:
    network = ending(end, outputs=outputs)
    write(tmp_path, network, task=head, classes=())
    truth = own_outputs(network, table()).reshape(-1, outputs)[:, -1]
    assert np.array_equal(read_bundle(open_folder(str(tmp_path))).reference["prob_class_1"].to_numpy(), truth)


@pytest.mark.parametrize(
    ("end", "outputs", "head", "said"),
    [
        (lambda z: z, 2, OF_TWO, "do not lie between 0 and 1: row 0 has "),
        (torch.sigmoid, 2, OF_TWO, "do not add up to 1, but to "),
        (lambda z: 0.9 * z.softmax(dim=1), 2, OF_TWO, "do not add up to 1, but to 0.9: row 0 has "),
        (lambda z: z, 1, OF_ONE, "do not lie between 0 and 1: row "),
        (lambda z: 100 * z.sigmoid(), 1, OF_ONE, "do not lie between 0 and 1: row "),
    ],
)
def test_what_is_no_probability_is_refused_where_probabilities_are_said(
    tmp_path: Path, end: Callable[[torch.Tensor], torch.Tensor], outputs: int, head: Head, said: str
) -> None:
    message = refusal(tmp_path, ending(end, outputs=outputs), task=head, classes=())
    assert f"outputs is probabilities, but the network's outputs {said}" in message


@pytest.mark.parametrize("end", [torch.sigmoid, lambda z: torch.sigmoid(z).squeeze()])
def test_a_sigmoid_behind_one_logit_is_refused(tmp_path: Path, end: Callable[[torch.Tensor], torch.Tensor]) -> None:
    head = Classification(classes=("no", "yes"), logits=1)
    message = refusal(tmp_path, ending(end, outputs=1), task=head, classes=())
    assert "they come from a sigmoid at the end of the network" in message and "say outputs: prob" in message
