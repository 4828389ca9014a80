"""Exports to a real Redis, read as a service would read them: by another client, from `current`."""

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from redis.connection import AbstractConnection

from batch_scoring.config.delivery_spec import RedisExport
from batch_scoring.delivery.exports.redis import sink as redis_sink
from batch_scoring.delivery.exports.redis.server import RedisServer
from batch_scoring.delivery.exports.redis.sink import RedisSink
from batch_scoring.delivery.exports.sink import Delivery, Outcome, Replaces, Version
from batch_scoring.errors import RowsLostError, SinkError, SinkRefusedError
from batch_scoring_tests.deliveries import delivery_of
from batch_scoring_tests.redis_process import PASSWORD, RedisProcess, free_port, needs_redis, running_redis

pytestmark = needs_redis

FRIDAY, SATURDAY, SUNDAY = "2026-11-27", "2026-11-28", "2026-11-29"
ITEMS = pa.table({"user": ["u1", "u2", "u1", "u3", "u1"], "item": [7, 8, 9, 7, 5]})
LISTS = {"u1": [7, 9, 5], "u2": [8], "u3": [7]}


@pytest.fixture(scope="module")
def server() -> Iterator[RedisProcess]:
    with running_redis() as running:
        yield running


@pytest.fixture(autouse=True)
def _empty(server: RedisProcess) -> None:
    with server.client() as client:
        client.flushall()


def export(**fields: object) -> RedisExport:
    known = {"to": "redis", "url_from": "RECS", "prefix": "rec", "key": "user", "value": "item"}
    return RedisExport.model_validate({**known, **fields})


@pytest.fixture
def sink(server: RedisProcess) -> RedisSink:
    return RedisSink(export(), server.url)


def delivery(
    day: str = SATURDAY,
    transaction: int = 1,
    rows: pa.Table = ITEMS,
    *,
    run: str = "run",
    **fields: Any,  # noqa: ANN401
) -> Delivery:
    return delivery_of(rows, day, transaction, pipeline="shop", export="recs", run_id=run, **fields)


def items(*values: int) -> pa.Table:
    """A list of one user."""
    return pa.table({"user": ["u1"] * len(values), "item": pa.array(values, pa.int64())})


class Reader:
    """A service."""

    def __init__(self, server: RedisProcess) -> None:
        self.client = server.client()

    def current(self, field: str) -> str | None:
        return self.client.hget("rec:current", field)

    def get(self, key: str) -> object:
        found = self.client.get(f"{self.current('prefix')}{key}")
        return None if found is None else json.loads(found)

    def of_day(self, day: str, key: str = "u1") -> object:
        found = self.client.get(json.loads(self.client.hget("rec:days", day))["prefix"] + key)
        return None if found is None else json.loads(found)

    @property
    def keys(self) -> int:
        return len([name for name in self.client.scan_iter(count=10_000) if name not in ("rec:days", "rec:current")])


@pytest.fixture
def reader(server: RedisProcess) -> Reader:
    return Reader(server)


def test_a_service_finds_each_list_through_the_pointer(sink: RedisSink, reader: Reader, server: RedisProcess) -> None:
    assert sink.marker(SATURDAY) is None
    delivered = sink.deliver(delivery(transaction=3, created=1764300000000, run="r-1"))
    assert {user: reader.get(user) for user in LISTS} == LISTS
    assert reader.get("u4") is None
    pointer = reader.client.hgetall("rec:current")
    assert {
        name: pointer[name] for name in ("day", "created", "transaction", "rows", "keys", "run_id", "previous")
    } == {
        "day": SATURDAY,
        "created": "1764300000000",
        "transaction": "3",
        "rows": "5",
        "keys": "3",
        "run_id": "r-1",
        "previous": "",
    }
    assert pointer["prefix"].startswith(f"rec:{SATURDAY}.3-")
    assert delivered.outcome == "exported"
    assert delivered.marker == sink.marker(SATURDAY)
    assert delivered.marker.version == Version(1764300000000, 3)
    assert (delivered.marker.rows, delivered.marker.run_id) == (5, "r-1")
    assert delivered.where == (f"{server.address} {pointer['prefix']}*",)
    assert delivered.bytes == int(pointer["bytes"]) > 0


def test_one_value_per_key(server: RedisProcess, reader: Reader) -> None:
    rows = pa.table({"user": [1, 2, -3], "score": [0.25, None, 1e-7]})
    RedisSink(export(form="single", value="score"), server.url).deliver(delivery(rows=rows))
    assert [reader.get(key) for key in ("1", "2", "-3")] == [0.25, None, 1e-7]
    assert reader.client.get(f"{reader.current('prefix')}2") == "null"


