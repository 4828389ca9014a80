"""The engine: a row's score depends on the row alone, a bad row harms no other, memory and threads stay bounded."""

import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_scoring.errors import ScoringError
from batch_scoring.inference.bundle import load_bundle
from batch_scoring.inference.inputs.encoded import GRID, FailedRow
from batch_scoring.inference.inputs.own_encoder import OwnEncoder
from batch_scoring.inference.inputs.transform import whole
from batch_scoring.inference.manifest import LoadedModel, Manifest
from batch_scoring.inference.network.code import ModelCode
from batch_scoring.inference.scorer import (
    MOST_FAILING_ROWS,
    PASSES,
    ScoredBatch,
    Scorer,
)
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring_tests import text_models, transformed_bundles

COLOURS = ("red", "green", "blue")
POISON, LIMP = 666.0, 555.0
"""Values of x for which the network raises, and answers NaN."""


class Net(torch.nn.Module):
    """Two hidden layers with an embedding; knows a number that it does not like."""

    def __init__(self, outputs: int = 2, width: int = 48) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.word = torch.nn.Embedding(len(COLOURS) + 1, 4)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(7, width),
            torch.nn.ReLU(),
            torch.nn.Linear(width, width),
            torch.nn.ReLU(),
            torch.nn.Linear(width, outputs),
        )
        self.passes: list[int] = []

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        self.passes.append(len(numeric))
        if (numeric[:, 0] == POISON).any():
            raise ValueError("the number of the beast")
        result = self.layers(torch.cat([numeric.nan_to_num(0.0), self.word(categorical[:, 0])], dim=1))
        return torch.where(numeric[:, :1] == LIMP, torch.nan, result)


def model_of(network: torch.nn.Module, outputs: int = 2, task: str = "classification") -> LoadedModel:
    manifest = Manifest(
        name="tiny",
        version="v1",
        task=task,
        arguments={},
        numeric=("x", "y", "n"),
        categorical={"c": COLOURS},
        classes=tuple(map(str, range(outputs))) if task == "classification" else (),
        training={},
        metrics={},
        files={},
    )
    return LoadedModel(manifest, "", network.eval(), pa.Table.from_batches([rows(64, seed=99)]))


def scorer(
    network: torch.nn.Module | None = None,
    outputs: int = 2,
    task: str = "classification",
    **options: Any,  # noqa: ANN401
) -> Scorer:
    return Scorer(model_of(network or Net(outputs), outputs, task), device="cpu", **options)


def rows(count: int, seed: int = 0, **changes: dict[int, float]) -> pa.RecordBatch:
    """Random rows; `x={3: POISON}` sets the value of row 3."""
    random = np.random.default_rng(seed)
    columns: dict[str, Any] = {
        "id": [f"k{n}" for n in range(count)],
        "x": random.normal(0, 1, count),
        "y": np.where(random.random(count) < 0.1, np.nan, random.normal(0, 1, count)),
        "n": random.integers(0, 9, count),
        "c": random.choice([*COLOURS, "mauve"], count),
    }
    for name, values in changes.items():
        for row, value in values.items():
            columns[name][row] = value
    return pa.RecordBatch.from_pydict({name: pa.array(values) for name, values in columns.items()})


def cut(batch: pa.RecordBatch, size: int) -> Iterator[pa.RecordBatch]:
    return (batch.slice(start, size) for start in range(0, batch.num_rows, size))


def scores(scored: Sequence[ScoredBatch]) -> pa.Table:
    return pa.Table.from_batches([part.scores for part in scored]).combine_chunks()


# a row's score depends on the row alone


@pytest.mark.parametrize("batch_rows", [64, 65, 128, 1000, 4096, 16_384, "auto"])
def test_scores_do_not_depend_on_the_batch_size(batch_rows: int | str) -> None:
    batch = rows(10_007)
    expected = scorer(batch_rows=256).score_batch(batch).scores
    assert scorer(batch_rows=batch_rows).score_batch(batch).scores.equals(expected)


