"""Networks that resemble none of ours: the engine gives the eager network's scores, whatever the batch and the thread.

The truth is one plain forward pass of the network in eager torch over all rows at once, on the test's own matrices.
"""

import math
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn
from torch.nn import functional

from batch_scoring.inference.bundle import load_bundle, write_bundle
from batch_scoring.inference.manifest import LoadedModel, Manifest
from batch_scoring.inference.network.packed_linear import LAST_BITS
from batch_scoring.inference.scorer import Scorer
from batch_scoring.storage.folders.addresses import open_folder

NUMBERS = tuple(f"x{index}" for index in range(12))
WORDS = {"colour": ("red", "green", "blue"), "size": ("s", "m", "l", "xl")}
ROWS = 1_500
CLASSES = 3


class Foreign(nn.Module):
    """What all have in common: normalised numbers, NaN if one is missing, and embedded words in one vector of 16."""

    width = len(NUMBERS) + 2 * len(WORDS)

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.ModuleList(nn.Embedding(len(words) + 1, 2) for words in WORDS.values())
        self.register_buffer("mean", torch.linspace(-1, 1, len(NUMBERS)))

    def joined(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        embedded = [table(categorical[:, place]) for place, table in enumerate(self.words)]
        return torch.cat([numeric - self.mean, *embedded], dim=1)


class Perceptron(Foreign):
    """Makes nothing of a missing number: a row that has one has no score."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(self.width, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, CLASSES)
        )

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        return self.layers(self.joined(numeric, categorical))


class Residual(Foreign):
    """Adds what each layer of a sequence gives to what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *[part for _ in range(3) for part in (nn.Linear(self.width, self.width), nn.ReLU())]
        )
        self.head = nn.Linear(self.width, CLASSES)

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        x = self.joined(numeric, categorical).nan_to_num()
        for layer in self.blocks:
            x = x + layer(x)
        return self.head(x)


class PreActivation(Foreign):
    """Uses what stands before an activation once more behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(self.width, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU())
        self.head = nn.Linear(48, CLASSES)

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        before = self.net[0](self.joined(numeric, categorical).nan_to_num())
        return self.head(torch.cat([before, self.net[1:](before)], dim=1))


class BatchNormed(Foreign):
    """Running statistics of the training, as a batch norm has them in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.BatchNorm1d(self.width),
            nn.Linear(self.width, 32),
            nn.BatchNorm1d(32),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(32, CLASSES),
        )
        for norm in (self.net[0], self.net[2]):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        return self.net(self.joined(numeric, categorical))


class LayerNormed(Foreign):
    """Statistics of the row alone; a GELU instead of a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(self.width), nn.Linear(self.width, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, CLASSES)
        )

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        return self.net(self.joined(numeric, categorical).nan_to_num())


class Recurrent(Foreign):
    """Reads the numbers as a sequence."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.cells = getattr(nn, kind)(1, 16, num_layers=2, batch_first=True)
        self.head = nn.Sequential(nn.Linear(16 + 4, 16), nn.ReLU(), nn.Linear(16, CLASSES))

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        x = self.joined(numeric, categorical)
        states, _ = self.cells(x[:, : len(NUMBERS), None])
        return self.head(torch.cat([states[:, -1], x[:, len(NUMBERS) :]], dim=1))


class Convolved(Foreign):
    """Convolutions over the numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(8, 8, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(48, CLASSES),
        )

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        return self.net(self.joined(numeric, categorical).nan_to_num()[:, None])


class Attending(Foreign):
    """A causal transformer over the columns; its mask is a buffer with -inf."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.1, batch_first=True)
        self.lift = nn.Linear(1, 16)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.register_buffer("mask", torch.full((self.width, self.width), -math.inf).triu(1))
        self.head = nn.Linear(16, CLASSES)

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        x = self.lift(self.joined(numeric, categorical).nan_to_num()[:, :, None])
        return self.head(self.encoder(x, mask=self.mask)[:, -1])