def test_the_key_may_be_the_value(server: RedisProcess, reader: Reader) -> None:
    RedisSink(export(form="single", value="user"), server.url).deliver(delivery(rows=pa.table({"user": ["u1", "u2"]})))
    assert [reader.get(key) for key in ("u1", "u2", "u3")] == ["u1", "u2", None]


def test_two_rows_with_one_key_are_refused_where_one_value_is_wanted(server: RedisProcess, reader: Reader) -> None:
    sink = RedisSink(export(form="single"), server.url)
    with pytest.raises(SinkRefusedError, match=r"2 rows have the user of another row, but form: single .* form: list"):
        sink.deliver(delivery())
    assert (reader.keys, reader.current("prefix")) == (0, None)


def test_an_empty_day_is_shown_as_such(sink: RedisSink, reader: Reader) -> None:
    sink.deliver(delivery(FRIDAY))
    delivered = sink.deliver(delivery(SATURDAY, rows=ITEMS.slice(0, 0)))
    assert (delivered.outcome, delivered.marker.rows) == ("exported", 0)
    assert (reader.current("day"), reader.get("u1")) == (SATURDAY, None)


def test_a_reader_that_has_just_read_the_prefix_still_finds_the_old_list(sink: RedisSink, reader: Reader) -> None:
    sink.deliver(delivery(FRIDAY, rows=items(1)))
    known = reader.current("prefix")
    sink.deliver(delivery(SATURDAY, rows=items(2)))
    assert json.loads(reader.client.get(f"{known}u1") or "") == [1]
    assert (reader.get("u1"), reader.current("previous")) == ([2], known)


def test_the_same_version_again_changes_nothing(sink: RedisSink, reader: Reader) -> None:
    sink.deliver(delivery(run="first"))
    before = reader.client.hgetall("rec:current")
    delivered = sink.deliver(delivery(rows=items(99), run="second"))
    assert (delivered.outcome, delivered.marker.run_id) == ("unchanged", "first")
    assert (reader.client.hgetall("rec:current"), reader.keys) == (before, 3)


@pytest.mark.parametrize(
    ("replaces", "version", "outcome"),
    [
        ("same", Version(1, 3), "exported"),
        ("same", Version(1, 2), "superseded"),
        ("older", Version(1, 4), "exported"),
        ("older", Version(2, 1), "exported"),
        ("older", Version(0, 9), "superseded"),
        ("nothing", Version(1, 4), "kept"),
    ],
)
def test_what_a_delivery_may_replace(
    sink: RedisSink, reader: Reader, replaces: Replaces, version: Version, outcome: Outcome
) -> None:
    sink.deliver(delivery(transaction=3, rows=items(1)))
    new = replace(delivery(rows=items(2)), version=version, replaces=replaces)
    assert sink.deliver(new).outcome == outcome
    assert reader.get("u1") == ([2] if outcome == "exported" else [1])


def test_an_export_that_changes_to_decisions_and_back_goes_on(sink: RedisSink, reader: Reader) -> None:
    sink.deliver(replace(delivery(transaction=4, rows=items(1)), of="predictions"))
    before = sink.marker(SATURDAY)
    decisions = replace(delivery(transaction=2, rows=items(2)), of="decisions", instead_of=before)
    assert sink.deliver(decisions).outcome == "exported"
    marker = sink.marker(SATURDAY)
    assert marker and (marker.of, marker.version) == ("decisions", Version(1, 2))
    assert sink.deliver(replace(delivery(transaction=1, rows=items(3)), of="decisions")).outcome == "superseded"
    predictions = replace(delivery(transaction=1, rows=items(3)), of="predictions", instead_of=before)
    assert sink.deliver(predictions).outcome == "superseded", "the decisions came meanwhile"
    assert sink.deliver(replace(predictions, instead_of=marker)).outcome == "exported"
    assert reader.get("u1") == [3]


def test_a_marker_from_before_it_named_its_step_is_compared(sink: RedisSink, reader: Reader) -> None:
    sink.deliver(delivery(transaction=2, rows=items(1)))
    known = json.loads(reader.client.hget("rec:days", SATURDAY))
    del known["of"]
    reader.client.hset("rec:days", SATURDAY, json.dumps(known))
    assert sink.deliver(replace(delivery(transaction=1), of="decisions")).outcome == "superseded"
    assert sink.deliver(replace(delivery(transaction=3, rows=items(3)), of="decisions")).outcome == "exported"


