"""Tests of the CloudWatch alarms: by cfn-lint, and by what CloudWatch's own interface accepts."""

import copy
import json
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from moto import mock_aws

from batch_scoring.metrics import cloudwatch
from batch_scoring.metrics.catalogue import DAY_DURATION, DAY_ROWS, NEWEST_DAY, STATE_READABLE, Sample
from batch_scoring.metrics.watchers.alarm_template import template
from batch_scoring.metrics.watchers.alert_rules import LEAST_SCORED_SHARE

TOPIC = "arn:aws:sns:eu-central-1:123456789012:scoring"
GIVEN = {"Pipeline": "churn", "Topic": TOPIC}
SAMPLES = [
    Sample(STATE_READABLE, ("churn",), 1),
    Sample(DAY_ROWS, ("churn", "scored"), 9),
    Sample(NEWEST_DAY, ("churn",), 0),
    Sample(DAY_DURATION, ("churn", "predictions"), 60),
]


def alarms(**given: str) -> dict[str, dict[str, Any]]:
    """The properties of each alarm in a stack with these parameters."""
    made = template()
    values = {name: parameter.get("Default") for name, parameter in made["Parameters"].items()} | GIVEN | given
    return {name: resolved(resource["Properties"], values) for name, resource in made["Resources"].items()}


def resolved(part: Any, values: dict[str, Any]) -> Any:  # noqa: ANN401  (any part of a template)
    """A part of the template, as CloudFormation fills it in."""
    match part:
        case {"Ref": name}:
            return values[name]
        case {"Fn::Sub": text}:
            for name, value in values.items():
                text = text.replace(f"${{{name}}}", str(value))
            return text
        case dict():
            return {name: resolved(value, values) for name, value in part.items()}
        case list():
            return [resolved(value, values) for value in part]
    return part


def test_cfn_lint_has_nothing_to_object_to() -> None:
    assert objections(template()) == []


def test_cfn_lint_finds_planted_mistakes() -> None:
    planted = template()
    planted["Resources"]["DayMissing"]["Properties"]["ComparisonOperator"] = "GreaterThan"
    planted["Resources"]["RowsFailed"]["Properties"]["AlarmActions"] = [{"Ref": "Tpoic"}]
    operator, reference = sorted(objections(planted))
    assert operator.startswith("'GreaterThan' is not one of")
    assert reference.startswith("'Tpoic' is not one of")


def objections(made: dict[str, Any]) -> list[str]:
    """Errors and warnings of cfn-lint."""
    from cfnlint.api import lint

    return [match.message for match in lint(json.dumps(made), regions=["eu-central-1", "us-east-1"])]


@mock_aws
def test_cloudwatch_accepts_every_alarm() -> None:
    client = boto3.client("cloudwatch", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b")
    expected = alarms()
    for alarm in expected.values():
        client.put_metric_alarm(**alarm)
    stored = {alarm["AlarmName"]: alarm for alarm in client.describe_alarms()["MetricAlarms"]}
    assert stored.keys() == {alarm["AlarmName"] for alarm in expected.values()}
    for alarm in expected.values():
        assert {name: stored[alarm["AlarmName"]][name] for name in alarm} == alarm


def test_alarms_are_of_metrics_that_are_sent_and_never_of_a_sum() -> None:
    """AWS may store a value twice."""
    sent = [(datum["MetricName"], datum["Dimensions"]) for datum in cloudwatch.data(SAMPLES, datetime.now(UTC))]
    for alarm in alarms().values():
        assert (alarm["MetricName"], alarm["Dimensions"]) in sent
        assert alarm["Statistic"] in ("Maximum", "Minimum")
        assert alarm["Period"] == cloudwatch.EVERY_SECONDS
        assert alarm["AlarmActions"] == alarm["OKActions"] == [TOPIC]
        assert 0 < alarm["Period"] * alarm["EvaluationPeriods"] <= 86_400


def test_silence_raises_one_alarm_alone() -> None:
    breaching = [name for name, alarm in alarms().items() if alarm["TreatMissingData"] == "breaching"]
    assert breaching == ["ExporterSilent"]


@pytest.mark.parametrize(
    ("name", "value", "is_raised"),
    [
        ("DayMissing", 60 * 3600, False),
        ("DayMissing", 60 * 3600 + 1, True),
        ("RowsFailed", 100, False),
        ("RowsFailed", 101, True),
        ("FewRowsScored", 100 * LEAST_SCORED_SHARE, False),
        ("FewRowsScored", 94.9, True),
        ("DaySlow", 3600, False),
        ("DaySlow", 3601, True),
        ("ExporterSilent", 0, False),
    ],
)
def test_both_sides_of_every_threshold(name: str, value: float, is_raised: bool) -> None:
    alarm = alarms()[name]
    compare = {"GreaterThanThreshold": float.__gt__, "LessThanThreshold": float.__lt__}[alarm["ComparisonOperator"]]
    assert compare(float(value), float(alarm["Threshold"])) is is_raised


def test_two_stacks_have_alarms_of_their_own() -> None:
    names = [alarm["AlarmName"] for pipeline in ("churn", "fraud") for alarm in alarms(Pipeline=pipeline).values()]
    assert len({*names}) == len(names)


def test_a_template_is_made_anew_each_time() -> None:
    made, before = template(), copy.deepcopy(template())
    made["Resources"].clear()
    assert template() == before
