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

from batch_scoring.errors import DeviceError, ScoringError, is_out_of_memory
from batch_scoring.inference.inputs import parameters
from batch_scoring.inference.inputs.encoded import GRID, Encoded, FailedRow, Group, Tensors, padded, taken
from batch_scoring.inference.inputs.encoder import Encoder
from batch_scoring.runtime.parallel import in_order, spare_cores

if TYPE_CHECKING:
    import torch

    from batch_scoring.inference.manifest import LoadedModel, Transformed
    from batch_scoring.inference.network.packed_linear import ProbeRows

ACTIVATION_BYTES = {"cpu": 2 * 1024**2, "cuda": 256 * 1024**2}
"""Size of the widest layer's activation in one forward pass: on a CPU, what stays in the second-level cache."""

TOKENS = {"cpu": 8_192, "cuda": 262_144}
"""Size of the automatic batch in tokens, where rows differ in length."""

LONG_ROWS = 4_096
"""Rows of texts in one work item of a thread: with fewer, groups of one length would mostly be padding."""

ARRAY_BYTES = 64 * 1024**2
"""Size of the arrays of the pipeline's own encoder in one work item of a thread: images are large."""

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
class ScoredBatch:
    """The scores of one record batch, and the rows without any."""

    source: pa.RecordBatch
    """The batch as it was read."""
    scores: pa.RecordBatch
    """The columns of the model's head, one row for each scored row of `source`."""
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
        self._model = model
        self._encoder = Encoder(model)
        self.columns = model.columns
        """The columns that record batches need."""
        self.reads = model.transform.reads if model.transform else None
        """The columns and types that the model's transform gets, if there is one."""
        blank = self._encoder.blank(1)
        filled = [name for name, values in blank.items() if values.size]
        self._inputs = parameters.order(model.network.forward, blank, filled)
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
            self._copies = ThreadCopies(self._network, self._probes(model.golden) if model.golden else ())
            self._counts_tokens = batch_rows == "auto" and self._encoder.is_ragged
            self.batch_rows = padded(batch_rows if batch_rows != "auto" else self._automatic_batch_rows())

    @property
    def runs_side_by_side(self) -> bool:
        """Whether several threads run the network at once, each its own copy, or one at a time."""
        return self._copies.are_equal

    @property
    def pass_size(self) -> str:
        """How much passes through the network at once, for people."""
        return f"{self.batch_rows} {'tokens' if self._counts_tokens else 'rows'}"

    def halve(self, times: int) -> None:
        """Halve the rows of a forward pass this many times, on the grid; the scores stay the same."""
        self.batch_rows = padded(self.batch_rows >> times)

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
        encoded = self._encoder.encode(batch)
        block, failed = self._run(batch, encoded, activated=True)
        columns, bad = self.manifest.task.scores(block)
        known = {row.position: row for row in failed}
        for row in np.flatnonzero(bad):
            known.setdefault(
                int(row), FailedRow(int(row), "output_is_finite", "the network's output is NaN or infinite")
            )
        known |= {row.position: row for row in encoded.failed}
        failed = list(known.values())
        scores = pa.RecordBatch.from_pydict(columns)
        if failed:
            failed.sort(key=lambda row: row.position)
            scores = scores.take(np.delete(np.arange(batch.num_rows), [row.position for row in failed]))
        return ScoredBatch(batch, scores, tuple(failed), encoded.unknown)

    def _parts(
        self, batches: Iterable[pa.RecordBatch], threads: int
    ) -> Iterator[tuple[pa.RecordBatch | None, pa.RecordBatch]]:
        """Record batches in pieces, as many for each thread, where a whole one would be too much work for one thread.

        Yields:
            The record batch that a piece completes, None before its last piece; and the piece.
        """
        for batch in batches:
            if self._encoder.row_bytes:  # beside texts, too
                most = LONG_ROWS if self._encoder.is_ragged else batch.num_rows
                rows = max(GRID, min(most, ARRAY_BYTES // self._encoder.row_bytes // GRID * GRID))
            elif self._encoder.is_ragged:
                rows = -(-batch.num_rows // max(1, -(-batch.num_rows // LONG_ROWS)))
            else:
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
        """The network's raw outputs, before any activation, float32[rows, outputs], for a small table.

        Raises:
            ScoringError: the network or the transform raises for one of the rows.
        """
        batch = self._model.with_engineered(table).combine_chunks().to_batches()[0]
        with _one_torch_thread_each():
            block, failed = self._run(batch, self._encoder.encode(batch), activated=False)
        if failed:
            raise ScoringError(f"row {failed[0].position}: {failed[0].detail}")
        return np.ascontiguousarray(block.T)

    def _run(self, batch: pa.RecordBatch, encoded: Encoded, *, activated: bool) -> tuple[np.ndarray, list[FailedRow]]:
        """Forward in blocks; float32[outputs or values, rows], NaN in the columns of rows that failed.

        Args:
            batch: the rows.
            encoded: the same; the network may overwrite its tensors.
            activated: whether to apply the activation of the head.
        """
        columns = self.manifest.task.values if activated else self.manifest.outputs
        block = np.full((columns, batch.num_rows), np.nan, np.float32)
        failed: list[FailedRow] = []
        for index in range(len(encoded.groups)):
            encoded = self._run_group(batch, encoded, index, activated, block, failed)
        return block, failed

    def _run_group(
        self,
        batch: pa.RecordBatch,
        encoded: Encoded,
        index: int,
        activated: bool,
        block: np.ndarray,
        failed: list[FailedRow],
    ) -> Encoded:
        """Forward one group in blocks; the batch is encoded again if a pass raises: it may have changed its inputs."""
        group, start = encoded.groups[index], 0
        while start < group.rows:
            stop = min(start + self._rows_a_pass(group), group.padded)
            real = min(stop, group.rows)
            try:
                block[:, group.places(start, real)] = self._forward(group.between(start, stop), activated)[
                    :, : real - start
                ]
            except Exception as error:
                encoded = self._encoder.encode(batch)
                group = encoded.groups[index]
                if is_out_of_memory(error):
                    if stop - start <= GRID:
                        raise
                    self._halve_pass(group, stop - start)
                    self._free_memory()
                    continue
                self._ensure_device(error)
                self._bisect(group, start, real, activated, block, failed)
            start = stop
        return encoded

    def _rows_a_pass(self, group: Group) -> int:
        return max(GRID, self.batch_rows // group.cells // GRID * GRID) if self._counts_tokens else self.batch_rows

    def _halve_pass(self, group: Group, rows: int) -> None:
        self.batch_rows = padded(rows // 2) * (group.cells if self._counts_tokens else 1)

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

    def _forward(self, tensors: Tensors, activated: bool) -> np.ndarray:
        """One forward pass of a multiple of `GRID` rows, to float32[outputs, rows]."""
        import torch

        rows = len(next(iter(tensors.values())))
        with torch.inference_mode():
            inputs = [torch.from_numpy(tensors[name]) for name in self._inputs]
            if self.device == "cpu":
                with self._copies.borrowed() as network:
                    return self._outputs(network(*inputs), rows, activated).numpy()
            # one stream a worker: while one computes, another's copies run
            stream = getattr(self._lane, "stream", None) or torch.cuda.Stream()
            self._lane.stream = stream
            with self._copies.borrowed() as network, torch.cuda.stream(stream):
                staged = [part.pin_memory().to("cuda", non_blocking=True) for part in inputs]
                result = self._outputs(network(*staged), rows, activated)
                landed = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
                landed.copy_(result, non_blocking=True)
                stream.synchronize()  # before another stream gets the network
            return landed.numpy()

    def _outputs(self, result: "torch.Tensor", rows: int, activated: bool) -> "torch.Tensor":
        """Contiguous columns, float32[outputs or values, rows], from the network's float32[rows, outputs]."""
        expected = (rows, self.manifest.outputs)
        if expected == (*result.shape, 1):  # squeeze() is safe here: a pass never has a single row
            result = result.unsqueeze(1)
        if tuple(result.shape) != expected:
            raise ScoringError(f"the network's output has shape {tuple(result.shape)}, expected {expected}")
        columns = result.float().t().contiguous()
        return self.manifest.task.activate(columns) if activated else columns

    def _bisect(
        self, group: Group, start: int, stop: int, activated: bool, block: np.ndarray, failed: list[FailedRow]
    ) -> None:
        """Score those rows of a failing pass that can be scored; on the same device, so that no bit differs."""
        rows, places = stop - start, group.places(start, stop)
        try:
            part = taken(group.tensors, rows, slice(start, stop))
            block[:, places] = self._forward(part, activated)[:, :rows]
        except ScoringError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise  # the machine's fault, not the row's
            self._ensure_device(error)
            if rows > 1:
                middle = start + rows // 2
                self._bisect(group, start, middle, activated, block, failed)
                self._bisect(group, middle, stop, activated, block, failed)
                return
            block[:, places] = np.nan
            detail = f"{type(error).__name__}: {error}".splitlines()[0]
            position = start if group.positions is None else int(group.positions[start])
            failed.append(FailedRow(position, "network_raises", detail))
            _ensure_few({"network_raises": len(failed)}, failed)

    def _probes(self, golden: pa.Table) -> "Iterator[ProbeRows]":
        """The golden rows as they are, with unknown words, and with a missing value in each numeric column in turn."""
        import torch

        from batch_scoring.inference.network.packed_linear import ProbeRows

        def probe(name: str, tensors: Tensors, **changed: np.ndarray) -> ProbeRows:
            parts = {**tensors, **changed}
            return ProbeRows(name, tuple(torch.from_numpy(parts[name]).to(self.device) for name in self._inputs))

        golden = self._model.with_engineered(golden)
        for group in self._encoder.encode(golden.combine_chunks().to_batches()[0]).groups:
            yield probe("the golden rows", group.tensors)
            numeric, categorical = group.tensors["numeric"], group.tensors["categorical"]
            if categorical.size:
                yield probe(
                    "golden rows with unknown categories", group.tensors, categorical=np.zeros_like(categorical)
                )
            columns = self.manifest.numeric
            each = max(1, min(len(numeric), PROBES // max(1, len(columns))))
            gaps = np.repeat(np.arange(len(columns)), each)
            for first in range(0, len(gaps), len(numeric)):
                chosen = gaps[first : first + len(numeric)]
                missing = numeric.copy()
                missing[np.arange(len(chosen)), chosen] = np.nan
                names = columns[chosen[0] : chosen[-1] + 1]
                what = f"golden rows with a missing {', '.join(names[:3])}{' …' * (len(names) > 3)}"
                yield probe(what, group.tensors, numeric=missing)

    def _automatic_batch_rows(self) -> int:
        """Rows (of texts: tokens) of a batch whose widest activation fills the cache, by one small forward pass."""
        import torch

        if self._counts_tokens:
            return TOKENS[self.device]
        widest = [max(len(self.manifest.numeric), self.manifest.outputs)]

        def measure(_module: object, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor):
                widest.append(output.numel() // GRID)

        modules = (each for each in self._network.modules() if not isinstance(each, torch.jit.ScriptModule))
        hooks = [module.register_forward_hook(measure) for module in modules]
        with contextlib.suppress(Exception):  # a network that fails on zeros may work on real rows
            self._forward(self._encoder.blank(GRID), activated=False)
        for hook in hooks:
            hook.remove()
        least, most = BATCH_LIMITS[self.device]
        return max(least, min(most, ACTIVATION_BYTES[self.device] // (4 * max(widest))))


_RAISING = {
    "network_raises": "the network",
    "transform_raises": "features.transform",
    "encode_raises": "features.encode",
}
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
