"""What consumers read: a day's last good version, whole, or an error that says what to run."""

from datetime import date, datetime

import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from batch_scoring.daily.tables import predictions_table
from batch_scoring.errors import NotPublishedError
from batch_scoring.tables import read_day
from batch_scoring_tests.tiny import DAY, NEXT_DAY, TinyProject


def test_all_three_tables_are_read_with_their_partitions_as_columns(tiny: TinyProject) -> None:
    rows = tiny.rows(100)
    tiny.land(DAY, rows.set_column(3, "n", pa.array([-1] + [1] * 99)))
    tiny.run()
    scored, features, lost = (tiny.read(DAY, name) for name in ("predictions", "validated_features", "quarantine"))
    assert scored.num_rows == features.num_rows == 99 and lost.num_rows == 1
    assert features.column_names == ["id", "x", "y", "n", "c", "source_file", "row_number", "dt"]
    assert lost.column_names == [
        "id",
        "rule",
        "column",
        "value",
        "source_file",
        "row_number",
        "raw",
        "dt",
        "stage",
    ]
    for found in (scored, features, lost):
        assert set(found["dt"].to_pylist()) == {date.fromisoformat(DAY)}
        assert found["id"].to_pylist() == sorted(found["id"].to_pylist())
    assert lost["stage"].to_pylist() == ["rule"]
    (first,) = rows.slice(1, 1).to_pylist()
    assert features.select(rows.column_names).slice(0, 1).to_pylist() == [{**first, "n": 1}]


def test_a_day_may_be_a_date_or_its_name(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(10))
    tiny.run()
    for day in (date.fromisoformat(DAY), datetime.fromisoformat(DAY), pd.Timestamp(DAY)):
        assert read_day(tiny.pipeline, day).equals(read_day(tiny.pipeline, DAY))


def test_a_day_that_was_never_published_is_an_error_that_says_so(tiny: TinyProject) -> None:
    tables = ("predictions", "validated_features", "quarantine")
    for name in tables:  # no table yet
        with pytest.raises(NotPublishedError, match=f"has no rows of {DAY}: the day was never published; run: batch"):
            tiny.read(DAY, name)
    tiny.land(DAY, tiny.rows(10))
    tiny.run()
    for name in tables:
        with pytest.raises(NotPublishedError, match=f"{name} has no rows of {NEXT_DAY}"):
            tiny.read(NEXT_DAY, name)


def test_a_day_without_a_rejected_row_has_an_empty_quarantine(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(10))
    tiny.run()
    before = tiny.read(DAY, "quarantine")
    tiny.land(NEXT_DAY, tiny.rows(2).set_column(3, "n", pa.array([-1, 1])))
    tiny.run(NEXT_DAY)
    assert tiny.read(NEXT_DAY, "quarantine").num_rows == 1
    after = tiny.read(DAY, "quarantine")
    assert before.num_rows == after.num_rows == 0 and before.schema == after.schema


def test_a_file_without_an_accepted_row_does_not_hide_the_day(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(10))
    bad = tiny.rows(5, start=10)
    tiny.land(DAY, bad.set_column(3, "n", pa.array([-1] * 5)), "b.parquet")
    tiny.run()
    for name in ("predictions", "validated_features"):
        assert tiny.read(DAY, name)["id"].to_pylist() == tiny.rows(10)["id"].to_pylist()
    assert tiny.read(DAY, "quarantine").num_rows == 5
    assert len(tiny.published_day("predictions").table.files) == 2


def test_an_unknown_table_or_a_day_in_another_form_is_an_error(tiny: TinyProject) -> None:
    with pytest.raises(ValueError, match="no table 'scores'; there are: validated_features, predictions, decisions"):
        tiny.read(DAY, "scores")
    for day in ("2024-3-4", "yesterday"):
        with pytest.raises(ValueError, match=f"{day!r} is not a day; expected YYYY-MM-DD"):
            tiny.read(day)


def test_a_day_that_somebody_compacted_reads_as_before(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(10), "a.parquet")
    tiny.land(DAY, tiny.rows(10, start=10), "b.parquet")
    tiny.run()
    before = tiny.read()
    delta = DeltaTable(predictions_table(tiny.pipeline).folder.uri)
    delta.optimize.compact()
    assert len(delta.file_uris()) == 1
    assert tiny.read().equals(before)


def test_keys_with_quotes_newlines_and_other_scripts_come_back_as_they_were(tiny: TinyProject) -> None:
    names = sorted(['a"b', "c\nd", "e,f", "Łódź", "東京", " x", "k'0", "🚲", "%2F/dt=x"])
    rows = tiny.rows(len(names)).set_column(0, "id", pa.array(names))
    tiny.land(DAY, rows)
    tiny.run()
    assert sorted(tiny.read()["id"].to_pylist()) == names
