"""Public access to a pipeline's tables: `read_day`, for notebooks and downstream consumers of scores.

`storage/delta.py` writes and commits tables, `daily/tables.py` defines them.
"""

from datetime import date

import pyarrow as pa

from batch_scoring.config.loader import find_pipeline
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.tables import TABLES, quarantine_schema
from batch_scoring.errors import NotPublishedError
from batch_scoring.storage import delta
from batch_scoring.storage.state import State


def read_day(pipeline: str | Pipeline, day: str | date, table: str = "predictions") -> pa.Table:
    """Read a day's rows, as last published.

    Args:
        pipeline: the pipeline, or its name.
        day: a date, or its text as YYYY-MM-DD.
        table: predictions, validated_features, decisions or quarantine.

    Returns:
        All columns, including `dt`, sorted by the first one, which is the key. The quarantine may have no rows.

    Raises:
        ValueError: there is no such table, or `day` is not a day.
        NotPublishedError: the day was never published, or has been removed.
    """
    if table not in TABLES:
        raise ValueError(f"no table {table!r}; there are: {', '.join(TABLES)}")
    found = find_pipeline(pipeline) if isinstance(pipeline, str) else pipeline
    wanted = _iso(day)
    source = TABLES[table](found)
    loaded = source.load()
    schema = pa.schema(loaded.schema().to_arrow()) if loaded else quarantine_schema(found)
    files = delta.active_files(loaded, wanted) if loaded else []
    if not files and (table != "quarantine" or State(found.output).published_day("validated_features", wanted) is None):
        raise NotPublishedError(
            f"{source.folder.uri} has no rows of {wanted}: the day was never published; "
            f"run: batch-scoring backfill {found.name} {wanted} {wanted}"
        )
    parts = [delta.read_file(source, file, schema) for file in files]
    return pa.concat_tables([schema.empty_table(), *parts]).sort_by(schema.names[0])


def _iso(day: str | date) -> str:
    """The day as YYYY-MM-DD."""
    try:
        return f"{date.fromisoformat(day) if isinstance(day, str) else day:%Y-%m-%d}"
    except ValueError:
        raise ValueError(f"{day!r} is not a day; expected YYYY-MM-DD") from None
