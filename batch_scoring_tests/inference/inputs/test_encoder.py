"""The inputs of a model from a record batch."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import tokenizers
import torch

from batch_scoring.errors import ScoringError
from batch_scoring.inference import scorer
from batch_scoring.inference.inputs import encoded, encoder
from batch_scoring.inference.inputs.encoder import Encoder
from batch_scoring.inference.scorer import Scorer
from batch_scoring_tests.inference.test_scorer import Net, model_of, rows
from batch_scoring_tests.text_models import (
    LONGEST,
    READERS,
    Attention,
    Bag,
    Reader,
    ReadingBackwards,
    SigmoidBag,
    letters,
    tokenizer,
)
from batch_scoring_tests.text_models import model_of as model_of_texts


def test_a_table_is_one_group_of_two_matrices() -> None:
    found = Encoder(model_of(Net())).encode(rows(70))
    (group,) = found.groups
    assert {name: values.shape for name, values in group.tensors.items()} == {
        "numeric": (128, 3),
        "categorical": (128, 1),
    }
    assert (group.rows, group.positions) == (70, None)


def test_missing_columns_are_named() -> None:
    ours = Encoder(model_of(Net()))
    assert ours.columns == ("x", "y", "n", "c")
    with pytest.raises(ScoringError, match="the input has no column y, c, which the model needs"):
        ours.encode(pa.RecordBatch.from_pydict({"x": [1.0], "n": [1]}))


def scores_of(engine: Scorer, batch: pa.RecordBatch, size: int, helpers: int = 0) -> pa.Table:
    batches = [batch.slice(start, size) for start in range(0, batch.num_rows, size)]
    return pa.Table.from_batches([part.scores for part in engine.score(batches, helpers=helpers)]).combine_chunks()


@pytest.mark.parametrize("kind", READERS)
def test_a_texts_scores_are_the_same_bits_beside_any_others(kind: type[Reader]) -> None:
    engine, batch = Scorer(model_of_texts(kind), device="cpu"), letters(1_500)
    expected = scores_of(engine, batch, 65_536)
    for size, helpers in ((1_000, 1), (64, 0), (7, 1)):
        assert scores_of(engine, batch, size, helpers).equals(expected), size
    assert scores_of(engine, batch.slice(0, 40), 1).equals(expected.slice(0, 40))
    assert scores_of(Scorer(model_of_texts(kind), device="cpu", batch_rows=64), batch, 900).equals(expected)


@pytest.mark.parametrize("kind", READERS)
def test_a_texts_scores_are_those_of_the_eager_network_without_padding(kind: type[Reader]) -> None:
    """Each row alone, as long as it is: no width, no grid, no packed layers."""
    model, batch = model_of_texts(kind), letters(200)
    library = tokenizers.Tokenizer.from_str((model.tokenizer or b"").decode())
    found = scores_of(Scorer(model, device="cpu"), batch, 200)["prob_class_1"].to_numpy()
    for row, cells in enumerate(batch.to_pylist()):
        ids = library.encode(f"{cells['title'] or ''}\n{cells['body'] or ''}").ids[:LONGEST] or [1]
        with torch.inference_mode():
            own = model.network(torch.tensor([ids]), torch.tensor([[cells["x"]]], dtype=torch.float32))
        assert found[row] == pytest.approx(own.softmax(dim=1)[0, 1].item(), abs=1e-6)


def test_padding_to_the_longest_of_a_batch_would_give_other_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    def longest(lengths: np.ndarray, _: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        yield int(lengths.max()), np.arange(len(lengths))

    monkeypatch.setattr(encoder, "by_width", longest)
    batch = letters(1_500)
    different = [
        kind
        for kind in (*READERS, ReadingBackwards)
        for engine in [Scorer(model_of_texts(kind), device="cpu")]
        if not scores_of(engine, batch, 7).equals(scores_of(engine, batch, 1_000))
    ]
    assert {Attention, ReadingBackwards} <= set(different)


def test_a_smaller_grid_would_give_other_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (encoded, scorer):
        monkeypatch.setattr(module, "GRID", 8)
    engine, batch = Scorer(model_of_texts(SigmoidBag), device="cpu"), letters(1_500)
    assert not scores_of(engine, batch, 7).equals(scores_of(engine, batch, 1_000))


def test_poison_among_texts_harms_no_other_row() -> None:
    class Strict(Bag):
        def read(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            if (tokens == 8).sum(dim=1).gt(6).any():
                raise ValueError("too many ands")
            found = super().read(tokens, mask)
            return torch.where((tokens == 9).sum(dim=1, keepdim=True) > 6, torch.nan, found)

    batch = letters(1_000)
    place = batch.schema.names.index("x")
    far = [1e300 if row in (5, 700) else value for row, value in enumerate(batch["x"].to_pylist())]
    batch = batch.set_column(place, "x", pa.array(far))
    library = tokenizers.Tokenizer.from_str(tokenizer().decode())
    ids = [library.encode(f"{row['title'] or ''}\n{row['body'] or ''}").ids[:LONGEST] for row in batch.to_pylist()]
    raising = {row for row, each in enumerate(ids) if each.count(8) > 6}
    limp = {row for row, each in enumerate(ids) if each.count(9) > 6}
    found = Scorer(model_of_texts(Strict), device="cpu").score_batch(batch)
    assert {row.position: row.rule for row in found.failed} == {
        **dict.fromkeys(limp, "output_is_finite"),
        **dict.fromkeys(raising, "network_raises"),
        5: "input_is_finite",
        700: "input_is_finite",
    }
    good = [row for row in range(1_000) if row not in raising | limp | {5, 700}]
    assert raising and limp and len(good) > 500
    sound = Scorer(model_of_texts(Bag), device="cpu").score_batch(batch)
    kept = [row for row in range(1_000) if row not in (5, 700)]
    assert found.scores.equals(sound.scores.take([kept.index(row) for row in good]))


def test_memory_that_is_short_halves_the_passes_of_texts() -> None:
    class Large(Bag):
        def forward(self, tokens: torch.Tensor, numeric: torch.Tensor) -> torch.Tensor:
            if tokens.numel() > 4_000:
                raise torch.OutOfMemoryError("CPU out of memory")
            return super().forward(tokens, numeric)

    batch = letters(2_000)
    expected = scores_of(Scorer(model_of_texts(Bag), device="cpu"), batch, 2_000)
    assert scores_of(Scorer(model_of_texts(Large), device="cpu"), batch, 2_000).equals(expected)
