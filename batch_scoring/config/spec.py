"""The schema of `pipeline.yaml`: pydantic models, with a description for every field.

Each section validates its own fields here. `validation` phrases the errors and checks what the fields refer to;
`loader.py` reads the files.
"""

import math
import re
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from batch_scoring.config.compute_spec import Compute
from batch_scoring.config.delivery_spec import LONGEST_LOOK_BACK, ActionAlert, AnyExport, DayPage, Decisions
from batch_scoring.config.section import Location, Name, Reference, Section, Share, Status, time_zone


class Partitions(Section):
    """The days of the pipeline: its partitions."""

    start: date = Field(description="first day, YYYY-MM-DD")
    timezone: str = Field(default="UTC", description="time zone in which a day begins, for example America/New_York")

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        return time_zone(value)


class Csv(Section):
    """Dialect of CSV files; it does not apply to other files."""

    delimiter: str = Field(
        default=",",
        min_length=1,
        max_length=1,
        pattern=r"^[\x00-\x7f]*$",
        description="one ASCII character between cells",
    )
    null_values: tuple[str, ...] = Field(default=("",), description="unquoted cells that mean a missing value")
    newlines: bool = Field(
        default=False, description="whether quoted cells may contain line breaks; if not, every line is a row"
    )
    quote: str = Field(
        default='"',
        pattern=r"^(none|[!-~])$",
        description="one ASCII character around cells, doubled within them; none: a quote is ordinary text",
    )
    escape: str = Field(
        default="",
        pattern=r"^[!-~]?$",
        description="one ASCII character before a quote, a delimiter or itself within a cell, such as a backslash "
        "(Spark, Hive, MySQL, PostgreSQL); empty: none",
    )
    trim: bool = Field(default=True, description="whether to strip blanks from cells and column names")

    @field_validator("quote", mode="before")
    @classmethod
    def _none_is_none(cls, value: object) -> object:
        return "none" if value in ("", None) else value

    @model_validator(mode="after")
    def _unambiguous(self) -> "Csv":
        if self.delimiter in "\r\n":
            raise ValueError("delimiter is a line break; expected a character between cells")
        if self.delimiter in (self.quote, self.escape):
            raise ValueError(f"delimiter {self.delimiter!r} is also the quote or the escape; expected another one")
        if self.escape and self.escape == self.quote:
            raise ValueError("escape is the quote; doubled quotes within a cell are read anyway: leave escape out")
        if self.newlines and not self.quote_char and not self.escape:
            raise ValueError("newlines without quotes; expected quote or escape, else every line break ends a row")
        return self

    @property
    def quote_char(self) -> str:
        """The character around cells; empty for none."""
        return "" if self.quote == "none" else self.quote


class Complete(Section):
    """When a day's files are complete. Later files are scored too, in another run."""

    by: Literal["quiet", "marker", "manifest"] = Field(
        default="quiet",
        description="quiet: no new file for a while; marker: a file says so; manifest: a JSON file lists the files",
    )
    quiet_minutes: float = Field(
        default=1, ge=0, le=1440, description="minutes without a new file; with a marker or manifest: a newer file"
    )
    file: str = Field(
        default="",
        pattern=r"^([._][^/]*)?$",
        description="file name of the marker or manifest, with a leading _ or .; _SUCCESS or _manifest.json",
    )

    @property
    def name(self) -> str:
        """Name of the marker or manifest."""
        return self.file or {"quiet": "", "marker": "_SUCCESS", "manifest": "_manifest.json"}[self.by]


class Input(Section):
    """Where the day's files land, and the column that identifies a row."""

    landing: Location = Field(
        default="", description="folder or s3:// prefix above dt=YYYY-MM-DD; `<name>/landing` if empty"
    )
    key: str = Field(min_length=1, description="column that identifies a row; one row per key and day is scored")
    attributes: tuple[str, ...] = Field(
        default=(),
        description="columns that decisions and exports need and the model does not see; kept with the features",
    )
    csv: Csv = Field(default=Csv(), description="dialect of CSV files")
    complete: Complete = Complete()
    deadline_hours: float | None = Field(
        default=None,
        ge=0,
        le=8760,
        description="deadline of the day's files: hours after its midnight, in wall-clock time; may exceed 24",
    )


