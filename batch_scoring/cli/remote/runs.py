"""Runs and backfills of a remote deployment: their state, row counts, failed checks and errors."""

import itertools
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batch_scoring.cli.remote.connection import Remote, first_line, python_error
from batch_scoring.cli.remote.jobs import PREFIX
from batch_scoring.errors import WrongCommandError
from batch_scoring.operations import failed_runs
from batch_scoring.operations.run_history import ASSETS, PARTITION, TO_RETRY

STATES = {
    "NOT_STARTED": "created",
    "QUEUED": "queued",
    "STARTING": "starting",
    "STARTED": "started",
    "MANAGED": "started",
    "CANCELING": "canceling",
    "SUCCESS": "succeeded",
    "FAILURE": "failed",
    "CANCELED": "canceled",
}
ENDS = ("succeeded", "failed", "canceled")
ANSWER_SIZE = 500
"""Most events or runs in one answer."""
MOST_PAGES = 200
MOST_DETAILED = 20
"""Most failed days of a backfill whose errors are read."""
RETRY_DECISION_SECONDS = 5.0
"""Seconds after a failure within which Dagster decides about a retry, if it is configured to."""
_FROM_OUTSIDE = "has been marked as failed from outside the execution context"
"""Message of a run whose process died; the engine event before it says why."""
_NO_LONGER_STARTS = {"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}
_RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

_RUN = "runId jobName status creationTime startTime endTime parentRunId tags { key value } assetSelection { path }"
_ONE = f"""
query($id: ID!) {{ runOrError(runId: $id) {{ __typename
    ... on Run {{ {_RUN} }}
    ... on PythonError {{ causes {{ message }} }}
    ... on Error {{ message }} }} }}
"""
_MANY = f"""
query($filter: RunsFilter, $cursor: String, $limit: Int) {{
  runsOrError(filter: $filter, cursor: $cursor, limit: $limit) {{ __typename
    ... on Runs {{ results {{ {_RUN} }} }}
    ... on PythonError {{ causes {{ message }} }} ... on Error {{ message }} }} }}
"""
_EVENTS = """
query($id: ID!, $cursor: String, $limit: Int) { runOrError(runId: $id) { __typename
  ... on Run { eventConnection(afterCursor: $cursor, limit: $limit) { cursor hasMore events { __typename
    ... on MaterializationEvent { assetKey { path } metadataEntries { label
      ... on IntMetadataEntry { intRepr }
      ... on FloatMetadataEntry { floatRepr }
      ... on TextMetadataEntry { text } } }
    ... on AssetCheckEvaluationEvent {
      evaluation { assetKey { path } checkName severity success description partition } }
    ... on ExecutionStepFailureEvent { stepKey error { message cause { message } } failureMetadata { description } }
    ... on EngineEvent { message }
    ... on RunFailureEvent { message }
    ... on RunCanceledEvent { message } } } }
  ... on PythonError { causes { message } }
  ... on Error { message } } }
"""
_BACKFILL = """
query($id: String!) { partitionBackfillOrError(backfillId: $id) { __typename
  ... on PartitionBackfill {
    id status timestamp partitionNames partitionSetName assetSelection { path }
    error { message causes { message } } }
  ... on PythonError { causes { message } }
  ... on Error { message } } }
"""


@dataclass(frozen=True)
class RemoteRun:
    """A run, without its events."""

    id: str
    pipeline: str
    """Empty if the run belongs to none of our pipelines."""
    day: str | None
    job: str
    state: str
    created_at: float
    """Times are in seconds since 1970."""
    started_at: float | None
    ended_at: float | None
    retry_of: str | None
    """The run that this one retries."""
    tags: Mapping[str, str]
    assets: frozenset[str]
    """Names of the selected assets; empty if it runs its whole job."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended; a retry may follow."""
        return self.state in ENDS

    @property
    def retried_as(self) -> str | None:
        """The retry that Dagster launched by itself."""
        return self.tags.get("dagster/auto_retry_run_id")

    @property
    def failure(self) -> str | None:
        """Its failure class, see `operations/failed_runs.py`; a retry copies the tags of the run before it."""
        is_own = self.state == "failed" and self.tags.get(failed_runs.RECORDED_FOR) == self.id
        return self.tags.get(failed_runs.TAG) if is_own else None

    @property
    def retry_window(self) -> float:
        """Seconds after the run's end within which Dagster may still launch a retry; 0 if it will not.

        For runs of a backfill Dagster announces a retry that it never launches.
        """
        if self.state != "failed" or self.retried_as:
            return 0.0
        return {None: RETRY_DECISION_SECONDS, "true": TO_RETRY}.get(self.tags.get("dagster/will_retry"), 0.0)

    @property
    def may_be_retried(self) -> bool:
        """Whether a retry may still follow, by this machine's clock."""
        return time.time() < (self.ended_at or 0.0) + self.retry_window


@dataclass(frozen=True)
class FailedCheck:
    """A check that did not pass."""

    asset: str
    check: str
    severity: str
    message: str


@dataclass(frozen=True)
class StepError:
    """The error of a step, or of the run itself."""

    step: str | None
    message: str
    """Its first line."""


@dataclass(frozen=True)
class RunReport:
    """A run with the results that its events record."""

    run: RemoteRun
    metrics: Mapping[str, Mapping[str, float]]
    """Numeric metadata of each materialised asset."""
    model_version: str | None
    failed_checks: tuple[FailedCheck, ...]
    errors: tuple[StepError, ...]

    @property
    def rows(self) -> dict[str, int | None]:
        """Row counts of the day, as far as this run has reported them."""
        raw, features, scored = (self.metrics.get(name, {}) for name in ("raw_input", *_TABLES))
        quarantined = [table["rows_quarantined"] for table in (features, scored) if "rows_quarantined" in table]
        came = features.get("rows_in", raw.get("rows"))
        return {
            "in": None if came is None else int(came),
            "scored": int(scored["rows_scored"]) if "rows_scored" in scored else None,
            "quarantined": int(sum(quarantined)) if quarantined else None,
        }

    @property
    def rows_per_second(self) -> float | None:
        """Throughput of the scoring step."""
        return self.metrics.get("predictions", {}).get("rows_per_second")


_TABLES = ("validated_features", "predictions")


@dataclass(frozen=True)
class Backfill:
    """A range of days and the newest run of each."""

    id: str
    pipeline: str
    status: str
    """Dagster's own status."""
    created_at: float
    error: str | None
    days: tuple[str, ...]
    runs: Mapping[str, RemoteRun]

    @property
    def by_state(self) -> dict[str, list[str]]:
        """The days by the state of their newest run; without one: `requested`, or `not started` if none will follow."""
        without = "not started" if self.status in _NO_LONGER_STARTS else "requested"
        found: dict[str, list[str]] = {}
        for day in self.days:
            found.setdefault(self.runs[day].state if day in self.runs else without, []).append(day)
        return found

    @property
    def is_over(self) -> bool:
        """Whether no run is active and none will be started; Dagster itself records that up to half a minute later."""
        if not all(run.is_over for run in self.runs.values()):
            return False
        is_complete = set(self.days) <= set(self.runs) and not any(run.may_be_retried for run in self.runs.values())
        return self.status in _NO_LONGER_STARTS or is_complete

    @property
    def ended_at(self) -> float | None:
        """When its last run ended."""
        return max((run.ended_at or 0.0 for run in self.runs.values()), default=None) if self.is_over else None

    @property
    def state(self) -> str:
        """`requested`, `started`, or how it ended: `succeeded` if every day did, else `failed` or `canceled`."""
        if not self.is_over:
            return "started" if self.runs else "requested"
        if set(self.by_state) <= {"succeeded"} and self.status not in ("FAILED", "CANCELED"):
            return "succeeded"
        return "canceled" if self.status == "CANCELED" else "failed"


def find(remote: Remote, name: str) -> RemoteRun | Backfill:
    """The run or the backfill with that id.

    Raises:
        WrongCommandError: there is none.
    """
    return run(remote, name) if _RUN_ID.fullmatch(name) else backfill(remote, name)


def run(remote: Remote, run_id: str) -> RemoteRun:
    """The current state of a run.

    Raises:
        WrongCommandError: there is none with that id.
    """
    answer = remote.ask("runOrError", _ONE, {"id": run_id})
    if answer["__typename"] != "Run":
        raise WrongCommandError(f"no run {run_id} at {remote.address.url}; status --pipeline P --day D finds a day's")
    return _run(answer)


def newest_of_day(remote: Remote, pipeline: str, day: str) -> RemoteRun | None:
    """The newest run of a pipeline's day, however it was started; None if there is none."""
    for found in _runs(remote, {"tags": [{"key": PARTITION, "value": day}]}):
        if found.pipeline == pipeline and (found.job == f"{PREFIX}{pipeline}" or found.assets & ASSETS):
            return found
    return None


def report(remote: Remote, found: RemoteRun) -> RunReport:
    """A run with the results that its events record."""
    metrics: dict[str, dict[str, float]] = {}
    texts: dict[str, str] = {}
    checks: list[FailedCheck] = []
    errors: list[StepError] = []
    last_words: list[StepError] = []
    engine = ""
    for event in _events(remote, found.id):
        kind = event["__typename"]
        if kind == "MaterializationEvent" and event["assetKey"]:
            entries = event["metadataEntries"]
            metrics[event["assetKey"]["path"][-1]] = dict(_numbers(entries))
            texts |= {entry["label"]: entry["text"] for entry in entries if "text" in entry}
        elif kind == "AssetCheckEvaluationEvent" and not event["evaluation"]["success"]:
            one = event["evaluation"]
            asset = "/".join(one["assetKey"]["path"])
            checks.append(FailedCheck(asset, one["checkName"], one["severity"], one["description"] or "failed"))
        elif kind == "ExecutionStepFailureEvent":
            errors.append(StepError((event["stepKey"] or "").replace("__", "/"), _message(event)))
        elif kind == "EngineEvent":
            engine = event["message"]
        elif kind in ("RunFailureEvent", "RunCanceledEvent"):
            text = engine if _FROM_OUTSIDE in event["message"] else event["message"]
            last_words.append(StepError(None, first_line(text)))
    if found.state == "succeeded":
        errors.clear()  # of a step that was tried again
    elif not errors:
        errors = last_words[-1:]
    version = texts.get("model_version") or texts.get("version")
    return RunReport(found, metrics, version or None, tuple(checks), tuple(errors))


def backfill(remote: Remote, backfill_id: str) -> Backfill:
    """The current state of a backfill.

    Raises:
        WrongCommandError: there is none with that id.
    """
    answer = remote.ask("partitionBackfillOrError", _BACKFILL, {"id": backfill_id})
    if answer["__typename"] != "PartitionBackfill":
        raise WrongCommandError(
            f"neither run nor backfill {backfill_id} at {remote.address.url}; a run's id has 36 characters, "
            "a backfill's eight letters"
        )
    newest: dict[str, RemoteRun] = {}
    for found in _runs(remote, {"tags": [{"key": "dagster/backfill", "value": backfill_id}]}):
        if found.day:
            newest.setdefault(found.day, found)
    name = str(answer["partitionSetName"] or "").removesuffix("_partition_set")
    keys = answer["assetSelection"] or []
    pipelines = sorted({key["path"][0] for key in keys}) or [name.removeprefix(PREFIX)]
    return Backfill(
        id=answer["id"],
        pipeline=", ".join(pipelines),
        status=answer["status"],
        created_at=answer["timestamp"],
        error=python_error(answer["error"]) if answer["error"] else None,
        days=tuple(sorted(answer["partitionNames"] or newest)),
        runs=newest,
    )


def _runs(remote: Remote, filters: Mapping[str, Any]) -> Iterator[RemoteRun]:
    """Runs, the newest first."""
    cursor = None
    for _ in range(MOST_PAGES):
        answer = remote.ask("runsOrError", _MANY, {"filter": filters, "cursor": cursor, "limit": ANSWER_SIZE})
        if answer["__typename"] != "Runs":
            raise remote.refused(answer)
        yield from map(_run, answer["results"])
        if len(answer["results"]) < ANSWER_SIZE:
            return
        cursor = answer["results"][-1]["runId"]


def _run(answer: Mapping[str, Any]) -> RemoteRun:
    tags = {tag["key"]: tag["value"] for tag in answer["tags"]}
    keys = [key["path"] for key in answer["assetSelection"] or []]
    job = answer["jobName"]
    owners = {path[0] for path in keys}
    ours = job.removeprefix(PREFIX) if job.startswith(PREFIX) else owners.pop() if len(owners) == 1 else ""
    return RemoteRun(
        id=answer["runId"],
        pipeline=ours,
        day=tags.get(PARTITION),
        job=job,
        state=STATES.get(answer["status"], answer["status"].lower()),
        created_at=answer["creationTime"],
        started_at=answer["startTime"],
        ended_at=answer["endTime"],
        retry_of=answer["parentRunId"],
        tags=tags,
        assets=frozenset(path[-1] for path in keys),
    )


def _events(remote: Remote, run_id: str) -> Iterator[dict[str, Any]]:
    cursor = None
    for _ in range(MOST_PAGES):
        answer = remote.ask("runOrError", _EVENTS, {"id": run_id, "cursor": cursor, "limit": ANSWER_SIZE})
        if answer["__typename"] != "Run":
            raise WrongCommandError(f"no run {run_id} at {remote.address.url}")
        page = answer["eventConnection"]
        yield from page["events"]
        if not page["hasMore"]:
            return
        cursor = page["cursor"]


def _numbers(entries: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    """Numeric metadata of a materialisation, without Dagster's own, which repeats it."""
    for entry in entries:
        label = entry["label"]
        if label.startswith("dagster/"):
            continue
        if "intRepr" in entry:
            yield label, int(entry["intRepr"])
        elif "floatRepr" in entry and math.isfinite(value := float(entry["floatRepr"])):
            yield label, value


def _message(event: Mapping[str, Any]) -> str:
    """The message of a step's error: the exception that the step raised is the cause of Dagster's own."""
    failure, error = event["failureMetadata"], event["error"]
    texts = (
        failure and failure["description"],
        error and error["cause"] and error["cause"]["message"],
        error and error["message"],
    )
    return first_line(next(itertools.chain(filter(None, texts)), None))
