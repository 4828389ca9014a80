"""`batch-scoring test-alert` as typed."""

import pytest

from batch_scoring.cli.main import main


def test_without_a_channel_the_command_says_where_alerts_go_and_exits_with_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["test-alert"]) == 1
    assert capsys.readouterr().out == "ALERT_URLS is not set: messages go to the log of the sensor alerts\n"


def test_a_channel_that_is_not_understood_is_named_without_its_password_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALERT_URLS", "nosuch://user:hunter22@chat.example.com")
    assert main(["test-alert"]) == 1
    said = capsys.readouterr().out
    assert said.startswith("ALERT_URLS[1]") and said.endswith(": not understood by apprise\n") and "hunter" not in said