class Features(Section):
    """The contract on the input's columns, and the columns that are features."""

    contract: Reference = Field(
        alias="schema", description="the pandera model, module:class inside the pipeline's package"
    )
    transform: Reference | None = Field(
        default=None,
        description="function that makes features from columns, module:function inside the pipeline's package; its "
        "module may define fit",
    )
    engineered: Reference | None = Field(
        default=None, description="pandera model of what transform returns, module:class; same rules as schema"
    )
    numeric: tuple[str, ...] = Field(default=(), description="columns of the model's numeric matrix, in order")
    categorical: tuple[str, ...] = Field(default=(), description="columns of the model's categorical matrix, in order")
    text: tuple[str, ...] = Field(
        default=(),
        description="text columns, which the bundle's tokenizer turns into the model's tokens: one text, in order, "
        "a line break between two columns",
    )
    vectors: tuple[str, ...] = Field(
        default=(), description="list columns, such as embeddings, of the model's matrix of vectors, in order"
    )
    encode: Reference | None = Field(
        default=None,
        description="function that makes inputs of the network from rows, module:function inside the pipeline's "
        "package: images and the like, an array for each name that it returns",
    )
    day_grain: tuple[str, ...] = Field(
        default=(), description="features that change as a whole from day to day (weather): drift skips their day test"
    )

    @property
    def inputs(self) -> tuple[str, ...]:
        """The model's inputs in its order, numeric first: columns of the schema, or what transform makes of them."""
        return self.numeric + self.categorical + self.text + self.vectors

    def validated(self, schema_columns: Sequence[str]) -> tuple[str, ...]:
        """The columns that validated features have because of the model; `schema_columns`: those of the schema.

        A function of the user's may read any column of the schema, so all are kept for it; without one, the model's
        inputs alone.
        """
        return tuple(schema_columns) if (self.transform or self.encode) and schema_columns else self.inputs

    @model_validator(mode="after")
    def _distinct(self) -> "Features":
        if not self.inputs and not self.encode:
            raise ValueError("no features; expected at least one column under numeric, categorical, text or vectors")
        twice = sorted({name for name in self.inputs if self.inputs.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} named more than once; expected every feature once")
        if strange := [name for name in self.day_grain if name not in self.numeric + self.categorical]:
            raise ValueError(f"day_grain names {', '.join(strange)}; expected names under numeric or categorical")
        if self.engineered and not self.transform:
            raise ValueError("engineered without transform, which makes the columns that it describes")
        return self


class Model(Section):
    """The trained model."""

    bundle: Location = Field(min_length=1, description="bundle folder or s3:// prefix of the active version")
    network: Reference = Field(description="the torch.nn.Module, module:class inside the pipeline's package")


class Scoring(Section):
    """How a day is divided and fed to the model. No setting here changes a score."""

    rows_per_shard: int = Field(default=1_000_000, ge=1, description="input rows per shard")
    batch_rows: Literal["auto"] | Annotated[int, Field(ge=64)] = Field(
        default="auto", description="rows per forward pass, or auto: as many as keep activations in the cache"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="cpu, cuda, or auto: a GPU where there is one"
    )
    shards: Literal["one_step", "fan_out"] = Field(
        default="one_step",
        description="one_step: a day is scored in one step; fan_out: in parallel steps, each with its own GPU",
    )
    max_shards: int = Field(
        default=8, ge=1, le=200, description="maximum number of parallel steps of a day under fan_out"
    )


class Guard(Section):
    """An invariant: if it fails, nothing is published. The spec cannot change that."""

    severity: Literal["error"] = Field(default="error", description="error: this check is an invariant")
    blocking: Literal[True] = Field(default=True, description="true: an invariant always blocks")


class Notice(Section):
    """A check that never stops a day: it runs after publication, or is not about the day."""

    severity: Literal["warn", "error"] = Field(default="warn", description="warn or error: how a failure is shown")
    blocking: Literal[False] = Field(default=False, description="false: it cannot stop the day")


class Check(Section):
    """A check that warns; the spec may let it stop the day."""

    severity: Literal["warn", "error"] = Field(default="warn", description="warn or error: how a failure is shown")
    blocking: bool = Field(default=False, description="whether a failure stops the day before anything is published")


class RowCount(Check):
    """Allowed deviation of the row count from those of the previous days."""

    tolerance: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description="largest deviation from the counts of the previous 28 days, as a share of them",
    )