@pytest.mark.parametrize("size", [1, 7, 63, 64, 100, 5000])
@pytest.mark.parametrize("helpers", [0, 1, 2])
def test_scores_do_not_depend_on_record_batches_and_workers(size: int, helpers: int) -> None:
    batch = rows(500 if size < 64 else 5003)
    expected = scorer().score_batch(batch).scores
    assert scores([*scorer().score(cut(batch, size), helpers=helpers)]).equals(pa.Table.from_batches([expected]))


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(0, 300), min_size=1, max_size=6), batch_rows=st.integers(64, 700))
def test_scores_do_not_depend_on_where_the_rows_are_cut(sizes: list[int], batch_rows: int) -> None:
    batch = rows(sum(sizes), seed=7)
    starts = np.cumsum([0, *sizes])
    parts = [batch.slice(int(start), size) for start, size in zip(starts, sizes, strict=False)]
    found = scores([*scorer(batch_rows=batch_rows).score(parts, helpers=2)])
    assert found.equals(scores([scorer().score_batch(batch)]))


def test_results_come_in_the_order_of_the_input() -> None:
    class Dawdling(Net):
        def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
            time.sleep(0.02 if len(self.passes) % 2 else 0.0)
            return super().forward(numeric, categorical)

    batch = rows(1000)
    keys = [key for part in scorer(Dawdling()).score(cut(batch, 50), helpers=2) for key in part.rows["id"].to_pylist()]
    assert keys == batch["id"].to_pylist()


def test_a_record_batch_that_costs_much_is_shared_among_workers_and_comes_back_whole() -> None:
    network, count = Net(), PASSES * GRID
    batch = rows(2 * count + 100, x={count - 1: POISON, count + 7: LIMP, 2 * count + 99: float("inf")})
    expected = scorer(batch_rows=GRID).score_batch(batch)
    threads: set[int] = set()
    network.register_forward_hook(lambda *_: (threads.add(threading.get_ident()), time.sleep(0.001))[1])
    (found,) = scorer(network, batch_rows=GRID).score([batch], helpers=2)
    assert found.source is batch
    assert found.scores.equals(expected.scores)
    assert [row.position for row in found.failed] == [count - 1, count + 7, 2 * count + 99]
    assert found.failed == expected.failed
    assert found.unknown == expected.unknown
    assert len(threads - {threading.get_ident()}) == 2


def test_every_forward_pass_is_on_the_grid() -> None:
    network = Net()
    engine = scorer(network, batch_rows=100)
    network.passes.clear()
    list(engine.score(cut(rows(1001, x={5: POISON}), 300)))
    assert network.passes and all(size % GRID == 0 for size in network.passes)
    assert engine.batch_rows == 128


# what comes out


def test_probabilities_are_the_softmax_of_the_networks_output() -> None:
    batch = rows(500)
    engine = scorer(outputs=4)
    raw = torch.from_numpy(engine.outputs(pa.Table.from_batches([batch])))
    expected = raw.double().softmax(dim=1).numpy()
    found = engine.score_batch(batch).scores
    assert found.schema.names == ["prediction", "prediction_proba", *(f"prob_class_{index}" for index in range(4))]
    assert found.schema.field("prediction").type == pa.int64()
    assert found.schema.field("prob_class_3").type == found.schema.field("prediction_proba").type == pa.float32()
    block = np.column_stack([found[f"prob_class_{index}"].to_numpy() for index in range(4)])
    assert np.abs(block - expected).max() < 1e-6
    assert np.array_equal(found["prediction"].to_numpy(), block.argmax(axis=1))
    assert np.array_equal(found["prediction_proba"].to_numpy(), block.max(axis=1))
    assert len(set(found["prediction"].to_pylist())) > 1


def test_a_regression_gives_its_value_as_float64() -> None:
    batch = rows(300, x={4: LIMP})
    engine = scorer(outputs=1, task="regression")
    found = engine.score_batch(batch)
    assert found.scores.schema == pa.schema([("prediction", pa.float64())])
    assert found.failed == (FailedRow(4, "output_is_finite", "the network's output is NaN or infinite"),)
    raw = scorer(outputs=1, task="regression").outputs(pa.Table.from_batches([rows(300)]))[:, 0]
    assert np.array_equal(found.scores["prediction"].to_numpy(), np.delete(raw, 4).astype(np.float64))


