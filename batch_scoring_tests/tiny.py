"""A real pipeline, as small as possible, with its own folder, schema, network, bundle and data root.

Tests land files, run assets through Dagster and read the tables; none of our own code is mocked.
"""

import hashlib
import itertools
import os
import re
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml

import batch_scoring.pipelines
from batch_scoring.config.loader import load_pipelines
from batch_scoring.config.names import daily_assets
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.definitions import deploy
from batch_scoring.inference.bundle import MANIFEST, Bundle, _sealed, read_bundle, write_bundle
from batch_scoring.inference.heads.head import Head
from batch_scoring.ingest.formats.rows import BrokenRow
from batch_scoring.ingest.quarantine import Rejected, from_broken
from batch_scoring.monitoring.drift.calibration import calibrate
from batch_scoring.runtime.step_context import StepContext
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring.storage.state import PublishedDay, State
from batch_scoring.tables import read_day

DAY, NEXT_DAY = "2024-03-04", "2024-03-05"

SCHEMA = """
import pandera.pandas as pa

class Rows(pa.DataFrameModel):
    id: str
    x: float = pa.Field(ge=-1000, le=1000)
    y: float = pa.Field(nullable=True)
    n: int = pa.Field(ge=0)
    c: str = pa.Field(nullable=True)
"""

NETWORK = """
import torch

class Net(torch.nn.Module):
    def __init__(self, numeric, words, outputs):
        super().__init__()
        self.word = torch.nn.Embedding(words + 1, 4)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(numeric + 4, 16), torch.nn.ReLU(), torch.nn.Linear(16, outputs)
        )

    def forward(self, numeric, categorical):
        if (numeric[:, 0] == 666).any():
            raise ValueError("the number of the beast")
        result = self.layers(torch.cat([numeric.nan_to_num(0.0), self.word(categorical[:, 0])], dim=1))
        return torch.where(numeric[:, :1] == 555, torch.nan, result)
"""

_count = itertools.count()
_bundles: dict[tuple[object, ...], Bundle] = {}
"""What was written, by all that it depends on; in others, name and version alone are different."""


