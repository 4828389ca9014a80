"""Scenarios with a real daemon: files arrive, processes die, S3 fails, and finally every day must match its files."""

import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from batch_scoring.daily import freshness
from batch_scoring.ingest import landing_files
from batch_scoring.operations.run_history import PARTITION
from batch_scoring_tests.reliability.audit import audit, some_rows
from batch_scoring_tests.reliability.deployment import Deployment, Part, deployed, wait_until
from batch_scoring_tests.reliability.proxy import Fault
from batch_scoring_tests.reliability.scenarios import Report
from batch_scoring_tests.reliability.store import Store
from batch_scoring_tests.tiny import TinyProject

FIRST = date(2024, 3, 4)
SHOWN_ELSEWHERE = {PARTITION, "batch_scoring/fingerprint", "batch_scoring/code", "dagster/repository"}
ACTIVE = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


def days(count: int) -> list[str]:
    """Consecutive days."""
    return [(FIRST + timedelta(days=n)).isoformat() for n in range(count)]


def project(folder: Path, data_root: str | None, **sections: dict[str, Any]) -> TinyProject:
    """A tiny pipeline whose sensors look every second, and whose days are complete at once."""
    made = TinyProject(folder, data_root)
    made.spec["input"]["complete"] = {"quiet_minutes": 0.02}
    made.spec["uploads"] = {"interval_seconds": 1}
    made.spec["runs"] = {"retry_minutes": 0.1}
    made.spec |= sections
    made.deliver("v1")
    return made


class Uploader:
    """Puts files, with other content each time."""

    def __init__(self, of: TinyProject) -> None:
        self.project = of
        self._count = 0

    def put(self, day: str, name: str = "a.parquet") -> Callable[[], None]:
        """Upload something new; gives what uploads the same once more."""
        self._count += 1
        rows = some_rows(self.project, 150, start=37 * self._count, shift=0.1 * self._count)
        self.project.land(day, rows, name)
        return lambda: self.project.land(day, rows, name)

    def put_odd(self) -> None:
        """Names that nobody expects."""
        for path in ("notes.txt", "dt=2024-13-45/a.parquet", "2024-03-04/x y.parquet", "dt=1999-01-01/a.parquet"):
            self.project.pipeline.landing.put(path, b"odd")


def unsettled(of: TinyProject, wanted: Sequence[str]) -> list[str]:
    """The days that are not scored as their files stand."""
    pipeline = of.pipeline
    stands = freshness.fingerprints(pipeline, wanted)
    return [
        day
        for day in wanted
        if stands.get(day) != landing_files.fingerprint(landing_files.list_day(pipeline.landing, day))
    ]


def is_idle(deployment: Deployment) -> bool:
    """Whether no run is on or waits."""
    with deployment.instance() as instance:
        return not instance.get_runs_count(dg.RunsFilter(statuses=ACTIVE))


def run_counts(deployment: Deployment) -> tuple[Counter[str], Counter[str]]:
    """Runs by day, and by status."""
    with deployment.instance() as instance:
        found = instance.get_runs()
    return Counter(run.tags.get(PARTITION, "") for run in found), Counter(run.status.value for run in found)


def story(deployment: Deployment) -> str:
    """What became of each run, oldest first: for whom looks at a failure."""
    with deployment.instance() as instance:
        records = instance.get_run_records(ascending=True)
        return "\n".join(
            f"{record.create_timestamp:%H:%M:%S} {run.tags.get(PARTITION)} {run.run_id[:8]} {run.status.value} "
            f"{record.start_time} {record.end_time} { {k: v for k, v in run.tags.items() if k not in SHOWN_ELSEWHERE} }"
            for record in records
            if (run := record.dagster_run)
        )


def validator(report: Report, projects: Sequence[TinyProject], wanted: Sequence[str]) -> None:
    """Every day of every project must be right, row by row."""
    for of in projects:
        left = unsettled(of, wanted)
        for day in wanted:
            faults = ["is not settled"] if day in left else audit(of.pipeline, day)
            report.violations += [f"{of.name} {day}: {fault}" for fault in faults]


