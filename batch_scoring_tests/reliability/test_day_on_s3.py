"""A day whose landing files, bundles, state and tables are all on S3."""

import gzip
import io
import itertools
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest

from batch_scoring.daily.publish import DayStep, check_input
from batch_scoring.daily.validate import prepare
from batch_scoring.monitoring.checks.input_checks import find
from batch_scoring.runtime.step_context import StepContext
from batch_scoring_tests.reliability.audit import some_rows, versions
from batch_scoring_tests.reliability.proxy import Fault
from batch_scoring_tests.reliability.store import Store
from batch_scoring_tests.tiny import DAY, TinyProject, checks, error_of

pytestmark = pytest.mark.s3


def csv(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    pyarrow.csv.write_csv(rows, sink)
    return sink.getvalue()


def project(folder: Path, data_root: str | None = None) -> TinyProject:
    folder.mkdir()
    tiny = TinyProject(folder, data_root)
    tiny.spec["scoring"]["rows_per_shard"] = 150
    tiny.deliver("v1")
    return tiny


@pytest.mark.parametrize("form", ["parquet", "csv.gz"])
def test_a_day_on_s3_gives_the_rows_of_a_local_one_bit_for_bit(tmp_path: Path, store: Store, form: str) -> None:
    local = project(tmp_path / "local")
    remote = project(tmp_path / "remote", f"s3://{store.new_bucket()}/data")
    found = []
    for tiny in (local, remote):
        rows = some_rows(tiny, 500)
        content = {"parquet": rows, "csv.gz": gzip.compress(csv(rows), mtime=0)}[form]
        tiny.land(DAY, content, f"a.{form}")
        assert all(checks(tiny.run()).values())
        found.append(tiny)
    for table, left_out in (("predictions", ["scored_at"]), ("validated_features", []), ("quarantine", [])):
        here, there = (tiny.read(table=table).drop_columns(left_out) for tiny in found)
        order = [("id", "ascending")] if table != "quarantine" else [("row_number", "ascending")]
        assert here.num_rows
        assert here.sort_by(order).equals(there.sort_by(order)), table
    before = versions(remote.pipeline)
    remote.run()
    assert versions(remote.pipeline) == before


def test_the_page_of_a_month_is_drawn_from_s3_and_stands_there(tmp_path: Path, store: Store) -> None:
    tiny = project(tmp_path / "remote", f"s3://{store.new_bucket()}/data")
    tiny.land(DAY, some_rows(tiny, 500))
    tiny.run()
    job = tiny.definitions.resolve_job_def(f"report_{tiny.name}")
    (event,) = job.execute_in_process(partition_key="2024-03-01").get_asset_materialization_events()
    found, path = event.materialization.metadata, "reports/month=2024-03.html"
    assert found["days_scored"].value == 1
    assert str(found["report"].value) == f"{tiny.pipeline.output.uri}/{path}", "no console shows a store of one's own"
    assert "1 scored" in tiny.pipeline.output.read(path).decode()


def test_a_file_replaced_after_each_listing_is_named_as_broken(tmp_path: Path, store: Store) -> None:
    tiny = project(tmp_path / "remote", f"s3://{store.new_bucket()}/data")
    tiny.land(DAY, tiny.rows(10))
    pipeline = tiny.pipeline
    listed = type(pipeline.landing).list

    count = itertools.count(20)

    def replaced_after_listing(self: object, prefix: str = "") -> object:
        files = listed(self, prefix)  # type: ignore[arg-type]
        tiny.land(DAY, tiny.rows(next(count)))
        return files

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(pipeline.landing), "list", replaced_after_listing)
        found = find(pipeline, DAY)
    assert list(found.broken) == [f"dt={DAY}/a.parquet"]
    assert "has changed" in found.broken[f"dt={DAY}/a.parquet"]


def test_a_bucket_that_may_not_be_listed_is_a_failed_check(tmp_path: Path, store: Store) -> None:
    tiny = project(tmp_path / "remote", f"s3://{store.new_bucket()}/data")
    tiny.land(DAY, tiny.rows(10))
    tiny.run()
    store.proxy.faults = [Fault("403", f"^GET .*landing%2Fdt%3D{DAY}")]
    result = tiny.run(steps=["raw_input"], raise_on_error=False)
    assert checks(result)["raw_input/input_is_complete"] is False
    assert "cannot be listed" in error_of(result) and "grant this process read access" in error_of(result)


def test_a_store_that_is_down_for_longer_than_botocore_is_patient_delays_a_publication(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    tiny = project(tmp_path / "remote", f"s3://{store.new_bucket()}/data")
    tiny.land(DAY, tiny.rows(10))
    tiny.run(steps=["model", "raw_input"])
    step, said = DayStep(tiny.pipeline, DAY, "validated_features"), []
    run = StepContext("r", datetime.now(UTC), said.append)
    pinned = tiny.state.day_input(DAY)
    prepared = prepare(step, pinned, run)
    listing = Fault("503", f"^GET .*landing%2Fdt%3D{DAY}", times=25)
    store.proxy.faults = [listing]
    _, committed = step.publish(
        prepared,
        run,
        fingerprint=pinned.fingerprint,
        code=tiny.pipeline.features_code,
        model=None,
        check_current=lambda: check_input(tiny.pipeline, pinned, may_be_archived=False),
    )
    assert committed and listing.hits == 25
    assert sum("is not committed yet, trying again" in line for line in said) == 2


@pytest.mark.parametrize("where", ["dt(=|%3D)", "_delta_log/"])
def test_a_bucket_that_may_not_be_written_fails_a_publication_at_once(tmp_path: Path, store: Store, where: str) -> None:
    tiny = project(tmp_path / "remote", f"s3://{store.new_bucket()}/data")
    tiny.land(DAY, tiny.rows(10))
    tiny.run(steps=["model", "raw_input"])
    store.proxy.faults = [Fault("403", f"^(PUT|POST) .*/tables/.*{where}")]
    began = time.monotonic()
    result = tiny.run(steps=["validated_features"], raise_on_error=False)
    assert "access denied" in error_of(result)
    assert time.monotonic() - began < 60
