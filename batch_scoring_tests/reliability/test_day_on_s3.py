"""A day whose landing files, bundles, state and tables are all on S3."""

import gzip
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest

from batch_scoring.raw import find
from batch_scoring_tests.reliability.audit import some_rows, versions
from batch_scoring_tests.reliability.store import Store
from batch_scoring_tests.tiny import DAY, TinyProject, checks

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


def test_a_file_replaced_between_listing_and_reading_is_named_as_broken(tmp_path: Path, store: Store) -> None:
    tiny = project(tmp_path / "remote", f"s3://{store.new_bucket()}/data")
    tiny.land(DAY, tiny.rows(10))
    pipeline = tiny.pipeline
    listed = type(pipeline.landing).list

    def replaced_after_listing(self: object, prefix: str = "") -> object:
        files = listed(self, prefix)  # type: ignore[arg-type]
        tiny.land(DAY, tiny.rows(20))
        return files

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(pipeline.landing), "list", replaced_after_listing)
        found = find(pipeline, DAY)
    assert list(found.broken) == [f"dt={DAY}/a.parquet"]
    assert "has changed" in found.broken[f"dt={DAY}/a.parquet"]
