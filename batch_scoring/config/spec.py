"""What a team declares about a pipeline: the pydantic models of `pipeline.yaml`, every field with its meaning.

Only what one field can know of itself is decided here; `faults.py` says what is wrong in words, `pipeline.py` reads
the files.
"""

import math
import re
from datetime import date
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


def _reachable(location: str) -> str:
    if "://" in location and not re.match(r"s3://[^/]", location):
        raise ValueError("no such kind of storage; expected a path or s3://bucket/prefix")
    if not location.startswith("/") and (".." in location.split("/") or "\\" in location):
        raise ValueError("leaves the data root; expected a path below it, an absolute path or s3://bucket/prefix")
    return location


Location = Annotated[str, AfterValidator(_reachable)]
Reference = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*:[A-Za-z_]\w*$")]


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("not an IANA time zone; expected a name such as UTC or America/New_York") from None
    return name


class Section(BaseModel):
    """A part of the spec: immutable, and a field it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


class Partitions(Section):
    """The days of the pipeline."""

    start: date = Field(description="first day, YYYY-MM-DD")
    timezone: str = Field(default="UTC", description="time zone in which a day begins, for example America/New_York")

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        return _time_zone(value)


class Csv(Section):
    """The dialect of CSV files; Parquet files need none of this."""

    delimiter: str = Field(
        default=",",
        min_length=1,
        max_length=1,
        pattern=r"^[\x00-\x7f]*$",
        description="one ASCII character between cells",
    )
    null_values: tuple[str, ...] = Field(default=("",), description="unquoted cells that mean a missing value")
    newlines: bool = Field(
        default=False, description="whether quoted cells may hold line breaks; if not, every line is a row"
    )
    quote: str = Field(
        default='"',
        pattern=r"^(none|[!-~])$",
        description="one ASCII character around cells, doubled within them; none: a quote is text like any other",
    )
    escape: str = Field(
        default="",
        pattern=r"^[!-~]?$",
        description="one ASCII character before a quote, delimiter or itself within a cell, such as a backslash "
        "(Spark, Hive, MySQL, PostgreSQL); empty: no escape",
    )
    trim: bool = Field(default=True, description="whether blanks at both ends of cells and of header names are removed")

    @field_validator("quote", mode="before")
    @classmethod
    def _none_is_none(cls, value: object) -> object:
        return "none" if value in ("", None) else value

    @model_validator(mode="after")
    def _unambiguous(self) -> "Csv":
        if self.delimiter in "\r\n":
            raise ValueError("delimiter is a line break; expected a character that stands between cells")
        if self.delimiter in (self.quote, self.escape):
            raise ValueError(f"delimiter {self.delimiter!r} is the quote or the escape, too; expected another one")
        if self.escape and self.escape == self.quote:
            raise ValueError("escape is the quote; quotes are read that stand twice within a cell: leave escape out")
        if self.newlines and not self.quote_char and not self.escape:
            raise ValueError("newlines without quotes; expected quote or escape, else every line break ends a row")
        return self

    @property
    def quote_char(self) -> str:
        """The character around cells; empty if there is none."""
        return "" if self.quote == "none" else self.quote


class Complete(Section):
    """When a day's files are complete. Files that arrive later are scored as well, in a run of their own."""

    by: Literal["quiet", "marker", "manifest"] = Field(
        default="quiet",
        description="quiet: no new file for a while; marker: a file says so; manifest: a JSON file lists the others",
    )
    quiet_minutes: float = Field(
        default=1,
        ge=0,
        le=1440,
        description="minutes without a new file; after a marker or manifest, without a later one",
    )
    file: str = Field(
        default="",
        pattern=r"^([._][^/]*)?$",
        description="name of the marker or manifest in the day's folder, begins with _ or .; _SUCCESS, _manifest.json",
    )

    @property
    def name(self) -> str:
        """The marker's or manifest's name."""
        return self.file or {"quiet": "", "marker": "_SUCCESS", "manifest": "_manifest.json"}[self.by]


class Input(Section):
    """Where the day's files land, and which column identifies a row."""

    landing: Location = Field(
        default="", description="folder or s3:// prefix above dt=YYYY-MM-DD; `<name>/landing` if empty"
    )
    key: str = Field(min_length=1, description="the column that identifies a row; one row per key and day is scored")
    csv: Csv = Field(default=Csv(), description="the dialect of CSV files")
    complete: Complete = Complete()
    deadline_hours: float | None = Field(
        default=None,
        ge=0,
        le=8760,
        description="hours after the day's midnight, by the wall clock, by which its files must have landed; "
        "may exceed 24",
    )