def test_an_empty_record_batch_has_no_scores() -> None:
    (found,) = scorer().score([rows(0)])
    assert found.scores.num_rows == 0 and found.failed == () and found.unknown == {}
    assert found.scores.schema == scorer().score_batch(rows(1)).scores.schema


def test_no_input_gives_no_result() -> None:
    assert list(scorer().score([])) == []


# what goes in


def test_missing_numbers_reach_the_network_as_nan_and_missing_words_as_unknown() -> None:
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    class Witness(Net):
        def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
            seen.append((numeric.numpy().copy(), categorical.numpy().copy()))
            return super().forward(numeric, categorical)

    batch = pa.RecordBatch.from_pydict(
        {
            "x": pa.array([1.5, None, -2.0]),
            "y": pa.array([None, None, None], pa.float64()),
            "n": pa.array([3, None, 5], pa.int64()),
            "c": pa.array(["blue", None, "mauve"]),
        }
    )
    engine = scorer(Witness())
    seen.clear()
    found = engine.score_batch(batch)
    numeric, categorical = seen[0]
    assert np.array_equal(numeric[:3], [[1.5, np.nan, 3], [np.nan] * 3, [-2, np.nan, 5]], equal_nan=True)
    assert categorical[:3, 0].tolist() == [3, 0, 0]
    assert (numeric[3:, [0, 2]] == [-2, 5]).all() and (categorical[3:] == 0).all(), "the last row is the padding"
    assert found.unknown == {"c": {"mauve": 1}}, "a missing word is no unknown word"


@pytest.mark.parametrize("kind", [pa.bool_(), pa.int8(), pa.uint64(), pa.float32()])
def test_numeric_columns_of_any_arrow_type_may_miss_values(kind: pa.DataType) -> None:
    plain = rows(10)
    whole = pa.array([n % 2 for n in range(10)], pa.int64())
    missing = pa.array([None if n == 4 else n % 2 for n in range(10)], pa.int64())
    place = plain.schema.names.index("n")

    def with_n(values: pa.Array) -> pa.RecordBatch:
        return plain.set_column(place, "n", values)

    engine = scorer()
    assert engine.score_batch(with_n(whole.cast(kind))).scores.equals(engine.score_batch(with_n(whole)).scores)
    assert engine.score_batch(with_n(missing.cast(kind))).scores.equals(engine.score_batch(with_n(missing)).scores)


def test_dictionary_encoded_and_sliced_and_chunked_input_scores_like_plain_input() -> None:
    batch = rows(1000)
    expected = scorer().score_batch(batch).scores.slice(137, 600)
    place = batch.schema.names.index("c")
    encoded = batch.set_column(place, "c", batch["c"].dictionary_encode())
    assert scorer().score_batch(batch.slice(137, 600)).scores.equals(expected)
    assert scorer().score_batch(encoded.slice(137, 600)).scores.equals(expected)
    large = batch.set_column(place, "c", batch["c"].cast(pa.large_string()))
    assert scorer().score_batch(large.slice(137, 600)).scores.equals(expected)
    chunked = pa.Table.from_batches([encoded.slice(137, 100), encoded.slice(237, 1), encoded.slice(238, 499)])
    assert scores([*scorer().score(chunked.to_batches())]).equals(pa.Table.from_batches([expected]))
    assert np.array_equal(scorer().outputs(chunked), scorer().outputs(pa.Table.from_batches([batch]))[137:737])


def test_unknown_words_are_counted_by_value() -> None:
    batch = rows(6).set_column(4, "c", pa.array(["red", "mauve", "mauve", None, "Red", "blue"]))
    assert scorer().score_batch(batch).unknown == {"c": {"mauve": 2, "Red": 1}}
    assert scorer().score_batch(batch.slice(4, 2)).unknown == {"c": {"Red": 1}}, "of this batch, not of its dictionary"


