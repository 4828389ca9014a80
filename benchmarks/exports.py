"""Exports of a day against the obvious way to write its rows: client CPU, in paired rounds.

    python -m benchmarks.exports postgres --rows 1000000
    python -m benchmarks.exports redis --rows 1000000
    python -m benchmarks.exports redis-lists --rows 10000000

Every contender runs in its own process, reads the same Parquet file and fills the same empty sink, a real server in
memory on this machine. `client CPU` and `work` are of reading and writing, without imports; the server's CPU is not in
it.
"""

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch_scoring.delivery.exports.sink import Delivery, Sink, Version
from batch_scoring.storage import parquet
from benchmarks import side_by_side
from benchmarks.side_by_side import Measures

DAY = "2024-01-01"
OURS = "batch_scoring"
SEGMENTS = ("north", "south", "east", "west")

Write = Callable[[str, Path], None]
"""Writes the rows of a file to the sink at an address."""


def rows(count: int) -> pa.Table:
    """Eight columns in the order of the key."""
    random = np.random.default_rng(0)
    probability = random.random(count)
    return pa.table(
        {
            "id": np.arange(count),
            "prediction": (probability > 0.5).astype(np.int64),
            "prob_class_0": 1 - probability,
            "prob_class_1": probability,
            "amount": random.lognormal(3, 1, count).round(2),
            "segment": pa.array(np.array(SEGMENTS)[random.integers(len(SEGMENTS), size=count)]),
            "model_version": pa.array(["v7"] * count),
            "scored_at": pa.array([datetime(2024, 1, 2, tzinfo=UTC)] * count, pa.timestamp("us", "UTC")),
        }
    )


def batches(file: Path) -> Iterator[pa.RecordBatch]:
    """Read a file in the batches of a day."""
    with file.open("rb") as stream:
        yield from parquet.read(stream)


def deliver(sink: Sink, file: Path) -> None:
    """Export a file as a day."""
    schema = pq.read_schema(file)
    delivery = Delivery("churn", "results", DAY, Version(1, 1), "run", schema, lambda: batches(file))
    assert sink.deliver(delivery).outcome == "exported"


# PostgreSQL


@contextmanager
def postgres() -> Iterator[tuple[str, Callable[[], None]]]:
    """Run a server; give its address and what empties it."""
    from batch_scoring_tests.postgres_server import running_server

    with running_server() as server:
        yield server.url, lambda: server.query("DROP TABLE IF EXISTS results, batch_scoring_exports") and None


def to_postgres() -> Write:
    """Export as the project does."""
    import adbc_driver_postgresql.dbapi  # noqa: F401  (not measured)

    from batch_scoring.delivery.exports.postgres.sink import PostgresSink

    return lambda url, file: deliver(PostgresSink(url, "results", "churn", "results", "id"), file)


def rows_to_postgres() -> Write:
    """Insert rows by SQLAlchemy, in one transaction, into a table with the same columns and key."""
    import psycopg2  # noqa: F401  (not measured)
    import sqlalchemy as sa

    table = sa.Table(
        "results",
        sa.MetaData(),
        sa.Column("dt", sa.Date, primary_key=True),
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("prediction", sa.BigInteger),
        *(sa.Column(name, sa.Double) for name in ("prob_class_0", "prob_class_1", "amount")),
        *(sa.Column(name, sa.Text) for name in ("segment", "model_version")),
        sa.Column("scored_at", sa.DateTime(timezone=True)),
    )
    day = date.fromisoformat(DAY)

    def write(url: str, file: Path) -> None:
        with sa.create_engine(url).begin() as connection:
            table.create(connection)
            connection.execute(table.delete().where(table.c.dt == day))
            for batch in batches(file):
                connection.execute(table.insert(), [{"dt": day, **row} for row in batch.to_pylist()])

    return write


# Redis


def scored(count: int) -> pa.Table:
    """A score for every user."""
    return pa.table({"user_id": np.arange(count), "score": np.random.default_rng(0).random(count)})


