"""Messages of every kind, on moto's queue and in words; the days that they name are looked at, never believed."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.operations.automation import sqs
from batch_scoring.operations.automation.landing_scan import Tick
from batch_scoring.operations.automation.planner import TickState
from batch_scoring.operations.automation.sqs import NamedDay, ObjectKey, Sorted, parse, sort_message
from batch_scoring_tests.reliability.store import Store
from batch_scoring_tests.reliability.triggered import queue_of
from batch_scoring_tests.tiny import DAY, NEXT_DAY, TinyProject

pytestmark = pytest.mark.s3
LOG = logging.getLogger("events")


def s3_event(key: str, bucket: str = "b") -> dict[str, Any]:
    record = {"eventSource": "aws:s3", "s3": {"bucket": {"name": bucket}, "object": {"key": key, "size": 1}}}
    return {"Records": [record]}


# what a message says


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (s3_event("landing/dt%3D2024-03-04/a+b%C3%BC.csv"), [ObjectKey("b", "landing/dt=2024-03-04/a bü.csv")]),
        ({"Records": s3_event("x")["Records"] * 2}, [ObjectKey("b", "x")] * 2),
        ({"Type": "Notification", "Message": json.dumps(s3_event("x%20y"))}, [ObjectKey("b", "x y")]),
        (
            {"source": "aws.s3", "detail": {"bucket": {"name": "b"}, "object": {"key": "dt=2024-03-04/a+b%20c"}}},
            [ObjectKey("b", "dt=2024-03-04/a+b%20c")],  # EventBridge does not encode
        ),
        ({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}, []),
        ({"Type": "Notification", "Message": '{"Event": "s3:TestEvent"}'}, []),
        ({"pipeline": "loans", "day": DAY}, [NamedDay("loans", DAY)]),
        ({"Type": "Notification", "Message": json.dumps({"pipeline": "p", "day": DAY})}, [NamedDay("p", DAY)]),
    ],
)
def test_a_message_of_any_kind_is_understood(message: object, expected: list[object]) -> None:
    assert list(parse(json.dumps(message))) == expected


@pytest.mark.parametrize(
    "body",
    [
        "",
        "hello",
        "[]",
        "3",
        "null",
        "{}",
        '{"Records": 3}',
        '{"Records": [{"s3": {}}]}',
        '{"pipeline": "p"}',
        "[" * 100_000,
        '{"Type": "Notification"}',
        '{"Type": "Notification", "Message": 7}',
        '{"source": "aws.s3"}',
    ],
)
def test_what_is_no_message_is_an_error_that_says_what_is(body: str) -> None:
    with pytest.raises(ValueError, match="an invalid message: ") as raised:
        list(parse(body))
    assert str(raised.value).endswith('or {"pipeline": "name", "day": "YYYY-MM-DD"}')


# the queue


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as found:
        yield found


@pytest.fixture
def queue(store: Store) -> str:
    """A queue that nobody fills; a message that was read is back after a second."""
    client = store.client_of_moto("sqs")
    url: str = client.create_queue(QueueName=store.new_bucket(), Attributes={"VisibilityTimeout": "1"})["QueueUrl"]
    return url


@pytest.fixture(autouse=True)
def _soon_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that was read is back after a second or two."""
    monkeypatch.setattr(sqs, "_LEAST_HIDDEN", 1)
    monkeypatch.setattr(sqs, "_HIDDEN_TICKS", 0)


@pytest.fixture
def project(store: Store, tmp_path: Path, queue: str) -> TinyProject:
    """A pipeline on S3 that listens to the queue."""
    made = TinyProject(tmp_path, f"s3://{store.new_bucket()}/data")
    made.spec["events"] = {"queue": queue}
    made.spec["input"]["complete"] = {"quiet_minutes": 0}
    made.write_spec()
    return made


Send = Callable[..., None]


