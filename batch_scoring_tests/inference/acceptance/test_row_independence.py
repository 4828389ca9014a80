"""A row's outputs are its own: networks that look beside a row are refused, sound ones of every kind are not."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from torch import nn

from batch_scoring.errors import BundleError
from batch_scoring.inference.bundle import load_bundle
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring_tests.networks import NUMERIC, WIDTH, WORDS, Base, loaded, made, refusal, table, write


class BatchMean(Base):
    def body(self, values: torch.Tensor) -> torch.Tensor:
        return values - values.mean(0)


class Statistics(Base):
    """BatchNorm that has none of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(WIDTH, track_running_stats=False)

    def body(self, values: torch.Tensor) -> torch.Tensor:
        return self.norm(values)


class Dropped(Base):
    """Dropout that stays on."""

    def body(self, values: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(values, 0.1)


class Beside(Base):
    """Attention over rows."""

    def body(self, values: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(values[None], values[None], values[None])[0]


class Shifted(Base):
    """The row above."""

    def body(self, values: torch.Tensor) -> torch.Tensor:
        return torch.cat([values[:1], values[1:] + values[:-1]])


class Maximum(Base):
    """One outlier changes all others' scores."""

    def body(self, values: torch.Tensor) -> torch.Tensor:
        return values / values.abs().max()


class Imputed(Base):
    """Missing numbers from the batch: it shows in rows that lack one."""

    def inputs(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        return super().inputs(torch.where(numeric.isnan(), numeric.nanmean(0), numeric), categorical)


class Counting(Base):
    """A state that is carried on."""

    calls = 0

    def body(self, values: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return values + self.calls / 10


class Sized(Base):
    """The number of rows."""

    def body(self, values: torch.Tensor) -> torch.Tensor:
        return values / len(values)


class Softmaxed(Base):
    """Over the wrong dimension."""

    def body(self, values: torch.Tensor) -> torch.Tensor:
        return values.softmax(dim=0)


class Noisy(Base):
    """By less than the golden rows may differ by on another machine."""

    def body(self, values: torch.Tensor) -> torch.Tensor:
        return values + 1e-6 * torch.randn_like(values)


DEPENDENT = [BatchMean, Statistics, Dropped, Beside, Shifted, Maximum, Imputed, Counting, Sized, Softmaxed, Noisy]


@pytest.mark.parametrize("kind", DEPENDENT)
def test_a_network_that_looks_beside_a_row_is_not_written(tmp_path: Path, kind: type[Base]) -> None:
    message = refusal(tmp_path, made(kind))
    assert "the network's output for a row depends on more than that row: golden rows " in message
    assert ("second time" in message) == (kind in (Dropped, Counting, Noisy))
    assert "dropout takes training=self.training" in message or "track_running_stats" in message


class Following(Base):
    """A mean that follows the rows, too slowly to be seen in a few batches."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(WIDTH))

    def body(self, values: torch.Tensor) -> torch.Tensor:
        self.get_buffer("mean").lerp_(values.mean(0), 1e-12)
        return values - self.get_buffer("mean")


def test_a_network_that_goes_on_learning_is_not_written(tmp_path: Path) -> None:
    message = refusal(tmp_path, made(Following))
    assert "a row depends on the rows before it: forward() changes mean, also after eval()" in message


@pytest.mark.parametrize("kind", [BatchMean, Statistics, Dropped, Beside, Imputed, Sized])
def test_a_delivered_network_that_looks_beside_a_row_is_not_loaded(
    tmp_path: Path, kind: type[Base], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The class is the pipeline's: it may change after the bundle was written."""
    sound = made(Base if kind is not Statistics else type("Sound", (Statistics,), {"body": Base.body}))
    write(tmp_path, sound)
    with pytest.raises(BundleError, match="depends on more than that row: golden rows"):
        load_bundle(open_folder(str(tmp_path)), kind)


class Recurrent(Base):
    """A recurrent layer over the numbers of a row."""

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.recurrent = getattr(nn, layer)(1, WIDTH // 2, batch_first=True, bidirectional=True, num_layers=2)

    def body(self, values: torch.Tensor) -> torch.Tensor:
        return self.recurrent(values.unsqueeze(2))[0][:, -1]


class Convolved(Base):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.BatchNorm1d(4), nn.GELU(), nn.Flatten(1))
        self.head = nn.Linear(4 * WIDTH, self.outputs)

    def body(self, values: torch.Tensor) -> torch.Tensor:
        return self.layers(values.unsqueeze(1))


class Attending(Base):
    """A causal transformer over the numbers of a row."""

    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        self.tokens = nn.Linear(1, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.1, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(WIDTH))

    def body(self, values: torch.Tensor) -> torch.Tensor:
        return self.encoder(self.tokens(values.unsqueeze(2)), mask=self.mask)[:, -1]


class Normalised(Base):
    def __init__(self, wide: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(WIDTH),
            nn.Linear(WIDTH, wide),
            nn.BatchNorm1d(wide),
            nn.SiLU(),
            nn.Dropout(0.5),
            nn.Linear(wide, WIDTH),
            nn.Sigmoid(),
        )

    def body(self, values: torch.Tensor) -> torch.Tensor:
        return values + self.layers(values)


class Choosy(Base):
    """It does not take a row without numbers."""

    def inputs(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        if (numeric.nan_to_num(0) == 0).all(dim=1).any() or (numeric.isnan() & (categorical == 0)).any():
            raise ValueError("nothing known")
        return super().inputs(numeric, categorical)


class Overwriting(Base):
    """It computes where its inputs are."""

    def inputs(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        return super().inputs(numeric.sub_(0.5).div_(2), categorical.add_(1).remainder_(4))


class Tallying(Base):
    """It counts its rows, for whoever wants to know."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.tensor(0))

    def body(self, values: torch.Tensor) -> torch.Tensor:
        self.get_buffer("rows").add_(len(values))
        return values


SOUND: dict[str, Callable[[], nn.Module]] = {
    "perceptron": lambda: made(Base),
    "in place": lambda: made(Overwriting),
    "a counter": lambda: made(Tallying),
    "lstm": lambda: made(Recurrent, layer="LSTM"),
    "gru": lambda: made(Recurrent, layer="GRU"),
    "rnn": lambda: made(Recurrent, layer="RNN"),
    "convolution": lambda: made(Convolved),
    "pre-norm": lambda: made(Attending, norm_first=True),
    "post-norm": lambda: made(Attending, norm_first=False),
    "norms": lambda: made(Normalised, wide=33),
    "wide": lambda: made(Normalised, wide=1_027),
}
ARGUMENTS = {
    "lstm": {"layer": "LSTM"},
    "gru": {"layer": "GRU"},
    "rnn": {"layer": "RNN"},
    "pre-norm": {"norm_first": True},
    "post-norm": {"norm_first": False},
    "norms": {"wide": 33},
    "wide": {"wide": 1_027},
}


@pytest.mark.parametrize("name", SOUND)
def test_a_network_whose_rows_are_their_own_is_taken(tmp_path: Path, name: str) -> None:
    network = SOUND[name]()
    write(tmp_path, network, arguments=ARGUMENTS.get(name, {}))
    loaded(tmp_path, network)


def test_a_network_that_raises_for_rows_with_holes_is_tried_on_the_golden_rows(tmp_path: Path) -> None:
    rows = table(400).to_pandas()
    known = rows["c"].isin(WORDS) & rows.notna().all(axis=1)
    whole = pa.Table.from_pandas(rows[known], preserve_index=False)
    network = made(Choosy)
    write(tmp_path, network, reference=whole, golden=whole.slice(0, 64).drop_columns("dt"))


def test_a_network_without_numbers_or_words_is_tried_too(tmp_path: Path) -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.word = nn.Embedding(4, 2)

        def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
            assert numeric.shape[1] == 0
            return self.word(categorical[:, 0])

    class Numbers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(NUMERIC, 2)

        def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
            return self.layer(numeric.nan_to_num(0.0))

    write(tmp_path / "words", made(Words), numeric=[])
    write(tmp_path / "numbers", made(Numbers), categorical={})
