"""Deliveries to sinks, of rows that a test makes."""

from typing import Any

import pyarrow as pa

from batch_scoring.delivery.exports.sink import Delivery, Version


def delivery_of(rows: pa.Table, day: str, transaction: int = 1, *, created: int = 1, **fields: Any) -> Delivery:  # noqa: ANN401
    """A version of a day, read in a few batches; with other fields of the delivery."""
    known = {"pipeline": "churn", "export": "results", "run_id": "run"}
    return Delivery(
        day=day,
        version=Version(created, transaction),
        schema=rows.schema,
        **{"read": lambda: iter(rows.to_batches(max_chunksize=max(2, len(rows) // 4))), **known, **fields},
    )
