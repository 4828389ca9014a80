import json
from pathlib import Path
from typing import Any

import pytest

from batch_scoring.config.spec import Complete
from batch_scoring.ingest.completeness import waits_for
from batch_scoring.monitoring.checks.input_checks import find
from batch_scoring_tests.tiny import DAY, TinyProject, checks, error_of


def waits(tiny: TinyProject, **complete: Any) -> str:  # noqa: ANN401
    landing = tiny.pipeline.landing
    return waits_for(Complete(**complete), landing, DAY, landing.list(f"dt={DAY}/"))


def put(tiny: TinyProject, name: str, content: object) -> None:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    tiny.pipeline.landing.put(f"dt={DAY}/{name}", data)


def test_by_default_nothing_is_waited_for(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(3))
    assert waits(tiny) == ""


def test_a_marker_says_that_the_day_is_complete(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(3))
    assert waits(tiny, by="marker").startswith("there is no _SUCCESS in ")
    assert waits(tiny, by="marker", file="_done").startswith("there is no _done in ")
    put(tiny, "_SUCCESS", b"")
    assert waits(tiny, by="marker") == ""


@pytest.mark.parametrize(
    "manifest",
    [
        ["a.parquet"],
        {"files": ["a.parquet"]},
        {"files": [{"path": "a.parquet"}]},
        {"files": [f"dt={DAY}/a.parquet"]},
        {"entries": [{"url": f"s3://bucket/x/dt={DAY}/a.parquet", "mandatory": True}]},
    ],
)
def test_a_manifest_lists_the_files_of_the_day(tiny: TinyProject, manifest: object) -> None:
    assert waits(tiny, by="manifest").startswith("there is no _manifest.json in ")
    put(tiny, "_manifest.json", manifest)
    assert waits(tiny, by="manifest") == f"of the 1 files listed in dt={DAY}/_manifest.json, a.parquet is missing"
    tiny.land(DAY, tiny.rows(3))
    assert waits(tiny, by="manifest") == ""


@pytest.mark.parametrize("form", ["ours", "redshift"])
def test_a_manifest_may_say_the_sizes(tiny: TinyProject, form: str) -> None:
    tiny.land(DAY, tiny.rows(3))
    size = tiny.pipeline.landing.list(f"dt={DAY}/")[0].size

    def manifest(said: int) -> object:
        if form == "ours":
            return {"files": [{"path": "a.parquet", "size": said}]}
        return {"entries": [{"url": f"s3://b/dt={DAY}/a.parquet", "meta": {"content_length": said}}]}

    put(tiny, "_manifest.json", manifest(size))
    assert waits(tiny, by="manifest") == ""
    put(tiny, "_manifest.json", manifest(size + 1))
    assert f"a.parquet has {size} bytes, but {size + 1} are listed" in waits(tiny, by="manifest")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no json",
        b"{}",
        b"3",
        b'{"files": 3}',
        b'{"files": [{}]}',
        b"[null]",
        b'{"files": [{"path": "a", "size": "x"}]}',
        b'{"files": [{"path": "a", "size": 1e999}]}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_manifest_is_said_with_the_forms_that_are(tiny: TinyProject, content: bytes) -> None:
    put(tiny, "_manifest.json", content)
    said = waits(tiny, by="manifest")
    assert "_manifest.json is not a manifest (" in said and '{"files": ["a.parquet"' in said


def test_a_day_that_is_not_complete_is_not_scored_whoever_asks(tiny: TinyProject) -> None:
    tiny.spec["input"]["complete"] = {"by": "marker"}
    tiny.write_spec()
    tiny.land(DAY, tiny.rows(64))
    result = tiny.run(raise_on_error=False)
    assert not checks(result)["raw_input/input_is_complete"]
    assert f"there is no _SUCCESS in {tiny.pipeline.landing.uri}/dt={DAY}/" in error_of(result)
    put(tiny, "_SUCCESS", b"")
    assert tiny.run().success
    assert find(tiny.pipeline, DAY).waits_for == ""


def test_the_marker_is_no_part_of_what_a_day_is_made_from(tiny: TinyProject, tmp_path: Path) -> None:
    tiny.land(DAY, tiny.rows(64))
    before = find(tiny.pipeline, DAY).fingerprint
    put(tiny, "_SUCCESS", b"")
    assert find(tiny.pipeline, DAY).fingerprint == before
