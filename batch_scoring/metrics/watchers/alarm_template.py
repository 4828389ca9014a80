"""CloudWatch alarms as a CloudFormation template, one stack a pipeline.

The exporter puts each metric again every five minutes. AWS may store a value twice, so alarms look at a maximum or a
minimum, never at a sum.
"""

from typing import Any, Literal

from batch_scoring.metrics.watchers.alert_rules import LEAST_SCORED_SHARE, LONGEST_SECONDS, MOST_FAILED_ROWS

Json = dict[str, Any]
Statistic = Literal["Maximum", "Minimum"]

NAMESPACE = "BatchScoring"
"""Unless the stack is given another."""
PERIOD = 300
"""Seconds between two values."""
SILENT_PERIODS = 3
"""Periods without a value until the exporter counts as gone."""
DAY_LIMIT = 60 * 3600
"""Age of the newest day, from its beginning, from which on one is missing: that of a pipeline without
`alerts.scored_hours`."""


def template() -> Json:
    """The template."""
    resources = {name: {"Type": "AWS::CloudWatch::Alarm", "Properties": alarm} for name, alarm in _alarms().items()}
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "Alarms on a pipeline of batch_scoring. Create one stack for each pipeline.",
        "Parameters": _parameters(),
        "Resources": resources,
    }


def _parameters() -> Json:
    return {
        "Pipeline": {"Type": "String", "Description": "Name of the pipeline.", "MinLength": 1},
        "Topic": {
            "Type": "String",
            "Description": "ARN of the SNS topic that is notified.",
            "AllowedPattern": "^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_.-]+$",
        },
        "Namespace": {"Type": "String", "Description": "As given to the exporter.", "Default": NAMESPACE},
        "DayAgeLimit": _number("Seconds from the beginning of a scored day until the next one is missing.", DAY_LIMIT),
        "FailedRecordsLimit": _number("Rows of a day that may be without a score.", MOST_FAILED_ROWS),
        "SuccessRateLimit": _number("Least percentage of a day's rows with a score.", round(100 * LEAST_SCORED_SHARE)),
        "DurationLimit": _number("Seconds that a day may take.", LONGEST_SECONDS),
    }


def _number(description: str, default: int) -> Json:
    return {"Type": "Number", "Description": description, "Default": default, "MinValue": 0}


def _alarms() -> dict[str, Json]:
    return {
        "DayMissing": _alarm(
            "a day is missing",
            "No day has been scored since the newest one became too old. Run: batch-scoring backfill ${Pipeline} "
            "--stale --failed --dry-run",
            "DayAge",
            "Maximum",
            "DayAgeLimit",
        ),
        "RowsFailed": _alarm(
            "rows without a score",
            "Rows of the newest scored day were rejected, or not scored by the model. The table quarantine says why.",
            "FailedRecords",
            "Maximum",
            "FailedRecordsLimit",
        ),
        "FewRowsScored": _alarm(
            "few rows are scored",
            "Too few rows of the newest scored day have a score. The table quarantine says why.",
            "SuccessRate",
            "Minimum",
            "SuccessRateLimit",
        ),
        "DaySlow": _alarm(
            "a day took too long",
            "The newest scored day took longer than it may.",
            "Duration",
            "Maximum",
            "DurationLimit",
        ),
        "ExporterSilent": {
            **_described(
                "no metrics",
                "The exporter sends nothing: it is gone, it cannot read the state, or no day has been scored yet. Run: "
                "batch-scoring metrics --once and batch-scoring doctor ${Pipeline}",
            ),
            **_measured("DayAge", "Minimum"),
            "ComparisonOperator": "LessThanThreshold",
            "Threshold": 0,  # never so: only silence raises this alarm
            "EvaluationPeriods": SILENT_PERIODS,
            "DatapointsToAlarm": SILENT_PERIODS,
            "TreatMissingData": "breaching",
        },
    }


def _alarm(title: str, description: str, metric: str, statistic: Statistic, limit: str) -> Json:
    """An alarm on a value that is above its limit or, of a minimum, below it."""
    return {
        **_described(title, description),
        **_measured(metric, statistic),
        "ComparisonOperator": "GreaterThanThreshold" if statistic == "Maximum" else "LessThanThreshold",
        "Threshold": {"Ref": limit},
        "EvaluationPeriods": 1,
        "TreatMissingData": "ignore",  # as it was: silence has an alarm of its own
    }


def _described(title: str, description: str) -> Json:
    return {
        "AlarmName": {"Fn::Sub": f"${{Namespace}} ${{Pipeline}}: {title}"},
        "AlarmDescription": {"Fn::Sub": description} if "${" in description else description,
        "AlarmActions": [{"Ref": "Topic"}],
        "OKActions": [{"Ref": "Topic"}],
    }


def _measured(metric: str, statistic: Statistic) -> Json:
    return {
        "Namespace": {"Ref": "Namespace"},
        "MetricName": metric,
        "Dimensions": [{"Name": "Pipeline", "Value": {"Ref": "Pipeline"}}],
        "Statistic": statistic,
        "Period": PERIOD,
    }