STANDARD_ERRORS = 2.0
FEWEST_LOST = 3
"""Rows whose loss never fails the check: on a day of 20 rows, chance alone loses a third row too often."""


class QuarantineSize(Check):
    """How many rows a day may lose, at any stage.

    By default a day may lose 5 % of its rows plus what chance adds: 52 of 811 rows, 9 of 100, 5 of 50. Of the 365 days
    of flight_delay in 2013 one fails (331 of 893 rows). If 1 of 100 rows is lost at random, one day in 3,900 fails at
    the worst size, 31 rows; with 3 of 100 it is one day in 75 at that size, one in 630 from 100 rows on and none from
    800 rows on. Losing one row in ten fails from 80 rows on.
    """

    rows: int | None = Field(
        default=None,
        ge=0,
        description="rows that a day of any size may lose; none: two standard errors more than `share`, "
        "and at least 3 rows",
    )
    share: Share = Field(default=0.05, description="share of its rows that a day may lose")
    blocking_share: Share = Field(default=0.5, description="share beyond which nothing is published")

    def most(self, rows: int) -> float:
        """Maximum number of a day's rows that may be lost."""
        bound = self.share * rows
        if self.rows is not None:
            return max(self.rows, bound)
        return max(FEWEST_LOST, bound + STANDARD_ERRORS * math.sqrt(bound * (1 - self.share)))


class ActionCount(Check):
    """Allowed deviation of each action's rows from those of the previous days.

    What chance does to small counts is added: two standard errors, at least 2 rows. In ten simulated years with 2, 5,
    20, 100, 1,000 or 10,000 rows a day and a fifth fewer at weekends, no day fails; if the days also differ by 20 %
    among themselves, two a year at most. An action that nobody gets fails if 20 rows usually do.
    """

    tolerance: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description="largest deviation from the action's rows on the previous 28 days, as a share of them, besides "
        "what chance does",
    )


class KnownCategories(Check):
    """Limits on rows with unknown categories."""

    rows: int = Field(default=2, ge=0, description="rows with an unknown value that never fail the check")
    share: Share = Field(
        default=0.02, description="largest share of a column's rows with a value that the model has not seen"
    )


class PresentCategories(Check):
    """Categories whose absence fails the check."""

    rows: float = Field(
        default=5, gt=0, description="a value's absence fails the check if at least this many of its rows were expected"
    )


class Metrics(Check):
    """Thresholds of the bundle's metrics."""

    least: dict[str, float] = Field(default={}, description="minimum of each metric of the bundle")
    most: dict[str, float] = Field(default={}, description="maximum of each metric, for error metrics")


class Confidence(Check):
    """Allowed deviation of the mean confidence from that of the previous days."""

    deviation: float | None = Field(
        default=None,
        gt=0,
        description="largest deviation of the day's mean from the previous 28 days; none: from the bundle's profile",
    )


class Balance(Check):
    """Largest share of rows that one class may have."""

    share: Share = Field(
        default=0.95,
        description="largest share of one class, or that of the reference's days if larger; several labels are "
        "compared with the reference's days alone",
    )


class Ordering(Check):
    """Largest share of rows whose quantiles may cross."""

    share: Share = Field(default=0.01, description="largest share of rows with a quantile below that of a lower level")


class Spread(Check):
    """Smallest spread that the scores may have."""

    share: Share = Field(
        default=0.5,
        description="least standard deviation of the scores, as a share of the smallest one of a reference day",
    )


class Cost(Notice):
    """How much more than usual a row may cost."""

    factor: float = Field(
        default=1.5, gt=1, description="largest CPU time per row, as a multiple of its median over the previous 28 days"
    )
    rows: int = Field(
        default=100_000, ge=1, description="rows below which a day is not compared: there, single seconds decide"
    )


class Checks(Section):
    """Thresholds, severity and blocking of all checks."""

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
    quantiles_are_ordered: Ordering = Ordering()
    scores_vary: Spread = Spread()
    cost_is_usual: Cost = Cost()
    features_match_reference: Notice = Notice()
    predictions_match_reference: Notice = Notice()
    every_row_is_decided: Guard = Guard()
    caps_hold: Guard = Guard()
    reasons_are_known: Guard = Guard()
    actions_are_usual: ActionCount = ActionCount()
    arms_are_balanced: Check = Check()
    export_is_whole: Notice = Notice(severity="error")
    exports_are_current: Notice = Notice()


