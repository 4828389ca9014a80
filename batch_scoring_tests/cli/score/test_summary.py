"""The summary at the end of `batch-scoring score`."""

from datetime import UTC, datetime

from batch_scoring.cli.score.locations import InputFiles, OutputFiles
from batch_scoring.cli.score.summary import Summary
from batch_scoring.ingest.quarantine import Rejected
from batch_scoring.ingest.schema.contract import Reason
from batch_scoring.monitoring.finding import Finding
from batch_scoring.storage.folders.local import LocalFolder

STOPPING = Finding("quarantine_is_small", False, "too many rows")
WARNING = Finding("categories_are_known", False, "a new colour")


def summary(*reasons: str, value: str = "x", stopping: tuple[Finding, ...] = ()) -> Summary:
    """Of a command that has rejected ten rows for the first reason, and for each other one row more than before."""
    folder, counts = LocalFolder("/nowhere"), {reason: 10 + number for number, reason in enumerate(reasons)}
    row = Rejected(Reason("rule", "is_finite", "x", value), "k", "deep/a.csv", 1234, "{}")
    return Summary(
        pipeline="tiny",
        source=InputFiles("/nowhere/in", folder, (), is_file=False),
        output=OutputFiles(folder, ".csv", "out.csv", "out.quarantine.csv", None),
        run_id="run",
        started=datetime(2024, 3, 4, tzinfo=UTC),
        seconds=3.0,
        loading=1.0,
        rows_in=10_000,
        rows_scored=10_000 - sum(counts.values()),
        counts={"rule": counts} if counts else {},
        examples={("rule", reason): row for reason in reasons},
        model_version="v1",
        model_sha256="0123456789abcdef",
        device="cpu",
        batch_rows=64,
        unknown={},
        failed=(WARNING, *stopping),
        stopping=stopping,
    )


def test_the_text_lists_the_reasons_with_most_rows_and_adds_up_the_others() -> None:
    text = summary(*(f"reason {number:02}" for number in range(14)), value="word " * 30).text()
    lines = text.splitlines()
    listed = [line for line in lines if "  rule  " in line]
    assert [line.split()[3] for line in listed] == [f"{number:02}" for number in range(13, 1, -1)]
    assert any(line.split() == ["21", "for", "2", "more", "reasons"] for line in lines)
    assert "(a.csv row 1,234: word" in listed[0] and listed[0].endswith("…)") and max(map(len, lines)) < 120
    assert "5,000 rows/s" in text and "warning      categories_are_known: a new colour\n" in text


def test_a_quarantine_is_named_only_where_it_is_written() -> None:
    assert "/nowhere/out.quarantine.csv" in summary("one").text()
    clean, stopped = summary().text(), summary("one", stopping=(STOPPING,)).text()
    assert clean.endswith("predictions  /nowhere/out.csv\n")
    assert stopped.endswith("output       nothing is written\n") and "too many rows" not in stopped


def test_the_document_says_which_failed_check_stopped_the_command() -> None:
    found = summary("one", stopping=(STOPPING,)).document()
    assert found["failed_checks"] == [
        {"check": "categories_are_known", "stopped": False, "message": "a new colour"},
        {"check": "quarantine_is_small", "stopped": True, "message": "too many rows"},
    ]
    assert (found["rows_in"], found["rows_scored"], found["rows_quarantined"], found["written"]) == (
        10_000,
        9_990,
        10,
        False,
    )
