"""Fixtures: the Kubernetes stand-in, an instance that uses it, and a store shared by all pods."""

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from batch_scoring.config.compute import VARIABLE
from batch_scoring.config.loader import PROJECT
from batch_scoring_tests.deployed import PACKAGES
from batch_scoring_tests.pods.cluster import Cluster, running_cluster
from batch_scoring_tests.pods.deployment import instance_of
from batch_scoring_tests.reliability.store import Store
from batch_scoring_tests.tiny import TinyProject


@pytest.fixture
def store(_store: Store, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Provide S3 as this process and the pods access it."""
    for name in ("AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    # past the proxy, which is a thread of this process: a table's history is read without letting go of the GIL
    environment = _store.environment | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{_store.port}"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Provide a cluster that runs two steps at once, in addition to their run."""
    with running_cluster(tmp_path / "cluster") as found:
        yield found


@pytest.fixture
def on_s3(tmp_path: Path, store: dict[str, str], _store: Store, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    """Provide a tiny pipeline with data in its own bucket, whose steps are pods."""
    tiny = TinyProject(tmp_path, f"s3://{_store.new_bucket()}/data")
    environment = {VARIABLE: "k8s", "BATCH_SCORING_DATA": tiny.data_root, PACKAGES: str(tiny.packages)}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return tiny


@pytest.fixture
def instance(
    tmp_path: Path, cluster: Cluster, on_s3: TinyProject, store: dict[str, str]
) -> Iterator[dg.DagsterInstance]:
    """Provide the deployment of that pipeline."""
    names = (VARIABLE, "BATCH_SCORING_DATA", PACKAGES, *store)
    environment = {name: os.environ[name] for name in names} | {
        "PYTHONPATH": str(PROJECT),
        "DAGSTER_STEP_DELEGATING_EXECUTOR_SLEEP_SECONDS": "0.4",
    }
    with instance_of(tmp_path, cluster, environment) as found:
        yield found
