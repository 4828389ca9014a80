"""Which days of an export are behind, from storage alone."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from batch_scoring.delivery.exports import pending
from batch_scoring.delivery.exports.export import export_day
from batch_scoring.delivery.exports.sink import Delivered, Delivery, Marker
from batch_scoring.errors import StateError
from batch_scoring_tests.bare_decisions import decide
from batch_scoring_tests.exports import NAME, scored, unchecked, with_export
from batch_scoring_tests.tiny import DAY, TinyProject, run_of_test

TABLE = {"to": "postgres", "url_from": "URL", "table": "scores"}
KEYS = {"to": "redis", "url_from": "URL", "prefix": "rec", "key": "c", "value": "x"}
DAYS = ["2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04"]  # from Friday to Monday


class Accepting:
    """A sink that takes everything and keeps nothing."""

    address = "nowhere"

    def marker(self, day: str) -> Marker | None:
        return None

    def deliver(self, delivery: Delivery) -> Delivered:
        rows = sum(batch.num_rows for batch in delivery.read())
        return Delivered("exported", Marker(delivery.version, rows, delivery.run_id, datetime.now(UTC), delivery.of))

    def problems(self, schema: pa.Schema) -> list[str]:
        return []


def behind(tiny: TinyProject, days: list[str] | None = None) -> list[str]:
    found = pending.recent(tiny.pipeline, NAME) if days is None else pending.among(tiny.pipeline, NAME, days)
    return [one.day for one in found]


def export(tiny: TinyProject, day: str = DAY) -> None:
    export_day(tiny.pipeline, NAME, day, run_of_test())


def test_the_newest_published_days_until_they_are_exported(tiny: TinyProject) -> None:
    assert behind(with_export(tiny)) == []
    scored(tiny, *DAYS)
    assert behind(tiny) == DAYS[1:]
    assert behind(tiny, DAYS) == DAYS
    export(tiny, DAYS[2])
    assert behind(tiny) == [DAYS[1], DAYS[3]]


def test_only_days_of_the_named_weekdays_count(tiny: TinyProject) -> None:
    scored(with_export(tiny, days=["fri", "mon"], recent_days=2), *DAYS)
    assert behind(tiny) == behind(tiny, DAYS) == [DAYS[0], DAYS[3]]


def test_a_corrected_day_is_behind_again_and_other_settings_alone_are_not(tiny: TinyProject) -> None:
    scored(with_export(tiny))
    export(tiny)
    with_export(tiny, columns=["id"])
    assert behind(tiny) == []
    scored(tiny, rows=13)
    (one,) = pending.recent(tiny.pipeline, NAME)
    assert one.why == "its day was corrected since it was exported"


@pytest.mark.parametrize(
    ("before", "after", "is_behind"),
    [
        ({"path": "a/{day}.csv"}, {"path": "b/{day}.csv"}, True),
        ({"path": "a/{day}.csv"}, {"path": "a/{day}.csv", "most": 3}, False),
        ({"path": "a/{day}.csv"}, {**TABLE, "path": None}, True),
        ({**TABLE, "path": None}, {**TABLE, "path": None, "columns": ["id"]}, False),
        ({**TABLE, "path": None}, {**TABLE, "path": None, "table": "others"}, True),
        ({**TABLE, "path": None}, {**TABLE, "path": None, "url_from": "OTHER"}, True),
        ({**KEYS, "path": None}, {**KEYS, "path": None, "ttl_hours": 100}, False),
        ({**KEYS, "path": None}, {**KEYS, "path": None, "prefix": "other"}, True),
        ({**KEYS, "path": None}, {**KEYS, "path": None, "url_from": "OTHER"}, True),
    ],
)
def test_a_day_that_was_exported_to_another_place_is_behind(
    tiny: TinyProject, before: dict[str, Any], after: dict[str, Any], is_behind: bool
) -> None:
    scored(tiny)
    export_day(unchecked(tiny, **before), NAME, DAY, run_of_test(), sink=Accepting())
    found = [one.why for one in pending.recent(unchecked(tiny, **after), NAME)]
    assert found == (["it was exported to another place than the spec names now"] if is_behind else [])
    receipt = tiny.state.receipt(NAME, DAY)
    assert receipt
    tiny.state.put_receipt(receipt.model_copy(update={"place": ""}), tiny.state.receipt_token(NAME, DAY))
    assert pending.recent(unchecked(tiny, **after), NAME) == [], "a receipt from before they had a place"


def test_after_a_change_of_the_exported_step_a_day_is_behind(tiny: TinyProject) -> None:
    with_export(tiny, of="decisions")
    scored(tiny)
    tiny.spec["exports"][NAME]["of"] = "predictions"
    tiny.write_spec()
    export(tiny)
    with_export(tiny, of="decisions")
    (one,) = pending.recent(tiny.pipeline, NAME)
    assert one.why == "its predictions were exported, and the spec names decisions now"


def test_the_version_of_a_day_changes_with_its_rows_and_with_the_settings(tiny: TinyProject) -> None:
    def version() -> str:
        (one,) = pending.recent(tiny.pipeline, NAME)
        return one.version

    scored(with_export(tiny))
    known = {version()}
    scored(tiny, rows=13)
    known.add(version())
    with_export(tiny, columns=["id"])
    known.add(version())
    assert len(known) == 3
    assert version() in known


def test_a_kept_day_is_not_behind(tiny: TinyProject) -> None:
    scored(with_export(tiny, corrections="keep"))
    export(tiny)
    scored(tiny, rows=13)
    assert behind(tiny) == [DAY]
    export(tiny)
    assert behind(tiny) == []


def test_decisions_are_behind_once_they_are_about_the_published_predictions(tiny: TinyProject) -> None:
    def found() -> list[str]:
        return [one.waits_for for one in pending.recent(unchecked(tiny, of="decisions"), NAME)]

    scored(tiny)
    assert found() == []
    decide(tiny)
    assert found() == [""]
    tiny.deliver("v2", seed=1)
    scored(tiny)
    assert found() == ["its decisions are not about the predictions that are published"]


@pytest.mark.parametrize(
    ("fields", "waits"),
    [
        ({}, False),
        ({"columns": ["id", "prob_class_1"], "order": "-prob_class_1", "where": "prediction == 1"}, False),
        ({"columns": ["id", "x"]}, True),
        ({"columns": ["row_number"]}, True),
        ({"order": "-x"}, True),
        ({"where": "c == 'red'"}, True),
    ],
)
def test_an_export_waits_for_a_correction_only_if_it_needs_features(
    tiny: TinyProject, fields: dict[str, Any], waits: bool
) -> None:
    """A correction that failed half-way leaves features that the published scores were not made of."""
    scored(tiny)
    tiny.land(DAY, tiny.rows(13), "a.parquet")
    tiny.run(steps=["raw_input", "validated_features"])
    pipeline = unchecked(tiny, **fields)
    (one,) = pending.recent(pipeline, NAME)
    assert bool(one.waits_for) == waits
    if not waits:
        assert export_day(pipeline, NAME, DAY, run_of_test()).outcome == "exported"
        return
    with pytest.raises(StateError, match=one.waits_for):
        export_day(pipeline, NAME, DAY, run_of_test())


def test_an_unreadable_receipt_counts_as_none(tiny: TinyProject) -> None:
    scored(with_export(tiny))
    export(tiny)
    tiny.pipeline.output.put(f"state/dt={DAY}/exports/{NAME}.json", b"{")
    assert behind(tiny) == [DAY]
