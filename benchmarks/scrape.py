"""The cost of a scrape of the metrics: a deployment of many days, nothing new, then one day scored.

    python -m benchmarks.scrape --days 1000

On a local folder, and on moto's server as S3 in its own process, where requests are counted. Every day has the
documents of a real day of a tiny pipeline with decisions and an export. The other contender reads the documents of
every day, as an exporter without a listing would.
"""

import argparse
import contextlib
import os
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from time import perf_counter

from moto.server import ThreadedMotoServer

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.metrics.day_samples import of_pipeline
from batch_scoring.storage import aws, state_look
from batch_scoring.storage.folders.folder import Folder
from batch_scoring.storage.state import State
from batch_scoring_tests import decided
from batch_scoring_tests.exports import with_export
from batch_scoring_tests.tiny import DAY, TinyProject
from benchmarks import side_by_side

SCRAPES = 11


def main() -> None:
    """Run the command: measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description="Time a scrape of the metrics.")
    parser.add_argument("--days", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="batch_scoring_bench_") as folder:
        tiny = _one_day(Path(folder))
        _copy(tiny.pipeline.output, tiny.pipeline.output, options.days)
        lines = _measured("local folder", tiny.pipeline, Counter())
        with _s3() as requests:
            local, far = (
                tiny.pipeline,
                Pipeline(tiny.pipeline.spec, tiny.folder, tiny.pipeline.package, "s3://bench/data"),
            )
            for file in local.output.list("state/"):
                far.output.put(file.path, local.output.read(file.path))
            lines += _measured("S3 (moto)", far, requests)
    print(f"\n{options.days:,} days; median of {SCRAPES} scrapes\n")
    print(side_by_side.table(["", "seconds", "slowest", "requests"], lines))
    print(f"\n{side_by_side.machine()}")


def _one_day(folder: Path) -> TinyProject:
    """A pipeline with a scored, decided and exported day."""
    tiny = with_export(decided.with_decisions(TinyProject(folder)))
    tiny.land(DAY, decided.customers(tiny, 2000))
    assert tiny.run().success
    assert tiny.run(steps=["export_list"]).success
    return tiny


def _copy(source: Folder, target: Folder, days: int) -> None:
    """The documents of the day for the days before it."""
    for file in source.list(f"state/dt={DAY}/"):
        content = source.read(file.path)
        for back in range(1, days):
            day = str(date.fromisoformat(DAY) - timedelta(days=back))
            target.put(file.path.replace(DAY, day), content.replace(DAY.encode(), day.encode()))


def _measured(where: str, pipeline: Pipeline, requests: Counter[str]) -> list[list[str]]:
    lines = []

    def line(
        name: str, work: Callable[[], object], before: Callable[[], object] = lambda: None, count: int = SCRAPES
    ) -> None:
        times = []
        asked: Counter[str] = Counter()
        for _ in range(count):
            before()
            requests.clear()
            began = perf_counter()
            work()
            times.append(perf_counter() - began)
            asked = max(asked, Counter(requests), key=Counter.total)
        shown = f"{asked.total()}: {', '.join(f'{n} {name}' for name, n in sorted(asked.items()))}" if asked else "-"
        lines.append([f"{where}: {name}", f"{statistics.median(times):.3f}", f"{max(times):.3f}", shown])

    state = State(pipeline.output)
    newest = state.newest_days()[0]
    published = state.published_day("predictions", newest)
    assert published
    line("the first", lambda: of_pipeline(pipeline, datetime.now(UTC)), state_look._cache.__init__, 3)  # type: ignore[misc]
    line("nothing new", lambda: of_pipeline(pipeline, datetime.now(UTC)))
    line("a day scored", lambda: of_pipeline(pipeline, datetime.now(UTC)), lambda: state.put_published_day(published))
    line("every day's documents", lambda: _all(pipeline), count=1)
    return lines


def _all(pipeline: Pipeline) -> None:
    state = State(pipeline.output)
    days = state.newest_days()
    state.day_inputs(days)
    for step in ("validated_features", "predictions", "decisions"):
        state.published_days_of(step, days)  # type: ignore[arg-type]


@contextlib.contextmanager
def _s3() -> Iterator[Counter[str]]:
    """Count the requests that boto3 makes, by operation."""
    server, made = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False), Counter[str]()
    server.start()
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.get_host_and_port()[1]}",
        "no_proxy": "127.0.0.1",
    }
    client = aws.client("s3")
    client.create_bucket(Bucket="bench")
    client.meta.events.register("before-send.s3.*", lambda event_name, **_: made.update([event_name.split(".")[-1]]))
    try:
        yield made
    finally:
        server.stop()


if __name__ == "__main__":
    main()
