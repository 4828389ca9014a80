"""`batch-scoring score` compared with the engine alone on the same work: CSV to Parquet, on S3 and on a local folder.

    python -m benchmarks.adhoc --rows 1000000 --rounds 5 [--places s3 local] [--rejected 0.01]

The baseline, `engine`, is the minimum needed to score the file: Arrow's CSV reader, which casts cells while parsing,
`Scorer.score`, one Parquet file with the prediction columns, one upload. Values, keys and counts are not checked, and a
cell that does not fit would end it. `score` is the command: it numbers rows, casts cells one by one, applies the
schema's checks, finds equal keys, writes a quarantine, checks that no row is lost, and publishes nothing before
everything has succeeded. Both load the model and check its golden rows. `work` starts after the imports, `process` with
the command. S3 is moto's server on this machine, whose work counts for both. `--rejected` invalidates that fraction of
the rows, which only `score` can handle.
"""

import argparse
import contextlib
import functools
import importlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from batch_scoring.config.loader import PROJECT, find_pipeline
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.pipelines.customer_churn.data import write_day
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring_tests.reliability.store import running_store
from benchmarks import side_by_side
from benchmarks.side_by_side import Measures

DAY = date(2024, 1, 1)
PIPELINE, NAME = "customer_churn", "customers.csv"
LIBRARIES = (
    "torch",
    "pandas",
    "pandera.pandas",
    "safetensors.torch",
    "boto3",
    "pyarrow.dataset",
    "batch_scoring.cli.score.score_files",
    "batch_scoring.pipelines.customer_churn.network",
    "batch_scoring.pipelines.customer_churn.schema",
)
OUTPUT = ["id", "prediction", "prediction_proba", "prob_class_0", "prob_class_1"]


