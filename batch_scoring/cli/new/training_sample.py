"""The rows that a new pipeline's first model is trained on: those that its schema accepts, with their labels."""

import json
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch_scoring.cli.new.columns import Label, Roles, label_values
from batch_scoring.cli.new.sample import MOST_ROWS, Sample, trimmed
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.ingest import landing_files
from batch_scoring.ingest.row_validator import RowValidator
from batch_scoring.ingest.schema.compiled import Column
from batch_scoring.ingest.schema.contract import Contract


def file(pipeline: Pipeline) -> Path:
    """Where a pipeline's training sample is."""
    return Path(pipeline.output.uri) / "training" / "sample.parquet"


def write(pipeline: Pipeline, sample: Sample, roles: Roles, days: Sequence[str]) -> int:
    """Write the accepted rows of a pipeline's landed days, typed, with `dt` and the label; how many they are."""
    contract = Contract(pipeline)
    wanted = dict(contract.columns)
    if roles.label:
        name = roles.label.name
        wanted[name] = Column(name, sample.rows.schema.field(name).type, nullable=True)
    parts = [part for day in days for part in _accepted(pipeline, contract, wanted, day, roles.label)]
    table = pa.Table.from_batches(parts)
    if roles.label:
        table = table.filter(pa.compute.is_valid(table[roles.label.name]))
    file(pipeline).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file(pipeline))
    return len(table)


def write_vocabularies(pipeline: Pipeline, roles: Roles) -> Path | None:
    """Write the words of the categorical features, sorted, for weights from elsewhere; None if there are none."""
    if not roles.vocabularies:
        return None
    place = file(pipeline).with_name("vocabulary.json")
    place.write_text(json.dumps(roles.vocabularies, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return place


def _accepted(
    pipeline: Pipeline, contract: Contract, wanted: dict[str, Column], day: str, label: Label | None
) -> Iterator[pa.RecordBatch]:
    validator = RowValidator(contract)
    for landed in landing_files.list_day(pipeline.landing, day):
        with landing_files.open_rows(pipeline.landing, landed, pipeline.spec.input.csv, wanted) as rows:
            read = rows.read(0, MOST_ROWS)
            for found in validator.validate(read, landed.path, is_text=rows.is_text, helpers=0):
                accepted = found.accepted
                batch = accepted.add_column(1, "dt", pa.array([date.fromisoformat(day)] * len(accepted), pa.date32()))
                if label:
                    places = pa.array(np.searchsorted(found.block.numbers, found.numbers))
                    values = label_values(label, trimmed(found.block.batch.column(label.name)))
                    batch = batch.append_column(label.name, values.take(places))
                yield batch
