"""The sample in the landing folder of its pipeline: as one day, or by the days of a column."""

import csv
import io
import shutil
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch_scoring.cli.new.sample import Sample
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.config.spec import Csv
from batch_scoring.errors import SampleError
from batch_scoring.ingest.landing_files import day_folder

Days = Mapping[str, pa.Array | None]
"""Which rows of the sample are a day's, as a mask; None: the whole file, as it is."""


def days_of(sample: Sample, column: str | None, day: str) -> Days:
    """Return the days of a sample; the given one if it has no column of days.

    Raises:
        SampleError: the column does not hold a day in every row.
    """
    if column is None:
        return {day: None}
    values = sample.rows[column].combine_chunks()
    try:
        if pa.types.is_string(values.type):
            values = pc.utf8_slice_codeunits(values, 0, 10)
        dates = values.cast(pa.date32(), safe=False)
    except pa.ArrowException as error:
        raise SampleError(f"--day {column}: its values are not days such as 2024-03-04: {error}") from error
    if dates.null_count:
        raise SampleError(f"--day {column}: {dates.null_count:,} of {len(dates):,} rows have no day")
    return {str(found): pc.equal(dates, found) for found in pc.unique(dates).sort()}


def land(pipeline: Pipeline, sample: Sample, days: Days) -> None:
    """Write the files of a sample's days."""
    for day, mask in days.items():
        if mask is None:
            with pipeline.landing.scratch() as copy:
                shutil.copyfile(sample.file, copy)
                pipeline.landing.put_file(copy, f"{day_folder(day)}{sample.file.name}")
            continue
        rows = sample.rows.filter(mask)
        if sample.is_text:
            pipeline.landing.put(f"{day_folder(day)}rows.csv", _csv(rows, sample.csv))
        else:
            pipeline.landing.put(f"{day_folder(day)}rows.parquet", _parquet(rows))


def _csv(rows: pa.Table, dialect: Csv) -> bytes:
    text = io.StringIO()  # Python's, because Arrow quotes every text, and a quoted word is never a missing number
    writer = csv.writer(
        text,
        delimiter=dialect.delimiter,
        lineterminator="\n",
        quoting=csv.QUOTE_NONE if dialect.quote == "none" else csv.QUOTE_MINIMAL,
        quotechar=None if dialect.quote == "none" else dialect.quote,
    )
    writer.writerow(rows.column_names)
    writer.writerows(zip(*(column.to_pylist() for column in rows.columns), strict=True))
    return text.getvalue().encode()


def _parquet(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(rows, sink)
    return sink.getvalue()