class TinyProject:
    """One pipeline named `tiny_<n>` with a model v1, in folders of its own."""

    def __init__(self, folder: Path, data_root: str | None = None) -> None:
        """`folder`: for this test only. `data_root`: a folder or s3:// prefix; `folder`/data if None."""
        self.name = f"tiny_{os.getpid()}_{next(_count)}"
        self.packages = folder / "pipelines"
        self.data_root = data_root or str(folder / "data")
        self.folder = self.packages / self.name
        self.folder.mkdir(parents=True)
        self._loaded: tuple[object, Pipeline] | None = None
        batch_scoring.pipelines.__path__.append(str(self.packages))
        self.spec: dict[str, Any] = {
            "name": self.name,
            "description": "a tiny pipeline",
            "partitions": {"start": "2024-03-01"},
            "input": {"key": "id"},
            "features": {"schema": "schema:Rows", "numeric": ["x", "y", "n"], "categorical": ["c"]},
            "model": {"bundle": f"{self.name}/models/v1", "network": "network:Net"},
            "scoring": {"device": "cpu"},
            # tests of bad rows have few good rows, a quarter of which have a colour unknown to the model
            "checks": {
                "quarantine_is_small": {"rows": 100, "blocking_share": 1},
                "categories_are_known": {"share": 1},
            },
        }
        self.write_code(SCHEMA, NETWORK)
        self.deliver("v1")

    # what a user of the pipeline does

    def write_code(self, schema: str | None = None, network: str | None = None) -> None:
        """Replace schema.py or network.py, as a deployment would."""
        for module, text in (("schema", schema), ("network", network)):
            if text is not None:
                (self.folder / f"{module}.py").write_text(text)
                sys.modules.pop(f"batch_scoring.pipelines.{self.name}.{module}", None)

    def write_spec(self) -> None:
        """Write `self.spec` to pipeline.yaml."""
        (self.folder / "pipeline.yaml").write_text(yaml.safe_dump(self.spec))

    def deliver(
        self,
        version: str,
        *,
        seed: int = 0,
        outputs: int = 2,
        task: str | Head = "classification",
        promote: bool = True,
        reference: pa.Table | None = None,
        calibrated: bool = True,
        words: Sequence[str] = ("red", "green", "blue"),
    ) -> str:
        """Write a bundle of that version, and name it in the spec if `promote`. Return its sha256.

        `task`: a head has its own number of outputs.
        `reference`: rows with `dt`, such as those of `reference_rows`; the bundle gets their profile if `calibrated`.
        `words`: the three words of column c.
        """
        torch.manual_seed(seed)
        self.write_spec()
        numeric = self.spec["features"]["numeric"]
        outputs = outputs if isinstance(task, str) else task.width
        arguments = {"numeric": len(numeric), "words": 3, "outputs": outputs}
        place = open_folder(f"{self.data_root}/{self.name}/models/{version}")
        local = self.folder / "bundles" / version
        network_class = Pipeline(None, self.folder, f"batch_scoring.pipelines.{self.name}", "").load("network:Net")  # type: ignore[arg-type]
        example = self.rows(64)
        for name in numeric:
            if name not in example.column_names:
                example = example.append_column(name, pa.array([0.5] * 64))
        day_grain = self.spec["features"].get("day_grain", ())
        code = (self.folder / "network.py").read_text()
        content = (code, seed, outputs, task, tuple(numeric), tuple(words), tuple(day_grain), calibrated)
        known = (*content, _digest(example), None if reference is None else _digest(reference))
        if known not in _bundles:
            write_bundle(
                local,
                network=network_class(**arguments),
                arguments=arguments,
                name=self.name,
                version=version,
                task=task,  # type: ignore[arg-type]
                numeric=numeric,
                categorical={"c": list(words)},
                classes=[str(index) for index in range(outputs)] if task == "classification" else [],
                training={},
                metrics={},
                golden=example,
                reference=example if reference is None else reference,
            )
            bundle = read_bundle(open_folder(str(local)))
            if reference is not None and calibrated:
                bundle = bundle.with_profile(calibrate(bundle, day_grain), version)
            _bundles[known] = bundle
        bundle = _named(_bundles[known], self.name, version)
        bundle.write(open_folder(str(local)))
        bundle.write(place)
        if promote:
            self.spec["model"]["bundle"] = f"{self.name}/models/{version}"
        self.write_spec()
        return bundle.sha256

    def rows(self, count: int, start: int = 0) -> pa.Table:
        """Return valid rows with the keys `k<start>` …; a row's values depend only on its key."""
        numbers = range(start, start + count)
        return pa.table(
            {
                "id": [f"k{n:07d}" for n in numbers],
                "x": [(n * 37 % 200) / 10 - 10 for n in numbers],
                "y": [None if n % 10 == 3 else (n * 53 % 100) / 7 for n in numbers],
                "n": pa.array([n % 5 for n in numbers], pa.int64()),
                "c": [None if n % 17 == 5 else ("red", "green", "blue", "mauve")[n % 4] for n in numbers],
            }
        )

    def land(self, day: str, rows: pa.Table | bytes, name: str = "a.parquet", *, age: float | None = None) -> None:
        """Write a landing file: a table as Parquet, bytes unchanged. `age`: of a local file, in seconds."""
        if isinstance(rows, pa.Table):
            sink = pa.BufferOutputStream()
            pq.write_table(rows, sink)
            rows = sink.getvalue().to_pybytes()
        self.pipeline.landing.put(f"dt={day}/{name}", rows)
        if age is not None:
            file = Path(self.pipeline.landing.uri, f"dt={day}", name)
            stamp = file.stat().st_mtime - age
            os.utime(file, (stamp, stamp))

    def run(
        self,
        day: str = DAY,
        steps: Sequence[str] | None = None,
        *,
        instance: dg.DagsterInstance | None = None,
        raise_on_error: bool = True,
        definitions: dg.Definitions | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Materialise assets of a day, by default all of the job, through Dagster; `definitions`: loaded earlier."""
        job = (definitions or self.definitions).resolve_job_def(f"score_{self.name}")
        return job.execute_in_process(
            partition_key=day,
            instance=instance,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            asset_selection=[dg.AssetKey([self.name, step]) for step in steps or daily_assets(self.pipeline)],
            raise_on_error=raise_on_error,
        )

    # what can be inspected

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline, with its spec read again unless nothing has changed."""
        files = [file for file in self.packages.glob("*/*.*") if file.suffix in (".py", ".yaml")]
        read_from = [file.read_bytes() if file.is_file() else None for file in files], files, dict(os.environ)
        if self._loaded is None or self._loaded[0] != read_from:
            found = load_pipelines(self.packages, self.data_root)
            self._loaded = read_from, next(pipeline for pipeline in found if pipeline.name == self.name)
        return self._loaded[1]

    @property
    def definitions(self) -> dg.Definitions:
        """A deployment with only this pipeline."""
        return deploy([self.pipeline])

    @property
    def state(self) -> State:
        """The pipeline's state."""
        return State(self.pipeline.output)

    def published_day(self, step: str, day: str = DAY) -> PublishedDay:
        """Return what a step published for a day; fail if there is nothing."""
        published_day = self.state.published_day(step, day)  # type: ignore[arg-type]
        assert published_day is not None
        return published_day

    def read(self, day: str = DAY, table: str = "predictions") -> pa.Table:
        """Return a day of a table, sorted by key."""
        return read_day(self.pipeline, day, table)

    def quarantined(self, day: str = DAY) -> set[tuple[str | None, str, str, str]]:
        """Return (key, stage, rule, column) of every quarantined row of a day."""
        rows = self.read(day, "quarantine").to_pylist()
        return {(row["id"], row["stage"], row["rule"], row["column"]) for row in rows}


def _named(bundle: Bundle, name: str, version: str) -> Bundle:
    """The bundle that `write_bundle` writes under another name."""
    content = {file: data for file, data in bundle.content.items() if file != MANIFEST}
    return _sealed(bundle.manifest.model_copy(update={"name": name, "version": version}), content, bundle.uri)


def _digest(rows: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return hashlib.sha256(sink.getvalue()).hexdigest()


def ordinary(day: str, count: int = 60) -> pa.Table:
    """Return random rows of an ordinary day, reproducibly: with the same keys every day, but other values."""
    random = np.random.default_rng([date.fromisoformat(day).toordinal(), 2024])
    return pa.table(
        {
            "id": [f"k{number:07d}" for number in range(count)],
            "x": np.round(random.normal(0, 5, count), 1),
            "y": np.round(random.gamma(2, 3, count), 1),
            "n": random.poisson(2, count),
            "c": random.choice(["red", "green", "blue", None], count, p=[0.45, 0.3, 0.2, 0.05]),
        }
    )


def reference_rows(first: str = "2023-11-27", days: int = 91, count: int = 60) -> pa.Table:
    """Return ordinary days with their `dt`, before the days used in tests."""
    parts = []
    for day in (date.fromisoformat(first) + timedelta(number) for number in range(days)):
        rows = ordinary(str(day), count)
        parts.append(rows.append_column("dt", pa.array([day] * count)))
    return pa.concat_tables(parts)


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    """Return whether each recorded check passed, by `asset/check`."""
    return {f"{e.asset_key.path[-1]}/{e.check_name}": e.passed for e in result.get_asset_check_evaluations()}


def error_of(result: dg.ExecuteInProcessResult) -> str:
    """Return the message of the first step that failed, without its causes."""
    assert not result.success
    failure = next(event for event in result.all_events if event.is_step_failure).step_failure_data
    if failure.user_failure_data and failure.user_failure_data.description:
        return failure.user_failure_data.description
    error = failure.error
    if error and error.cause:  # Dagster's own error wraps the error that the user sees first
        error = error.cause
    return error.message if error else ""


def run_of_test(started: datetime | None = None) -> StepContext:
    """Return a step context outside of Dagster, for the functions below the assets."""
    return StepContext("a-test", started or datetime.now(UTC), lambda _: None)


def long_rows() -> Iterator[Rejected]:
    """Yield rows of 5 KB, checking that few are held at a time."""
    alive: weakref.WeakSet[Rejected] = weakref.WeakSet()
    for number in range(1, 3_001):
        row = from_broken(BrokenRow(number, f"line {number}: 1 cell", "x" * 5_000), "a.csv")
        alive.add(row)
        assert len(alive) * 5_000 < 5_000_000
        yield row


def days_ago(count: int) -> str:
    """The date in UTC, that many days ago."""
    return (datetime.now(UTC).date() - timedelta(days=count)).isoformat()


MakeProject = Callable[..., TinyProject]


def normalised(text: str) -> str:
    """Replace temporary names in a text, to compare messages."""
    return re.sub(r"tiny_\d+_\d+", "tiny", text)
