"""The streaming scorer: Arrow record batches in, scores as Arrow record batches out, in constant memory.

    record batches -> read and scored in parallel (`parallel.py`; one torch thread each) -> the caller, in order

It uses torch and Arrow and knows nothing about Dagster, days, tables or files. A row's scores do not depend on the rows
beside it: every forward pass runs on a multiple of `GRID` rows, the last one padded, because BLAS kernels take
another path (and round differently) for a tail of a few rows. Concurrent forward passes never share a network
(`network/thread_copies.py`).

On the CPU the linear layers of the network are packed (`network/packed_linear.py`), where the golden rows prove that
they give the eager network's outputs. What each alternative saved of an eager forward pass, on two AMD cores, for a
perceptron of 64-64, one of 512-512-512 and a small transformer (`python -m benchmarks.forward` measures it elsewhere):
packing 13, 19 and 2 %, and 15 % from file to file; AOTInductor 26, 22 and 22 %, but the model's file is then a program;
ONNX Runtime -15, 21 and 18 %; torch.compile nothing, after 5 to 13 s; bfloat16 up to half, but 0.3 to 0.6 % of the
predictions flip.
"""

import collections
import contextlib
import copy
import ctypes
import functools
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.errors import DeviceError, ScoringError, is_out_of_memory
from batch_scoring.runtime.parallel import in_order, spare_cores

if TYPE_CHECKING:
    import torch

    from batch_scoring.inference.manifest import LoadedModel, Transformed
    from batch_scoring.inference.network.packed_linear import ProbeRows

GRID = 64
"""Every forward pass has a multiple of this many rows. From 16 rows on, results of a row were bit-equal in every batch
size tried; 64 leaves room for other BLAS builds."""

ACTIVATION_BYTES = {"cpu": 2 * 1024**2, "cuda": 256 * 1024**2}
"""Size of the widest layer's activation in one forward pass: on a CPU, what stays in the second-level cache."""

BATCH_LIMITS = {"cpu": (256, 16_384), "cuda": (4_096, 262_144)}
"""Bounds of the automatic batch."""

PASSES = 16
"""Most forward passes in one work item of a thread: for a small network a record batch is one item, and handing it
out costs little beside it."""

MOST_FAILING_ROWS = 100
"""Rows of one stream (a shard) for which the network may raise; more of them mean a broken model, not broken rows."""

PROBES = 4_096
"""Approximate maximum of golden rows with a missing value that test packed layers: with up to 64 numeric columns all
golden rows for each, with thousands one for each."""

ONE_THREAD = "one thread at a time runs the network: no copy of it gives the same outputs"
"""Logged for a network that stores its results where a copy does not find them (`Scorer.runs_side_by_side`)."""


@dataclass(frozen=True)
class FailedRow:
    """A row without a score."""

    position: int
    """In its record batch, from 0."""
    rule: str
    """input_is_finite, network_raises, output_is_finite, transform_raises, or a rule about engineered features."""
    detail: str
    column: str = ""
    """The engineered column that breaks the rule, if one does."""


@dataclass(frozen=True)
class ScoredBatch:
    """The scores of one record batch, and the rows without any."""

    source: pa.RecordBatch
    """The batch as it was read."""
    scores: pa.RecordBatch
    """prediction, prediction_proba, prob_class_0 … (a regression: prediction), one row a scored row of `source`."""
    failed: tuple[FailedRow, ...] = ()
    unknown: dict[str, dict[str, int]] = field(default_factory=dict)
    """Counts of values that the model was not trained on, by categorical column; they are scored as unknown."""

    @property
    def rows(self) -> pa.RecordBatch:
        """The rows of `source` that were scored, in the order of `scores`."""
        if not self.failed:
            return self.source
        return self.source.take(np.delete(np.arange(self.source.num_rows), [row.position for row in self.failed]))


