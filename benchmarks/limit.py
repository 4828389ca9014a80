"""How close the engine comes to the machine's limit: its parts alone on one core, and all of them overlapping.

    python -m benchmarks.limit --rows 10000000 --model narrow --rounds 5

Each part runs alone in one thread: reading the file; scoring record batches in memory, and as part of that the forward
passes alone over prepared matrices; writing scored batches in memory. Their sum divided by the number of cores is the
best possible overlap on cores that do not slow each other down. The cores of a virtual machine may be threads of one
core; what they really allow is measured by one process per core, each of which reads, scores and writes its part of the
rows in one thread without waiting for others. The engine's time is from the first row to the end of the file, in the
same round as the parts, with the model already loaded.
"""

import argparse
import functools
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import torch

from batch_scoring.daily import scored_rows
from batch_scoring.inference.bundle import load_bundle
from batch_scoring.inference.inputs import parameters
from batch_scoring.inference.inputs.encoder import Encoder
from batch_scoring.inference.scorer import Scorer, keep_freed_memory
from batch_scoring.runtime.parallel import cores
from batch_scoring.storage import shards
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring.storage.parquet import READ_ROWS
from benchmarks import networks, side_by_side, workload
from benchmarks.side_by_side import PROJECT, Measures

KEPT_ROWS = 16 * READ_ROWS
"""Rows in memory that are scored and written repeatedly: more than any cache holds."""


