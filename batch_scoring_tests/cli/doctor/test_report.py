"""The report of what was found, without the secrets of whoever said it."""

import pytest

from batch_scoring.cli.doctor import machine
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
