"""Transforms: sound ones, and some that give other values in another process or on another day.

They are imported by processes of their own, so this module imports nothing large.
"""

import datetime
import hashlib
import os
import time
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

Fitted = dict[str, Any]
_LOADED = datetime.date.today()  # noqa: DTZ011


def hashed(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    return {"made": [hash(word) % 1000 for word in rows["opened_text"].to_pylist()]}


def set_order(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    order = list({"red", "green", "blue"} | {f"colour {number}" for number in range(500)})
    return {"made": [order.index(word) if word else None for word in rows["word"].to_pylist()]}


def today(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    now = pa.scalar(date.today(), pa.date32())  # noqa: DTZ011
    return {"made": pc.days_between(rows["opened"].cast(pa.date32()), now)}


def year(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    return {"made": pc.subtract(datetime.datetime.now(datetime.UTC).year, pc.year(rows["opened"]))}


def whole_days(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    return {"made": np.full(rows.num_rows, time.time() // 86_400)}


def month(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    return {"made": np.full(rows.num_rows, time.localtime().tm_yday)}


def timestamp(rows: pd.DataFrame, fitted: Fitted) -> Fitted:
    return {"made": (pd.Timestamp.now("UTC").normalize() - rows["opened"]).dt.days}


def when_loaded(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    return {"made": pc.days_between(rows["opened"].cast(pa.date32()), pa.scalar(_LOADED, pa.date32()))}


def sound(rows: pd.DataFrame, fitted: Fitted) -> pd.DataFrame:
    """What uses dates and hashes as it should."""
    digests = [int(hashlib.sha256(word.encode()).hexdigest()[:6], 16) for word in rows["opened_text"]]
    first = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    assert isinstance(first, datetime.datetime) and isinstance(rows["opened"].iloc[0], datetime.datetime)
    days = [(datetime.date.fromisoformat(text) - date(2024, 1, 1)).days for text in rows["opened_text"]]
    since = (rows["opened"] - pd.Timestamp(first)).dt.total_seconds()
    return pd.DataFrame({"made": digests, "days": days, "since": since, "mean": fitted["mean"]})


def in_arrow(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    income = pc.fill_null(rows["income"], fitted["income"])
    return {
        "made": pc.divide(rows["amount"], income),
        "log": pc.log1p(rows["amount"]),
        "hour": pc.hour(rows["opened"]),
        "is_red": pc.equal(rows["word"], "red"),
        "word_of_visits": pc.binary_join_element_wise(rows["word"], rows["visits"].cast(pa.string()), "-"),
        "bin": np.digitize(rows["amount"].to_numpy(), fitted["edges"]),
        "city": pc.index_in(rows["word"], value_set=fitted["words"]["word"].combine_chunks()),
    }


def in_pandas(rows: pd.DataFrame, fitted: Fitted) -> pd.DataFrame:
    income = rows["income"].fillna(fitted["income"])
    return pd.DataFrame(
        {
            "made": rows["amount"] / income,
            "log": np.log1p(rows["amount"]),
            "hour": rows["opened"].dt.hour,
            "twice": rows["visits"] * 2,
            "per_visit": rows["amount"] / rows["visits"],
            "upper": rows["word"].str.upper(),
            "is_red": (rows["word"] == "red").astype("float64"),
            "bin": np.digitize(rows["amount"], fitted["edges"]),
            "day": pd.to_datetime(rows["opened_text"], format="%Y-%m-%d").dt.dayofweek,
            "warmth": rows["word"].map({"red": 1.0, "blue": -1.0}).astype("float64"),
            "missing": None,
        }
    )


def in_a_table(rows: pa.Table, fitted: Fitted) -> pa.Table:
    return pa.table({"made": pc.sqrt(rows["amount"]), "visited": pc.is_valid(rows["visits"])})


def as_lists(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    return {"made": [None if word is None else len(word) for word in rows["word"].to_pylist()]}


def dies_later(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    """As C code does that does not bear another clock."""
    if datetime.datetime.__module__ != "datetime":
        os._exit(3)
    return {"made": rows["amount"]}