def main() -> None:
    """Run the command: measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description="Compare the engine with its parts and their best overlap.")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--model", choices=networks.MODELS, default="narrow")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="keeps input and outputs; a temporary folder if not given")
    parser.add_argument("--child", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with side_by_side.working_folder(arguments.folder) as folder:
        if arguments.child:
            PARTS[arguments.child](_Bench(folder, arguments.rows, arguments.model))
            return
        print(f"\n{arguments.rows:,} rows, {arguments.model}, {arguments.rounds} rounds\n")
        print(_measure(folder, arguments))
        print(f"\n{side_by_side.machine()}")


def _measure(folder: Path, arguments: argparse.Namespace) -> str:
    (models := folder / "models").mkdir(exist_ok=True)
    networks.write(models, arguments.model)
    if not (source := folder / f"{arguments.rows}.parquet").exists():
        workload.write(arguments.rows, source)

    def child(part: str) -> Measures:
        command = ["-m", "benchmarks.limit", "--child", part, "--rows", f"{arguments.rows}"]
        _, output = side_by_side.run([*command, "--model", arguments.model, "--folder", str(folder)], cwd=PROJECT)
        return side_by_side.reported(output)

    def shares() -> Measures:
        with ThreadPoolExecutor(cores()) as pool:
            return max(pool.map(child, ["share"] * cores()), key=lambda measures: measures["seconds"])

    parts = {part: functools.partial(child, part) for part in PARTS}
    found = side_by_side.rounds({**parts, "share": shares}, arguments.rounds)
    seconds = {part: [one["seconds"] for one in measures] for part, measures in found.items()}
    limit = [
        sum(parts) / cores() for parts in zip(*(seconds[part] for part in ("read", "score", "write")), strict=True)
    ]
    forward = [one / cores() for one in seconds["forward"]]
    engine = seconds["engine"]
    rows = [
        *((f"{part} alone, one thread", seconds[part], None) for part in ("read", "score", "forward", "write")),
        (f"their sum on {cores()} cores that are independent", limit, limit),
        (f"{cores()} processes at once, each with its part of the rows", seconds["share"], seconds["share"]),
        (f"forward alone on {cores()} cores that are independent", forward, forward),
        ("the engine", engine, None),
    ]
    lines = [
        [
            title,
            f"{statistics.median(times):.2f}",
            f"{arguments.rows / statistics.median(times) / 1e6:.2f}",
            _reached(bound, engine) if bound else "",
        ]
        for title, times, bound in rows
    ]
    return side_by_side.table(["", "s", "M rows/s", "the engine reaches"], lines)


def _reached(bound: list[float], engine: list[float]) -> str:
    """Return how much of a limit the engine reaches, by round: median (smallest to largest)."""
    shares = [100 * one / other for one, other in zip(bound, engine, strict=True)]
    return f"{statistics.median(shares):.0f} % ({min(shares):.0f} to {max(shares):.0f})"


class _Bench:
    """Shared state of the parts: the file, the model, and rows in memory."""

    def __init__(self, folder: Path, rows: int, model: str) -> None:
        self.rows, self._folder, self._name = rows, open_folder(str(folder)), f"{rows}.parquet"
        self.target = folder / f"{rows}_{model}_limit.parquet"
        self.model = load_bundle(
            open_folder(str(networks.bundle(folder / "models", model))), networks.MODELS[model].network
        )
        self.scorer = Scorer(self.model, device="cpu")
        self.form = scored_rows.schema(workload.SCHEMA.field(workload.KEY), self.model.manifest)
        self._at = pa.scalar(datetime.now(UTC), pa.timestamp("us", "UTC"))
        torch.set_num_threads(1)
        keep_freed_memory()

    def read(self, least: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the file's rows, or the first record batches with at least `least` rows in total."""
        read = 0
        for batch in shards.read(self._folder, self._name, None, list(workload.CATEGORICAL)):
            yield batch
            read += len(batch)
            if least is not None and read >= least:
                return

    def kept(self) -> list[pa.RecordBatch]:
        """Return the rows that are kept in memory."""
        return list(itertools.islice(self.read(), KEPT_ROWS // READ_ROWS))

    def again(self, batches: list) -> Iterator:
        """Yield batches repeatedly, up to the number of rows in the file."""
        return itertools.islice(itertools.cycle(batches), -(-self.rows // READ_ROWS))

    def write(self, results: Iterator) -> None:
        """Write scored batches as the asset does, except for flushing them to stable storage."""
        version, folder = self.model.manifest.version, self._folder
        with closing(shards.ShardWriter(folder, self.target, self.form, scored_rows.DICTIONARY)) as writer:
            for scored in results:
                writer.write(scored_rows.rows(scored, version, self._at, self.form))


def _timed(work: Callable[[], object]) -> None:
    begin = time.perf_counter()
    work()
    side_by_side.report({"seconds": time.perf_counter() - begin})


def _read(bench: _Bench) -> None:
    _timed(lambda: sum(batch.num_rows for batch in bench.read()))


def _score(bench: _Bench) -> None:
    batches = bench.kept()
    list(map(bench.scorer.score_batch, batches))  # touching fresh memory should not count for any part

    def work() -> None:
        for batch in bench.again(batches):
            bench.scorer.score_batch(batch)

    _timed(work)


def _forward(bench: _Bench) -> None:
    encoder = Encoder(bench.model)
    groups = [group for batch in bench.kept() for group in encoder.encode(batch).groups]
    size, network = bench.scorer.batch_rows, bench.model.network
    names = parameters.order(network.forward, groups[0].tensors, ())
    tensors = [[torch.from_numpy(group.tensors[name]) for name in names] for group in groups]

    def forward(inputs: list[torch.Tensor]) -> None:
        for start in range(0, len(inputs[0]), size):
            network(*(values[start : start + size] for values in inputs))

    def work() -> None:
        with torch.inference_mode():
            for inputs in bench.again(tensors):
                forward(inputs)

    forward(tensors[0])
    _timed(work)


def _write(bench: _Bench) -> None:
    results = list(bench.scorer.score(bench.kept()))
    _timed(lambda: bench.write(bench.again(results)))


def _share(bench: _Bench) -> None:
    bench.target = bench.target.with_suffix(f".{os.getpid()}.parquet")
    _timed(lambda: bench.write(map(bench.scorer.score_batch, bench.read(bench.rows // cores()))))
    bench.target.unlink()


def _engine(bench: _Bench) -> None:
    _timed(lambda: bench.write(bench.scorer.score(bench.read())))


PARTS: dict[str, Callable[[_Bench], None]] = {
    "read": _read,
    "score": _score,
    "forward": _forward,
    "write": _write,
    "share": _share,
    "engine": _engine,
}

if __name__ == "__main__":
    main()
