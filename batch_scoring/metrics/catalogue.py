"""Every metric: its name, what it says, and its labels.

All are gauges: each says how things stand when it is read, so a lost scrape loses nothing. Names follow Prometheus'
conventions: base units, the unit last. No label is a day or a run: those would make a new series every night, and a
rule could not follow one.
"""

from dataclasses import dataclass
from typing import Literal, get_args

PREFIX = "batch_scoring_"

RECENT_DAYS = 21
"""Newest days with documents in the state that are read: three of each weekday, within 100 requests on S3."""

Outcome = Literal["scored", "rejected", "unscored"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
"""What becomes of a day's input rows: scored, rejected by validation, or accepted and not scored by the model."""

DayState = Literal["scored", "in_progress", "failed"]
DAY_STATES: tuple[DayState, ...] = get_args(DayState)
"""How a day stands whose input is pinned."""

Side = Literal["features", "predictions"]
SIDES: tuple[Side, ...] = get_args(Side)


@dataclass(frozen=True)
class Metric:
    """A gauge."""

    name: str
    """Without the prefix."""
    help: str
    labels: tuple[str, ...] = ("pipeline",)

    @property
    def full_name(self) -> str:
        """The name by which a monitoring system knows it."""
        return PREFIX + self.name


LAST_SUCCESS = Metric("last_success_timestamp_seconds", "When a recent day was last scored and published.")
NEWEST_DAY = Metric("newest_day_timestamp_seconds", "When the newest scored day began, in the pipeline's time zone.")
NEWEST_DAY_LIMIT = Metric(
    "newest_day_limit_seconds",
    "Time from the beginning of the newest scored day to the deadline of the next one, after which a day is missing: "
    "24 hours and alerts.scored_hours, 60 hours without that setting.",
)
IN_PROGRESS_SINCE = Metric(
    "in_progress_since_timestamp_seconds",
    "Since when the oldest day in progress is: its input is pinned, it is not scored, and no failure is recorded. "
    "Absent if there is none.",
)
RECENT_PARTITIONS = Metric("recent_partitions", "Recent days by how they stand.", ("pipeline", "state"))

DAY_ROWS = Metric("day_rows", "Input rows of the newest scored day by what became of them.", ("pipeline", "outcome"))
DAY_DURATION = Metric(
    "day_duration_seconds", "Wall time of a step of the newest scored day, up to its commit.", ("pipeline", "step")
)
DAY_CPU = Metric("day_cpu_seconds", "CPU time of a step of the newest scored day.", ("pipeline", "step"))
DAY_GPU = Metric("day_gpu_seconds", "GPU time of a step of the newest scored day.", ("pipeline", "step"))
DAY_COST = Metric("day_cost", "Cost of the newest scored day, if the spec has prices.", ("pipeline", "currency"))
DAY_CHECK_PASSED = Metric(
    "day_check_passed", "Whether a check passed on the newest scored day.", ("pipeline", "asset", "check")
)
DAY_DRIFT = Metric(
    "day_drift_ratio",
    "Largest distance of the newest day with a comparison from the reference, divided by its threshold: from 1 on it "
    "has drifted.",
    ("pipeline", "side"),
)
DAY_SCORE_MEAN = Metric("day_score_mean", "Mean of a score column on the newest scored day.", ("pipeline", "column"))
DAY_DECISIONS = Metric(
    "day_decisions", "Rows of the newest scored day by action; `none` for those without one.", ("pipeline", "action")
)

EXPORT_LAST_SUCCESS = Metric(
    "export_last_success_timestamp_seconds", "When an export last brought a day to its sink.", ("pipeline", "export")
)
EXPORTS_PENDING = Metric(
    "exports_pending", "Recent days whose export is not of what is published.", ("pipeline", "export")
)

FAILED_RUNS = Metric(
    "failed_runs",
    "Runs that failed in the last 24 hours by failure class; superseded ones are no failures.",
    ("pipeline", "class"),
)
FAILED_PARTITIONS = Metric(
    "failed_partitions",
    "Days whose run failed in the last 21 days and that were not scored since, but for those without any file.",
)
MODEL_INFO = Metric("model_info", "The active model: always 1.", ("pipeline", "version", "sha256"))
PIPELINE_BROKEN = Metric(
    "pipeline_broken", "Whether the pipeline's files are invalid, so that it is left out of the deployment."
)

STATE_READABLE = Metric(
    "state_readable", "Whether the state was read for this scrape; if not, the pipeline's other values are older."
)
STATE_READ_TIMESTAMP = Metric("state_read_timestamp_seconds", "When the state was last read completely.")
STATE_READ_DURATION = Metric("state_read_duration_seconds", "How long the last complete reading of the state took.")
DAMAGED_DOCUMENTS = Metric("damaged_documents", "Documents of recent days in the state that cannot be read.")

DAEMON_HEARTBEAT = Metric(
    "daemon_heartbeat_timestamp_seconds",
    "Last heartbeat of a part of the Dagster daemon; only where the exporter has the instance (DAGSTER_HOME).",
    ("daemon",),
)
INSTANCE_READABLE = Metric(
    "instance_readable", "Whether the Dagster instance was read for this scrape; only where the exporter has it.", ()
)

METRICS = (
    LAST_SUCCESS,
    NEWEST_DAY,
    NEWEST_DAY_LIMIT,
    IN_PROGRESS_SINCE,
    RECENT_PARTITIONS,
    DAY_ROWS,
    DAY_DURATION,
    DAY_CPU,
    DAY_GPU,
    DAY_COST,
    DAY_CHECK_PASSED,
    DAY_DRIFT,
    DAY_SCORE_MEAN,
    DAY_DECISIONS,
    EXPORT_LAST_SUCCESS,
    EXPORTS_PENDING,
    FAILED_RUNS,
    FAILED_PARTITIONS,
    MODEL_INFO,
    PIPELINE_BROKEN,
    STATE_READABLE,
    STATE_READ_TIMESTAMP,
    STATE_READ_DURATION,
    DAMAGED_DOCUMENTS,
    DAEMON_HEARTBEAT,
    INSTANCE_READABLE,
)


@dataclass(frozen=True)
class Sample:
    """A metric's value for one set of labels."""

    metric: Metric
    labels: tuple[str, ...]
    """Values, in the order of the metric's labels."""
    value: float