class Tied(Foreign):
    """An autoencoder whose decoder is its encoder's weights, turned; and one layer in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(self.width, 8)
        self.decoder = nn.Linear(8, self.width)
        self.decoder.weight = nn.Parameter(self.encoder.weight.t().contiguous())
        self.again = nn.Linear(self.width, self.width)
        self.again.weight = self.same = nn.Parameter(torch.randn(self.width, self.width) / 4)
        self.head = nn.Linear(self.width, CLASSES)

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        x = self.joined(numeric, categorical).nan_to_num()
        x = self.decoder(torch.relu(self.encoder(x)))
        return self.head(functional.linear(self.again(x), self.same))


class Parametrised(Foreign):
    """Weights that are computed: weight norm of today and of yesterday, and a spectral norm."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Linear(self.width, 24)),
            nn.ReLU(),
            nn.utils.weight_norm(nn.Linear(24, 24)),
            nn.ReLU(),
            nn.utils.parametrizations.spectral_norm(nn.Linear(24, 24)),
            nn.ReLU(),
            nn.Linear(24, CLASSES),
        )

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        return self.net(self.joined(numeric, categorical))


class Scripted(Foreign):
    """A part that TorchScript has compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.part = torch.jit.script(nn.Sequential(nn.Linear(self.width, 24), nn.ReLU(), nn.Linear(24, 24)))
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(24, CLASSES))

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        return self.head(self.part(self.joined(numeric, categorical)))


class Branching(Foreign):
    """Takes another way by what stands in a row, and leaves a way out when no row of a batch takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.ways = nn.ModuleList(nn.Sequential(nn.Linear(self.width, 16), nn.ReLU()) for _ in range(3))
        self.head = nn.Linear(16, CLASSES)

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        x = self.joined(numeric, categorical).nan_to_num()
        result = x.new_zeros(len(x), 16)
        way = torch.bucketize(x[:, 0].contiguous(), torch.tensor([-0.5, 0.5]))
        for index, module in enumerate(self.ways):
            rows = way == index
            if rows.any():
                result = torch.where(rows[:, None], module(x), result)
        return self.head(result)


NETWORKS: dict[str, tuple[type[nn.Module], dict[str, str]]] = {
    "perceptron": (Perceptron, {}),
    "residual": (Residual, {}),
    "pre-activation": (PreActivation, {}),
    "batch norm": (BatchNormed, {}),
    "layer norm": (LayerNormed, {}),
    "GRU": (Recurrent, {"kind": "GRU"}),
    "LSTM": (Recurrent, {"kind": "LSTM"}),
    "convolution": (Convolved, {}),
    "transformer": (Attending, {}),
    "tied": (Tied, {}),
    "parametrised": (Parametrised, {}),
    "scripted": (Scripted, {}),
    "branches": (Branching, {}),
}


def rows(count: int, seed: int) -> pa.RecordBatch:
    random = np.random.default_rng(seed)
    numbers = random.normal(0, 2, (count, len(NUMBERS))).astype(np.float32)
    numbers[random.random(numbers.shape) < 0.02] = np.nan
    columns = {name: pa.array(numbers[:, place], from_pandas=True) for place, name in enumerate(NUMBERS)}
    for name, words in WORDS.items():
        columns[name] = pa.array(random.choice([*words, "strange"], count))
    return pa.RecordBatch.from_pydict(columns)


BATCH = rows(ROWS, seed=1)


