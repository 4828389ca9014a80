"""The same bits whatever lies beside a row: every head and ending, record batches, threads and shares of a day.

Its size is what matters to a kernel, not what a network has learned: weights are random. Two mutants of the engine show
that the table would notice: a smaller grid, and an activation after the padding is cut off.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn
from torch.nn import functional

from batch_scoring.inference.heads.head import Head
from batch_scoring.inference.heads.regression import Regression
from batch_scoring.inference.inputs import encoded
from batch_scoring.inference.inputs.encoded import GRID, FailedRow
from batch_scoring.inference.manifest import LoadedModel, Manifest
from batch_scoring.inference.scorer import Scorer
from batch_scoring_tests.heads import HEADS

NUMERIC, WORDS, WIDTH = 6, ("red", "green", "blue"), 20
SIZES = (1, 7, 64, 1_000, 65_536)
"""Rows of a record batch."""
ROWS = 2_500

Ending = Callable[[torch.Tensor], torch.Tensor]

ENDINGS: dict[str, Ending] = {
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "mish": functional.mish,
    "softplus": functional.softplus,
    "gelu": functional.gelu,
}
"""What a network may end in; torch computes all of them in pieces of the memory, with another tail."""


class Net(nn.Module):
    """A perceptron with an embedding, and an ending."""

    def __init__(self, outputs: int, end: Ending | None = None) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.word = nn.Embedding(len(WORDS) + 1, 3)
        self.layers = nn.Sequential(nn.Linear(NUMERIC + 3, WIDTH), nn.ReLU(), nn.Linear(WIDTH, outputs))
        self.end = end

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        result = self.layers(torch.cat([numeric, self.word(categorical[:, 0])], dim=1))
        return self.end(result) if self.end else result


class Recurrent(nn.Module):
    """The columns of a row, one after the other, through a GRU or an LSTM."""

    def __init__(self, outputs: int, cell: type[nn.GRU] | type[nn.LSTM]) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.cell, self.last = cell(1, WIDTH, batch_first=True, bidirectional=True), nn.Linear(2 * WIDTH, outputs)

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.last(self.cell(numeric[:, :, None])[0][:, -1]))


class Attention(nn.Module):
    """Attention over the columns of a row."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Linear(1, 16)
        self.body = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True, norm_first=True)
        self.last = nn.Linear(16, outputs)

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.last(self.body(self.first(numeric[:, :, None])).mean(dim=1)))


