"""What is found about exports."""

from datetime import UTC, datetime

import pytest

from batch_scoring.delivery.exports.findings import not_whole, whole
from batch_scoring.storage.state import ExportReceipt


def receipt(rows: int, sent: int | None) -> ExportReceipt:
    now = datetime.now(UTC)
    return ExportReceipt(
        pipeline="p",
        export="list",
        day="2024-03-04",
        of="predictions",
        created=1,
        transaction=1,
        files=(),
        settings="s",
        outcome="unchanged" if sent is None else "exported",
        rows=rows,
        sent=sent,
        run_id="r",
        began_at=now,
        finished_at=now,
    )


@pytest.mark.parametrize(("rows", "sent", "passed"), [(5, 5, True), (0, 0, True), (4, 5, False), (6, 5, False)])
def test_a_sink_shows_as_many_rows_as_were_sent(rows: int, sent: int, *, passed: bool) -> None:
    finding = whole(receipt(rows, sent))
    assert (finding.passed, finding.observed, finding.expected) == (passed, rows, str(sent))
    assert finding.message == f"{rows} rows in the sink of {sent} that were sent"


def test_without_a_delivery_there_is_nothing_to_compare() -> None:
    finding = whole(receipt(5, None))
    assert (finding.passed, finding.observed, finding.message) == (True, None, "unchanged: no row was sent")


def test_rows_that_a_sink_has_lost_fail_the_check() -> None:
    finding = not_whole(RuntimeError("4 of 5 keys are there"))
    assert (finding.check, finding.passed, finding.message) == ("export_is_whole", False, "4 of 5 keys are there")
