"""A tiny pipeline that exports its days to files."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batch_scoring.delivery.exports.files import FileSink, Manifest
from batch_scoring_tests.tiny import DAY, TinyProject

NAME = "list"


def with_export(tiny: TinyProject, name: str = NAME, **fields: Any) -> TinyProject:  # noqa: ANN401
    """Add an export to Parquet files, or another one."""
    export = {"to": "file", "path": f"exports/{name}_{{day}}.parquet"} | fields
    export = {field: value for field, value in export.items() if value is not None}
    tiny.spec.setdefault("exports", {})[name] = export
    tiny.write_spec()
    return tiny


def scored(tiny: TinyProject, *days: str, rows: int = 12) -> None:
    """Land and score days."""
    for day in days or (DAY,):
        tiny.land(day, tiny.rows(rows), "a.parquet")
        assert tiny.run(day).success


def sink_of(tiny: TinyProject, name: str = NAME) -> FileSink:
    return FileSink(f"{tiny.pipeline.data_root}/exports/{name}_{{day}}.parquet")


def manifest(tiny: TinyProject, day: str = DAY, name: str = NAME) -> Manifest | None:
    """The manifest of a day, None if there is none."""
    file = Path(tiny.pipeline.data_root, "exports", f"{name}_{day}.manifest.json")
    return Manifest.model_validate_json(file.read_text()) if file.exists() else None


def exported(tiny: TinyProject, day: str = DAY, name: str = NAME) -> pa.Table:
    """The rows of the valid file of a day."""
    valid = manifest(tiny, day, name)
    assert valid is not None, f"{name} of {day} is not exported"
    return pq.read_table(Path(tiny.pipeline.data_root, "exports", valid.file))
