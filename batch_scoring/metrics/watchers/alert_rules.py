"""Alert rules for Prometheus: when somebody has to look at a pipeline, and what to do then.

The rules see what the exporter read from the state, so they also find what can report nothing itself: a run that was
killed, a daemon that is gone, a store that does not answer. A metric says since when something has been so, wherever
it can; then neither a lost scrape nor a restart of Prometheus starts the wait anew.
"""

from dataclasses import dataclass
from typing import Any, Literal

from batch_scoring.metrics.catalogue import (
    DAEMON_HEARTBEAT,
    DAMAGED_DOCUMENTS,
    DAY_CHECK_PASSED,
    EXPORTS_PENDING,
    FAILED_PARTITIONS,
    IN_PROGRESS_SINCE,
    INSTANCE_READABLE,
    NEWEST_DAY,
    NEWEST_DAY_LIMIT,
    PIPELINE_BROKEN,
    STATE_READ_TIMESTAMP,
    STATE_READABLE,
)
from batch_scoring.metrics.watchers.promql import JOB, age, failed_rows, scored_share, value

GUIDE = "docs/guides/monitoring.md"
"""Has a section on each alert."""

KEEP_FIRING = "15m"
"""An alert whose metric is absent for this long is not over: the exporter may be restarting."""

LONGEST_SECONDS = 3600
"""Time that a day may be in progress."""
MOST_FAILED_ROWS = 100
LEAST_SCORED_SHARE = 0.95
SECONDS_TO_READ = 900
"""Age up to which what was read from the state is good enough."""
SECONDS_OF_SILENCE = 600
"""Time that a part of the daemon may be silent."""

Severity = Literal["critical", "warning"]
"""Critical: scores are missing, or nobody would know. Warning: published, but somebody should look at it."""


