"""Findings: what stops a day, what is an error, and what the state keeps."""

import pytest

from batch_scoring.monitoring.finding import Finding, is_error, record, stops
from batch_scoring_tests.checked import settings
from batch_scoring_tests.tiny import DAY, TinyProject

CHECK = "row_count_is_usual"


@pytest.mark.parametrize(
    ("spec", "finding", "is_stop", "is_bad"),
    [
        pytest.param({"blocking": True}, Finding(CHECK, True, ""), False, False, id="a passed check stops nothing"),
        pytest.param({}, Finding(CHECK, False, ""), False, False, id="a failed one warns"),
        pytest.param({"blocking": True}, Finding(CHECK, False, ""), True, True, id="unless it is a blocking one"),
        pytest.param({}, Finding(CHECK, False, "", blocks=True), True, True, id="or is beyond a second bound"),
        pytest.param({"severity": "error"}, Finding(CHECK, False, ""), False, True, id="an error need not stop"),
    ],
)
def test_the_spec_and_the_finding_say_what_stops_a_day(
    tiny: TinyProject, spec: dict[str, object], finding: Finding, is_stop: bool, is_bad: bool
) -> None:
    settings(tiny, **{CHECK: spec})
    pipeline = tiny.pipeline
    assert (stops(pipeline, finding), is_error(pipeline, finding)) == (is_stop, is_bad)


def test_a_finding_is_printable_in_its_message_and_its_figures() -> None:
    finding = Finding(CHECK, False, "file \x1b[2Ja", {"name": "b\x07", "rows": 3}).printable()
    assert "\x1b" not in finding.message and "\x07" not in finding.figures["name"]
    assert finding.message.startswith("file ") and finding.figures["rows"] == 3


def test_the_same_findings_again_are_not_written_again(tiny: TinyProject) -> None:
    finding = Finding(CHECK, False, "50 rows", observed=50.0)
    record(tiny.pipeline, "raw_input", [finding], "first", DAY)
    record(tiny.pipeline, "raw_input", [finding], "second", DAY)
    kept = tiny.state.checks("raw_input", DAY)
    assert kept is not None and kept.run_id == "first"
    said = kept.checks[CHECK]
    assert (said.passed, said.observed, said.message, said.stopped) == (False, 50.0, "50 rows", False)
    record(tiny.pipeline, "raw_input", [Finding(CHECK, True, "90 rows", observed=90.0)], "third", DAY)
    kept = tiny.state.checks("raw_input", DAY)
    assert kept is not None and kept.run_id == "third" and kept.checks[CHECK].passed


def test_a_damaged_document_is_replaced(tiny: TinyProject) -> None:
    tiny.pipeline.output.put(f"state/dt={DAY}/checks/raw_input.json", b"{")
    record(tiny.pipeline, "raw_input", [Finding(CHECK, True, "")], "run", DAY)
    kept = tiny.state.checks("raw_input", DAY)
    assert kept is not None and kept.run_id == "run"