def matrices(batch: pa.RecordBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """float32[rows, 12] and int64[rows, 2], cell by cell."""
    numbers = [[math.nan if cell is None else cell for cell in batch[name].to_pylist()] for name in NUMBERS]
    codes = [
        [words.index(cell) + 1 if cell in words else 0 for cell in batch[name].to_pylist()]
        for name, words in WORDS.items()
    ]
    return torch.tensor(numbers, dtype=torch.float32).t().contiguous(), torch.tensor(codes).t().contiguous()


@pytest.fixture(params=NETWORKS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def network(name: str) -> nn.Module:
    torch.manual_seed(3)
    kind, arguments = NETWORKS[name]
    network = kind(**arguments).eval().requires_grad_(False)
    with torch.inference_mode():
        network(*matrices(BATCH.slice(0, 4)))  # a spectral norm settles
    return network


def scorer(network: nn.Module, batch_rows: int | Literal["auto"]) -> Scorer:
    manifest = Manifest(
        name="foreign",
        version="v1",
        task="classification",
        arguments={},
        numeric=NUMBERS,
        categorical=WORDS,
        classes=tuple(map(str, range(CLASSES))),
        training={},
        metrics={},
        files={},
    )
    golden = pa.Table.from_batches([rows(64, seed=2)])
    return Scorer(LoadedModel(manifest, "", network, golden), device="cpu", batch_rows=batch_rows)


def cut(size: int) -> list[pa.RecordBatch]:
    return [BATCH.slice(start, size) for start in range(0, ROWS, size)]


def test_the_scores_are_the_eager_networks(network: nn.Module) -> None:
    with torch.inference_mode():
        expected = network(*matrices(BATCH)).numpy()
    engine = scorer(network, 256)
    assert engine.why_eager == ""
    found = engine.score_batch(BATCH)
    unscored = np.flatnonzero(~np.isfinite(expected).all(axis=1))
    assert [row.position for row in found.failed] == unscored.tolist()
    assert {row.rule for row in found.failed} <= {"output_is_finite"}
    kept = np.delete(expected, unscored, axis=0)
    probabilities = torch.from_numpy(kept).softmax(dim=1).numpy()
    for place in range(CLASSES):
        bound = LAST_BITS * np.abs(kept).max()
        np.testing.assert_allclose(found.scores[f"prob_class_{place}"].to_numpy(), probabilities[:, place], atol=bound)
    sure = np.diff(np.sort(kept, axis=1)[:, -2:])[:, 0] > 2 * LAST_BITS * np.abs(kept).max()
    assert np.array_equal(found.scores["prediction"].to_numpy()[sure], kept.argmax(axis=1)[sure])
    assert sure.mean() > 0.99


def test_a_row_has_the_same_bits_whatever_the_batch_and_the_thread(network: nn.Module) -> None:
    expected = scorer(network, 256).score_batch(BATCH)
    ways: list[tuple[int | Literal["auto"], int, int]] = [
        (64, ROWS, 0),
        (64, 700, 2),
        (1024, 129, 1),
        (4096, ROWS, 0),
        (128, 64, 2),
        ("auto", ROWS, 1),
    ]
    for batch_rows, size, helpers in ways:
        parts = list(scorer(network, batch_rows).score(cut(size), helpers=helpers))
        found = pa.Table.from_batches([part.scores for part in parts]).combine_chunks().to_batches()[0]
        assert found.equals(expected.scores), (batch_rows, size, helpers)


def test_its_bundle_is_written_and_loads_again(name: str, network: nn.Module, tmp_path: Path) -> None:
    kind, arguments = NETWORKS[name]
    with torch.inference_mode():
        has_score = np.isfinite(network(*matrices(BATCH)).numpy()).all(axis=1)
    whole = pa.Table.from_batches([BATCH]).append_column("id", pa.array(map(str, range(ROWS))))
    sound = whole.filter(pa.array(has_score))
    write_bundle(
        tmp_path,
        network=network,
        arguments=arguments,
        name="foreign",
        version="v1",
        task="classification",
        numeric=list(NUMBERS),
        categorical={name: list(words) for name, words in WORDS.items()},
        classes=["a", "b", "c"],
        training={},
        metrics={},
        golden=sound.slice(0, 64),
        reference=sound.append_column("dt", pa.array([date(2024, 3, 4)] * len(sound))),
    )
    model = load_bundle(open_folder(str(tmp_path)), kind)
    found = Scorer(model, device="cpu").score_batch(BATCH)
    assert found.scores.equals(scorer(network, 256).score_batch(BATCH).scores)


def test_a_network_with_missing_values_in_it_scores_only_rows_without() -> None:
    torch.manual_seed(3)
    found = scorer(Perceptron().eval(), 256).score_batch(BATCH)
    gaps = np.isnan(matrices(BATCH)[0].numpy()).any(axis=1)
    assert [row.position for row in found.failed] == np.flatnonzero(gaps).tolist()
    assert 0.1 < gaps.mean() < 0.5