@dataclass(frozen=True)
class Alert:
    """A rule that raises an alert."""

    name: str
    severity: Severity
    expression: str
    """In PromQL; true while there is something to report."""
    summary: str
    """One line that names the pipeline."""
    description: str
    """What is known, and which command to run."""
    wait: str = ""
    """How long the expression has to be true before the alert fires."""

    @property
    def link(self) -> str:
        """The guide's section on this alert."""
        return f"{GUIDE}#{self.name.lower()}"

    def rule(self) -> dict[str, Any]:
        """The rule, as Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expression,
            **({"for": self.wait} if self.wait else {}),
            "keep_firing_for": KEEP_FIRING,
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary, "description": self.description, "runbook_url": self.link},
        }


_PIPELINE = "{{ $labels.pipeline }}"
_DURATION = "{{ $value | humanizeDuration }}"
_NUMBER = '{{ $value | printf "%.0f" }}'
_EXPORT, _CHECK, _ASSET, _DAEMON = (f"{{{{ $labels.{label} }}}}" for label in ("export", "check", "asset", "daemon"))
_PERCENTAGE = "{{ $value | humanizePercentage }}"

DAYS = (
    Alert(
        "BatchScoringDayMissing",
        "critical",
        f"{age(NEWEST_DAY)}\n> {value(NEWEST_DAY_LIMIT)}",
        f"{_PIPELINE}: a day is missing",
        f"The newest scored day of {_PIPELINE} began {_DURATION} ago, and the next one is not scored. "
        f"`batch-scoring backfill {_PIPELINE} FIRST LAST --dry-run` says of each day whether it has landed, or why it "
        f"failed; `batch-scoring doctor {_PIPELINE}` finds what is misconfigured.",
    ),
    Alert(
        "BatchScoringNoScoredDay",
        "critical",
        # it is there, was there 36 hours ago, and has no scored day
        f"{value(STATE_READABLE, window='10m')} == 1\n"
        f"and {value(STATE_READABLE, window='1h', offset='36h')}\n"
        f"unless {value(NEWEST_DAY, window='10m')}",
        f"{_PIPELINE}: no day has ever been scored",
        f"{_PIPELINE} has been deployed for 36 hours without a scored day. `batch-scoring doctor {_PIPELINE}` finds "
        f"what it lacks; `batch-scoring backfill {_PIPELINE} FIRST LAST` scores days that have landed.",
    ),
    Alert(
        "BatchScoringDayStuck",
        "critical",
        f"{age(IN_PROGRESS_SINCE)} > {LONGEST_SECONDS}",
        f"{_PIPELINE}: a day has been in progress for {_DURATION}",
        f"A day of {_PIPELINE} was started {_DURATION} ago, is not scored, and no failure is recorded: its run hangs, "
        f"or its process is gone. `batch-scoring doctor {_PIPELINE}` shows the daemon and dead runs; once the run has "
        f"ended, `batch-scoring backfill {_PIPELINE} --stale --failed` continues from its finished shards.",
    ),
    Alert(
        "BatchScoringDayFailed",
        "critical",
        f"{value(FAILED_PARTITIONS, window='10m')} > 0",
        f"{_PIPELINE}: failed days that have not recovered: {_NUMBER}",
        f"Days of {_PIPELINE} whose run failed and that no later run has scored: {_NUMBER}. "
        f"`batch-scoring failures {_PIPELINE}` shows why; `batch-scoring backfill {_PIPELINE} --failed --dry-run` "
        "lists the days, without `--dry-run` it runs them again.",
        wait="1h",  # by default two retries, after pauses of at most 19 minutes in all, come first
    ),
)

ROWS = (
    Alert(
        "BatchScoringRowsFailed",
        "warning",
        f"{failed_rows()} > {MOST_FAILED_ROWS}",
        f"{_PIPELINE}: rows without a score: {_NUMBER}",
        f"Rows of the newest scored day of {_PIPELINE} that were rejected, or not scored by the model: {_NUMBER}. "
        "The table `quarantine` says why, row by row.",
    ),
    Alert(
        "BatchScoringFewRowsScored",
        "critical",
        f"{scored_share()}\n< {LEAST_SCORED_SHARE}",
        f"{_PIPELINE}: only {_PERCENTAGE} of the rows are scored",
        f"Only {_PERCENTAGE} of the rows of the newest scored day of {_PIPELINE} have a score. The table `quarantine` "
        "says why, row by row. Upload a corrected file: the day is scored again by itself, or by "
        f"`batch-scoring backfill {_PIPELINE} --stale`.",
    ),
    Alert(
        "BatchScoringCheckFailed",
        "warning",
        f"{value(DAY_CHECK_PASSED)} == 0",
        f"{_PIPELINE}: the check {_CHECK} failed",
        f"On the newest scored day of {_PIPELINE} the check {_CHECK} of {_ASSET} failed. "
        "Dagster's UI and the page of the month show what was found and expected; `batch-scoring backfill "
        f"{_PIPELINE} --stale --dry-run` lists days that are not current.",
    ),
)

EXPORTS = (
    Alert(
        "BatchScoringExportBehind",
        "warning",
        f"{value(EXPORTS_PENDING, window='10m')} > 0",
        f"{_PIPELINE}: the export {_EXPORT} is behind",
        f"Days that the export {_EXPORT} of {_PIPELINE} has not brought to its sink for an hour: {_NUMBER}. "
        f"`batch-scoring export {_PIPELINE} {_EXPORT} FIRST LAST --dry-run` lists them, without `--dry-run` it exports "
        f"them at once; `batch-scoring doctor {_PIPELINE}` tests the sink.",
        wait="1h",
    ),
)

DEPLOYMENT = (
    Alert(
        "BatchScoringPipelineBroken",
        "critical",
        f"{value(PIPELINE_BROKEN, window='10m')} > 0",
        f"{_PIPELINE}: left out of the deployment",
        f"The files of {_PIPELINE} are invalid, so no day of it is scored. `batch-scoring doctor {_PIPELINE}` prints "
        "the errors with file and line.",
        wait="10m",
    ),
    Alert(
        "BatchScoringStateUnreadable",
        "critical",
        f"{value(STATE_READABLE, window='10m')} == 0\nor {age(STATE_READ_TIMESTAMP)} > {SECONDS_TO_READ}",
        f"{_PIPELINE}: its state cannot be read",
        f"The exporter cannot read the state of {_PIPELINE}, so all its other metrics are old. "
        f"`batch-scoring doctor {_PIPELINE}` tests the store and its permissions.",
        wait="10m",
    ),
    Alert(
        "BatchScoringDocumentsDamaged",
        "warning",
        f"{value(DAMAGED_DOCUMENTS, window='10m')} > 0",
        f"{_PIPELINE}: damaged documents in its state: {_NUMBER}",
        f"Documents about recent days of {_PIPELINE} that cannot be read: {_NUMBER}. "
        "The page of the month names them; remove each, and run its day again: "
        f"`batch-scoring backfill {_PIPELINE} FIRST LAST`.",
        wait="15m",
    ),
    Alert(
        "BatchScoringDaemonSilent",
        "critical",
        f"{age(DAEMON_HEARTBEAT)} > {SECONDS_OF_SILENCE}",
        f"The Dagster daemon ({_DAEMON}) is silent",
        f"The last heartbeat of {_DAEMON} was {_DURATION} ago: nothing is started, retried or exported, "
        "and no alert is sent by the project itself. Restart the Dagster daemon; `batch-scoring doctor` examines it.",
    ),
    Alert(
        "BatchScoringInstanceUnreadable",
        "warning",
        f"{value(INSTANCE_READABLE, window='10m')} == 0",
        "The Dagster instance cannot be read",
        "The exporter cannot read the Dagster instance, so nobody watches its daemon. `batch-scoring doctor` tests the "
        "instance and its databases.",
        wait="10m",
    ),
    Alert(
        "BatchScoringExporterUnseen",
        "critical",
        f'max without (instance, pod) (up{{job="{JOB}"}}) == 0\nor on () absent({STATE_READABLE.full_name})',
        "The metrics exporter is not seen",
        "Prometheus gets no metrics of any pipeline, so none of the other alerts can fire. Restart the exporter; "
        "`batch-scoring metrics --once` prints what it would serve.",
        wait="10m",
    ),
)

ALERTS = (*DAYS, *ROWS, *EXPORTS, *DEPLOYMENT)


def rule_file() -> dict[str, Any]:
    """The rules, as Prometheus reads them from a file."""
    groups = {"days": DAYS, "rows": ROWS, "exports": EXPORTS, "deployment": DEPLOYMENT}
    return {
        "groups": [
            {"name": f"batch-scoring-{name}", "rules": [alert.rule() for alert in alerts]}
            for name, alerts in groups.items()
        ]
    }