def test_other_columns_of_the_input_are_carried_along_untouched() -> None:
    batch = rows(100, x={3: POISON}).append_column("extra", pa.array(range(100)))
    found = scorer().score_batch(batch)
    assert found.source is batch
    assert found.rows["extra"].to_pylist() == [n for n in range(100) if n != 3]


def test_a_missing_feature_is_an_error_that_names_it() -> None:
    with pytest.raises(ScoringError, match="the input has no column y, c, which the model needs"):
        list(scorer().score([rows(5).drop_columns(["y", "c"])]))


# bad rows


@pytest.mark.parametrize("positions", [[0], [63, 64], [999], [5, 6, 7, 500, 501], list(range(0, 1000, 13))])
@pytest.mark.parametrize("batch_rows", [64, 4096])
def test_poison_rows_are_found_and_the_others_score_as_without_them(positions: list[int], batch_rows: int) -> None:
    batch = rows(1000, x=dict.fromkeys(positions, POISON))
    found = scorer(batch_rows=batch_rows).score_batch(batch)
    assert [(row.position, row.rule, row.detail) for row in found.failed] == [
        (position, "network_raises", "ValueError: the number of the beast") for position in positions
    ]
    good = [row for row in range(1000) if row not in positions]
    assert found.scores.equals(scorer().score_batch(rows(1000)).scores.take(good))
    assert found.rows["id"].to_pylist() == [f"k{row}" for row in good]


def test_rows_without_a_finite_output_are_named_and_the_others_kept() -> None:
    found = scorer().score_batch(rows(200, x={0: LIMP, 7: POISON, 199: LIMP}))
    assert [(row.position, row.rule) for row in found.failed] == [
        (0, "output_is_finite"),
        (7, "network_raises"),
        (199, "output_is_finite"),
    ]
    good = [row for row in range(200) if row not in (0, 7, 199)]
    assert found.scores.equals(scorer().score_batch(rows(200)).scores.take(good))


@pytest.mark.parametrize("extreme", [np.inf, np.nan])
def test_an_infinite_output_is_as_bad_as_nan(extreme: float) -> None:
    class Extreme(Net):
        def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
            result = super().forward(numeric, categorical)
            result[3, 1] = extreme
            return result

    assert [row.position for row in scorer(Extreme()).score_batch(rows(10)).failed] == [3]


class Broken(Net):
    """Fails on every row."""

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        self.passes.append(len(numeric))
        raise ZeroDivisionError("division by zero\nin a network")


def test_a_network_that_always_raises_is_a_quick_error_that_says_so() -> None:
    network = Broken()
    engine = scorer(network)
    network.passes.clear()
    with pytest.raises(ScoringError) as raised:
        list(engine.score([rows(131_072)]))
    assert str(raised.value) == (
        f"the network raises for more than {MOST_FAILING_ROWS} rows of a shard: the model is at fault; "
        "for one of them: ZeroDivisionError: division by zero"
    )
    assert len(network.passes) < 5 * MOST_FAILING_ROWS


@pytest.mark.parametrize(
    ("helpers", "batch_rows", "size"), [(0, 64, 5_000), (1, 64, 700), (3, 64, 5_000), (0, 4_096, 50)]
)
def test_how_many_rows_may_raise_does_not_depend_on_cores_and_batches(helpers: int, batch_rows: int, size: int) -> None:
    engine = scorer(batch_rows=batch_rows)

    def failed(count: int) -> int:
        poisoned = rows(5_000, x=dict.fromkeys(range(0, 49 * count, 49), POISON))
        return sum(len(part.failed) for part in engine.score(cut(poisoned, size), helpers=helpers))

    assert failed(MOST_FAILING_ROWS) == MOST_FAILING_ROWS
    with pytest.raises(ScoringError, match=f"the network raises for more than {MOST_FAILING_ROWS} rows of a shard"):
        failed(MOST_FAILING_ROWS + 1)


