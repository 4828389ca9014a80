"""The sections `decisions` and `exports` of `pipeline.yaml`: what is done about a day's scores, and where it goes."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from batch_scoring.config.section import Location, Name, Section, Share, Status

NO_ACTION = "none"
"""The action of a row that gets none; no action of a spec may have this name."""

INELIGIBLE = "ineligible"
"""What the reasons of rows begin with that no action may take; no action may have this name either."""

LONGEST_LOOK_BACK = 90


Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
"""Name of an environment variable: a spec's values appear in Dagster's UI and database, so it holds no secret."""


class Holdout(Section):
    """A control group: rows that would get the action and do not, so that its effect can be measured."""

    share: Share = Field(description="share of the rows that would get the action")
    salt: str = Field(
        min_length=1,
        description="text that is hashed with the key; while it stands, a key stays in the same arm",
    )


class Action(Section):
    """An action: the rows with the highest scores get it, within its caps."""

    at_least: float | None = Field(default=None, description="smallest score that gets the action; none: any score")
    where: str = Field(default="", description="rule that a row must satisfy for this action; empty: none")
    most: int | None = Field(default=None, ge=0, description="maximum number of rows a day; none: no limit")
    most_per: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default={}, description="maximum number of rows a day for each value of a column, by column"
    )
    holdout: Holdout | None = Field(default=None, description="control group; none: there is none")
    not_within_days: int = Field(
        default=0,
        ge=0,
        le=LONGEST_LOOK_BACK,
        description="days before, in which a key that had this action does not get it again",
    )


class Decisions(Section):
    """What is done about each row: at most one action, decided from scores, features and attributes."""

    score: str = Field(
        default="prob_class_1", min_length=1, description="column of the predictions by which rows are ranked"
    )
    eligible: dict[Name, str] = Field(
        default={},
        description="rules that a row must satisfy to get any action, by name; the first that it does not satisfy is "
        "its reason",
    )
    actions: dict[Name, Action] = Field(
        min_length=1, description="the actions by name, in order: a row gets the first that takes it"
    )
    function: str = Field(
        default="",
        pattern=r"^([A-Za-z_]\w*:[A-Za-z_]\w*)?$",
        description="function that decides instead, module:function inside the pipeline's package; caps are checked, "
        "eligible and thresholds are its own affair",
    )
    reasons: tuple[str, ...] = Field(default=(), description="all reasons that the function may give")
    explain: int = Field(
        default=0, ge=0, le=10, description="features named as the reasons for the score of each row with an action"
    )

    @property
    def look_back(self) -> int:
        """The longest `not_within_days` of all actions."""
        return max(action.not_within_days for action in self.actions.values())

    @model_validator(mode="after")
    def _consistent(self) -> "Decisions":
        if NO_ACTION in self.actions:
            raise ValueError(f"an action is called {NO_ACTION}, which means that a row gets no action; rename it")
        if INELIGIBLE in self.actions:
            raise ValueError(f"an action is called {INELIGIBLE}, as the reasons of rows begin without one; rename it")
        if bool(self.function) != bool(self.reasons):
            raise ValueError("function and reasons go together; expected all reasons that the function may give")
        if self.function:
            own = [name for name, action in self.actions.items() if action.model_fields_set - {"most", "most_per"}]
            if own or self.eligible:
                raise ValueError(
                    f"{', '.join(own) or 'eligible'}: with a function, actions have only most and most_per, which are "
                    "checked; thresholds, rules and hold-outs are decided by the function"
                )
        return self


class DayPage(Section):
    """The page of a day, with its decisions; anyone who can read the reports sees what it shows."""

    columns: tuple[str, ...] = Field(
        default=(),
        description="attributes and features shown beside the first rows, and by which actions are counted if they "
        "have few values; categorical features are counted without being named here",
    )
    key: bool = Field(default=False, description="whether the page shows the keys of the first rows")


class ActionAlert(Section):
    """A message to a team of its own when rows of a day get an action."""

    channels_from: Variable = Field(
        description="environment variable that holds the team's channels, in the format of ALERT_URLS"
    )
    at_least: int = Field(
        default=1, ge=1, description="smallest number of rows with the action that is worth a message"
    )
    keys: int = Field(
        default=0, ge=0, le=20, description="keys that the message names, those of the highest ranks first; 0: none"
    )


Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class Export(Section):
    """What every export has: the rows, their order, and the days."""

    of: Literal["predictions", "decisions"] = Field(
        default="predictions", description="predictions or decisions: the published day that is exported"
    )
    where: str = Field(default="", description="rule that a row must satisfy to be exported; empty: every row")
    order: str = Field(default="", description="column to sort by, with - in front: descending; the key if empty")
    most: int | None = Field(default=None, ge=0, description="maximum number of rows, in that order; none: no limit")
    columns: tuple[str, ...] = Field(
        default=(),
        description="columns: of the exported table, the features, the attributes and the predictions; all of the "
        "exported table if empty",
    )
    days: tuple[Weekday, ...] = Field(
        default=(), description="days of the week that are exported, by the day's own date; every day if empty"
    )
    recent_days: int = Field(
        default=3,
        ge=1,
        le=400,
        description="newest days that the sensor exports; older ones are exported by command only",
    )
    corrections: Literal["replace", "keep"] = Field(
        default="replace",
        description="replace: a day that was corrected is exported again; keep: what was exported stays",
    )
    default_status: Status = Field(
        default="running", description="running or stopped: whether the sensor exports new days by itself"
    )


class FileExport(Export):
    """A file per day, on a disk or on S3."""

    to: Literal["file"] = Field(description="file")
    path: Location = Field(
        min_length=1,
        pattern=r"\{day\}.*\.(csv|csv\.gz|parquet|jsonl)$",
        description="where the files go, with {day} in the name: .csv, .csv.gz, .parquet or .jsonl; each version of a "
        "day has a file of its own, and `<name>.manifest.json` names the valid one",
    )
    people: bool = Field(
        default=False,
        description="whether people open the CSV in a spreadsheet: cells that look like formulas get an apostrophe, "
        "the file a byte order mark",
    )

    @model_validator(mode="after")
    def _in_one_bucket(self) -> "FileExport":
        if self.path.startswith("s3://") and "{day}" in self.path.split("/")[2]:
            raise ValueError(f"path: {self.path!r}: the bucket depends on the day; expected s3://bucket/ first")
        return self

    @model_validator(mode="after")
    def _opened_by_people(self) -> "FileExport":
        if self.people and not self.path.endswith((".csv", ".csv.gz")):
            raise ValueError("people open CSV files in a spreadsheet; expected a path that ends in .csv, or no people")
        return self


class PostgresExport(Export):
    """A table in PostgreSQL, a day's rows replaced in one transaction."""

    to: Literal["postgres"] = Field(description="postgres")
    url_from: Variable = Field(
        description="environment variable that holds the address, postgresql://user:password@host:port/database"
    )
    table: str = Field(
        pattern=r"^[a-z_][a-z0-9_]{0,62}(\.[a-z_][a-z0-9_]{0,62})?$",
        description="the table, with its schema if it has one",
    )


class RedisExport(Export):
    """A key per value of a column in Redis, a day switched to as a whole."""

    to: Literal["redis"] = Field(description="redis")
    url_from: Variable = Field(
        description="environment variable that holds the address, redis://user:password@host:port/database"
    )
    prefix: str = Field(pattern=r"^[\w:.-]+$", description="beginning of the names of all its keys")
    key: str = Field(min_length=1, description="column whose values name the keys; rows with equal values make a list")
    value: str = Field(min_length=1, description="column whose values are stored, in the order of the rows")
    form: Literal["list", "single"] = Field(
        default="list", description="list: a JSON list of values per key; single: one value, and one row per key"
    )
    ttl_hours: float = Field(
        default=72, ge=1, le=8760, description="hours after which the keys vanish, if no later day replaces them"
    )

    @model_validator(mode="after")
    def _pairs_only(self) -> "RedisExport":
        if self.columns:
            raise ValueError("columns do not apply: key and value are what is stored; leave them out")
        return self


AnyExport = Annotated[FileExport | PostgresExport | RedisExport, Field(discriminator="to")]