class Scorer:
    """A model on a device that scores record batches, from any number of threads."""

    def __init__(
        self, model: "LoadedModel", *, device: str = "auto", batch_rows: int | Literal["auto"] = "auto"
    ) -> None:
        """Put the model on its device.

        Args:
            model: a verified bundle with its network.
            device: cpu, cuda, or auto for a GPU where there is one.
            batch_rows: rows of one forward pass, rounded up to the grid; auto fits the widest layer in the cache.

        Raises:
            DeviceError: the device is not there.
        """
        import torch

        from batch_scoring.inference.network.packed_linear import proven
        from batch_scoring.inference.network.thread_copies import ThreadCopies

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            raise DeviceError(
                "scoring.device is cuda, or the pod has a GPU (compute.predictions.gpu), but torch sees none here; use "
                "an image with the CUDA build of torch and a node with its driver, or score on the cpu"
            )
        self.device = device
        self.manifest = model.manifest
        self.columns = model.columns
        """The columns that record batches need."""
        self.reads = model.transform.reads if model.transform else None
        """The columns and types that the model's transform gets, if there is one."""
        self._model = model
        self._vocabularies = {name: pa.array(words, pa.string()) for name, words in self.manifest.categorical.items()}
        self._lane = threading.local()
        self._cpu_network = model.network.eval()
        self.why_eager = ""
        """Why the network's layers are not packed on the CPU; empty if they are, or if it has none to pack."""
        with _one_torch_thread_each():
            if device == "cuda":
                self._network = copy.deepcopy(model.network).to(device)
            elif model.golden is None:
                self._network, self.why_eager = self._cpu_network, "there are no golden rows to prove packed layers on"
            else:
                self._network, self.why_eager = proven(self._cpu_network, self._probes(model.golden))
            self._copies = ThreadCopies(self._network, self._probes_on_device(model.golden))
            self.batch_rows = _padded(batch_rows if batch_rows != "auto" else self._automatic_batch_rows())

    @property
    def runs_side_by_side(self) -> bool:
        """Whether several threads run the network at once, each its own copy, or one at a time."""
        return self._copies.are_equal

    def halve(self, times: int) -> None:
        """Halve the rows of a forward pass this many times, on the grid; the scores stay the same."""
        self.batch_rows = _padded(self.batch_rows >> times)

    def score(
        self, batches: Iterable[pa.RecordBatch], *, helpers: int | None = None
    ) -> Generator[ScoredBatch, None, None]:
        """Score a stream; reading, scoring and the caller's work overlap, and results keep the order of the input.

        Args:
            batches: record batches with at least the model's feature columns.
            helpers: threads that score beside the caller's, which scores too while it waits; `spare_cores()` if None
                (two on a GPU: one computes, one copies).

        Raises:
            ScoringError: columns or shapes do not fit, or the network raises for more than `MOST_FAILING_ROWS` rows of
                the stream, however it is cut into batches and threads.
            DeviceError: the GPU is lost.
        """
        keep_freed_memory()
        if helpers is None:
            helpers = 2 if self.device == "cuda" else spare_cores()
        found: list[ScoredBatch] = []
        raising: collections.Counter[str] = collections.Counter()
        with (
            _one_torch_thread_each() as settle,
            contextlib.closing(in_order(self._score_part, self._parts(batches, helpers + 1), helpers, settle)) as parts,
        ):
            for whole, scored in parts:
                found.append(scored)
                raising.update(row.rule for row in scored.failed)
                _ensure_few(raising, scored.failed)
                if whole is not None:
                    yield _joined(whole, found)
                    found = []

    def score_batch(self, batch: pa.RecordBatch) -> ScoredBatch:
        """Score one record batch on the calling thread."""
        if self._model.transform is None:
            return self._score_inputs(batch)
        made = self._model.transform.apply(batch)
        return _with_broken(batch, made, self._score_inputs(made.rows))

    def _score_inputs(self, batch: pa.RecordBatch) -> ScoredBatch:
        """Score rows that have all features, engineered ones among them."""
        numeric, categorical, unknown = self.matrices(batch)
        infinite = self._infinite(batch, numeric)
        block, failed = self._run(batch, numeric, categorical, probabilities=True)
        if self.manifest.task == "regression":
            values = block[0].astype(np.float64)
            bad = ~np.isfinite(values)
            columns = {"prediction": values}
        else:
            winner, best = _best_class(block)
            bad = np.isnan(best)
            columns = {"prediction": winner, "prediction_proba": best}
            columns |= {f"prob_class_{index}": block[index] for index in range(len(block))}
        known = {row.position: row for row in failed}
        for row in np.flatnonzero(bad):
            known.setdefault(
                int(row), FailedRow(int(row), "output_is_finite", "the network's output is NaN or infinite")
            )
        known |= {row.position: row for row in infinite}
        failed = list(known.values())
        scores = pa.RecordBatch.from_pydict({name: pa.array(values) for name, values in columns.items()})
        if failed:
            failed.sort(key=lambda row: row.position)
            scores = scores.take(np.delete(np.arange(batch.num_rows), [row.position for row in failed]))
        return ScoredBatch(batch, scores, tuple(failed), unknown)

    def _parts(
        self, batches: Iterable[pa.RecordBatch], threads: int
    ) -> Iterator[tuple[pa.RecordBatch | None, pa.RecordBatch]]:
        """Record batches in pieces, as many for each thread, where a whole one would be too much work for one thread.

        Yields:
            The record batch that a piece completes, None before its last piece; and the piece.
        """
        for batch in batches:
            passes = -(-batch.num_rows // self.batch_rows)
            pieces = -(-passes // (PASSES * threads)) * threads if passes > PASSES else 1
            rows = -(-passes // pieces) * self.batch_rows
            start = 0
            while batch.num_rows - start > rows:
                yield None, batch.slice(start, rows)
                start += rows
            yield batch, batch.slice(start)

    def _score_part(
        self, part: tuple[pa.RecordBatch | None, pa.RecordBatch]
    ) -> tuple[pa.RecordBatch | None, ScoredBatch]:
        whole, rows = part
        return whole, self.score_batch(rows)

    def outputs(self, table: pa.Table) -> np.ndarray:
        """The network's raw outputs (logits or values), float32[rows, outputs], for a small table.

        Raises:
            ScoringError: the network or the transform raises for one of the rows.
        """
        batch = self._model.with_engineered(table).combine_chunks().to_batches()[0]
        numeric, categorical, _ = self.matrices(batch)
        with _one_torch_thread_each():
            block, failed = self._run(batch, numeric, categorical, probabilities=False)
        if failed:
            raise ScoringError(f"row {failed[0].position}: {failed[0].detail}")
        return np.ascontiguousarray(block.T)

    def matrices(self, batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray, dict[str, dict[str, int]]]:
        """float32[padded rows, n], NaN if missing; int64[padded rows, c], 0 if unknown; counts of unknown values."""
        wanted = (*self.manifest.numeric, *self.manifest.categorical)
        if absent := [name for name in wanted if name not in batch.schema.names]:
            raise ScoringError(f"the input has no column {', '.join(absent)}, which the model needs")
        rows, padded = batch.num_rows, _padded(batch.num_rows)
        numeric = np.zeros((padded, len(self.manifest.numeric)), np.float32)
        with np.errstate(over="ignore"):  # `_infinite` finds the rows
            for index, name in enumerate(self.manifest.numeric):
                numeric[:rows, index] = _numbers(batch.column(name))
        categorical = np.zeros((padded, len(self._vocabularies)), np.int64)
        unknown: dict[str, dict[str, int]] = {}
        for index, (name, vocabulary) in enumerate(self._vocabularies.items()):
            codes, strange = _encode(batch.column(name), vocabulary)
            categorical[:rows, index] = codes
            if strange:
                unknown[name] = strange
        _pad(numeric, rows)
        _pad(categorical, rows)
        return numeric, categorical, unknown

    def _infinite(self, batch: pa.RecordBatch, numeric: np.ndarray) -> list[FailedRow]:
        """Rows with a value that is infinite as float32."""
        rows = numeric[: batch.num_rows]
        if not np.isinf(rows).any():
            return []
        found: dict[int, FailedRow] = {}
        for row, column in zip(*np.nonzero(np.isinf(rows)), strict=True):
            name = self.manifest.numeric[column]
            detail = f"{name} is {batch.column(name)[int(row)].as_py()}, beyond float32"
            found.setdefault(int(row), FailedRow(int(row), "input_is_finite", detail))
        return list(found.values())

    def _run(
        self, batch: pa.RecordBatch, numeric: np.ndarray, categorical: np.ndarray, *, probabilities: bool
    ) -> tuple[np.ndarray, list[FailedRow]]:
        """Forward in blocks; float32[outputs, rows], NaN in the columns of rows that failed.

        Args:
            batch: the rows.
            numeric: their float32[padded rows, n], which the network may overwrite.
            categorical: their int64[padded rows, c], which it may overwrite as well.
            probabilities: whether to turn the logits of classes into probabilities.
        """
        rows = batch.num_rows
        block = np.full((self.manifest.outputs, len(numeric)), np.nan, np.float32)
        failed: list[FailedRow] = []
        start = 0
        while start < rows:
            stop = min(start + self.batch_rows, len(numeric))
            try:
                block[:, start:stop] = self._forward(numeric[start:stop], categorical[start:stop], probabilities)
            except Exception as error:
                numeric, categorical, _ = self.matrices(batch)
                if is_out_of_memory(error):
                    if stop - start <= GRID:
                        raise
                    self.batch_rows = _padded((stop - start) // 2)
                    self._free_memory()
                    continue
                self._ensure_device(error)
                for row in range(start, min(stop, rows)):
                    block[:, row] = np.nan
                self._bisect(numeric, categorical, start, min(stop, rows), probabilities, block, failed)
            start = stop
        return block[:, :rows], failed

    def _free_memory(self) -> None:
        if self.device == "cuda":
            import torch

            torch.cuda.empty_cache()

    def _ensure_device(self, error: Exception) -> None:
        """Distinguish a row that the network cannot score from a lost GPU, on which every later pass fails as well.

        Raises:
            DeviceError: the device computes nothing any more.
        """
        if self.device == "cpu":
            return
        import torch

        try:
            torch.zeros(1, device=self.device).add_(1).cpu()
        except Exception as trouble:
            cause = f"{type(error).__name__}: {error}".splitlines()[0]
            raise DeviceError(
                f"the GPU can no longer be used by this process ({cause}); the shard was abandoned. If it happens "
                "again, a row makes the network fail on the GPU: with scoring.device cpu, that row is quarantined"
            ) from trouble

    def _forward(self, numeric: np.ndarray, categorical: np.ndarray, probabilities: bool) -> np.ndarray:
        """One forward pass of float32[rows, n] and int64[rows, c] to float32[outputs, rows]."""
        import torch

        with torch.inference_mode():
            inputs = torch.from_numpy(numeric), torch.from_numpy(categorical)
            if self.device == "cpu":
                with self._copies.borrowed() as network:
                    return self._outputs(network(*inputs), len(numeric), probabilities).numpy()
            # one stream a worker: while one computes, another's copies run
            stream = getattr(self._lane, "stream", None) or torch.cuda.Stream()
            self._lane.stream = stream
            with self._copies.borrowed() as network, torch.cuda.stream(stream):
                staged = [part.pin_memory().to("cuda", non_blocking=True) for part in inputs]
                result = self._outputs(network(*staged), len(numeric), probabilities)
                landed = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
                landed.copy_(result, non_blocking=True)
                stream.synchronize()  # before another stream gets the network
            return landed.numpy()

    def _outputs(self, result: "torch.Tensor", rows: int, probabilities: bool) -> "torch.Tensor":
        """float32[outputs, rows] from the network's float32[rows, outputs]: each class is one contiguous column."""
        expected = (rows, self.manifest.outputs)
        if tuple(result.shape) != expected:
            raise ScoringError(f"the network's output has shape {tuple(result.shape)}, expected {expected}")
        columns = result.float().t().contiguous()
        return columns.softmax(dim=0) if probabilities and self.manifest.task == "classification" else columns

    def _bisect(
        self,
        numeric: np.ndarray,
        categorical: np.ndarray,
        start: int,
        stop: int,
        probabilities: bool,
        block: np.ndarray,
        failed: list[FailedRow],
    ) -> None:
        """Score those rows of a failing pass that can be scored; on the same device, so that no bit differs."""
        rows, padded = stop - start, _padded(stop - start)
        part, codes = (
            np.zeros((padded, numeric.shape[1]), np.float32),
            np.zeros((padded, categorical.shape[1]), np.int64),
        )
        part[:rows], codes[:rows] = numeric[start:stop], categorical[start:stop]
        _pad(part, rows)
        _pad(codes, rows)
        try:
            block[:, start:stop] = self._forward(part, codes, probabilities)[:, :rows]
        except ScoringError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise  # the machine's fault, not the row's
            self._ensure_device(error)
            if rows > 1:
                middle = start + rows // 2
                self._bisect(numeric, categorical, start, middle, probabilities, block, failed)
                self._bisect(numeric, categorical, middle, stop, probabilities, block, failed)
                return
            detail = f"{type(error).__name__}: {error}".splitlines()[0]
            failed.append(FailedRow(start, "network_raises", detail))
            _ensure_few({"network_raises": len(failed)}, failed)

    def _probes_on_device(self, golden: pa.Table | None) -> "Iterator[ProbeRows]":
        for probe in self._probes(golden) if golden is not None else ():
            yield replace(probe, numeric=probe.numeric.to(self.device), categorical=probe.categorical.to(self.device))

    def _probes(self, golden: pa.Table) -> "Iterator[ProbeRows]":
        """The golden rows as they are, with unknown words, and with a missing value in each numeric column in turn."""
        import torch

        from batch_scoring.inference.network.packed_linear import ProbeRows

        def probe(name: str, numeric: np.ndarray, categorical: np.ndarray) -> ProbeRows:
            return ProbeRows(name, torch.from_numpy(numeric), torch.from_numpy(categorical))

        golden = self._model.with_engineered(golden)
        numeric, categorical, _ = self.matrices(golden.combine_chunks().to_batches()[0])
        yield probe("the golden rows", numeric, categorical)
        if self._vocabularies:
            yield probe("golden rows with unknown categories", numeric, np.zeros_like(categorical))
        each = max(1, min(len(numeric), PROBES // max(1, len(self.manifest.numeric))))
        gaps = np.repeat(np.arange(len(self.manifest.numeric)), each)
        for first in range(0, len(gaps), len(numeric)):
            columns = gaps[first : first + len(numeric)]
            missing = numeric.copy()
            missing[np.arange(len(columns)), columns] = np.nan
            names = self.manifest.numeric[columns[0] : columns[-1] + 1]
            yield probe(
                f"golden rows with a missing {', '.join(names[:3])}{' …' * (len(names) > 3)}", missing, categorical
            )

    def _automatic_batch_rows(self) -> int:
        """Rows of a batch whose widest activation fills the cache, measured by one small forward pass."""
        import torch

        widest = [max(len(self.manifest.numeric), self.manifest.outputs)]

        def measure(_module: object, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor):
                widest.append(output.numel() // GRID)

        modules = (each for each in self._network.modules() if not isinstance(each, torch.jit.ScriptModule))
        hooks = [module.register_forward_hook(measure) for module in modules]
        numeric = np.zeros((GRID, len(self.manifest.numeric)), np.float32)
        categorical = np.zeros((GRID, len(self._vocabularies)), np.int64)
        with contextlib.suppress(Exception):  # a network that fails on zeros may work on real rows
            self._forward(numeric, categorical, probabilities=False)
        for hook in hooks:
            hook.remove()
        least, most = BATCH_LIMITS[self.device]
        return max(least, min(most, ACTIVATION_BYTES[self.device] // (4 * max(widest))))


_RAISING = {"network_raises": "the network", "transform_raises": "features.transform"}
"""The pipeline's own code that may raise for a row, by the rule of such rows."""


def _ensure_few(failed: Mapping[str, int], rows: Sequence[FailedRow]) -> None:
    """Check that the pipeline's code raises for few rows.

    Args:
        failed: rows of the stream that have failed so far, by rule.
        rows: the last of them.

    Raises:
        ScoringError: there are too many for which it raises: the code is broken, not the rows.
    """
    for rule, code in _RAISING.items():
        if failed.get(rule, 0) > MOST_FAILING_ROWS and (said := [row.detail for row in rows if row.rule == rule]):
            raise ScoringError(
                f"{code} raises for more than {MOST_FAILING_ROWS} rows of a shard: the model is at fault; for one of "
                f"them: {said[0]}"
            )


def _with_broken(batch: pa.RecordBatch, made: "Transformed", scored: ScoredBatch) -> ScoredBatch:
    """The result of a record batch, from that of its rows that have engineered features."""
    failed = [replace(row, position=int(made.positions[row.position])) for row in scored.failed]
    failed += [FailedRow(row.position, row.rule, row.detail, row.column) for row in made.broken]
    failed.sort(key=lambda row: row.position)
    return ScoredBatch(batch, scored.scores, tuple(failed), scored.unknown)


def _joined(batch: pa.RecordBatch, parts: list[ScoredBatch]) -> ScoredBatch:
    """The result of a record batch, from those of its parts."""
    if len(parts) == 1:
        return parts[0]
    failed: list[FailedRow] = []
    unknown: dict[str, collections.Counter[str]] = {}
    start = 0
    for part in parts:
        failed += [replace(row, position=start + row.position) for row in part.failed]
        start += part.source.num_rows
        for column, counts in part.unknown.items():
            unknown.setdefault(column, collections.Counter()).update(counts)
    scores = pa.concat_batches([part.scores for part in parts])
    return ScoredBatch(batch, scores, tuple(failed), {column: dict(counts) for column, counts in unknown.items()})


def _best_class(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first largest class of each row of float32[classes, rows]: int64 position, float32 value, NaN if any is NaN.

    Class by class over contiguous rows: numpy's argmax over the first axis takes twice as long.
    """
    winner, best = np.zeros(block.shape[1], np.int64), block[0].copy()
    for index in range(1, len(block)):
        # a later class that is larger has a larger index: no row is looked up, which takes ten times as long
        np.maximum(winner, np.multiply(block[index] > best, index, dtype=np.int64), out=winner)
        np.maximum(best, block[index], out=best)
    return winner, best


def _numbers(column: pa.Array) -> np.ndarray:
    """A numeric column as NumPy array, NaN for missing values, without `to_numpy`'s loop over rows if some are missing.

    Integers are rounded to float32 directly, as they are if none is missing; `to_numpy` would make them float64.
    """
    if not column.null_count or pa.types.is_null(column.type):
        values: np.ndarray = column.to_numpy(zero_copy_only=False)
        return values
    if pa.types.is_floating(column.type):
        return _numbers(pc.fill_null(column, float("nan")))
    filled = pc.fill_null(column, pa.scalar(0).cast(column.type)).to_numpy(zero_copy_only=False)
    return np.where(column.is_null().to_numpy(zero_copy_only=False), np.float32("nan"), filled.astype(np.float32))


def _encode(column: pa.Array, vocabulary: pa.Array) -> tuple[np.ndarray, dict[str, int]]:
    """int64 codes (position in the vocabulary + 1, 0 if unknown or missing) and the counts of unknown values."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    words = column.dictionary.cast(pa.string())
    code_of = np.zeros(len(words) + 1, np.int64)  # the last place is that of a missing value
    code_of[:-1] = pc.fill_null(pc.index_in(words, value_set=vocabulary), -1).to_numpy() + 1
    places = pc.fill_null(column.indices.cast(pa.int64()), len(words)).to_numpy()
    strange = np.flatnonzero(code_of[:-1] == 0)
    counts = np.bincount(places, minlength=len(words) + 1) if len(strange) else None
    unknown = {str(words[int(place)]): int(counts[place]) for place in strange if counts is not None and counts[place]}
    return code_of[places], unknown


def _pad(matrix: np.ndarray, rows: int) -> None:
    """Pad with copies of the last real row: zeros may be what the network cannot score."""
    if rows:
        matrix[rows:] = matrix[rows - 1]


def _padded(rows: int) -> int:
    return max(GRID, -(-rows // GRID) * GRID)


@contextlib.contextmanager
def _one_torch_thread_each() -> Iterator[Callable[[], None]]:
    """Limit torch to one thread per worker: workers run in parallel, and torch's own threads would compete with them.

    Yields what each worker has to call first: BLAS libraries set their thread count per calling thread.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield lambda: torch.set_num_threads(1)
    finally:
        torch.set_num_threads(before)


@functools.cache
def keep_freed_memory() -> None:
    """Make glibc keep large freed blocks; otherwise every activation is returned to the kernel and faulted in again."""
    with contextlib.suppress(OSError, AttributeError):  # another libc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        mallopt(-1, 1 << 29)  # M_TRIM_THRESHOLD
