"""What the steps of an asset tell each other: small JSON documents, and nothing else."""

import json
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from batch_scoring.daily.fan_out import Chunk, ScoredChunk, ScoredShard
from batch_scoring.defs.execution.json_io_manager import LARGEST, References
from batch_scoring.errors import StateError
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring.storage.shards import digest
from batch_scoring_tests.tiny import DAY


@pytest.fixture
def manager(tmp_path: Path) -> References:
    return References(open_folder(str(tmp_path)))


def put(manager: References, obj: object) -> dg.OutputContext:
    context = dg.build_output_context(step_key="plan", name="shares", run_id="r", mapping_key="share_1")
    manager.handle_output(context, obj)
    return context


def test_what_a_step_tells_is_a_json_document_that_a_person_can_read(manager: References, tmp_path: Path) -> None:
    context = put(manager, {"rows": 7, "features": ["ü"]})
    assert json.loads((tmp_path / "r/plan.shares.share_1.json").read_text()) == {"rows": 7, "features": ["ü"]}
    assert manager.load_input(dg.build_input_context(upstream_output=context)) == {"rows": 7, "features": ["ü"]}


def test_references_that_are_gone_are_named(manager: References, tmp_path: Path) -> None:
    context = put(manager, {})
    (tmp_path / "r/plan.shares.share_1.json").unlink()
    with pytest.raises(StateError, match=r"r/plan\.shares\.share_1\.json is gone; run the whole day again"):
        manager.load_input(dg.build_input_context(upstream_output=context))


def test_references_that_are_damaged_are_named(manager: References, tmp_path: Path) -> None:
    context = put(manager, {})
    (tmp_path / "r/plan.shares.share_1.json").write_bytes(b'{"rows": ')
    with pytest.raises(StateError, match=r"r/plan\.shares\.share_1\.json is damaged .*; run the whole day again"):
        manager.load_input(dg.build_input_context(upstream_output=context))


@pytest.mark.parametrize("obj", [{1, 2}, Path("a"), {"mean": float("nan")}, pa.table({})], ids=str)
def test_anything_but_json_is_refused_and_nothing_is_written(manager: References, tmp_path: Path, obj: object) -> None:
    with pytest.raises(TypeError, match="plan has an output that is not JSON"):
        put(manager, obj)
    assert list(tmp_path.iterdir()) == []


def test_rows_are_no_references(manager: References) -> None:
    with pytest.raises(ValueError, match=r"plan has an output of .* bytes; expected references only"):
        put(manager, ["x" * LARGEST])


def test_a_share_of_ten_thousand_shards_is_still_a_reference(manager: References) -> None:
    digests = [digest(number) for number in range(10_000)]
    scored = tuple(
        ScoredShard(
            features=one, digest=one, uri=f"s3://bucket/prefix/tables/predictions/dt={DAY}/{one}-{'0' * 8}.parquet"
        )
        for one in digests
    )
    put(manager, Chunk(features=tuple(digests), model_sha256="0" * 64, rows=10**10).model_dump(mode="json"))
    put(manager, ScoredChunk(device="cuda", batch_rows=1, shards=scored).model_dump(mode="json"))
