"""Jobs and days of a remote deployment, and how runs and backfills are started there.

The deployment is asked which pipelines and days exist: specs and data of this machine play no part.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from batch_scoring.cli.backfill.day_locks import HEARTBEAT_TIMEOUT
from batch_scoring.cli.remote.connection import Remote, python_error
from batch_scoring.config.names import broken_name
from batch_scoring.errors import UnreachableError, WrongCommandError
from batch_scoring.operations.run_history import PARTITION

PREFIX = "score_"
"""Prefix of the names of the jobs that score a day."""
_WHY = {"batch_scoring/why": "submitted"}

_WORKSPACE = """
query { workspaceOrError { __typename
  ... on Workspace { locationEntries { name loadStatus locationOrLoadError { __typename
    ... on RepositoryLocation { repositories { name jobs { name } sensors { name description } } }
    ... on PythonError { message causes { message } } } } }
  ... on PythonError { message causes { message } } } }
"""
_DAYS = """
query($params: PipelineSelector!) { pipelineOrError(params: $params) { __typename
  ... on Pipeline { partitionKeysOrError { partitionKeys } }
  ... on PythonError { causes { message } }
  ... on Error { message } } }
"""
_BACKFILL = """
mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) { __typename
  ... on LaunchBackfillSuccess { backfillId }
  ... on PythonError { causes { message } }
  ... on Error { message } } }
