"""Samples as strangers bring them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_scoring.cli.new.sample import Sample, read
from batch_scoring_tests.telco import as_csv

Rows = list[dict[str, Any]]
Write = Callable[..., Path]
Read = Callable[..., Sample]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes rows to a file in the format of its name."""

    def written(rows: Rows, name: str = "sample.csv", delimiter: str = ",") -> Path:
        file = tmp_path / name
        if name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist(rows), file)
        elif name.endswith(".jsonl"):
            file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        else:
            file.write_text(as_csv(rows, delimiter))
        return file

    return written


@pytest.fixture
def sampled(write: Write) -> Read:
    """Reads rows as a sample."""
    return lambda rows, name="sample.csv", **options: read(write(rows, name, **options))
