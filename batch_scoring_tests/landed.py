"""Files in a landing folder of the test, and their rows by number."""

import io
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq

from batch_scoring.config.spec import Csv
from batch_scoring.ingest import landing_files
from batch_scoring.ingest.formats.rows import BATCH_ROWS, BrokenRow
from batch_scoring.storage.folders.folder import FileVersion
from batch_scoring.storage.folders.local import LocalFolder

DAY = "2024-03-04"


def land(folder: LocalFolder, content: bytes | pa.Table, name: str = "a.csv", **options: object) -> FileVersion:
    """Write a file for the day; a table is written as Parquet."""
    if isinstance(content, pa.Table):
        sink = io.BytesIO()
        pq.write_table(content, sink, **options)
        content = sink.getvalue()
    folder.put(f"dt={DAY}/{name}", content)
    return next(file for file in folder.list() if file.path == f"dt={DAY}/{name}")


def read(
    folder: LocalFolder, file: FileVersion, *cuts: int, dialect: Csv | None = None, batch_rows: int = BATCH_ROWS
) -> dict[int, dict[str, object] | str]:
    """Return every row by its number: its cells, or the text of a broken one. `cuts`: boundaries of the ranges read."""
    found: dict[int, dict[str, object] | str] = {}
    with landing_files.open_rows(folder, file, dialect or Csv(), batch_rows=batch_rows) as rows:
        for start, stop in pairwise([0, *sorted(cuts), 10**9]):
            for block in rows.read(start, stop):
                assert len(block) > 0 and block.batch.num_rows <= batch_rows
                numbers = block.numbers.tolist() + [row.number for row in block.broken]
                assert all(start < number <= stop for number in numbers)
                assert not set(numbers) & set(found)
                found |= dict(zip(block.numbers.tolist(), block.batch.to_pylist(), strict=True))
                found |= {row.number: row.text for row in block.broken}
    assert sorted(found) == list(range(1, len(found) + 1))
    return found


def broken(folder: LocalFolder, file: FileVersion, dialect: Csv | None = None) -> list[BrokenRow]:
    """Return the rows that could not be parsed."""
    with landing_files.open_rows(folder, file, dialect or Csv()) as rows:
        return [row for block in rows.read(0, 10**9) for row in block.broken]