class Features(Section):
    """The schema of the input's columns, and which of them the model sees."""

    contract: Reference = Field(
        alias="schema", description="the pandera model, module:class inside the pipeline's package"
    )
    numeric: tuple[str, ...] = Field(default=(), description="columns of the model's numeric matrix, in its order")
    categorical: tuple[str, ...] = Field(
        default=(), description="columns of the model's categorical matrix, in its order"
    )

    day_grain: tuple[str, ...] = Field(
        default=(),
        description="features that are nearly constant within a day (weather): drift compares them over 28 days only",
    )

    @property
    def names(self) -> tuple[str, ...]:
        """All feature columns, numeric first, in the model's order."""
        return self.numeric + self.categorical

    @model_validator(mode="after")
    def _distinct(self) -> "Features":
        if not self.names:
            raise ValueError("no features; expected at least one column under numeric or categorical")
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} named more than once; expected every feature once")
        if strange := [name for name in self.day_grain if name not in self.names]:
            raise ValueError(f"day_grain names {', '.join(strange)}; expected names under numeric or categorical")
        return self


class Model(Section):
    """The trained model."""

    bundle: Location = Field(min_length=1, description="bundle folder or s3:// prefix of the active version")
    network: Reference = Field(description="the torch.nn.Module, module:class inside the pipeline's package")


class Scoring(Section):
    """How a day is split and fed to the model. None of it changes a score."""

    rows_per_shard: int = Field(default=1_000_000, ge=1, description="input rows per shard of a file")
    batch_rows: Literal["auto"] | Annotated[int, Field(ge=64)] = Field(
        default="auto", description="rows per forward pass, or auto: as many as keep activations in the cache"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="cpu, cuda, or auto: a GPU if there is one"
    )
    shards: Literal["one_step", "fan_out"] = Field(
        default="one_step",
        description="one_step scores a day in one step; fan_out in several at once, each with its own GPU",
    )
    max_shards: int = Field(
        default=8, ge=1, le=200, description="maximum number of steps that score a day under fan_out"
    )


class Guard(Section):
    """A check that guards a guarantee: when it fails nothing is published, and the spec cannot change that."""

    severity: Literal["error"] = Field(default="error", description="error: it guards a guarantee")
    blocking: Literal[True] = Field(default=True, description="true: it guards a guarantee")


class Notice(Section):
    """A check that never stops a day: it is evaluated after the publication, or is not about the day."""

    severity: Literal["warn", "error"] = Field(default="warn", description="warn or error: how a failure is shown")
    blocking: Literal[False] = Field(default=False, description="false: it cannot stop a day")


class Check(Section):
    """A check that warns, unless the spec makes it blocking."""

    severity: Literal["warn", "error"] = Field(default="warn", description="warn or error: how a failure is shown")
    blocking: bool = Field(default=False, description="whether a failure stops the day before anything is published")


Share = Annotated[float, Field(ge=0, le=1)]


class RowCount(Check):
    """How far the row count may be from those of the days before."""

    tolerance: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description="how far beyond the counts of the 28 days before, as a fraction",
    )


STANDARD_ERRORS = 2.0
FEWEST_LOST = 3
"""Rows whose loss is never worth a word: of a day of 20 rows the third is lost by chance too often."""


class QuarantineSize(Check):
    """How many rows a day may lose, at any stage.

    As shipped a day may lose 5 % of its rows and what chance adds to that: 52 of 811 rows, 9 of 100, 5 of 50. Of the
    365 days of flight_delay in 2013 one fails (331 of 893 rows), as it did with 100 rows or 5 %. Rows that are lost at
    random, 1 of 100, fail one day in 3,900 of the worst size, 31 rows; 3 of 100 fail one day in 75 of that size, one in
    630 from 100 rows on and none from 800 rows on. Lost tenths fail from 80 rows on.
    """

    rows: int | None = Field(
        default=None,
        ge=0,
        description="rows that a day may lose whatever its size; none: what chance alone adds to `share`, "
        "two standard errors, and 3 rows at least",
    )
    share: Share = Field(default=0.05, description="fraction of its rows that a day may lose")
    blocking_share: Share = Field(default=0.5, description="fraction beyond which nothing is published")

    def most(self, rows: int) -> float:
        """Rows that may be lost of so many."""
        bound = self.share * rows
        if self.rows is not None:
            return max(self.rows, bound)
        return max(FEWEST_LOST, bound + STANDARD_ERRORS * math.sqrt(bound * (1 - self.share)))


