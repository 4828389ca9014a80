"""Generator of the synthetic customer table, for any day and any number of rows, in constant memory.

All values are determined by the day and the row's number: a day can be regenerated, a shorter table is the beginning
of a longer one, and two days differ. The ids are the same every day: the customers stay, their values are drawn anew.
Scoring does not need this module; the pipeline reads the files that land.

    python -m batch_scoring.pipelines.customer_churn.data --day 2024-01-01 --rows 1000000 --format csv.gz
"""

import argparse
import contextlib
import gzip
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

Format = Literal["parquet", "csv", "csv.gz"]
FORMATS: tuple[Format, ...] = ("parquet", "csv", "csv.gz")
LANDING = Path("data/customer_churn/landing")

CHUNK_ROWS = 131_072
"""Rows per random seed, record batch and row group."""

ID_DIGITS = 10
UNKNOWN_VALUE_SHARE = 0.02
"""Share of customers with purchases whose average value is nevertheless unknown."""

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("age", pa.int64(), nullable=False),
        pa.field("income", pa.float64(), nullable=False),
        pa.field("tenure_days", pa.int64(), nullable=False),
        pa.field("num_purchases", pa.int64(), nullable=False),
        pa.field("avg_transaction_value", pa.float64()),
        pa.field("days_since_last_purchase", pa.int64()),
    ]
)


def customers(day: date, rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the day's customers in batches of `CHUNK_ROWS`; the last one may be shorter.

    Args:
        day: seeds the values.
        rows: number of customers, from 0 to 10 billion.

    Yields:
        Record batches of `SCHEMA`, in the order of the ids.
    """
    if not 0 <= rows <= 10**ID_DIGITS:
        raise ValueError(f"{rows} rows; expected 0 to {10**ID_DIGITS}")
    for chunk, first in enumerate(range(0, rows, CHUNK_ROWS)):
        yield _chunk(day, chunk).slice(0, rows - first)


def churn_probability(batch: pa.RecordBatch | pa.Table) -> npt.NDArray[np.float64]:
    """Return the true probability that each customer leaves, which a model has to learn: float64[rows] in (0, 1)."""
    age, income, tenure, purchases = (
        batch.column(name).to_numpy(zero_copy_only=False).astype(np.float64)
        for name in ("age", "income", "tenure_days", "num_purchases")
    )
    idle = batch.column("days_since_last_purchase").to_numpy(zero_copy_only=False).astype(np.float64)
    idle = np.where(np.isnan(idle), tenure, idle)
    a_month = purchases / (tenure / 30 + 1)
    logit = (
        -0.2
        + 1.2 * np.log1p(idle / 45)
        - 1.7 * np.tanh(a_month)
        - 0.9 * np.log1p(tenure / 365)
        - 0.6 * np.log(np.maximum(income, 1.0) / 45_000)
        + 1.3 * np.exp(-(((age - 24) / 9) ** 2))
    )
    return 1 / (1 + np.exp(-logit))


def write_day(day: date, rows: int, form: Format, landing: Path) -> Path:
    """Write the day's file into the landing folder; it appears under its name once complete.

    Args:
        day: the partition; the file is `<landing>/dt=<day>/customers.<form>`.
        rows: number of customers.
        form: Parquet (zstd, row groups of `CHUNK_ROWS`), CSV, or CSV compressed with gzip.
        landing: the landing folder, which contains the days' folders.

    Returns:
        The file.
    """
    target = landing / f"dt={day}" / f"customers.{form}"
    target.parent.mkdir(parents=True, exist_ok=True)
    growing = target.with_name(f".{target.name}.growing")  # names that begin with a dot are not data
    try:
        with _writer(growing, form) as write:
            for batch in customers(day, rows):
                write(batch)
        growing.replace(target)
    finally:
        growing.unlink(missing_ok=True)
    return target


@contextlib.contextmanager
def _writer(file: Path, form: Format) -> Iterator[Callable[[pa.RecordBatch], None]]:
    if form == "parquet":
        with pq.ParquetWriter(file, SCHEMA, compression="zstd", compression_level=1, use_dictionary=False) as parquet:
            yield parquet.write_batch
        return
    options = pyarrow.csv.WriteOptions(quoting_style="none", quoting_header="none")
    with contextlib.ExitStack() as stack:
        sink: BinaryIO | gzip.GzipFile = stack.enter_context(file.open("wb"))
        if form == "csv.gz":  # no name and time in the header: equal rows give equal bytes
            sink = stack.enter_context(gzip.GzipFile("", "wb", compresslevel=1, fileobj=sink, mtime=0))
        yield stack.enter_context(pyarrow.csv.CSVWriter(sink, SCHEMA, write_options=options)).write


def _chunk(day: date, chunk: int) -> pa.RecordBatch:
    """Generate a whole chunk, so that a row's values do not depend on how many rows are requested."""
    random = np.random.default_rng([day.toordinal(), chunk])
    shape = CHUNK_ROWS
    age = (18 + 77 * random.beta(1.8, 2.9, shape)).astype(np.int64)
    seniority = np.minimum(age - 18, 30) / 30
    income = np.round(np.exp(10.25 + 0.75 * seniority + 0.45 * random.standard_normal(shape)), 2)
    tenure = np.minimum(random.exponential(900, shape), (age - 17) * 365.0).astype(np.int64)
    habit = np.exp(-0.2 + 0.8 * random.standard_normal(shape))  # purchases per month
    purchases = np.floor(random.gamma(4.0, 0.25, shape) * habit * (tenure / 30 + 2)).astype(np.int64)
    value = np.round(np.exp(3.4 + 0.3 * np.log(income / 45_000) + 0.6 * random.standard_normal(shape)), 2)
    idle = np.minimum(random.exponential(25 / habit), tenure).astype(np.int64)
    never = purchases == 0
    unknown = never | (random.random(shape) < UNKNOWN_VALUE_SHARE)
    columns = [
        _ids(chunk * CHUNK_ROWS),
        pa.array(age),
        pa.array(income),
        pa.array(tenure),
        pa.array(purchases),
        pa.array(value, mask=unknown),
        pa.array(idle, mask=never),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _ids(first: int) -> pa.Array:
    """Return ids of `c` and ten digits, written directly to Arrow's buffers, as all have the same length."""
    numbers = np.arange(first, first + CHUNK_ROWS)
    letters = np.empty((CHUNK_ROWS, 1 + ID_DIGITS), np.uint8)
    letters[:, 0] = ord("c")
    for position in range(ID_DIGITS, 0, -1):
        numbers, digit = np.divmod(numbers, 10)
        letters[:, position] = ord("0") + digit
    offsets = np.arange(CHUNK_ROWS + 1, dtype=np.int32) * np.int32(1 + ID_DIGITS)
    return pa.StringArray.from_buffers(CHUNK_ROWS, pa.py_buffer(offsets), pa.py_buffer(letters))


def main() -> None:
    """Run the command: write one day."""
    parser = argparse.ArgumentParser(description="Write one day of the synthetic customer table.")
    parser.add_argument("--day", type=date.fromisoformat, required=True, help="YYYY-MM-DD")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--format", choices=FORMATS, default="parquet")
    parser.add_argument("--out", type=Path, default=LANDING, help="folder that contains dt=YYYY-MM-DD")
    arguments = parser.parse_args()
    file = write_day(arguments.day, arguments.rows, arguments.format, arguments.out)
    print(f"{file}: {arguments.rows:,} rows, {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