def test_rows_without_a_finite_output_do_not_count_as_rows_that_raise() -> None:
    limp = rows(500, x=dict.fromkeys(range(2 * MOST_FAILING_ROWS), LIMP))
    assert sum(len(part.failed) for part in scorer().score([limp])) == 2 * MOST_FAILING_ROWS


class Overwriting(Net):
    """Normalises the matrix that it is given in place, as torch invites it to."""

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        poisoned = (numeric[:, 0] == POISON).any()
        numeric.mul_(0.5).clamp_(-9, 9)
        categorical.clamp_(max=2)
        if poisoned:
            raise ValueError("after the rows were overwritten")
        return super().forward(numeric, categorical)


def test_a_network_that_overwrites_its_inputs_spoils_no_row_that_is_scored_once_more() -> None:
    batch = rows(500, x={9: float("inf")})
    clean = scorer(Overwriting()).score_batch(batch)
    assert [(row.position, row.rule) for row in clean.failed] == [(9, "input_is_finite")]
    found = scorer(Overwriting()).score_batch(rows(500, x={9: float("inf"), 3: POISON}))
    assert [(row.position, row.rule) for row in found.failed] == [(3, "network_raises"), (9, "input_is_finite")]
    assert found.scores.equals(clean.scores.take(np.delete(np.arange(499), 3)))


def test_a_network_that_overwrites_its_inputs_is_given_them_anew_when_memory_was_short() -> None:
    class Short(Overwriting):
        def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
            result = super().forward(numeric, categorical)
            if len(numeric) > 64:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return result

    batch = rows(300)
    found = scorer(Short(), batch_rows=256).score_batch(batch).scores
    assert found.equals(scorer(Overwriting()).score_batch(batch).scores)


def test_an_output_of_another_shape_is_an_error_and_no_bad_row() -> None:
    with pytest.raises(ScoringError, match=r"the network's output has shape \(64, 3\), expected \(64, 2\)"):
        list(scorer(Net(outputs=3), outputs=2).score([rows(50)]))


def test_the_raw_outputs_of_a_row_that_raises_are_an_error() -> None:
    with pytest.raises(ScoringError, match="row 2: ValueError: the number of the beast"):
        scorer().outputs(pa.Table.from_batches([rows(5, x={2: POISON})]))


# memory


class Hungry(Net):
    """Runs out of memory above a number of rows."""

    def __init__(self, most: int, error: Callable[[], Exception]) -> None:
        super().__init__()
        self.most, self.error = most, error

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        if len(numeric) > self.most:
            self.passes.append(-len(numeric))
            raise self.error()
        return super().forward(numeric, categorical)


OUT_OF_MEMORY = {
    "torch": lambda: torch.OutOfMemoryError("CUDA out of memory"),
    "python": MemoryError,
    "allocator": lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate"),
    "Linux": lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
}


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_out_of_memory_halves_the_batch_and_goes_on(error: str) -> None:
    engine = scorer(Hungry(200, OUT_OF_MEMORY[error]), batch_rows=4096)
    batch = rows(10_000)
    found = list(engine.score(cut(batch, 5000), helpers=2))
    assert scores(found).equals(scores([scorer().score_batch(batch)]))
    assert all(not part.failed for part in found)
    assert engine.batch_rows == 128


def test_out_of_memory_for_the_smallest_batch_is_raised() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        list(scorer(Hungry(0, OUT_OF_MEMORY["torch"])).score([rows(1000)]))


def test_memory_is_bounded_by_what_is_in_flight() -> None:
    """However long the stream: no batch is read that could not be scored, written and forgotten soon."""
    produced = 0

    def source() -> Iterator[pa.RecordBatch]:
        nonlocal produced
        for seed in range(200):
            produced += 1
            yield rows(64, seed=seed)

    most = 0
    for taken, _ in enumerate(scorer().score(source(), helpers=2), start=1):
        most = max(most, produced - taken)
    assert produced == 200
    assert most <= 2 + 3  # the helpers', the caller's and two that wait