class KnownCategories(Check):
    """How many rows may have unknown categories."""

    rows: int = Field(default=2, ge=0, description="so many rows with an unknown value never make it fail")
    share: Share = Field(
        default=0.02, description="fraction of a column's rows that may have a value unknown to the model"
    )


class PresentCategories(Check):
    """Which absent categories are noticed."""

    rows: float = Field(default=5, gt=0, description="expected rows of a value from which on its absence counts")


class Metrics(Check):
    """Thresholds of the bundle's metrics."""

    least: dict[str, float] = Field(default={}, description="minimum of each metric of the bundle")
    most: dict[str, float] = Field(default={}, description="maximum of each metric, for errors and losses")


class Confidence(Check):
    """How far the mean confidence may be from that of the days before."""

    deviation: float | None = Field(
        default=None,
        gt=0,
        description="allowed deviation of the day's mean from that of the 28 days before; none: the bundle's profile",
    )


class Balance(Check):
    """How many rows one class may have."""

    share: Share = Field(
        default=0.95, description="maximum fraction of one class, unless the reference's days have more"
    )


class Spread(Check):
    """How little the scores may vary."""

    share: Share = Field(
        default=0.5, description="minimum fraction of the smallest standard deviation of a reference day's scores"
    )


class Checks(Section):
    """Thresholds, severity and blocking of each check."""

    input_is_present: Guard = Guard()
    input_is_complete: Guard = Guard()
    row_count_is_usual: RowCount = RowCount()
    rows_are_conserved: Guard = Guard()
    keys_are_unique: Guard = Guard()
    some_rows_are_accepted: Guard = Guard()
    quarantine_is_small: QuarantineSize = QuarantineSize()
    categories_are_known: KnownCategories = KnownCategories()
    categories_are_present: PresentCategories = PresentCategories()
    bundle_is_intact: Guard = Guard()
    golden_rows_agree: Guard = Guard()
    metrics_meet_threshold: Metrics = Metrics()
    days_are_current: Notice = Notice()
    scores_are_probabilities: Guard = Guard()
    confidence_is_usual: Confidence = Confidence()
    classes_are_balanced: Balance = Balance()
    scores_vary: Spread = Spread()
    features_match_reference: Notice = Notice()
    predictions_match_reference: Notice = Notice()


class Drift(Section):
    """The comparison of a day with the model's reference. Its thresholds are learned, not set."""

    sample_rows: int = Field(
        default=5_000, ge=100, le=100_000, description="maximum number of rows of a day that are compared"
    )
    reports: int = Field(
        default=0,
        ge=0,
        description="newest days that get an Evidently page besides those that alarm; each takes seconds",
    )


Status = Literal["running", "stopped"]


class Schedule(Section):
    """When days are scored whether or not files have landed. The sensors need no schedule."""

    cron: str = Field(default="0 6 * * *", description="five fields: minute, hour, day of month, month, day of week")
    timezone: str = Field(default="", description="time zone of the cron; partitions.timezone if empty")
    days_back: int = Field(
        default=1,
        ge=0,
        le=400,
        description="newest day that a tick requests: 1 yesterday, 0 today, in partitions.timezone",
    )
    default_status: Status = Field(default="stopped", description="running or stopped, until somebody switches it")

    @field_validator("cron")
    @classmethod
    def _readable(cls, value: str) -> str:
        # what Dagster itself asks, with no heavy import
        from dagster._utils.schedules import cron_string_iterator, is_valid_cron_schedule
        from dagster._vendored.croniter.croniter import CroniterBadDateError

        expected = "expected five fields such as 0 6 * * * (daily at 06:00)"
        if len(value.split()) != 5 or not is_valid_cron_schedule(value):
            raise ValueError(f"no cron that Dagster takes; {expected}")
        if re.search(r"\br\b", value, re.IGNORECASE):  # Dagster takes it, and its processes do not agree on the time
            raise ValueError(f"R is another time in every process; {expected}")
        try:
            next(cron_string_iterator(0, value, "UTC"))
        except CroniterBadDateError:  # Dagster takes it, and its daemon stumbles over it
            raise ValueError(f"Dagster finds no day for it in any year; {expected}") from None
        return value

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        return _time_zone(value) if value else value