@pytest.mark.parametrize("seed", range(8))
def test_the_pointer_shows_the_newest_day_and_every_day_its_newest_version_in_any_order(
    sink: RedisSink, reader: Reader, seed: int
) -> None:
    steps = [(day, transaction) for day in (FRIDAY, SATURDAY, SUNDAY) for transaction in (1, 2, 3)]
    newest: dict[str, int] = {}
    for day, transaction in random.Random(seed).choices(steps, k=12):
        outcome = sink.deliver(delivery(day, transaction, items(int(day[-2:]), transaction))).outcome
        known = newest.get(day, 0)
        assert outcome == ("exported" if transaction > known else "unchanged" if transaction == known else "superseded")
        newest[day] = max(known, transaction)
        assert reader.current("day") == max(newest)
        assert reader.get("u1") == [int(max(newest)[-2:]), newest[max(newest)]]
        assert {one: reader.of_day(one) for one in newest} == {one: [int(one[-2:]), newest[one]] for one in newest}


def test_a_day_exported_by_mistake_is_taken_back_as_the_docstring_says(sink: RedisSink, reader: Reader) -> None:
    sink.deliver(delivery(SATURDAY, rows=items(1)))
    sink.deliver(delivery("2062-01-01", rows=items(2)))
    reader.client.hdel("rec:days", "2062-01-01")
    reader.client.delete("rec:current")
    sink.deliver(replace(delivery(SATURDAY, rows=items(1)), replaces="same"))
    assert (reader.current("day"), reader.get("u1")) == (SATURDAY, [1])


def test_keys_vanish_by_their_ttl_and_may_come_again(sink: RedisSink, reader: Reader) -> None:
    sink.deliver(delivery(transaction=2))
    left = reader.client.ttl(f"{reader.current('prefix')}u1")
    assert 72 * 3600 - 5 <= left <= 72 * 3600
    assert reader.client.ttl("rec:current") == reader.client.ttl("rec:days") == -1
    gone = json.loads(reader.client.hget("rec:days", SATURDAY)) | {"expires_at": "2026-01-01T00:00:00Z"}
    reader.client.hset("rec:days", SATURDAY, json.dumps(gone))
    assert sink.marker(SATURDAY) is None
    assert sink.deliver(delivery(transaction=1)).outcome == "superseded"
    assert sink.deliver(delivery(transaction=2)).outcome == "exported"
    assert sink.marker(SATURDAY) is not None


def test_keys_that_have_vanished_do_not_come_again_if_what_was_exported_is_to_stay(
    sink: RedisSink, reader: Reader
) -> None:
    sink.deliver(delivery(transaction=2))
    gone = json.loads(reader.client.hget("rec:days", SATURDAY)) | {"expires_at": "2026-01-01T00:00:00Z"}
    reader.client.hset("rec:days", SATURDAY, json.dumps(gone))
    before = reader.current("prefix")
    assert sink.deliver(replace(delivery(transaction=2), replaces="nothing")).outcome == "unchanged"
    assert sink.deliver(replace(delivery(transaction=3), replaces="nothing")).outcome == "kept"
    assert reader.current("prefix") == before


def test_another_step_whose_keys_have_vanished_is_replaced(sink: RedisSink, reader: Reader) -> None:
    sink.deliver(delivery(transaction=2, of="predictions"))
    gone = json.loads(reader.client.hget("rec:days", SATURDAY)) | {"expires_at": "2026-01-01T00:00:00Z"}
    reader.client.hset("rec:days", SATURDAY, json.dumps(gone))
    assert sink.marker(SATURDAY) is None
    kept = delivery(rows=items(3), of="decisions", replaces="nothing")
    assert sink.deliver(kept).outcome == "kept"
    assert sink.deliver(replace(kept, replaces="older")).outcome == "exported"
    assert reader.get("u1") == [3]


class Meanwhile:
    """Rows of a delivery, during which something else happens."""

    def __init__(self, happens: Callable[[], object], rows: pa.Table = ITEMS) -> None:
        self._happens, self._rows = happens, rows

    def __call__(self) -> Iterator[pa.RecordBatch]:
        yield from self._rows.to_batches()
        self._happens()


