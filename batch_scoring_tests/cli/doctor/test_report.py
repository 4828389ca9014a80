"""The report of what was found, without the secrets of whoever said it."""

import pytest

from batch_scoring.cli.doctor import inputs, instance, machine
from batch_scoring.cli.doctor.probe import ProbeFinding, ProbeOutcome
from batch_scoring.cli.doctor.report import DoctorReport


@pytest.mark.parametrize(
    "address", ["postgresql://dagster:pa/hunter22@db/x", "https://hunter22@host/a", "amqp://u:p@hunter22@host"]
)
def test_what_others_say_with_a_password_in_an_address_is_shown_without_it(address: str) -> None:
    outcome = ProbeOutcome(machine.code, "", [ProbeFinding("error", "a", f"cannot connect to {address} at 10:00")])
    report = DoctorReport([outcome], 0.0)
    for shown in (report.text(), report.json()):
        assert "hunter22" not in shown and "://…@" in shown and "at 10:00" in shown


def test_what_a_probe_of_the_deployment_tells_is_its_result_and_no_statement_stands_beside_it() -> None:
    told = ProbeFinding("info", "daemon", "none has ever run here")
    ignored = ProbeFinding("info", "a.csv", "columns that the schema does not know: b; they are ignored")
    outcomes = [ProbeOutcome(instance.daemon, "", [told]), ProbeOutcome(inputs.newest_landing_file, "tiny", [ignored])]
    text = DoctorReport([*outcomes, ProbeOutcome(instance.guards, "")], 0.0).text()
    assert [line.split()[1] for line in text.splitlines() if line.startswith("ok ")] == ["newest", "guards"]
    assert "found:    none has ever run here" in text and text.endswith("\nno errors or warnings; 3 probes, 0.0 s\n")