class Runs(Section):
    """How long a run of a day may take, and how often a failed one is retried."""

    retries: int = Field(
        default=2,
        ge=0,
        le=20,
        description="retries of a failed run with the same files and code, if its failure class allows them",
    )
    retry_minutes: float = Field(
        default=5, ge=0, le=1440, description="minutes before the first retry; doubled before each further one"
    )
    max_hours: float = Field(
        default=6,
        gt=0,
        le=168,
        description="hours after which a run is terminated; the next resumes from its finished shards",
    )


class Uploads(Section):
    """The sensor that lists the landing folder and scores what is new."""

    default_status: Status = Field(default="running", description="running or stopped, until somebody switches it")
    interval_seconds: int = Field(default=30, ge=1, le=86400, description="seconds between two ticks")
    recent_days: int = Field(default=7, ge=1, le=400, description="newest days, listed at every tick")
    older_days: int = Field(default=20, ge=1, le=1000, description="older days listed at each tick, in rotation")
    runs_per_tick: int = Field(default=10, ge=1, le=100, description="maximum number of runs that a tick requests")


class Events(Section):
    """The sensor that reads from a queue which days to look at."""

    queue: str = Field(
        default="",
        pattern=r"^(https?://.+)?$",
        description="URL of an SQS queue that receives the bucket's events directly, through SNS or EventBridge",
    )
    interval_seconds: int = Field(default=15, ge=1, le=86400, description="seconds between two ticks")
    default_status: Status = Field(default="running", description="running or stopped, until somebody switches it")


class Alerts(Section):
    """What is sent besides failed runs and failed checks."""

    on_success: bool = Field(default=False, description="whether successful runs are sent too")
    scored_hours: float | None = Field(
        default=None,
        ge=0,
        le=8760,
        description="hours after the day's midnight, by the wall clock, by which a landed day must be scored",
    )


def _quantity(text: str) -> str:
    if text and not re.fullmatch(r"[1-9]\d*(\.\d+)?(Ki|Mi|Gi|Ti|k|M|G|T)?", text):
        raise ValueError("no amount of memory; expected for example 512Mi or 8Gi")
    return text


