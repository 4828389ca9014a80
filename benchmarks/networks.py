"""The three networks of the benchmarks, each written in two forms: our bundle, and a checkpoint for the peers.

All of them take the engine's inputs: float32[rows, 6] with NaN for missing values and int64[rows, 2] with 0 for unknown
ones. Their weights are random, from a fixed seed; the last layer is scaled so that the probabilities are spread. Their
predictions do not matter, only their speed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import torch
from torch import nn

from batch_scoring.inference.bundle import GOLDEN_ROWS, write_bundle
from benchmarks import workload

VERSION = "v1"


class _Normalised(nn.Module):
    """Normalisation of numbers: centred and scaled, with the mean for missing values."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(workload.MEANS))
        self.register_buffer("scale", torch.tensor(workload.SCALES))

    def forward(self, numeric: torch.Tensor) -> torch.Tensor:
        return ((numeric - self.mean) / self.scale).nan_to_num(0.0)


class Perceptron(nn.Module):
    """A multi-layer perceptron over the numbers and one learned number per category.

    Args:
        width: units of each hidden layer.
        depth: number of hidden layers.
    """

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.normalised = _Normalised()
        self.words = nn.ModuleList(nn.Embedding(len(words) + 1, 1) for words in workload.CATEGORICAL.values())
        layers: list[nn.Module] = []
        inputs = len(workload.NUMERIC) + len(self.words)
        for _ in range(depth):
            layers += [nn.Linear(inputs, width), nn.ReLU()]
            inputs = width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, 2)

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        """float32[rows, 2] logits."""
        words = [embedding(categorical[:, index]) for index, embedding in enumerate(self.words)]
        return self.head(self.layers(torch.cat([self.normalised(numeric), *words], dim=1)))


class TabularTransformer(nn.Module):
    """A small encoder over one token per column and one for the output.

    Args:
        width: size of a token.
        heads: attention heads.
        depth: number of layers.
        hidden: units of the feed-forward layer.
    """

    def __init__(self, width: int, heads: int, depth: int, hidden: int) -> None:
        super().__init__()
        self.normalised = _Normalised()
        self.slopes = nn.Parameter(torch.randn(len(workload.NUMERIC), width) / 4)
        self.offsets = nn.Parameter(torch.randn(len(workload.NUMERIC), width) / 4)
        self.words = nn.ModuleList(nn.Embedding(len(words) + 1, width) for words in workload.CATEGORICAL.values())
        self.answer = nn.Parameter(torch.randn(1, 1, width) / 4)
        layer = nn.TransformerEncoderLayer(width, heads, hidden, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, 2)

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        """float32[rows, 2] logits."""
        numbers = self.normalised(numeric).unsqueeze(2) * self.slopes + self.offsets
        words = [embedding(categorical[:, index]).unsqueeze(1) for index, embedding in enumerate(self.words)]
        tokens = torch.cat([self.answer.expand(len(numeric), -1, -1), numbers, *words], dim=1)
        return self.head(self.encoder(tokens)[:, 0])


@dataclass(frozen=True)
class Kind:
    """A network's class and its arguments."""

    network: Callable[..., nn.Module]
    arguments: dict[str, int]


MODELS = {
    "narrow": Kind(Perceptron, {"width": 64, "depth": 2}),
    "wide": Kind(Perceptron, {"width": 512, "depth": 3}),
    "transformer": Kind(TabularTransformer, {"width": 32, "heads": 4, "depth": 2, "hidden": 64}),
}


def bundle(folder: Path, name: str) -> Path:
    """Return the folder of a model's bundle."""
    return folder / name / VERSION


def write(folder: Path, name: str) -> None:
    """Write a model in both forms."""
    kind = MODELS[name]
    torch.manual_seed(20_240_101)
    network = kind.network(**kind.arguments).eval().requires_grad_(False)
    _spread(network)
    rows = workload.table(1_000)
    write_bundle(
        bundle(folder, name),
        network=network,
        arguments=kind.arguments,
        name=name,
        version=VERSION,
        task="classification",
        numeric=list(workload.NUMERIC),
        categorical={column: list(words) for column, words in workload.CATEGORICAL.items()},
        classes=["stays", "leaves"],
        training={"rows": 0},
        metrics={},
        golden=rows.slice(0, GOLDEN_ROWS),
        reference=rows.append_column("dt", pa.repeat(pa.scalar(date(2024, 1, 1)), len(rows))),
    )
    torch.save(network.state_dict(), folder / f"{name}.pt")


def _spread(network: nn.Module) -> None:
    """Scale the logits to mean 0 and standard deviation 1, so that differences between contenders are visible."""
    numeric = torch.tensor(workload.MEANS) + torch.tensor(workload.SCALES) * torch.randn(1_000, len(workload.NUMERIC))
    codes = [torch.randint(len(words) + 1, (1_000,)) for words in workload.CATEGORICAL.values()]
    logits = network(numeric, torch.stack(codes, dim=1))
    head = network.get_submodule("head")
    for weight in (head.weight, head.bias.sub_(logits.mean(dim=0))):
        weight.div_((logits - logits.mean(dim=0)).std())


def load_plain(folder: Path, name: str) -> nn.Module:
    """Load a model as the peers do: the network from its checkpoint."""
    kind = MODELS[name]
    network = kind.network(**kind.arguments)
    network.load_state_dict(torch.load(folder / f"{name}.pt", weights_only=True))
    return network.eval().requires_grad_(False)