class Drift(Section):
    """The comparison of a day with the model's reference; `batch-scoring calibrate` learns its thresholds."""

    sample_rows: int = Field(
        default=5_000, ge=100, le=100_000, description="maximum number of rows of a day that are compared"
    )
    reports: int = Field(
        default=0,
        ge=0,
        description="newest days with an Evidently report, besides those with drift; takes seconds each",
    )


class Schedule(Section):
    """A time of day at which days are scored, whatever has landed. Sensors need no schedule."""

    cron: str = Field(default="0 6 * * *", description="five fields: minute, hour, day of month, month, day of week")
    timezone: str = Field(default="", description="time zone of the cron; partitions.timezone if empty")
    days_back: int = Field(
        default=1,
        ge=0,
        le=400,
        description="newest day that a tick scores: 1 yesterday, 0 today, in partitions.timezone",
    )
    default_status: Status = Field(default="stopped", description="running or stopped, until it is switched in the UI")

    @field_validator("cron")
    @classmethod
    def _readable(cls, value: str) -> str:
        # imported here: a command that needs no Dagster must not wait for it
        from batch_scoring.dagster_internals import CroniterBadDateError, cron_string_iterator, is_valid_cron_schedule

        expected = "expected five fields such as 0 6 * * * (daily at 06:00)"
        if len(value.split()) != 5 or not is_valid_cron_schedule(value):
            raise ValueError(f"Dagster does not accept this cron; {expected}")
        if re.search(r"\br\b", value, re.IGNORECASE):  # Dagster accepts it, and its processes do not agree on the time
            raise ValueError(f"R means a different time in every process; {expected}")
        try:
            next(cron_string_iterator(0, value, "UTC"))
        except CroniterBadDateError:  # Dagster accepts it, and its daemon fails
            raise ValueError(f"no year has such a day; {expected}") from None
        return value

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        return time_zone(value) if value else value


class Runs(Section):
    """How long a run of a day may take, and how often a failed one is retried; see `operations/retry_policy.py`."""

    retries: int = Field(
        default=2, ge=0, le=20, description="retries of a failed run with the same files and code, if a retry may help"
    )
    retry_minutes: float = Field(
        default=5, ge=0, le=1440, description="minutes before the first retry; doubled before each further one"
    )
    max_hours: float = Field(
        default=6, gt=0, le=168, description="hours after which a run is terminated; the next one resumes its work"
    )


class Uploads(Section):
    """The sensor that lists the landing folder and scores what is new."""

    default_status: Status = Field(default="running", description="running or stopped, until it is switched in the UI")
    interval_seconds: int = Field(default=30, ge=1, le=86400, description="seconds between two listings")
    recent_days: int = Field(default=7, ge=1, le=400, description="newest days, listed every time")
    older_days: int = Field(
        default=20, ge=1, le=1000, description="number of older days that are listed each time, in rotation"
    )
    runs_per_tick: int = Field(default=10, ge=1, le=100, description="maximum number of runs requested at once")


class Events(Section):
    """The sensor that learns from a queue which days have new files."""

    queue: str = Field(
        default="",
        pattern=r"^(https?://.+)?$",
        description="URL of an SQS queue that receives the bucket's events, directly or through SNS or EventBridge",
    )
    interval_seconds: int = Field(default=15, ge=1, le=86400, description="seconds between two polls of the queue")
    default_status: Status = Field(default="running", description="running or stopped, until it is switched in the UI")


class Alerts(Section):
    """Alerts besides those of failed runs and failed checks."""

    on_success: bool = Field(default=False, description="whether successful runs send a message too")
    scored_hours: float | None = Field(
        default=None,
        ge=0,
        le=8760,
        description="deadline for scoring a landed day: hours after its midnight, in wall-clock time",
    )
    actions: dict[Name, ActionAlert] = Field(
        default={}, description="messages to a team of its own when rows of a recent day get an action, by action"
    )


SUPERSEDED_DAYS = 7
"""Minimum: twice the age up to which a run reuses finished shards of another one (`shards.REUSE_WITHIN`)."""