@pytest.fixture
def send(store: Store, queue: str) -> Send:
    def put(*bodies: object) -> None:
        for body in bodies:
            text = body if isinstance(body, str) else json.dumps(body)
            store.client_of_moto("sqs").send_message(QueueUrl=queue, MessageBody=text)

    return put


def left(store: Store, queue: str) -> int:
    """Messages in the queue, hidden or not."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = store.client_of_moto("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
    return sum(int(value) for value in found.values())


def look(project: TinyProject, instance: dg.DagsterInstance, before: Tick | None = None, *more: TinyProject) -> Tick:
    """A tick; the whole landing folder is not looked at, unless there was none before."""
    memory = before.plan.memory if before else TickState(swept=time.time())
    pipelines = [one.pipeline for one in (project, *more)]
    return sqs.tick(pipelines[0], pipelines, instance, memory, LOG)


def test_a_message_is_deleted_in_the_tick_after_the_one_that_has_read_it(
    project: TinyProject, instance: dg.DagsterInstance, store: Store, queue: str, send: Send
) -> None:
    project.land(DAY, project.rows(64))
    send({"pipeline": project.name, "day": DAY})
    dies = look(project, instance)
    assert [request.day for request in dies.plan.requests] == [DAY] and left(store, queue) == 1
    time.sleep(2.2)
    again = look(project, instance)  # nothing of the tick before was stored
    assert again.plan.requests == dies.plan.requests, "the same run, under the same key"
    look(project, instance, again)
    assert left(store, queue) == 0


def test_a_named_day_is_looked_at_until_it_is_settled(
    project: TinyProject, instance: dg.DagsterInstance, send: Send
) -> None:
    project.spec["input"]["complete"] = {"by": "marker", "quiet_minutes": 0}
    project.write_spec()
    project.land(DAY, project.rows(64))
    send({"pipeline": project.name, "day": DAY})
    tick = look(project, instance)
    assert tick.plan.requests == () and tick.plan.memory.hinted == [DAY]
    project.pipeline.landing.put(f"dt={DAY}/_SUCCESS", b"")
    tick = look(project, instance, tick)
    assert [request.day for request in tick.plan.requests] == [DAY]
    project.run(instance=instance)
    tick = look(project, instance, tick)
    assert (tick.plan.requests, tick.plan.memory.hinted) == ((), [])


def test_a_named_day_that_is_settled_or_empty_is_forgotten(
    project: TinyProject, instance: dg.DagsterInstance, send: Send
) -> None:
    send({"pipeline": project.name, "day": DAY}, {"pipeline": project.name, "day": NEXT_DAY})
    tick = look(project, instance)
    assert (tick.looked, tick.plan.requests, tick.plan.memory.hinted) == (2, (), [])


def test_bad_messages_are_reported_and_deleted(
    project: TinyProject, instance: dg.DagsterInstance, store: Store, queue: str, send: Send
) -> None:
    bucket = project.data_root.removeprefix("s3://").partition("/")[0]
    landing = project.pipeline.landing.uri.removeprefix(f"s3://{bucket}/")
    send(
        "hello",
        {"pipeline": "nobody", "day": DAY},
        {"pipeline": project.name, "day": "yesterday"},
        {"pipeline": project.name, "day": "1999-01-01"},
        s3_event(f"{landing}/notes.txt", bucket),
        s3_event(f"{landing}/dt%3D2024-13-01/a.csv", bucket),
        s3_event("data/x/tables/a.parquet", bucket),
        {"Event": "s3:TestEvent"},
    )
    tick = look(project, instance)
    texts = sorted(report.text for report in tick.plan.reports)
    assert [text.split(": ")[0].replace(project.name, "tiny") for text in texts] == [
        "a message",
        f"nobody {DAY}",
        "tiny 1999-01-01",
        "tiny yesterday",
    ]  # the look at the landing folder tells the names there
    look(project, instance, tick)
    assert left(store, queue) == 0


def test_one_queue_serves_several_pipelines(
    project: TinyProject, tmp_path: Path, instance: dg.DagsterInstance, store: Store, queue: str, send: Send
) -> None:
    other = TinyProject(tmp_path / "other", project.data_root)
    other.spec |= {"events": {"queue": queue}}
    other.write_spec()
    other.land(DAY, other.rows(64))
    send({"pipeline": other.name, "day": DAY}, {"pipeline": project.name, "day": DAY})
    mine = look(project, instance, None, other)
    assert mine.plan.reports == () and len(mine.plan.memory.handled) == 1
    theirs = look(other, instance, None, project)
    assert [request.day for request in theirs.plan.requests] == [] or theirs.plan.requests[0].day == DAY
    assert DAY in {request.day for request in theirs.plan.requests} | set(theirs.plan.memory.hinted)
    look(project, instance, mine, other)
    look(other, instance, theirs, project)
    assert left(store, queue) == 0


def test_landing_folders_within_each_other_and_queues_of_others_are_told_apart(
    project: TinyProject, tmp_path: Path, queue: str
) -> None:
    inner = TinyProject(tmp_path / "inner", project.data_root)
    inner.spec |= {"events": {"queue": queue}, "input": {"key": "id", "landing": f"{project.name}/landing/inner"}}
    inner.write_spec()
    silent = TinyProject(tmp_path / "silent", project.data_root)
    both = [project.pipeline, inner.pipeline, silent.pipeline]

    def sorted_for(pipeline: Pipeline, key: str, of: TinyProject) -> Sorted:
        bucket, _, prefix = of.pipeline.landing.uri.removeprefix("s3://").partition("/")
        return sort_message(json.dumps(s3_event(f"{prefix}/{key}", bucket)), pipeline, both)

    outer = project.pipeline
    assert sorted_for(outer, f"dt={DAY}/a.parquet", project).days == [DAY]
    assert sorted_for(outer, f"dt={DAY}/a.parquet", inner).is_for_others
    assert sorted_for(inner.pipeline, f"dt={DAY}/a.parquet", inner).days == [DAY]
    of_silent = sorted_for(outer, f"dt={DAY}/a.parquet", silent)
    assert of_silent.outside == 1 and not of_silent.is_for_others, "nobody else reads this queue"
    named = sort_message(json.dumps({"pipeline": silent.name, "day": DAY}), outer, both)
    assert not named.is_for_others and "the name of no pipeline that reads this queue" in named.unexpected[0].reason


def test_days_of_which_no_message_came_are_found_by_a_look_at_the_whole_folder(
    project: TinyProject, instance: dg.DagsterInstance
) -> None:
    project.land(DAY, project.rows(64))
    assert look(project, instance).plan.requests == ()
    first = sqs.tick(project.pipeline, [project.pipeline], instance, TickState(), LOG)
    assert [request.day for request in first.plan.requests] == [DAY]
    assert first.plan.memory.swept > 0


@pytest.mark.parametrize("route", ["s3", "sns", "events"])
def test_an_upload_names_its_day_by_every_route(
    store: Store, tmp_path: Path, instance: dg.DagsterInstance, route: str
) -> None:
    bucket = store.new_bucket()
    made = TinyProject(tmp_path, f"s3://{bucket}/da ta+x")
    made.spec["events"] = {"queue": queue_of(store, bucket, route)}
    made.spec["input"]["complete"] = {"quiet_minutes": 0}
    made.write_spec()
    made.land(DAY, made.rows(64), "ü b+c.parquet")
    tick = look(made, instance)
    assert [request.day for request in tick.plan.requests] == [DAY] and tick.plan.reports == ()


def test_a_queue_that_is_not_there_is_an_error_that_names_it(
    project: TinyProject, instance: dg.DagsterInstance, store: Store, queue: str
) -> None:
    store.client_of_moto("sqs").delete_queue(QueueUrl=queue)
    with pytest.raises(OSError, match=queue):
        look(project, instance)