def queue_of(store: Store, bucket: str, route: str) -> str:
    """The URL of a queue that hears of the bucket's objects.

    `route`: directly (s3), by a topic (sns), or by EventBridge (events).
    """
    sqs, s3 = store.client_of_moto("sqs"), store.client_of_moto("s3")
    url: str = sqs.create_queue(QueueName=f"{bucket}-{route}", Attributes={"VisibilityTimeout": "5"})["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    wanted = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
    told: dict[str, Any]
    if route == "s3":
        told = {"QueueConfigurations": [{"QueueArn": arn, "Events": wanted}]}
    elif route == "sns":
        sns = store.client_of_moto("sns")
        topic = sns.create_topic(Name=f"{bucket}-topic")["TopicArn"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        told = {"TopicConfigurations": [{"TopicArn": topic, "Events": wanted}]}
    else:
        bus = store.client_of_moto("events")
        bus.put_rule(Name=f"{bucket}-rule", EventPattern=json.dumps({"source": ["aws.s3"]}))
        bus.put_targets(Rule=f"{bucket}-rule", Targets=[{"Id": "queue", "Arn": arn}])
        told = {"EventBridgeConfiguration": {}}
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=told)
    return url


def uploaded(folder: Path, store: Store, routes: Sequence[str] = ("s3", "sns", "events"), count: int = 3) -> Report:
    """A real daemon over S3: one pipeline lists its landing folder, the others hear of it by SQS."""
    report = Report(f"uploads to S3 while runs are on: listing, SQS by {', '.join(routes)}")
    listing = project(folder / "listing", f"s3://{store.new_bucket()}/data")
    told = []
    for route in routes:
        bucket = store.new_bucket()
        queue = {"queue": queue_of(store, bucket, route), "interval_seconds": 1}
        stopped = {"default_status": "stopped"}
        told.append(project(folder / route, f"s3://{bucket}/data", events=queue, uploads=stopped))
    projects = [listing, *told]
    wanted = days(count)
    with report.timed(), deployed(folder / "deployment", projects, store.environment) as deployment:
        uploaders = [Uploader(of) for of in projects]
        for uploader in uploaders:
            for day in wanted:
                uploader.put(day)
        waiting = dict(zip((of.name for of in projects), uploaders, strict=True))

        def disturb() -> bool:
            """Change the days of each project as soon as a run of it has pinned its files."""
            for of in projects:
                if of.name not in waiting or not of.state.day_inputs(wanted):
                    continue
                uploader = waiting.pop(of.name)
                uploader.put_odd()
                uploader.put(wanted[0], "late.parquet")
                again = uploader.put(wanted[1])
                uploader.put(wanted[1])
                again()
            return not waiting

        report.expect(wait_until(disturb, 180, every=0.2), f"no run has begun of {sorted(waiting)}")
        report.trials = len(projects) * count
        wait_until(lambda: not any(unsettled(of, wanted) for of in projects) and is_idle(deployment), 240, every=2)
        by_day, by_status = run_counts(deployment)
        validator(report, projects, wanted)
        report.violations += [
            error
            for of in projects
            for door in ("uploads", "events")
            for error in tick_errors(deployment, f"{of.name}_{door}")
        ]
        with deployment.instance() as instance:
            for of in projects:
                seen = instance.fetch_observations(dg.AssetKey([of.name, "raw_input"]), limit=100).records
                texts = [record.asset_observation.description or "" for record in seen if record.asset_observation]
                # a queue's sensor looks at the names in the landing folder every ten minutes
                is_told = len(texts) == 4 if of is listing else len(texts) <= 4
                report.expect(is_told and len(set(texts)) == len(texts), f"{of.name}: bad keys told as {sorted(texts)}")
    report.notes = f"{sum(by_day.values())} runs ({dict(by_status)}) for {report.trials} days"
    return report


def killed_in_turn(folder: Path, count: int, seed: int = 0) -> Report:
    """Daemon, code server and runs killed -9 in turn while a backfill of many days goes on."""
    report, dice = Report(f"{count} days of backfill, daemon, code server and runs killed in turn"), random.Random(seed)
    of = project(folder / "project", None)
    uploader, wanted = Uploader(of), days(count)
    for day in wanted:
        uploader.put(day)
    bad = wanted[count // 2]
    of.land(bad, b"no parquet at all", "broken.parquet")
    with report.timed(), contextlib.ExitStack() as stack:
        deployment = Deployment(folder / "deployment", [of], {}, {})
        stack.callback(deployment.stop)
        job = f"score_{of.name}"
        began = deployment.command("job", "backfill", "-j", job, "--from", wanted[0], "--to", wanted[-1], "--noprompt")
        report.expect(began.returncode == 0, f"the backfill was not taken: {began.stderr[-500:]}")
        deployment.start()
        report.expect(wait_until(lambda: not is_idle(deployment), 120, every=0.2), "no run has begun")
        turns: list[Part] = ["daemon", "code server", "run"]
        kills: Counter[str] = Counter()
        deadline = time.monotonic() + 180 + 25 * count

        def is_over() -> bool:
            left = unsettled(of, [day for day in wanted if day != bad])
            return (not left and is_idle(deployment)) or time.monotonic() > deadline

        while not is_over():
            part = turns[sum(kills.values()) % 3]
            if len(unsettled(of, wanted)) > 1 and sum(kills.values()) < max(3, count // 2) and deployment.kill(part):
                kills[part] += 1
                report.trials += 1
                if part == "daemon":
                    time.sleep(dice.uniform(0, 3))
                    deployment.start()
            wait_until(is_over, dice.uniform(3, 6))
        by_day, by_status = run_counts(deployment)
        validator(report, [of], [day for day in wanted if day != bad])
        report.expect(unsettled(of, [bad]) == [bad], f"{bad} is settled with a broken file")
        report.expect(set(wanted) <= set(by_day), f"never run: {sorted(set(wanted) - set(by_day))}")
        report.notes = f"killed {dict(kills)}; {sum(by_day.values())} runs, {dict(by_status)}"
        if report.violations:
            report.notes += "\n" + story(deployment)
    return report


STORE_FAULTS = {
    "500": [Fault("500", chance=0.5)],
    "503 SlowDown": [Fault("503", chance=0.5)],
    "resets": [Fault("reset", chance=0.3)],
    "bodies cut short": [Fault("cut short", "^GET", chance=0.4)],
    "no answer for a while": [Fault("delay", chance=0.3, seconds=3)],
}
"""What S3 does to the sensor and to its runs."""


def failing_store(
    folder: Path, store: Store, names: Sequence[str] = tuple(STORE_FAULTS), seconds: float = 20
) -> Report:
    """S3 fails while files come and runs are on, for a while; then it stays down, and that must be said."""
    report = Report(f"S3 fails for {seconds:.0f} s under the sensor and its runs, then stays down")
    of = project(folder / "project", f"s3://{store.new_bucket()}/data")
    uploader, wanted = Uploader(of), days(len(names))
    with report.timed(), deployed(folder / "deployment", [of], store.environment) as deployment:
        for name, day in zip(names, wanted, strict=True):
            report.trials += 1
            # the files come past the proxy: others put them
            store.proxy.faults = []
            uploader.put(day)
            store.proxy.faults = faults = [
                Fault(f.action, f.on, chance=f.chance, seconds=f.seconds) for f in STORE_FAULTS[name]
            ]
            time.sleep(seconds)
            report.expect(any(fault.hits for fault in faults), f"{name}: never struck")
        store.proxy.faults = []
        settles = wait_until(lambda: not unsettled(of, wanted) and is_idle(deployment), 240, every=2)
        report.expect(settles, f"not settled: {unsettled(of, wanted)}")
        validator(report, [of], wanted)
        store.proxy.faults = [Fault("reset")]
        said = wait_until(lambda: bool(tick_errors(deployment, f"{of.name}_uploads")), 150, every=2)
        errors = tick_errors(deployment, f"{of.name}_uploads")
        report.expect(said and any("s3://" in error for error in errors), f"the sensor says {errors[:1]}")
        store.proxy.faults = []
        by_day, by_status = run_counts(deployment)
    report.notes = (
        f"{sum(by_day.values())} runs, {dict(by_status)}; it says: {errors[0][:160] if errors else 'nothing'}"
    )
    return report


def tick_errors(deployment: Deployment, sensor: str) -> list[str]:
    """What the sensor's failed ticks say, newest first."""
    with deployment.instance() as instance:
        for state in instance.all_instigator_state():
            if state.name == sensor:
                ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=20)
                return [f"{tick.error.message} {tick.error.cause}" for tick in ticks if tick.error]
    return []
