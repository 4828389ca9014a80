"""Bundles that are delivered to a bucket: the same trust, the same refusals."""

from collections.abc import Callable
from pathlib import Path

import pytest

from batch_scoring.errors import BundleError
from batch_scoring.inference.bundle import load_bundle
from batch_scoring_tests.broken_bundles import FAULTS, PROOF
from batch_scoring_tests.reliability.store import Store
from batch_scoring_tests.tiny import TinyProject, checks, error_of

pytestmark = pytest.mark.s3


@pytest.fixture
def tiny(store: Store, tmp_path: Path) -> TinyProject:
    return TinyProject(tmp_path, data_root=f"s3://{store.new_bucket()}")


def spoil(tiny: TinyProject, change: Callable[[Path], None]) -> str:
    """Deliver a spoilt version v2; its address."""
    tiny.deliver("v2", seed=1)
    local, place = tiny.folder / "bundles" / "v2", tiny.pipeline.bundle
    change(local)
    there = {file.name for file in local.iterdir()}
    for name in ("bundle.json", "model.safetensors", "golden.parquet", "reference.parquet"):
        if name in there:
            place.put(name, (local / name).read_bytes())
        else:
            _remove(place.uri, name)
    return place.uri


def _remove(uri: str, name: str) -> None:
    import boto3

    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    boto3.client("s3").delete_object(Bucket=bucket, Key=f"{prefix}/{name}")


def test_a_bundle_in_a_bucket_comes_in_force(tiny: TinyProject) -> None:
    assert tiny.run(steps=["model"]).success
    assert tiny.state.model().source == tiny.pipeline.bundle.uri
    assert tiny.pipeline.bundle.uri.startswith("s3://")
    model = load_bundle(tiny.state.models.subfolder(tiny.state.model().sha256), tiny.pipeline.load("network:Net"))
    assert model.manifest.version == "v1"


@pytest.mark.parametrize(
    "name", ["weights_missing", "another_sha256", "truncated", "pickle", "no_json", "other_weights"]
)
def test_a_broken_bundle_in_a_bucket_is_refused_with_what_and_where(tiny: TinyProject, name: str) -> None:
    tiny.run(steps=["model"])
    before, fault = tiny.state.model(), FAULTS[name]
    place = spoil(tiny, fault.spoil)
    result = tiny.run(steps=["model"], raise_on_error=False)
    assert not checks(result)[f"model/{fault.check}"]
    for words in (*fault.says, place):
        assert words in error_of(result)
    assert tiny.state.model() == before
    assert not list(tiny.folder.rglob(PROOF))


def test_a_bucket_without_a_manifest_is_no_bundle(tiny: TinyProject) -> None:
    place = tiny.pipeline.bundle.subfolder("nothing")
    with pytest.raises(BundleError, match=r"s3://.*/nothing: there is no bundle\.json; expected a bundle folder"):
        load_bundle(place, tiny.pipeline.load("network:Net"))