def ranked(count: int) -> pa.Table:
    """Ten items for every user, in the order of their ranks: those of one user are far from each other."""
    users = -(-count // 10)
    items = np.random.default_rng(0).integers(100_000, size=count)
    return pa.table({"user_id": np.arange(count) % users, "item_id": items})


@contextmanager
def redis() -> Iterator[tuple[str, Callable[[], None]]]:
    """Run a server; give its address and what empties it."""
    from batch_scoring_tests.redis_process import running_redis

    with running_redis("--appendonly", "no") as server:
        yield server.url, lambda: server.client().flushall(asynchronous=True) and None


def to_redis(form: Literal["list", "single"], value: str) -> Write:
    """Export as the project does."""
    import redis  # noqa: F401  (not measured)

    from batch_scoring.config.delivery_spec import RedisExport
    from batch_scoring.delivery.exports.redis.sink import RedisSink

    export = RedisExport(to="redis", url_from="RECS", prefix="rec", key="user_id", value=value, form=form)
    return lambda url, file: deliver(RedisSink(export, url), file)


def sets_to_redis(form: Literal["list", "single"], value: str) -> Write:
    """Send a SET for every user by pipelines of redis-py, with the same keys, values and TTL."""
    import redis

    def users(file: Path) -> Iterator[tuple[int, object]]:
        pairs = (pair for batch in batches(file) for pair in zip(*batch.to_pydict().values(), strict=True))
        if form == "single":
            yield from pairs
            return
        lists: dict[int, list[object]] = defaultdict(list)
        for user, item in pairs:
            lists[user].append(item)
        yield from lists.items()

    def write(url: str, file: Path) -> None:
        pipeline = redis.Redis.from_url(url).pipeline(transaction=False)
        for number, (user, found) in enumerate(users(file), 1):
            pipeline.set(f"rec:{DAY}.1-00000000:{user}", json.dumps(found), ex=72 * 3600)
            if number % 10_000 == 0:
                pipeline.execute()
        pipeline.execute()

    return write


@dataclass(frozen=True)
class Contest:
    """A sink and those who write to it."""

    rows: Callable[[int], pa.Table]
    server: Callable[[], AbstractContextManager[tuple[str, Callable[[], None]]]]
    """Runs one; gives its address and what empties it."""
    contenders: dict[str, Callable[[], Write]]
    """By name; each imports what it needs and gives what writes."""


CONTESTS = {
    "postgres": Contest(rows, postgres, {OURS: to_postgres, "SQLAlchemy rows": rows_to_postgres}),
    "redis": Contest(
        scored,
        redis,
        {
            OURS: partial(to_redis, "single", "score"),
            "redis-py, pipelines of SET": partial(sets_to_redis, "single", "score"),
        },
    ),
    "redis-lists": Contest(
        ranked,
        redis,
        {
            OURS: partial(to_redis, "list", "item_id"),
            "redis-py, pipelines of SET": partial(sets_to_redis, "list", "item_id"),
        },
    ),
}


def main() -> None:
    """Run the command: measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sink", choices=CONTESTS)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    contest = CONTESTS[options.sink]
    contenders, written = contest.contenders, contest.rows(options.rows)
    with side_by_side.working_folder(None) as folder, contest.server() as (url, empty):
        file = folder / "rows.parquet"
        pq.write_table(written, file, row_group_size=2 * parquet.READ_ROWS)  # as a day's files

        def run(name: str) -> Callable[[], Measures]:
            def once() -> Measures:
                empty()
                settings = {**os.environ, "SINK_URL": url}
                command = ["-m", "benchmarks.exports", "--as", options.sink, name, str(file)]
                return side_by_side.reported(side_by_side.run(command, env=settings, cwd=side_by_side.PROJECT)[1])

            return once

        found = side_by_side.rounds({name: run(name) for name in contenders}, options.rounds)
    print(f"\n{options.rows:,} rows of {written.num_columns} columns to {options.sink}, {options.rounds} rounds\n")
    header = ["", "client CPU / ours", "client CPU, s", "work / ours", "work, s", "M rows/s", "peak, MB"]
    print(side_by_side.table(header, [_line(found, name, options.rows) for name in contenders]))
    print(f"\n{side_by_side.machine()}")


def _line(found: dict[str, list[Measures]], name: str, count: int) -> list[str]:
    cpu, work, memory = (side_by_side.median(found, name, measure) for measure in ("cpu", "work", "memory"))
    return [
        name,
        side_by_side.ratio(found, name, OURS, "cpu"),
        f"{cpu:.2f}",
        side_by_side.ratio(found, name, OURS, "work"),
        f"{work:.2f}",
        f"{count / work / 1e6:.3f}",
        f"{memory:.0f}",
    ]


def measure(sink: str, name: str, file: Path) -> None:
    """Let one contender write, in this process; report its measures."""
    write = CONTESTS[sink].contenders[name]()
    begin, cpu = time.perf_counter(), time.process_time()
    write(os.environ["SINK_URL"], file)
    measures = {"work": time.perf_counter() - begin, "cpu": time.process_time() - cpu}
    side_by_side.report({**measures, "memory": side_by_side.peak_memory()})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as"]:
        measure(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    else:
        main()