"""
_DAEMON = """
query { instance { daemonHealth { allDaemonStatuses { daemonType required lastHeartbeatTime } } } }
"""


@dataclass(frozen=True)
class Job:
    """The job that scores a day of a pipeline."""

    pipeline: str
    repository: str
    location: str

    @property
    def name(self) -> str:
        """The name in Dagster."""
        return f"{PREFIX}{self.pipeline}"


def find(remote: Remote, pipeline: str, location: str | None = None) -> Job:
    """The job of a pipeline.

    Args:
        remote: the deployment.
        pipeline: its name.
        location: the code location to look in; all if None.

    Raises:
        WrongCommandError: no job, or several, match.
        UnreachableError: a code location that may have it does not load.
    """
    found, broken, sensors = _jobs(remote)
    if location is not None:
        known = sorted({job.location for job in found} | set(broken))
        if location not in known:
            raise WrongCommandError(
                f"no code location {location!r} at {remote.address.url}; known code locations: {_names(known)}"
            )
        found = [job for job in found if job.location == location]
        broken = {name: why for name, why in broken.items() if name == location}
    matching = [job for job in found if job.pipeline == pipeline]
    if len(matching) > 1:
        names = ", ".join(job.location for job in matching)
        raise WrongCommandError(f"several code locations have {pipeline}: {names}; pass --location")
    if matching:
        return matching[0]
    if said := sensors.get(broken_name(pipeline)):
        raise WrongCommandError(f"{said} (at {remote.address.url})")
    names = _names(sorted({job.pipeline for job in found}))
    missing = f"no pipeline {pipeline!r} at {remote.address.url}; known pipelines: {names}"
    if broken:
        name, why = next(iter(broken.items()))
        raise UnreachableError(f"{missing}; but its code location {name!r} {why}")
    raise WrongCommandError(missing)


def _jobs(remote: Remote) -> tuple[list[Job], dict[str, str], dict[str, str]]:
    """The jobs of the pipelines; the code locations that do not load, with the reason; the descriptions of sensors."""
    found: list[Job] = []
    broken: dict[str, str] = {}
    sensors: dict[str, str] = {}
    for entry in remote.ask("workspaceOrError", _WORKSPACE)["locationEntries"]:
        place: dict[str, Any] = entry["locationOrLoadError"] or {"__typename": "nothing yet"}
        if place["__typename"] == "PythonError":
            broken[entry["name"]] = f"does not load: {python_error(place)}"
        elif place["__typename"] != "RepositoryLocation":
            broken[entry["name"]] = "is still loading: try again in a minute"
        else:
            for repository in place["repositories"]:
                sensors |= {sensor["name"]: sensor["description"] for sensor in repository["sensors"]}
            found += [
                Job(job["name"].removeprefix(PREFIX), repository["name"], entry["name"])
                for repository in place["repositories"]
                for job in repository["jobs"]
                if job["name"].startswith(PREFIX)
            ]
    return found, broken, sensors


def days(remote: Remote, job: Job) -> list[str]:
    """The days that a pipeline has there, as YYYY-MM-DD, in order."""
    selector = {"pipelineName": job.name, "repositoryName": job.repository, "repositoryLocationName": job.location}
    answer = remote.ask("pipelineOrError", _DAYS, {"params": selector})
    if answer["__typename"] != "Pipeline":
        raise remote.refused(answer)
    return list(answer["partitionKeysOrError"]["partitionKeys"])


def days_within(remote: Remote, job: Job, first: date, last: date) -> list[str]:
    """The days from first to last, which the deployment must have.

    Raises:
        WrongCommandError: the range is empty or not within the pipeline's days.
    """
    if last < first:
        raise WrongCommandError(f"{last} is before {first}; expected --from FIRST --to LAST in this order")
    known = days(remote, job)
    if not known:
        raise WrongCommandError(f"{job.pipeline} has no days yet at {remote.address.url}")
    for day in (str(first), str(last)):
        if day not in known:
            its = f"its days there are {known[0]} … {known[-1]}"
            raise WrongCommandError(f"{day} is not a day of {job.pipeline} at {remote.address.url}; {its}")
    return [day for day in known if str(first) <= day <= str(last)]


def start_day(remote: Remote, job: Job, day: str) -> str:
    """Start a run of a day, and return its id.

    Raises:
        UnreachableError: the deployment does not answer or refuses; the message says if the run may have started
            nevertheless.
    """
    from dagster_graphql import DagsterGraphQLClientError

    try:
        return remote.client.submit_job_execution(
            job.name,
            repository_location_name=job.location,
            repository_name=job.repository,
            tags={PARTITION: day, **_WHY},
        )
    except DagsterGraphQLClientError as error:
        if error.__cause__ is None:  # the answer is an error: its name and what it says
            kind, *message = (str(argument) for argument in error.args)
            raise remote.refused({"__typename": kind, "message": message[0] if message else kind}) from error
        raise _in_doubt(remote.explain(error), f"batch-scoring status --pipeline {job.pipeline} --day {day}") from error


def start_days(remote: Remote, job: Job, wanted: Sequence[str]) -> str:
    """Start a backfill with one run per day, and return its id.

    Raises:
        UnreachableError: as `start_day`.
    """
    params = {
        "selector": {
            "partitionSetName": f"{job.name}_partition_set",
            "repositorySelector": {"repositoryName": job.repository, "repositoryLocationName": job.location},
        },
        "partitionNames": list(wanted),
        "tags": [{"key": key, "value": value} for key, value in _WHY.items()],
        "title": f"{job.pipeline} {wanted[0]} to {wanted[-1]}",
    }
    try:
        answer = remote.ask("launchPartitionBackfill", _BACKFILL, {"params": params})
    except UnreachableError as error:
        raise _in_doubt(error, remote.address.link("runs")) from error
    if answer["__typename"] != "LaunchBackfillSuccess":
        raise remote.refused(answer)
    return str(answer["backfillId"])


def silent_daemon(remote: Remote, kind: str) -> str | None:
    """The warning that nothing takes work from the queue, if the daemon of that kind has been silent for a while."""
    health = remote.ask("instance", _DAEMON)["daemonHealth"]["allDaemonStatuses"]
    beats = [status["lastHeartbeatTime"] for status in health if status["daemonType"] == kind and status["required"]]
    if not beats or (beats[0] is not None and time.time() < beats[0] + HEARTBEAT_TIMEOUT):
        return None
    since = (
        "has never run"
        if beats[0] is None
        else f"sent its last heartbeat {(time.time() - beats[0]) / 60:.0f} minutes ago"
    )
    return f"the deployment's daemon {since}: nothing is started until it runs"


def _in_doubt(error: UnreachableError, look: str) -> UnreachableError:
    """The error if the answer was lost: the request may have been carried out, and repeating it could do so twice."""
    if not error.in_doubt:
        return error
    return UnreachableError(f"{error}; but first check whether it was started all the same: {look}", in_doubt=True)


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