def main() -> None:
    """Run the command: measure and print a Markdown table per place."""
    parser = argparse.ArgumentParser(description="Score a CSV file with the command and with the engine alone.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--places", nargs="+", choices=["s3", "local"], default=["s3", "local"])
    parser.add_argument("--rejected", type=float, default=0.0, help="fraction of rows that the contract rejects")
    parser.add_argument("--folder", type=Path, help="keeps inputs and outputs; a temporary folder if not given")
    parser.add_argument("--child", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--uri", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _run(arguments.child, arguments.uri)
        return
    with side_by_side.working_folder(arguments.folder) as folder:
        file = _written(folder, arguments.rows, arguments.rejected)
        names = ["score"] if arguments.rejected else list(CONTENDERS)
        for place in arguments.places:
            with _place(place, file) as (uri, environment):
                print(f"\n{arguments.rows:,} rows, {file.stat().st_size / 1e6:.0f} MB of CSV, {place}\n")
                print(_measure(uri, environment, names, arguments.rows, arguments.rounds), flush=True)
        print(f"\n{side_by_side.machine()}")


def _measure(uri: str, environment: dict[str, str], names: list[str], rows: int, rounds: int) -> str:
    def contender(name: str) -> Measures:
        command = ["-m", "benchmarks.adhoc", "--child", name, "--uri", uri]
        seconds, output = side_by_side.run(command, cwd=PROJECT, env=os.environ | environment)
        return {**side_by_side.reported(output), "process": seconds}

    found = side_by_side.rounds({name: functools.partial(contender, name) for name in names}, rounds)
    lines = [
        [
            name,
            side_by_side.ratio(found, name, names[0], "work"),
            f"{side_by_side.median(found, name, 'work'):.2f}",
            f"{rows / side_by_side.median(found, name, 'work') / 1e6:.2f}",
            f"{side_by_side.median(found, name, 'cpu'):.2f}",
            side_by_side.ratio(found, name, names[0], "process"),
            f"{side_by_side.median(found, name, 'process'):.2f}",
            f"{side_by_side.median(found, name, 'memory'):.0f}",
        ]
        for name in names
    ]
    base = names[0]
    header = ["", f"work / {base}", "work, s", "M rows/s", "CPU, s", f"process / {base}", "process, s", "peak, MB"]
    return side_by_side.table(header, lines)


def _run(name: str, uri: str) -> None:
    """Run one contender in this process."""
    for module in LIBRARIES:
        importlib.import_module(module)
    pipeline = find_pipeline(PIPELINE)
    begin, cpu = time.perf_counter(), sum(os.times()[:2])
    CONTENDERS[name](pipeline, f"{uri}/in", f"{uri}/{name}")
    seconds, cpu = time.perf_counter() - begin, sum(os.times()[:2]) - cpu
    measures = {"work": seconds, "cpu": cpu, "memory": side_by_side.peak_memory()}
    other = f"{uri}/{'engine' if name == 'score' else 'score'}"
    if name == "score" and open_folder(other).list():
        _compare(other, f"{uri}/{name}")
    side_by_side.report(measures)


def _engine(pipeline: Pipeline, source: str, target: str) -> None:
    """Do the minimum needed to score the file."""
    from batch_scoring.inference.bundle import load_bundle
    from batch_scoring.inference.scorer import Scorer
    from batch_scoring.ingest.schema.contract import Contract

    scorer = Scorer(load_bundle(pipeline.bundle, pipeline.load(pipeline.spec.model.network)), device="cpu")
    constants = {"model_version": scorer.manifest.version, "scored_at": datetime.now(UTC)}
    types = {field.name: field.type for field in Contract(pipeline).arrow_schema}
    folder = open_folder(target)
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(folder.scratch())
        file = stack.enter_context(open_folder(source).open(NAME))
        reader = pa.csv.open_csv(
            pa.PythonFile(file, mode="r"),
            read_options=pa.csv.ReadOptions(block_size=8 * 1024 * 1024),
            convert_options=pa.csv.ConvertOptions(column_types=types, include_columns=list(types)),
        )
        writer = None
        for scored in scorer.score(reader):
            batch = scored.scores.add_column(0, "id", scored.rows.column("id"))
            for name, value in constants.items():
                batch = batch.append_column(name, pa.repeat(pa.scalar(value), len(batch)))
            if writer is None:
                settings = {"compression": "zstd", "compression_level": 1, "use_dictionary": list(constants)}
                writer = stack.enter_context(pq.ParquetWriter(scratch, batch.schema, **settings))
            writer.write_batch(batch)
        if writer is not None:
            writer.close()
        folder.put_file(scratch, "predictions.parquet")


def _score(pipeline: Pipeline, source: str, target: str) -> None:
    """Run the command."""
    from batch_scoring.cli.score import score_files as adhoc

    out = io.StringIO()
    request = adhoc.ScoreRequest(f"{source}/{NAME}", f"{target}/predictions.parquet", overwrite=True, as_json=True)
    if adhoc.run(pipeline, request, out, sys.stderr):
        raise RuntimeError(out.getvalue())


CONTENDERS: dict[str, Callable[[Pipeline, str, str], None]] = {"engine": _engine, "score": _score}


def _compare(expected: str, found: str) -> None:
    """Check that both outputs have the same rows and bit-identical scores.

    Raises:
        ValueError: they do not.
    """
    tables = []
    for uri in (expected, found):
        with open_folder(uri).open("predictions.parquet") as file:
            tables.append(pq.ParquetFile(file, pre_buffer=False).read(OUTPUT, use_threads=False))
    if not tables[0].equals(tables[1]):
        raise ValueError(f"{found} does not have the same scores as {expected}")


def _written(folder: Path, rows: int, rejected: float) -> Path:
    """Write the input: as generated, or with invalid ages of 999 spread over it."""
    file = folder / f"{rows}" / f"dt={DAY}" / NAME
    if not file.exists():
        write_day(DAY, rows, "csv", file.parent.parent)
    if not rejected:
        return file
    spoilt = file.with_name(f"{rejected}-{NAME}")
    spoil = np.random.default_rng(0).random(rows) < rejected
    with file.open() as lines, spoilt.open("w") as target:
        target.write(next(lines))
        for line, bad in zip(lines, spoil, strict=True):
            cells = line.split(",")
            target.write(",".join([cells[0], "999", *cells[2:]]) if bad else line)
    return spoilt


@contextlib.contextmanager
def _place(kind: str, file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Provide the location of the input, and the environment variables needed to access it."""
    if kind == "local":
        with side_by_side.working_folder(None) as folder:
            (folder / "in").mkdir()
            (folder / "in" / NAME).symlink_to(file)
            yield str(folder), {}
        return
    with running_store() as store:
        bucket = store.new_bucket()
        store.client_of_moto().upload_file(str(file), bucket, f"in/{NAME}")
        yield f"s3://{bucket}", store.environment | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{store.port}"}


if __name__ == "__main__":
    main()
