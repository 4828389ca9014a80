"""The export of a day: once per published version, with a receipt."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_scoring.delivery.exports import export as exports
from batch_scoring.delivery.exports import pending
from batch_scoring.delivery.exports.export import export_day
from batch_scoring.delivery.exports.sink import Delivered, Delivery, Marker
from batch_scoring.errors import NotPublishedError, SinkError, SinkRefusedError, StateError
from batch_scoring.runtime.step_context import StepContext
from batch_scoring.storage.state import ExportReceipt
from batch_scoring_tests.bare_decisions import decide
from batch_scoring_tests.exports import NAME, exported, manifest, scored, sink_of, unchecked, with_export
from batch_scoring_tests.tiny import DAY, TinyProject, run_of_test


class NoSink:
    """A sink that must not be asked."""

    address = "nowhere"

    def marker(self, day: str) -> Marker | None:
        raise AssertionError("the sink was asked")

    def deliver(self, delivery: Delivery) -> Delivered:
        raise AssertionError("the sink was asked")


def export(tiny: TinyProject, **options: Any) -> ExportReceipt:  # noqa: ANN401
    return export_day(tiny.pipeline, NAME, DAY, run_of_test(), **options)


def correct(tiny: TinyProject, rows: int = 13) -> None:
    """Score the day again with other files."""
    scored(tiny, rows=rows)


def receipt_file(tiny: TinyProject) -> Path:
    return Path(tiny.pipeline.output.uri, "state", f"dt={DAY}", "exports", f"{NAME}.json")


def test_the_receipt_says_what_the_sink_shows(tiny: TinyProject) -> None:
    scored(with_export(tiny))
    receipt = export(tiny)
    published_day, shown = tiny.published_day("predictions"), manifest(tiny)
    assert shown is not None
    assert (receipt.outcome, receipt.rows, receipt.sent, receipt.of) == ("exported", 12, 12, "predictions")
    assert (receipt.transaction, receipt.files) == (1, published_day.table.files)
    assert (shown.created, shown.transaction, shown.rows) == (receipt.created, 1, 12)
    assert receipt.bytes == shown.bytes > 0
    assert tiny.state.receipt(NAME, DAY) == receipt
    assert exported(tiny).sort_by("id").select(["id", "prediction"]).equals(tiny.read().select(["id", "prediction"]))


def test_what_is_exported_is_not_exported_again_and_the_sink_is_not_asked(tiny: TinyProject) -> None:
    scored(with_export(tiny))
    first = export(tiny)
    assert export(tiny, sink=NoSink()) == first
    scored(tiny)  # the same files: nothing is published
    assert export(tiny, sink=NoSink()) == first


def test_a_corrected_day_is_exported_once_more(tiny: TinyProject) -> None:
    scored(with_export(tiny))
    export(tiny)
    correct(tiny)
    assert export(tiny).outcome == "exported"
    assert exported(tiny).num_rows == 13
    assert export(tiny, sink=NoSink()).transaction == 2


def test_a_day_that_returns_to_an_older_content_is_exported_once_more(tiny: TinyProject) -> None:
    scored(with_export(tiny))
    export(tiny)
    for rows in (13, 12):
        correct(tiny, rows)
    receipt = export(tiny)
    assert (receipt.outcome, receipt.transaction, exported(tiny).num_rows) == ("exported", 3, 12)


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_text("{")])
def test_a_lost_receipt_is_written_again_from_the_marker(tiny: TinyProject, damage: Callable[[Path], Any]) -> None:
    scored(with_export(tiny))
    first, shown = export(tiny), manifest(tiny)
    damage(receipt_file(tiny))
    receipt = export(tiny)
    assert manifest(tiny) == shown
    assert (receipt.outcome, receipt.rows, receipt.files) == ("unchanged", 12, first.files)
    assert tiny.state.receipt(NAME, DAY) == receipt


def test_again_exports_the_same_version_and_never_an_older_one(tiny: TinyProject) -> None:
    scored(with_export(tiny, columns=["id"]))
    export(tiny)
    with_export(tiny, columns=["id", "x"])
    assert export(tiny, sink=NoSink()).rows == 12, "other settings alone export nothing"
    assert export(tiny, again=True).outcome == "exported"
    assert exported(tiny).column_names == ["id", "x"]


def test_a_table_that_was_made_anew_has_newer_versions(tiny: TinyProject) -> None:
    scored(with_export(tiny))
    for rows in (13, 14):
        correct(tiny, rows)
    before = export(tiny)
    for step in ("predictions", "validated_features", "quarantine"):
        shutil.rmtree(Path(tiny.pipeline.output.uri, "tables", step), ignore_errors=True)
    correct(tiny, 15)
    after = export(tiny)
    assert (before.transaction, after.transaction) == (3, 1)
    assert (after.outcome, exported(tiny).num_rows) == ("exported", 15)


@pytest.mark.parametrize("corrections", ["replace", "keep"])
def test_another_place_gets_the_day_and_the_old_one_keeps_it(tiny: TinyProject, corrections: str) -> None:
    scored(with_export(tiny, corrections=corrections))
    export(tiny)
    before = manifest(tiny)
    with_export(tiny, corrections=corrections, path="moved/{day}.parquet")
    receipt = export(tiny)
    assert (receipt.outcome, receipt.sent) == ("exported", 12)
    assert receipt.where[1].endswith(f"/moved/{DAY}.manifest.json")
    assert (manifest(tiny), export(tiny, sink=NoSink())) == (before, receipt)


# corrections: keep


def test_what_was_exported_stays_if_corrections_are_not_wanted(tiny: TinyProject) -> None:
    scored(with_export(tiny, corrections="keep"))
    export(tiny)
    correct(tiny)
    receipt = export(tiny, sink=NoSink())
    assert (receipt.outcome, receipt.rows, receipt.transaction, receipt.sent) == ("kept", 12, 2, None)
    assert exported(tiny).num_rows == 12
    assert export(tiny, sink=NoSink()) == receipt
    assert export(tiny, again=True).outcome == "exported"
    assert exported(tiny).num_rows == 13


def test_it_stays_also_if_the_receipt_is_lost(tiny: TinyProject) -> None:
    scored(with_export(tiny, corrections="keep"))
    export(tiny)
    receipt_file(tiny).unlink()
    correct(tiny)
    assert (export(tiny).outcome, exported(tiny).num_rows) == ("kept", 12)


# an export that comes late


def late(tiny: TinyProject, meanwhile: Callable[[], object]) -> ExportReceipt:
    """Export, while something happens between the choice of the version and the delivery."""
    sink = sink_of(tiny)

    class LateSink:
        address = "late"
        marker = sink.marker

        def deliver(self, delivery: Delivery) -> Delivered:
            meanwhile()
            return sink.deliver(delivery)

    return export(tiny, sink=LateSink())


def test_an_older_version_that_comes_late_does_not_replace_a_newer_one(tiny: TinyProject) -> None:
    scored(with_export(tiny))

    def newer() -> None:
        correct(tiny)
        export(tiny)

    assert late(tiny, newer).outcome == "superseded"
    assert exported(tiny).num_rows == 13
    assert pending.recent(tiny.pipeline, NAME) == [], "the newer one's receipt stays"


def test_a_sink_that_is_ahead_of_the_published_day_is_asked_once(tiny: TinyProject) -> None:
    """As after the tables were restored from a backup."""
    scored(with_export(tiny))
    state = {path: path.read_bytes() for path in Path(tiny.pipeline.output.uri).rglob("*") if path.is_file()}
    correct(tiny)
    export(tiny)
    shutil.rmtree(tiny.pipeline.output.uri)
    for path, content in state.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert export(tiny).outcome == "superseded"
    assert export(tiny, sink=NoSink()).outcome == "superseded"


# an export whose step has changed


def of_step(tiny: TinyProject, step: str, **options: Any) -> ExportReceipt:  # noqa: ANN401
    return export_day(unchecked(tiny, of=step), NAME, DAY, run_of_test(), **options)


def test_the_step_changes_and_back_unless_what_was_exported_is_to_stay(tiny: TinyProject) -> None:
    scored(tiny)
    decide(tiny)
    for step in ("predictions", "decisions", "predictions"):
        assert of_step(tiny, step).outcome == "exported"
        assert of_step(tiny, step, sink=NoSink()).of == step
        assert ("action" in exported(tiny).column_names) == (step == "decisions")
    receipt_file(tiny).unlink()
    kept = export_day(unchecked(tiny, of="decisions", corrections="keep"), NAME, DAY, run_of_test())
    found = manifest(tiny)
    assert kept.outcome == "kept" and found and found.of == "predictions"


class Interrupted:
    """A sink in which something happens before rows arrive, and whose answer may be lost."""

    address = "interrupted"

    def __init__(self, tiny: TinyProject, meanwhile: Callable[[], object], *, is_lost: bool = False) -> None:
        self._sink, self._meanwhile, self._is_lost = sink_of(tiny), meanwhile, is_lost
        self.marker = self._sink.marker

    def deliver(self, delivery: Delivery) -> Delivered:
        self._meanwhile()
        done = self._sink.deliver(delivery)
        if self._is_lost:
            raise SinkError("the answer was lost")
        return done


def is_settled(tiny: TinyProject, step: str) -> bool:
    """Whether the next export shows the step, and nothing is behind then."""
    of_step(tiny, step)
    found = manifest(tiny)
    assert found is not None
    return found.of == step and pending.recent(unchecked(tiny, of=step), NAME) == []


def test_a_late_export_of_the_step_before_does_not_replace_the_new_one(tiny: TinyProject) -> None:
    scored(tiny)
    decide(tiny)
    late = Interrupted(tiny, lambda: of_step(tiny, "decisions"))
    assert of_step(tiny, "predictions", sink=late).outcome == "superseded"
    found = manifest(tiny)
    assert found and found.of == "decisions"
    assert is_settled(tiny, "decisions") and manifest(tiny) == found, "and is not exported twice"


def test_no_receipt_stands_while_its_step_gives_way(tiny: TinyProject) -> None:
    """An export of the step before dies after the switch: the step of the spec is exported again."""
    scored(tiny)
    decide(tiny)
    of_step(tiny, "decisions")
    with pytest.raises(SinkError):
        of_step(tiny, "predictions", sink=Interrupted(tiny, lambda: None, is_lost=True))
    assert [day.day for day in pending.recent(unchecked(tiny, of="decisions"), NAME)] == [DAY]
    assert is_settled(tiny, "decisions")


def test_what_an_export_may_still_replace_is_not_found_unchanged(tiny: TinyProject) -> None:
    scored(tiny)
    decide(tiny)
    of_step(tiny, "decisions")
    before = manifest(tiny)
    late = Interrupted(tiny, lambda: of_step(tiny, "decisions"))
    assert of_step(tiny, "predictions", sink=late).outcome == "superseded"
    after = manifest(tiny)
    assert before and after and (after.of, after.file) == ("decisions", before.file) and after != before
    assert is_settled(tiny, "decisions")


def test_a_receipt_that_came_meanwhile_stays(tiny: TinyProject) -> None:
    """An export of the same step is slow to write its receipt: by then another one has withdrawn it."""
    scored(tiny)
    decide(tiny)
    of_step(tiny, "decisions")
    receipt_file(tiny).unlink()

    class Slow(Interrupted):
        def deliver(self, delivery: Delivery) -> Delivered:
            done = super().deliver(delivery)
            with pytest.raises(SinkError):
                of_step(tiny, "predictions", sink=Interrupted(tiny, lambda: None, is_lost=True))
            return done

    assert of_step(tiny, "decisions", sink=Slow(tiny, lambda: None)).outcome == "unchanged"
    assert is_settled(tiny, "decisions")


# what cannot be exported


def test_a_day_without_predictions_is_refused(tiny: TinyProject) -> None:
    with_export(tiny)
    with pytest.raises(NotPublishedError, match=f"{DAY} has no predictions yet"):
        export(tiny)
    scored(tiny)
    with pytest.raises(NotPublishedError, match=f"{DAY} has no decisions yet"):
        export_day(unchecked(tiny, of="decisions"), NAME, DAY, run_of_test())


def test_decisions_of_older_predictions_are_not_exported_beside_the_new_scores(tiny: TinyProject) -> None:
    fields = {"of": "decisions", "columns": ["id", "action", "prob_class_1"]}
    scored(tiny)
    decide(tiny)
    tiny.deliver("v2", seed=1)
    scored(tiny)
    with pytest.raises(StateError, match="its decisions are not about the predictions"):
        export_day(unchecked(tiny, **fields), NAME, DAY, run_of_test(), sink=NoSink())
    decide(tiny)
    assert export_day(unchecked(tiny, **fields), NAME, DAY, run_of_test()).rows == 12


@pytest.mark.parametrize("error", [SinkError("down"), SinkRefusedError("no right")])
def test_an_export_that_fails_leaves_no_receipt(tiny: TinyProject, error: Exception) -> None:
    scored(with_export(tiny))

    class Failing(NoSink):
        def marker(self, day: str) -> Marker | None:
            return None

        def deliver(self, delivery: Delivery) -> Delivered:
            raise error

    with pytest.raises(type(error)):
        export(tiny, sink=Failing())
    assert tiny.state.receipt(NAME, DAY) is None
    assert export(tiny).outcome == "exported"


def test_every_outcome_is_logged_in_one_line(tiny: TinyProject) -> None:
    scored(with_export(tiny, corrections="keep"))
    said: list[str] = []
    run = StepContext("r", run_of_test().started, said.append)
    for _ in range(2):
        export_day(tiny.pipeline, NAME, DAY, run)
    correct(tiny)
    export_day(tiny.pipeline, NAME, DAY, run)
    assert said == [
        f"list {DAY}: exported, 12 rows",
        f"list {DAY}: is in the sink already, 12 rows by run r",
        f"list {DAY}: was corrected; what was exported stays (corrections: keep), 12 rows",
    ]
    assert set(exports._MESSAGES) == {"exported", "unchanged", "superseded", "kept"}
