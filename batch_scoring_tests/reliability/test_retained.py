"""Retention beside runs and readers, small; and once on S3, whose files cannot be made older: time is given."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from batch_scoring.config.spec import Retention
from batch_scoring.daily.tables import TABLES
from batch_scoring.operations.retention import vacuum
from batch_scoring.operations.retention.plan import limits_of
from batch_scoring_tests.reliability import retained
from batch_scoring_tests.reliability.proxy import Fault
from batch_scoring_tests.reliability.scenarios import score
from batch_scoring_tests.reliability.store import Store
from batch_scoring_tests.tiny import DAY, TinyProject


@pytest.mark.slow
def test_no_reader_and_no_run_notices_retention_and_nothing_is_left_behind(folder: Path) -> None:
    report = retained.retained(folder, 2)
    assert report.violations == []


@pytest.mark.s3
def test_on_s3_what_was_replaced_goes_a_week_later_and_readers_of_the_present_see_no_change(
    tmp_path: Path, store: Store
) -> None:
    tiny = TinyProject(tmp_path, f"s3://{store.new_bucket()}/data")
    pipeline, limits = tiny.pipeline, limits_of(Retention(quarantine_days=10))
    assert abs(vacuum.store_time(pipeline.output) - datetime.now(UTC)) < timedelta(minutes=1)
    for start in (0, 1000):
        rows = tiny.rows(50, start)
        tiny.land(DAY, rows.set_column(1, "x", [[5000.0, *rows["x"].to_pylist()[1:]]]))
        score(pipeline, DAY, "r")
    pipeline.output.put(f"tables/predictions/dt={DAY}/{'0' * 32}-00000000.parquet", b"an orphan")
    pipeline.output.put(f"tables/predictions/dt={DAY}/notes.txt", b"a stranger's")
    rows = tiny.read()

    def after(**delta: float) -> vacuum.Swept:
        plan = vacuum.look(pipeline, limits, now=datetime.now(UTC) + timedelta(**delta))
        return vacuum.sweep(pipeline, plan, "r")

    def held() -> set[str]:
        return {f"tables/{name}/{file.path}" for name in TABLES for file in TABLES[name](pipeline).folder.list("dt=")}

    there = held()
    assert after(days=6.9).removed == [] and held() == there
    done = after(days=7.1)
    assert done.problems == [] and len(done.removed) == 1 + 1 + 1 + 1
    assert held() == there - {file.path for file in done.removed}
    assert tiny.read().equals(rows) and tiny.read(table="quarantine").num_rows == 1
    # a store that does not answer: nothing goes, the message says where
    store.proxy.faults = [Fault("403", r"^GET .*_delta_log")]
    failed = after(days=400)
    assert failed.removed == [] and len(failed.problems) == 4 and "quarantine" in failed.problems[3]
    store.proxy.faults = []
    assert [file.kind for file in after(days=400).removed] == ["quarantine"]
    assert tiny.read(table="quarantine").num_rows == 0 and tiny.read().equals(rows)
    score(pipeline, DAY, "r")
    assert tiny.read(table="quarantine").num_rows == 0, "an unchanged day writes nothing"
