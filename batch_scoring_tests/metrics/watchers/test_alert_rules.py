"""Tests of the alert rules, read by Prometheus' own program."""

import re
import shlex
import subprocess

import pytest

from batch_scoring.cli.subcommands import SUBCOMMANDS
from batch_scoring.config.loader import PROJECT
from batch_scoring.metrics.catalogue import METRICS
from batch_scoring.metrics.watchers.alert_rules import ALERTS, GUIDE, Alert, rule_file
from batch_scoring.metrics.watchers.deployment import FOLDER, RULES
from batch_scoring_tests.monitoring_servers import needs

every_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
METRICS_BY_NAME = {metric.full_name: metric for metric in METRICS}


@needs("promtool")
def test_promtool_accepts_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", FOLDER / RULES], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_every_alert_is_in_one_group() -> None:
    rules = [rule["alert"] for group in rule_file()["groups"] for rule in group["rules"]]
    assert rules == [alert.name for alert in ALERTS]
    assert len({*rules}) == len(rules)


@every_alert
def test_an_alert_asks_for_metrics_of_the_catalogue(alert: Alert) -> None:
    asked = set(re.findall(r"\bbatch_scoring_\w+", alert.expression))
    assert asked
    assert asked <= METRICS_BY_NAME.keys()


@every_alert
def test_an_alert_names_whom_it_is_about(alert: Alert) -> None:
    """The pipeline, the export, the check or the part of the daemon, in the summary; what these labels are is known."""
    asked = [METRICS_BY_NAME[name] for name in re.findall(r"\bbatch_scoring_\w+", alert.expression)]
    used = set(re.findall(r"\$labels\.(\w+)", alert.summary + alert.description))
    known = {label for metric in asked for label in metric.labels} - {"outcome", "asset"}
    if alert.name != "BatchScoringExporterUnseen":  # which knows no pipeline, since there is none to be seen
        assert set(re.findall(r"\$labels\.(\w+)", alert.summary)) == known
        assert used - {"asset"} == known


@every_alert
def test_numbers_are_written_out(alert: Alert) -> None:
    """Without a format, a million rows would be 1e+06."""
    assert "$value }}" not in alert.summary + alert.description


@every_alert
def test_an_alert_says_which_command_to_run(alert: Alert) -> None:
    commands = [shlex.split(text)[1] for text in re.findall(r"`(batch-scoring [^`]+)`", alert.description)]
    assert commands or "quarantine" in alert.description
    assert {*commands} <= {*SUBCOMMANDS, "metrics"}


@every_alert
def test_an_alert_leads_to_its_section_of_the_guide(alert: Alert) -> None:
    headings = re.findall(r"^#+ (.*)$", (PROJECT / GUIDE).read_text("utf-8"), re.MULTILINE)
    assert alert.name in headings
    assert alert.rule()["annotations"]["runbook_url"] == f"{GUIDE}#{alert.name.lower()}"


@every_alert
def test_a_lost_scrape_ends_no_alert(alert: Alert) -> None:
    assert alert.rule()["keep_firing_for"] == "15m"
