"""The reference profile: thresholds of drift and of the scores, learned from a model's reference, kept in its bundle.

`monitoring/drift/calibration.py` learns it; the checks compare a day with it. `monitoring/drift/distances.py`
describes the method and why simpler ones fail.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["numeric", "categorical"]
Grain = Literal["row", "day"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ColumnProfile(_Part):
    """Distances of a column from the reference on ordinary days, without a unit."""

    kind: Kind
    grain: Grain = Field(description="row: differs from row to row; day: moves as a whole from day to day")
    day: float | None = Field(description="T0: distance below which whole ordinary days stay; None: not tested")
    sampling: float = Field(description="s: what sampling adds, times the square root of the rows")
    trailing: float | None = Field(description="L: largest distance of 28 days to the rest; None: not tested")
    missing: float = Field(description="b: share of missing values below which ordinary days stay; 1: not tested")
    repeated: float = Field(default=1.0, description="the same for the share of the day's most frequent value")


class Held(_Part):
    """Alarm rates of the reference's own days, each held out of the calibration."""

    rows: str = Field(description="rows of the day that were compared: whole, or a subsample's number")
    days: int
    columns: float = Field(description="column tests beyond their threshold T")
    any_column: float = Field(description="days with at least one such column")
    alarms: float = Field(description="days beyond c times the threshold: the check fails")


class Scores(_Part):
    """The scores of ordinary days of the reference."""

    confidence: float | None = Field(description="deviation of a day's mean confidence from its trailing mean")
    confidence_sd: float = Field(description="standard deviation of a row's confidence")
    spread: float | None = Field(description="smallest standard deviation of a day's scores")
    largest_class: float | None = Field(description="largest share of one class on a day")
    labels: dict[str, tuple[float, float]] = Field(
        default={},
        exclude_if=lambda labels: not labels,
        description="by position of a label, its smallest and largest share of a day's rows; of several labels a row",
    )


class ReferenceProfile(_Part):
    """The content of `profile.json`."""

    format: Literal[1] = 1
    first: str = Field(description="first reference day")
    last: str
    days: int
    rows: int = Field(description="median rows of a reference day, as the reference holds it")
    weekends_apart: bool = Field(description="whether a day is compared with weekdays or weekends alone")
    factor: float = Field(description="c: a day alarms when a distance is beyond c times its threshold")
    columns: dict[str, ColumnProfile]
    scores: dict[str, ColumnProfile] = Field(description="the score columns: tested over the trailing days only")
    left_out: dict[str, str] = Field(description="columns that no test can use, and why")
    everyday: dict[str, dict[str, float]] = Field(
        description="by categorical column, the values of every reference day with their smallest daily share"
    )
    score_days: Scores
    held_out: tuple[Held, ...]
    share_alarms: float = Field(description="held out, the share of days with too many missing or repeated values")
    exceeding: dict[str, str] = Field(description="reference days beyond a threshold themselves, and by what")

    @property
    def alarms_a_month(self) -> float:
        """False alarms of single days to expect, from the held-out whole days."""
        whole = next((held.alarms for held in self.held_out if held.rows == "whole"), 0.0)
        return (whole + self.share_alarms) * 365.25 / 12