class Convolution(nn.Module):
    """A convolution along the columns of a row."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.body, self.last = nn.Conv1d(1, 12, 3), nn.Linear(12, outputs)

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.last(functional.silu(self.body(numeric[:, None])).amax(dim=2)))


def of_head(head: Head) -> nn.Module:
    """A network that gives what a head takes."""
    if head.gives != "probabilities":
        return Net(head.width)
    return Net(head.width, (lambda z: z.softmax(dim=1)) if head.is_exclusive and head.width > 1 else torch.sigmoid)


VALUES = Regression(targets=("a", "b", "c"))
NETWORKS: dict[str, tuple[Head, Callable[[], nn.Module]]] = {
    **{name: (head, lambda head=head: of_head(head)) for name, head in HEADS.items()},
    **{f"ends in {name}": (VALUES, lambda end=end: Net(3, end)) for name, end in ENDINGS.items()},
    "one sigmoid": (Regression(), lambda: Net(1, torch.sigmoid)),
    "GRU": (VALUES, lambda: Recurrent(3, nn.GRU)),
    "LSTM": (VALUES, lambda: Recurrent(3, nn.LSTM)),
    "attention": (VALUES, lambda: Attention(3)),
    "convolution": (VALUES, lambda: Convolution(3)),
}
networks = pytest.mark.parametrize("name", NETWORKS)


def scorer_of(name: str, batch_rows: int = 256) -> Scorer:
    """An engine whose forward passes have so many rows."""
    head, make = NETWORKS[name]
    manifest = Manifest(
        name="bits",
        version="v1",
        task=head,
        arguments={},
        numeric=tuple(f"x{index}" for index in range(NUMERIC)),
        categorical={"c": WORDS},
        training={},
        metrics={},
        files={},
    )
    golden = pa.Table.from_batches([rows(64, seed=9)])
    return Scorer(LoadedModel(manifest, "", make().eval(), golden), device="cpu", batch_rows=batch_rows)


def rows(count: int, seed: int = 0) -> pa.RecordBatch:
    random = np.random.default_rng(seed)
    columns = {f"x{index}": pa.array(random.normal(0, 2, count)) for index in range(NUMERIC)}
    return pa.RecordBatch.from_pydict(columns | {"c": pa.array(random.choice([*WORDS, "mauve"], count))})


def cut(batch: pa.RecordBatch, size: int) -> Iterator[pa.RecordBatch]:
    return (batch.slice(start, size) for start in range(0, batch.num_rows, size))


def scores(scorer: Scorer, batches: Iterator[pa.RecordBatch], threads: int = 1) -> pa.Table:
    parts = [part.scores for part in scorer.score(batches, helpers=threads - 1)]
    return pa.Table.from_batches(parts).combine_chunks()


def differing(found: pa.Table, expected: pa.Table) -> list[str]:
    """The columns that are not the same bit by bit."""
    assert found.schema == expected.schema and found.num_rows == expected.num_rows
    return [name for name in found.column_names if not found[name].equals(expected[name])]


@networks
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_a_row_has_the_same_bits_in_every_record_batch_and_thread(name: str, size: int, threads: int) -> None:
    batch = rows(300 if size < GRID else ROWS)
    expected = scores(scorer_of(name, batch_rows=4096), cut(batch, batch.num_rows))
    assert differing(scores(scorer_of(name), cut(batch, size), threads), expected) == []


@networks
def test_a_row_has_the_same_bits_in_every_share_of_a_day(name: str) -> None:
    """Shares of a day are scored by processes of their own, in other record batches."""
    batch = rows(ROWS)
    expected = scores(scorer_of(name, batch_rows=4096), cut(batch, ROWS))
    ends = [0, 37, 1_000, 1_801, ROWS]
    shares = [
        scores(scorer_of(name, batch_rows=size), cut(batch.slice(start, stop - start), 500))
        for start, stop, size in zip(ends, ends[1:], (64, 128, 320, 1024), strict=False)
    ]
    assert differing(pa.concat_tables(shares).combine_chunks(), expected) == []


# mutants, each of which the table above has to notice


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512", reason="16 rows are enough for vectors of fewer numbers"
)
@pytest.mark.parametrize("name", ["ends in sigmoid", "ends in silu", "ends in mish", "one sigmoid"])
def test_a_smaller_grid_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded, "GRID", 16)
    batch = rows(ROWS)
    expected = scores(scorer_of(name, batch_rows=4096), cut(batch, ROWS))
    assert differing(scores(scorer_of(name), cut(batch, 16)), expected)


class LateActivation(Scorer):
    """Applies the head's activation where the padding is cut off already."""

    def _run(self, *arguments: object, activated: bool) -> tuple[np.ndarray, list[FailedRow]]:
        raw, failed = super()._run(*arguments, activated=False)  # type: ignore[arg-type]
        if not activated:
            return raw, failed
        return self.manifest.task.activate(torch.from_numpy(np.ascontiguousarray(raw))).numpy(), failed


@pytest.mark.parametrize("name", ["three classes", "one logit", "labels", "top 3"])
def test_an_activation_after_the_cut_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = rows(37 * 20)
    expected = scores(scorer_of(name), cut(batch, batch.num_rows))
    monkeypatch.setitem(globals(), "Scorer", LateActivation)
    assert differing(scores(scorer_of(name), cut(batch, 37)), expected)
