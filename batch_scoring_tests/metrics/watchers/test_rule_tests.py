"""Tests of the unit tests of the alert rules: they pass, and they fail for rules that are changed."""

import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from batch_scoring.metrics.watchers.alert_rules import ALERTS, rule_file
from batch_scoring.metrics.watchers.deployment import FOLDER, RULES
from batch_scoring.metrics.watchers.rule_tests import boundaries, files
from batch_scoring_tests.monitoring_servers import needs

EXACT, FORTNIGHT = files(RULES)
Rule = dict[str, Any]
Change = Callable[[Rule], object]


def promtool(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", "test", "rules", *names], cwd=folder, capture_output=True, text=True, check=False
    )


@needs("promtool")
@pytest.mark.parametrize("name", [EXACT, FORTNIGHT])
def test_the_rules_pass(name: str) -> None:
    done = promtool(FOLDER, name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test_of_its_boundary() -> None:
    assert {boundary.alert for boundary in boundaries()} == {alert.name for alert in ALERTS}


def test_both_sides_of_a_boundary_are_a_minute_apart() -> None:
    for boundary in boundaries():
        assert minutes(boundary.fires) - minutes(boundary.quiet) == 1, boundary.alert


def minutes(duration: str) -> int:
    return sum(int(count) * {"h": 60, "m": 1}[unit] for count, unit in re.findall(r"(\d+)([hm])", duration))


def with_pods(rule: Rule) -> None:
    rule["expr"] = rule["expr"].replace("without (instance, pod)", "without (pod)")


def without_bridge(rule: Rule) -> None:
    rule["expr"] = re.sub(r"last_over_time\((\w+)\[10m]\)", r"\1", rule["expr"])


def shorter(rule: Rule) -> None:
    rule["expr"] = rule["expr"].replace("> 3600", "> 2400")


def never(rule: Rule) -> None:
    rule["expr"] = "vector(0) > 1"


def impatient(rule: Rule) -> None:
    rule["for"] = "15m"


CHANGES: list[tuple[str, Change]] = [
    ("BatchScoringDayStuck", with_pods),
    ("BatchScoringDayStuck", lambda rule: rule.pop("keep_firing_for")),
    ("BatchScoringDayFailed", without_bridge),
    ("BatchScoringFewRowsScored", lambda rule: rule.update(expr=rule["expr"].replace("<", "<="))),
    ("BatchScoringExporterUnseen", lambda rule: rule.update(expr=rule["expr"].partition("or on")[0])),
    *((alert.name, never) for alert in ALERTS),
]
"""Rules that are wrong in a way that the tests have to find."""
FALSE_ALARMS: dict[str, Change] = {
    "BatchScoringDayStuck": shorter,
    "BatchScoringDayFailed": impatient,
    "BatchScoringExportBehind": impatient,
}
"""Rules that would be raised by what is normal."""


@needs("promtool")
@pytest.mark.parametrize(("alert", "change"), CHANGES)
def test_a_wrong_rule_is_found(alert: str, change: Change, tmp_path: Path) -> None:
    tests = files(RULES)[EXACT]
    tests["tests"] = [test for test in tests["tests"] if alert in str(test)]  # to save time
    assert alert in objections(tmp_path, {alert: change}, EXACT, tests)


@needs("promtool")
def test_a_false_alarm_is_found(tmp_path: Path) -> None:
    said = objections(tmp_path, FALSE_ALARMS, FORTNIGHT, files(RULES)[FORTNIGHT])
    assert set(re.findall(r'alertname="(\w+)"', said)) == FALSE_ALARMS.keys()


def objections(folder: Path, changes: Mapping[str, Change], name: str, tests: dict[str, Any]) -> str:
    """What promtool says of changed rules."""
    rules = rule_file()
    for rule in [rule for group in rules["groups"] for rule in group["rules"] if rule["alert"] in changes]:
        before = dict(rule)
        changes[rule["alert"]](rule)
        assert rule != before
    (folder / RULES).write_text(yaml.safe_dump(rules))
    (folder / name).write_text(yaml.safe_dump(tests))
    done = promtool(folder, name)
    assert (done.returncode, "FAILED" in done.stdout + done.stderr) == (1, True)
    return done.stdout + done.stderr