def _bytes(quantity: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(\w*)", quantity).groups()  # type: ignore[union-attr]  # validated
    base = 1024 if unit.endswith("i") else 1000
    return float(number) * base ** " kmgt".index(unit[:1].lower() or " ")


Memory = Annotated[str, AfterValidator(_quantity)]
LabelKey = Annotated[str, Field(pattern=r"^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$")]
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$")]


class Toleration(Section):
    """A node taint that a pod tolerates."""

    key: LabelKey = Field(description="the taint's key, for example nvidia.com/gpu")
    operator: Literal["Exists", "Equal"] = Field(default="Exists", description="Exists, or Equal for one value")
    value: LabelValue = Field(default="", description="the taint's value, with Equal")
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = Field(
        default="NoSchedule", description="the taint's effect; every one if empty"
    )

    @model_validator(mode="after")
    def _whole(self) -> "Toleration":
        if (self.operator == "Equal") != bool(self.value):
            raise ValueError("value goes with operator: Equal, and only with it")
        return self


class Pod(Section):
    """What an asset's steps request under the executor `k8s`. None of it changes a result."""

    cpu: float = Field(default=1, gt=0, le=1024, description="cores requested, and number of threads")
    memory: Memory = Field(default="2Gi", min_length=1, description="request and limit, for example 512Mi or 8Gi")
    image: str = Field(default="", pattern=r"^\S*$", description="container image; the code location's if empty")
    node_selector: dict[LabelKey, LabelValue] = Field(default={}, description="labels that the node must have")
    tolerations: tuple[Toleration, ...] = Field(default=(), description="node taints that the pod tolerates")
    spot: bool = Field(default=False, description="whether the node may be a spot instance, reclaimed at any time")
    shared_memory: Memory = Field(
        default="", description="size of /dev/shm, which counts towards `memory`; 64 MB if empty"
    )
    pool: str = Field(default="", pattern=r"^[\w./-]*$", description="pool that limits such steps over all runs")
    retries: int = Field(
        default=2, ge=0, le=20, description="new pods for a step whose pod was lost, within the same run"
    )
    start_minutes: float = Field(
        default=20, gt=0, le=10080, description="minutes that a pod may wait for a node, an image or a quota"
    )
    max_hours: float | None = Field(
        default=None,
        gt=0,
        le=168,
        description="hours after which the step's pod is terminated, waiting included; none: as runs.max_hours",
    )

    @model_validator(mode="after")
    def _fits(self) -> "Pod":
        if self.shared_memory and _bytes(self.shared_memory) >= _bytes(self.memory):
            raise ValueError(f"shared_memory is a part of memory; expected less than {self.memory}")
        return self


class ScoringPod(Pod):
    """What the steps that score request: no other step ever has a GPU."""

    cpu: float = Field(default=2, gt=0, le=1024, description="cores requested, and number of threads")
    memory: Memory = Field(default="4Gi", min_length=1, description="request and limit, for example 512Mi or 8Gi")
    gpu: int = Field(default=0, ge=0, le=16, description="GPUs per step; 0: the step scores on the CPU")
    gpu_resource: LabelKey = Field(default="nvidia.com/gpu", description="name that the device plugin gives to a GPU")


class Compute(Section):
    """Resources of the steps under the executor `k8s`; what a section leaves out is taken from `default`."""

    default: Pod = Pod()
    raw_input: Pod = Pod()
    validated_features: Pod = Pod()
    model: Pod = Pod()
    predictions: ScoringPod = ScoringPod()
    drift: Pod = Pod()
    report: Pod = Pod()
    retention: Pod = Pod()

    def of(self, asset: str) -> Pod:
        """What an asset's steps ask for, `default` included."""
        own: Pod = getattr(self, asset)
        said = {name: getattr(part, name) for part in (self.default, own) for name in part.model_fields_set}
        return type(own)(**said)

    @model_validator(mode="after")
    def _fits(self) -> "Compute":
        for asset in type(self).model_fields:
            self.of(asset)
        return self


SUPERSEDED_DAYS = 7
"""The least: twice the age up to which a run takes over another one's finished shards (`shards.REUSE_WITHIN`)."""


class Retention(Section):
    """What the job `retain_<pipeline>` deletes, and when; by default only what no reader can see any more."""

    superseded_days: int = Field(
        default=SUPERSEDED_DAYS,
        le=3650,
        description="days for which a replaced or never published file of a table is kept",
    )
    reports_days: int | None = Field(
        default=None, ge=1, le=36500, description="days for which a day's drift pages are kept; none: for ever"
    )
    samples_days: int | None = Field(
        default=None,
        ge=1,
        le=36500,
        description="days for which the sample of a day's rows for drift is kept, which compares 28; none: for ever",
    )
    quarantine_days: int | None = Field(
        default=None,
        ge=1,
        le=36500,
        description="days for which a day's quarantined rows are kept, raw customer data; none: for ever",
    )
    models_days: int | None = Field(
        default=None,
        ge=7,
        le=36500,
        description="days for which a model's weights are kept after it has scored a day; none: for ever",
    )
    default_status: Status = Field(
        default="stopped", description="running or stopped, until somebody switches the schedule"
    )

    @field_validator("superseded_days")
    @classmethod
    def _safe(cls, value: int) -> int:
        if value < SUPERSEDED_DAYS:
            raise ValueError(
                f"a run may still publish a finished shard that is days old, and a reader read what was replaced; "
                f"expected at least {SUPERSEDED_DAYS} days"
            )
        return value


class PipelineSpec(Section):
    """One pipeline, as `pipeline.yaml` declares it."""

    name: Name = Field(description="name of the folder; prefix of the assets and of the data folders")
    description: str = Field(min_length=1, description="what is scored, for whom, when")
    owners: tuple[str, ...] = Field(default=(), description="Dagster owners: e-mail addresses or team:name")
    partitions: Partitions
    input: Input
    features: Features
    model: Model
    scoring: Scoring = Scoring()
    checks: Checks = Checks()
    drift: Drift = Drift()
    schedule: Schedule = Schedule()
    runs: Runs = Runs()
    uploads: Uploads = Uploads()
    events: Events = Events()
    alerts: Alerts = Alerts()
    retention: Retention = Retention()
    compute: Compute = Compute()
    preview_rows: int = Field(
        default=0,
        ge=0,
        le=100,
        description="rows of a day's features and scores that the Dagster UI shows and its database keeps for ever",
    )
    output: Location = Field(
        default="", description="folder or s3:// prefix of tables, state and reports; `<name>` if empty"
    )

    @field_validator("owners")
    @classmethod
    def _owners(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from dagster._core.utils import is_valid_email  # what Dagster itself asks

        for owner in value:
            if not (re.fullmatch(r"team:[A-Za-z0-9_-]+", owner) or is_valid_email(owner)):
                raise ValueError(f"{owner!r} is no owner; expected an e-mail address or team:name")
        return value
