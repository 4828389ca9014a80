"""The cost of a sensor tick with many objects under the landing prefix and nothing new, compared with a full listing.

    python -m benchmarks.tick --objects 200000 --days 200

On a local folder, and on moto's server as S3 in its own process. The other contender is a sensor that lists the whole
prefix each time. Ticks rotate through all days, so each lists another slice of the older ones.
"""

import argparse
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from time import perf_counter

import dagster as dg

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.ingest import landing_files
from batch_scoring.operations.automation import landing_scan
from batch_scoring.operations.automation.planner import TickState
from batch_scoring.storage import aws
from batch_scoring.storage.state import PublishedDay, PublishedPart, State
from batch_scoring_tests.tiny import TinyProject
from benchmarks import side_by_side

FIRST = date(2024, 3, 1)
_MOTO = """
import sys, threading
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
from moto.s3.models import s3_backends
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
server.start()
backend = s3_backends["123456789012"]["aws"]
backend.create_bucket("bucket", "us-east-1")
for line in sys.stdin:
    if line == "\\n":
        break
    backend.put_object("bucket", line.strip(), b"x")
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


def main() -> None:
    """Run the command: measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description="Time a tick of the uploads sensor with nothing new.")
    parser.add_argument("--objects", type=int, default=200_000)
    parser.add_argument("--days", type=int, default=200)
    parser.add_argument("--ticks", type=int, default=11)
    options = parser.parse_args()
    days = [(FIRST + timedelta(days=n)).isoformat() for n in range(options.days)]
    lines = []
    with tempfile.TemporaryDirectory(prefix="batch_scoring_bench_") as folder:
        for where in (_local, _s3):
            with where(Path(folder), days, options.objects) as pipeline:
                lines += _measured(pipeline, days, options.ticks)
    print(f"\n{options.objects:,} objects, {options.days} days, nothing new; median of {options.ticks} ticks\n")
    print(side_by_side.table(["", "seconds", "slowest", "requests per tick", "whole prefix / tick"], lines))
    print(f"\n{side_by_side.machine()}")


def _measured(pipeline: Pipeline, days: list[str], ticks: int) -> list[list[str]]:
    _publish_all(pipeline, days)
    where = "local folder" if pipeline.landing.is_local else "S3 (moto)"
    with dg.DagsterInstance.ephemeral() as instance, _counted() as requests:
        memory = TickState()

        def tick() -> None:
            nonlocal memory
            found = landing_scan.tick(pipeline, instance, memory)
            assert not found.plan.requests and not found.plan.waiting and found.looked == 27, found.summary
            memory = found.plan.memory

        times = _times(tick, ticks)
        asked = ", ".join(f"{count / ticks:.0f} {name}" for name, count in sorted(requests.items())) or "-"
        requests.clear()
        whole = _times(lambda: landing_files.list_days(pipeline.landing), 3)
        all_asked = ", ".join(f"{count / 3:.0f} {name}" for name, count in sorted(requests.items())) or "-"
    ratio = f"{statistics.median(whole) / statistics.median(times):.1f}"
    return [
        [f"{where}: a tick, 27 days", f"{statistics.median(times):.2f}", f"{max(times):.2f}", asked, ratio],
        [f"{where}: the whole prefix", f"{statistics.median(whole):.2f}", f"{max(whole):.2f}", all_asked, ""],
    ]


def _times(work: Callable[[], object], count: int) -> list[float]:
    found = []
    for _ in range(count):
        began = perf_counter()
        work()
        found.append(perf_counter() - began)
    return found


@contextlib.contextmanager
def _counted() -> Iterator[Counter[str]]:
    """Count the requests that boto3 makes, by operation."""
    made: Counter[str] = Counter()
    if os.environ.get("AWS_ENDPOINT_URL"):
        hooks = aws.client("s3").meta.events
        hooks.register("before-send.s3.*", lambda event_name, **_: made.update([event_name.split(".")[-1]]))
    yield made


@contextlib.contextmanager
def _local(folder: Path, days: list[str], objects: int) -> Iterator[Pipeline]:
    project = TinyProject(folder / "local")
    root = Path(project.pipeline.landing.uri)
    for day in days:
        (root / f"dt={day}").mkdir(parents=True)
    for number, day in zip(range(objects), itertools.cycle(days), strict=False):
        (root / f"dt={day}" / f"part-{number:06}.parquet").touch()
    yield project.pipeline


@contextlib.contextmanager
def _s3(folder: Path, days: list[str], objects: int) -> Iterator[Pipeline]:
    project = TinyProject(folder / "s3", f"{folder}/unused")
    prefix = f"data/{project.name}/landing"
    command = [sys.executable, "-c", _MOTO]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as moto:
        assert moto.stdin and moto.stdout
        for number, day in zip(range(objects), itertools.cycle(days), strict=False):
            moto.stdin.write(f"{prefix}/dt={day}/part-{number:06}.parquet\n")
        moto.stdin.write("\n")
        moto.stdin.flush()
        port = next(line for line in moto.stdout if line.strip().isdigit()).strip()  # after moto's own output
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "no_proxy": "127.0.0.1",
        }
        pipeline = project.pipeline
        yield Pipeline(pipeline.spec, pipeline.folder, pipeline.package, "s3://bucket/data")
        moto.stdin.close()


def _publish_all(pipeline: Pipeline, days: list[str]) -> None:
    """Write records of published days; the tables have no commits, so loading those (20 ms each) is excluded."""
    state, none = State(pipeline.output), PublishedPart(transaction=0, version=-1, files=())
    for day in days:
        fingerprint = landing_files.fingerprint(landing_files.list_day(pipeline.landing, day))
        for step in ("validated_features", "predictions"):
            state.put_published_day(
                PublishedDay(
                    pipeline=pipeline.name,
                    day=day,
                    step=step,
                    run_id="bench",
                    finished_at=datetime.now(UTC),  # type: ignore[arg-type]
                    fingerprint=fingerprint,
                    code="c",
                    shards=(),
                    table=none,
                    quarantine=none,
                )
            )


if __name__ == "__main__":
    main()