class Retention(Section):
    """What the job `retain_<pipeline>` deletes, and when: by default only files that no reader can see any more."""

    superseded_days: int = Field(
        default=SUPERSEDED_DAYS,
        le=3650,
        description="days for which replaced and unpublished files of a table are kept",
    )
    reports_days: int | None = Field(
        default=None, ge=1, le=36500, description="days for which drift reports are kept; none: for ever"
    )
    samples_days: int | None = Field(
        default=None,
        ge=1,
        le=36500,
        description="days for which the row samples of drift are kept (drift needs 28); none: for ever",
    )
    quarantine_days: int | None = Field(
        default=None,
        ge=1,
        le=36500,
        description="days for which quarantined rows, raw customer data, are kept; none: for ever",
    )
    features_days: int | None = Field(
        default=None,
        ge=1,
        le=36500,
        description="days for which validated features are kept, attributes included; a day without them keeps its "
        "scores and cannot be scored or decided again; none: for ever",
    )
    decisions_days: int | None = Field(
        default=None,
        ge=LONGEST_LOOK_BACK + 1,
        le=36500,
        description=f"days for which decisions are kept (not_within_days looks back up to {LONGEST_LOOK_BACK}); "
        "none: for ever",
    )
    models_days: int | None = Field(
        default=None,
        ge=7,
        le=36500,
        description="days for which a model's weights are kept after it last scored a day; none: for ever",
    )
    default_status: Status = Field(
        default="stopped", description="running or stopped, until the schedule is switched in the UI"
    )

    @field_validator("superseded_days")
    @classmethod
    def _safe(cls, value: int) -> int:
        if value < SUPERSEDED_DAYS:
            raise ValueError(
                f"a run may still publish a shard that is days old, and a reader may still read replaced files; "
                f"expected at least {SUPERSEDED_DAYS} days"
            )
        return value


class Prices(Section):
    """What a machine costs, for the cost of each day; on Kubernetes what is reserved costs, elsewhere what is used."""

    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$", description="currency of the prices, such as USD")
    cpu_hour: float = Field(default=0, ge=0, description="price of a CPU core for an hour")
    gb_hour: float = Field(default=0, ge=0, description="price of a GB of memory (2^30 bytes) for an hour")
    gpu_hour: float = Field(default=0, ge=0, description="price of a GPU for an hour")

    @model_validator(mode="after")
    def _not_free(self) -> "Prices":
        if not (self.cpu_hour or self.gb_hour or self.gpu_hour):
            raise ValueError("all prices are 0; expected cpu_hour, gb_hour or gpu_hour, or no section prices")
        return self


class PipelineSpec(Section):
    """One pipeline as `pipeline.yaml` declares it."""

    name: Name = Field(description="the folder's name; prefix of asset keys and data folders")
    description: str = Field(min_length=1, description="what is scored, for whom, when")
    owners: tuple[str, ...] = Field(default=(), description="Dagster owners: e-mail addresses or team:name")
    partitions: Partitions
    input: Input
    features: Features
    model: Model
    scoring: Scoring = Scoring()
    decisions: Decisions | None = Field(default=None, description="what is done about each row; none: nothing")
    exports: dict[Name, AnyExport] = Field(default={}, description="where a day's rows go once it is scored, by name")
    page: DayPage = DayPage()
    checks: Checks = Checks()
    drift: Drift = Drift()
    schedule: Schedule = Schedule()
    runs: Runs = Runs()
    uploads: Uploads = Uploads()
    events: Events = Events()
    alerts: Alerts = Alerts()
    retention: Retention = Retention()
    prices: Prices | None = Field(
        default=None, description="what a machine costs; none: usage is recorded, and no cost is shown"
    )
    compute: Compute = Compute()
    preview_rows: int = Field(
        default=0,
        ge=0,
        le=100,
        description="rows of a day's features and scores shown in Dagster's UI and kept in its database for ever",
    )
    output: Location = Field(
        default="", description="folder or s3:// prefix of tables, state and reports; `<name>` if empty"
    )

    @field_validator("owners")
    @classmethod
    def _owners(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from batch_scoring.dagster_internals import is_valid_email

        for owner in value:
            if not (re.fullmatch(r"team:[A-Za-z0-9_-]+", owner) or is_valid_email(owner)):
                raise ValueError(f"{owner!r} is not an owner; expected an e-mail address or team:name")
        return value