def test_a_slow_caller_stops_the_reader() -> None:
    produced: list[int] = []

    def source() -> Iterator[pa.RecordBatch]:
        for number in range(50):
            produced.append(number)
            yield rows(64)

    stream = scorer().score(source(), helpers=1)
    next(stream)
    time.sleep(0.3)
    assert len(produced) <= 6
    stream.close()


# threads


def engine_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("helper")]


def test_an_error_of_the_reader_is_raised_in_its_place() -> None:
    def source() -> Iterator[pa.RecordBatch]:
        yield rows(64)
        yield rows(64)
        raise OSError("the file is gone")

    found: list[ScoredBatch] = []
    with pytest.raises(OSError, match="the file is gone"):
        for part in scorer().score(source(), helpers=1):
            found.append(part)
    assert len(found) <= 2
    assert engine_threads() == []


def test_an_error_of_the_model_leaves_no_thread_behind() -> None:
    with pytest.raises(ScoringError):
        list(scorer(Broken()).score(cut(rows(5000), 1000), helpers=2))
    assert engine_threads() == []


@pytest.mark.parametrize("taken", [1, 3])
def test_closing_early_leaves_no_thread_behind(taken: int) -> None:
    stream = scorer().score((rows(64) for _ in range(10_000)), helpers=2)
    for _ in range(taken):
        next(stream)
    assert engine_threads()
    stream.close()
    assert engine_threads() == []


def test_a_forgotten_stream_leaves_no_thread_behind() -> None:
    stream = scorer().score((rows(64) for _ in range(10_000)), helpers=2)
    next(stream)
    del stream
    gc.collect()
    assert engine_threads() == []


@pytest.mark.parametrize("close", [True, False])
def test_torchs_own_threads_are_one_while_scoring_and_as_before_afterwards(close: bool) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        stream = scorer().score(cut(rows(1000), 100), helpers=1)
        next(stream)
        assert torch.get_num_threads() == 1
        if close:
            stream.close()
        else:
            list(stream)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_one_scorer_serves_several_streams_at_once() -> None:
    engine, batch = scorer(), rows(2000)
    expected = engine.score_batch(batch).scores
    results: list[pa.Table] = []
    threads = [
        threading.Thread(target=lambda: results.append(scores([*engine.score(cut(batch, 100), helpers=2)])))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(table.equals(pa.Table.from_batches([expected])) for table in results)


# devices and sizes


def test_a_device_that_is_not_there_is_an_error_that_says_what_to_do() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ScoringError, match=r"scoring\.device is cuda, or .* but torch sees none here; use an image"):
        Scorer(model_of(Net()), device="cuda")
    assert Scorer(model_of(Net()), device="auto").device == "cpu"


