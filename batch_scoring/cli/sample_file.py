"""Rows of the training window in a file: Parquet as it is, other formats with the types of the pipeline's schema."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import CheckpointError
from batch_scoring.ingest.formats.rows import Rows
from batch_scoring.ingest.landing_files import ENDINGS, open_rows
from batch_scoring.ingest.schema.compiled import Column
from batch_scoring.ingest.schema.contract import Contract, ValidationResult
from batch_scoring.storage import parquet
from batch_scoring.storage.folders.addresses import open_folder

_ALL = 2**62


def read_sample(file: Path, pipeline: Pipeline, note: Callable[[str], object]) -> pa.Table:
    """Read a sample: the columns of the schema, and `dt` as dates.

    Args:
        file: Parquet under any name, else as a landing file.
        pipeline: whose schema and dialect.
        note: receives how many rows the schema rejects.

    Raises:
        CheckpointError, UnreadableFileError, ContractError: it is missing or not of its format, or lacks a column.
    """
    if not _is_text(file):
        return read_parquet(file)
    contract = Contract(pipeline)
    folder = open_folder(str(file.absolute().parent))
    version = folder.version(file.name)
    if version is None:
        raise CheckpointError(f"{file} does not exist; expected a CSV or Parquet file")
    columns = {**contract.columns, "dt": Column("dt", pa.string(), nullable=True)}
    with open_rows(folder, version, pipeline.spec.input.csv, columns) as rows:
        contract.unexpected(rows.schema, str(file), is_text=rows.is_text)
        validated = [(block, contract.validate(block.batch, is_text=rows.is_text)) for block in rows.read(0, _ALL)]
    for problem in _problems(file, validated):
        note(problem)
    tables = [_with_day(file, block, result) for block, result in validated]
    return pa.concat_tables(tables) if tables else contract.arrow_schema.empty_table()


def read_outputs(file: Path, pipeline: Pipeline) -> pa.Table:
    """Read the training code's own outputs for some rows: the key, `dt` and numbers.

    Raises:
        CheckpointError: the file is missing or not of its format.
    """
    if not _is_text(file):
        return read_parquet(file)
    key, csv = Contract(pipeline).arrow_schema.field(pipeline.spec.input.key), pipeline.spec.input.csv
    try:
        return pyarrow.csv.read_csv(
            file,
            parse_options=pyarrow.csv.ParseOptions(delimiter=csv.delimiter),
            convert_options=pyarrow.csv.ConvertOptions(column_types={key.name: key.type, "dt": pa.date32()}),
        )
    except (OSError, pa.ArrowException) as error:
        raise CheckpointError(f"{file} is not a readable CSV file: {error}") from error


def read_parquet(file: Path) -> pa.Table:
    """Read a Parquet file.

    Raises:
        CheckpointError: it is missing or of another format.
    """
    if not file.is_file():
        raise CheckpointError(f"{file} does not exist; expected a Parquet file")
    try:
        with file.open("rb") as stream:
            return parquet.open_file(stream).read()
    except (OSError, pa.ArrowException) as error:
        raise CheckpointError(f"{file} is not a readable Parquet file: {error}") from error


def _is_text(file: Path) -> bool:
    return file.name.endswith(tuple(ending for ending in ENDINGS if ending != ".parquet"))


def _problems(file: Path, validated: list[tuple[Rows, ValidationResult]]) -> Iterator[str]:
    """Yield one line if rows are left out, with the first reason."""
    rejected = sum(len(result.rejected) + len(block.broken) for block, result in validated)
    if not rejected:
        return
    rows = sum(map(len, (block for block, _ in validated)))
    number, reason = min(reason for block, result in validated for reason in _first_reasons(block, result))
    yield (
        f"{rejected:,} of {rows:,} rows of {file} are not as the schema says and were left out, first row {number}: "
        f"{reason}"
    )


def _first_reasons(block: Rows, result: ValidationResult) -> Iterator[tuple[int, str]]:
    """Yield the first row that the schema rejects, and the first that is not of the format."""
    for place in result.rejected.positions[:1].tolist():
        reason = result.rejected[place]
        yield int(block.numbers[place]), f"{reason.rule} of column {reason.column}"
    for broken in block.broken[:1]:
        yield broken.number, broken.detail


def _with_day(file: Path, block: Rows, result: ValidationResult) -> pa.Table:
    table = pa.Table.from_batches([result.accepted])
    if "dt" not in block.batch.schema.names:
        return table
    days = block.batch.column("dt").take(pa.array(result.positions))
    try:
        text = days.cast(pa.string()) if pa.types.is_binary(days.type) else days
        dates = (pc.utf8_trim_whitespace(text) if pa.types.is_string(text.type) else text).cast(pa.date32())
    except pa.ArrowException as error:
        raise CheckpointError(f"{file}: dt is not a day, such as 2024-01-31, in every row: {error}") from error
    return table.append_column("dt", dates)