@pytest.mark.parametrize(("transaction", "outcome"), [(1, "superseded"), (2, "unchanged"), (3, "exported")])
def test_another_export_that_comes_first(sink: RedisSink, reader: Reader, transaction: int, outcome: Outcome) -> None:
    other = Meanwhile(lambda: sink.deliver(delivery(transaction=2, rows=items(2), run="other")))
    delivered = sink.deliver(replace(delivery(transaction=transaction, run="mine"), read=other))
    assert delivered.outcome == outcome
    assert delivered.marker.run_id == ("mine" if outcome == "exported" else "other")
    assert reader.get("u1") == (LISTS["u1"] if outcome == "exported" else [2])
    assert reader.keys == (4 if outcome == "exported" else 1), "the keys of the one that lost are removed"


def test_exports_that_overtake_each_other_leave_the_newest_of_each_day_and_the_newest_day(
    sink: RedisSink, reader: Reader
) -> None:
    for seed in range(25):
        assert overtaken(sink, reader, seed) == []


@pytest.mark.parametrize(
    ("rule", "instead"),
    [
        ("marker ~= ARGV[2]", "false"),
        ("not shown or shown <= ARGV[1]", "true"),
        ("shown <= ARGV[1]", "shown < ARGV[1]"),
    ],
)
def test_each_rule_of_the_switch_is_needed(
    sink: RedisSink, reader: Reader, rule: str, instead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rule in redis_sink._SWITCH
    monkeypatch.setattr(redis_sink, "_SWITCH", redis_sink._SWITCH.replace(rule, instead))
    assert any(overtaken(sink, reader, seed) for seed in range(25))


def overtaken(sink: RedisSink, reader: Reader, seed: int) -> list[str]:
    """Run exports of which each may run others while it reads its rows and before it switches.

    Returns:
        What readers should not see afterwards.
    """
    chosen, newest, depths = random.Random(seed), dict[str, int](), [0]
    send = AbstractConnection.send_packed_command
    reader.client.flushall()

    def others() -> None:
        if len(depths) < 4 and chosen.random() < 0.4:
            run()

    def run() -> None:
        depths.append(0)
        day, transaction = chosen.choice((FRIDAY, SATURDAY)), chosen.choice((1, 2, 3))
        rows = items(int(day[-2:]), transaction)
        sink.deliver(replace(delivery(day, transaction, rows), read=Meanwhile(others, rows)))
        newest[day] = max(newest.get(day, 0), transaction)
        depths.pop()

    def interrupted(connection: AbstractConnection, packed: list[bytes], check_health: bool = True) -> None:
        if any(b"HSET" in bytes(piece) for piece in packed):
            others()
        send(connection, packed, check_health)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(AbstractConnection, "send_packed_command", interrupted)
        for _ in range(3):
            run()
    expected = {day: [int(day[-2:]), transaction] for day, transaction in newest.items()}
    found = {day: reader.of_day(day) for day in newest}
    wrong = [] if found == expected else [f"{found} instead of {expected}"]
    if (shown := (reader.current("day"), reader.get("u1"))) != (max(newest), expected[max(newest)]):
        wrong.append(f"current shows {shown} instead of {max(newest)}: {expected[max(newest)]}")
    return wrong


def test_two_exports_do_not_share_a_prefix(sink: RedisSink, reader: Reader) -> None:
    sink.deliver(delivery(FRIDAY, rows=items(1)))
    for other in (replace(delivery(), export="others"), replace(delivery(), pipeline="news")):
        with pytest.raises(SinkRefusedError, match=r"the prefix rec is used by the export shop.recs; choose another"):
            sink.deliver(other)
    assert (reader.current("day"), reader.get("u1"), reader.keys) == (FRIDAY, [1], 1)


def test_rows_that_cannot_be_read_leave_no_keys(sink: RedisSink, reader: Reader) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    single = RedisSink(export(form="single"), sink._url)
    rows = pa.table({"user": ["a", "b"], "item": [1, 2]})
    with pytest.raises(KeyboardInterrupt):
        single.deliver(replace(delivery(), read=Meanwhile(fail, rows)))
    assert (reader.keys, reader.current("prefix")) == (0, None)


def test_keys_that_somebody_removes_are_missed_before_the_switch(
    sink: RedisSink, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink.deliver(delivery(transaction=1, rows=items(1)))
    send = RedisServer.ask_each

    def removing(server: RedisServer, packed: Sequence[bytes], commands: int) -> list[Any]:
        if b"EXISTS" in packed[0]:
            reader.client.delete(*reader.client.keys(f"rec:{SATURDAY}.2-*u2"))
        return send(server, packed, commands)

    monkeypatch.setattr(RedisServer, "ask_each", removing)
    with pytest.raises(RowsLostError, match=r"2 of 3 keys are there after all were written.*Somebody else has removed"):
        sink.deliver(delivery(transaction=2))
    assert (reader.get("u1"), reader.keys) == ([1], 1)


@pytest.mark.parametrize("is_carried_out", [True, False])
def test_a_switch_without_an_answer_is_settled_by_the_next_run(
    server: RedisProcess, reader: Reader, monkeypatch: pytest.MonkeyPatch, is_carried_out: bool
) -> None:
    """The keys must not be removed: the pointer may show them."""
    sink = RedisSink(export(), server.url)
    send = AbstractConnection.send_packed_command

    def lose(connection: AbstractConnection, packed: list[bytes], check_health: bool = True) -> None:
        is_switch = any(b"HSET" in bytes(piece) for piece in packed)
        if not is_switch or is_carried_out:
            send(connection, packed, check_health)
        if is_switch and is_carried_out:
            connection.can_read(timeout=5)
        if is_switch:
            connection._sock.close()

    with monkeypatch.context() as patched:
        patched.setattr(AbstractConnection, "send_packed_command", lose)
        with pytest.raises(SinkError):
            sink.deliver(delivery())
    assert reader.keys == 3
    assert sink.deliver(delivery()).outcome == ("unchanged" if is_carried_out else "exported")
    assert {user: reader.get(user) for user in LISTS} == LISTS


def test_memory_that_is_full_stops_the_export_and_its_keys_are_removed() -> None:
    many = pa.table({"user": range(20_000), "item": range(20_000)})
    with running_redis("--maxmemory-policy", "noeviction") as server:
        reader, sink = Reader(server), RedisSink(export(), server.url)
        sink.deliver(delivery(transaction=1))
        reader.client.config_set("maxmemory", reader.client.info("memory")["used_memory"] + 1_000_000)
        with pytest.raises(SinkError, match="its memory is full; raise maxmemory") as caught:
            sink.deliver(delivery(transaction=2, rows=many))
        assert not isinstance(caught.value, SinkRefusedError)
        assert reader.client.info("stats")["expired_keys"] == 0
        assert int(reader.client.info("commandstats")["cmdstat_set"]["calls"]) > 1000, "some keys were written"
        assert reader.keys == 3
        assert reader.get("u1") == LISTS["u1"]


def test_keys_that_a_full_server_evicts_are_missed_and_its_policy_is_named() -> None:
    many = pa.table({"user": range(20_000), "item": range(20_000)})
    with running_redis("--maxmemory-policy", "allkeys-lru") as server:
        reader, sink = Reader(server), RedisSink(export(), server.url)
        assert list(sink.problems(many.schema)) == []
        reader.client.config_set("maxmemory", reader.client.info("memory")["used_memory"] + 1_000_000)
        assert [found for found in sink.problems(many.schema) if "maxmemory-policy is allkeys-lru" in found]
        with pytest.raises(RowsLostError, match=r"of 20,000 keys are there.*is allkeys-lru.*set it to noeviction"):
            sink.deliver(delivery(rows=many))
        assert reader.keys == 0
        assert reader.current("prefix") is None


def test_a_server_that_is_down_and_back() -> None:
    with running_redis() as server:
        reader, sink = Reader(server), RedisSink(export(), server.url)
        sink.deliver(delivery(transaction=1))
        server.stop()
        with pytest.raises(SinkError, match="check that it runs"):
            sink.deliver(delivery(transaction=2, rows=items(2)))
        with pytest.raises(SinkError):
            sink.marker(SATURDAY)
        assert [found for found in sink.problems(ITEMS.schema) if "check that it runs" in found]
        server.start()
        assert reader.get("u1") == LISTS["u1"]
        assert sink.deliver(delivery(transaction=2, rows=items(2))).outcome == "exported"


def test_a_cluster_is_refused() -> None:
    with running_redis("--cluster-enabled", "yes", "--cluster-port", str(free_port())) as server:
        reader, sink = Reader(server), RedisSink(export(), server.url)
        reader.client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while reader.client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
            time.sleep(0.01)
        with pytest.raises(SinkRefusedError, match=r"a node of a Redis Cluster.*without cluster mode"):
            sink.deliver(delivery())
        assert "without cluster mode" in "".join(sink.problems(ITEMS.schema))


def test_a_replica_is_no_place_to_write_to() -> None:
    with running_redis() as server:
        sink = RedisSink(export(), server.url)
        Reader(server).client.replicaof("127.0.0.1", "1")
        with pytest.raises(SinkError, match="it is a replica; wait for the failover"):
            sink.deliver(delivery())


RIGHTS = ["+eval", "+set", "+exists", "+unlink", "+hget", "+hset", "+time", "+info"]
"""What the guide says that a user needs."""


@pytest.mark.parametrize("missing", [None, *RIGHTS])
def test_the_rights_that_an_export_needs(server: RedisProcess, reader: Reader, missing: str | None) -> None:
    granted = [right for right in RIGHTS if right != missing]
    reader.client.acl_setuser(
        "svc", reset=True, enabled=True, passwords=[f"+{PASSWORD}"], keys=["rec:*"], commands=granted
    )
    sink = RedisSink(export(), server.url_of("svc"))
    problems = list(sink.problems(ITEMS.schema))
    if missing is None:
        assert problems == []
        assert sink.deliver(delivery()).outcome == "exported"
    else:
        assert "grant the user what is missing" in "".join(problems)
        assert "svc" not in "".join(problems)
    assert not reader.client.keys("rec:probe*") or missing == "+unlink"


def test_keys_of_others_are_left_alone(server: RedisProcess, reader: Reader) -> None:
    for right, pattern in (("+@all", "other:*"), ("-@all", "rec:*")):
        reader.client.acl_setuser(
            "svc", reset=True, enabled=True, passwords=[f"+{PASSWORD}"], keys=[pattern], commands=[right]
        )
        with pytest.raises(SinkRefusedError, match="grant the user"):
            RedisSink(export(), server.url_of("svc")).deliver(delivery())
    reader.client.set("rec:days", "mine")
    with pytest.raises(SinkRefusedError, match="WRONGTYPE"):
        RedisSink(export(), server.url).deliver(delivery())
    assert reader.client.get("rec:days") == "mine"


def test_a_pointer_of_another_kind_leaves_the_marker_unset(sink: RedisSink, reader: Reader) -> None:
    reader.client.set("rec:current", "mine")
    with pytest.raises(SinkRefusedError, match="WRONGTYPE"):
        sink.deliver(delivery())
    assert sink.marker(SATURDAY) is None
    assert reader.keys == 0


@pytest.mark.parametrize("content", ["{}", b"\xff\xfe"])
def test_a_marker_that_is_none_is_named(sink: RedisSink, reader: Reader, content: str | bytes) -> None:
    reader.client.hset("rec:days", SATURDAY, content)
    with pytest.raises(SinkRefusedError, match=f"field {SATURDAY} of rec:days is not a marker of an export"):
        sink.marker(SATURDAY)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"key": "customer"}, "no column customer; the columns are user, item"),
        ({"value": "score"}, "no column score"),
        ({"ttl_hours": 47}, "ttl_hours is 47, but up to 24 hours lie between two exports; set it to 48 or more"),
        ({"ttl_hours": 300, "days": ["mon"]}, "up to 168 hours"),
        ({"ttl_hours": 100, "days": ["fri", "mon"]}, "up to 96 hours"),
        ({"ttl_hours": 48}, ""),
        ({"ttl_hours": 336, "days": ["mon"]}, ""),
    ],
)
def test_problems_of_the_spec(server: RedisProcess, fields: dict[str, Any], problem: str) -> None:
    found = list(RedisSink(export(**fields), server.url).problems(ITEMS.schema))
    assert len(found) == bool(problem)
    assert problem in "".join(found)


def test_too_little_memory_for_the_next_version(sink: RedisSink, reader: Reader) -> None:
    sink.deliver(delivery())
    assert list(sink.problems(ITEMS.schema)) == []
    reader.client.hset("rec:current", "bytes", 100 * 2**20)
    reader.client.config_set("maxmemory", 200 * 2**20)
    try:
        (found,) = sink.problems(ITEMS.schema)
    finally:
        reader.client.config_set("maxmemory", 0)
    assert "but the next version needs about 300 MiB" in found


def test_a_problem_leaves_nothing_behind(sink: RedisSink, reader: Reader) -> None:
    assert list(sink.problems(ITEMS.schema)) == []
    assert reader.client.keys() == []


def test_nothing_of_the_address_but_the_place_is_told(server: RedisProcess) -> None:
    sink = RedisSink(export(), server.url)
    assert sink.address == server.address
    assert PASSWORD not in "".join((*sink.deliver(delivery()).where, sink.address))