@pytest.mark.parametrize(("width", "expected"), [(48, 10_922), (4096, 256), (512, 1024)])
def test_the_automatic_batch_fits_the_widest_layer_in_the_cache(width: int, expected: int) -> None:
    engine = Scorer(model_of(Net(width=width)), device="cpu")
    assert engine.batch_rows == -(-expected // GRID) * GRID


def test_the_automatic_batch_leaves_no_hook_on_the_network() -> None:
    network = Net()
    Scorer(model_of(network), device="cpu")
    assert not any(module._forward_hooks for module in network.modules())


class Positive(Net):
    """Takes the logarithm of x: raises where there is none."""

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        if (numeric[:, 0] <= 0).any():
            raise ValueError("x must be positive")
        return super().forward(numeric, categorical)


@pytest.mark.parametrize("count", [1, 63, 64, 70, 100, 128])
def test_padding_makes_no_row_fail_that_could_be_scored(count: int) -> None:
    good = rows(count, x=dict.fromkeys(range(count), 1.5))
    assert scorer(Positive()).score_batch(good).failed == ()
    bad = rows(count, x={**dict.fromkeys(range(count), 1.5), count // 2: 0.0})
    found = scorer(Positive()).score_batch(bad)
    assert [row.position for row in found.failed] == [count // 2]
    assert found.scores.num_rows == count - 1


def test_a_batch_without_rows_never_meets_the_network() -> None:
    found = scorer(Positive()).score_batch(rows(10).slice(0, 0))
    assert found.scores.num_rows == 0 and found.failed == ()


def test_a_number_beyond_float32_is_no_number_for_the_network() -> None:
    found = scorer().score_batch(rows(100, x={7: 1e40, 8: 1e38}, y={7: -1e300, 9: float("inf")}))
    assert [(row.position, row.rule, row.detail) for row in found.failed] == [
        (7, "input_is_finite", "x is 1e+40, beyond float32"),
        (9, "input_is_finite", "y is inf, beyond float32"),
    ]
    assert found.scores.num_rows == 98


def test_out_of_memory_while_the_failing_row_is_looked_for_blames_no_row() -> None:
    is_short = threading.Event()

    class Starved(Net):
        def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
            if is_short.is_set() and len(self.passes) > 1:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return super().forward(numeric, categorical)

    network = Starved()
    engine = scorer(network, batch_rows=128)
    network.passes.clear()
    is_short.set()
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        engine.score_batch(rows(200, x={3: POISON}))


def test_rows_for_which_a_transform_raises_are_counted_over_the_whole_stream(tmp_path: Path) -> None:
    def picky(rows: pa.RecordBatch, fitted: dict[str, object]) -> dict[str, pa.Array]:
        if pc.any(pc.equal(rows["amount"], 0)).as_py():
            raise ValueError("nothing was paid")
        return {"made": rows["amount"]}

    transformed_bundles.write(tmp_path, picky)
    model = load_bundle(open_folder(str(tmp_path)), ModelCode(transformed_bundles.Net, picky))
    rows = transformed_bundles.rows(60)
    broken = rows.set_column(1, "amount", pa.array([0.0] * 50 + rows["amount"].to_pylist()[50:]))
    good, bad = (whole(table) for table in (rows, broken))
    scorer = Scorer(model, device="cpu")
    first, second, third = scorer.score([bad, good, bad])
    assert [row.position for row in first.failed] == list(range(50))
    assert {row.rule for row in first.failed} == {"transform_raises"}
    assert (len(first.scores), len(second.scores)) == (10, 60)
    assert first.scores.equals(second.scores.slice(50)) and third.scores.equals(first.scores)
    assert first.rows["id"].equals(good["id"].slice(50))
    with pytest.raises(ScoringError, match=r"features\.transform raises for more than 100 rows of a shard: .* paid"):
        list(scorer.score([bad, bad, bad]))
    alone = scorer.score_batch(bad.slice(0, 3))
    assert len(alone.failed) == 3 and not len(alone.scores)
    assert scorer.score_batch(good.slice(0, 0)).scores.schema == first.scores.schema


def test_images_beside_texts_are_decoded_few_at_a_time() -> None:
    seen = []

    def encode(rows: pa.RecordBatch, fitted: dict[str, Any]) -> dict[str, Any]:
        seen.append(rows.num_rows)
        return {"image": np.zeros((rows.num_rows, 1, 512, 512), np.float32)}

    class Looking(text_models.Bag):
        def forward(self, tokens: torch.Tensor, image: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            found = self.read(tokens, tokens != 0)
            return self.last(torch.cat([found, image[:, 0, 0, :1]], dim=1))

    batch = text_models.letters(300)
    manifest = Manifest(
        name="n",
        version="v1",
        task={"kind": "regression"},  # type: ignore[arg-type]
        arguments={},
        numeric=(),
        categorical={},
        text=text_models.text(),
        training={},
        metrics={},
        files={},
    )
    encoder = OwnEncoder.learn(encode, {}, batch.slice(0, 64))
    model = LoadedModel(manifest, "", Looking(1).eval(), tokenizer=text_models.tokenizer(), encode=encoder)
    seen.clear()
    found = list(Scorer(model, device="cpu").score([batch], helpers=0))
    assert [scored.scores.num_rows for scored in found] == [300]
    assert max(seen) * encoder.row_bytes <= 64 * 2**20
