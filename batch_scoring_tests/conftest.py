"""Fixtures that several test modules share, and what makes the suite cheaper."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from batch_scoring_tests import databases
from batch_scoring_tests.tiny import TinyProject

torch.set_num_threads(1)  # torch's own threads would spin against those of the tests beside
databases.keep_engines()

MEMORY = Path("/dev/shm")
_folders = ""
"""Of this session's tests, if this process has chosen the place."""
if (
    "PYTEST_DEBUG_TEMPROOT" not in os.environ
    and os.access(MEMORY, os.W_OK)
    and shutil.disk_usage(MEMORY).free > 4 * 2**30
):
    # no test cuts the power: fsync has nothing to prove here, and is most of what the tests would wait for
    _folders = os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.mkdtemp(prefix="batch_scoring_tests_", dir=MEMORY)


if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell's `&` leaves it, for these and their children
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(exitstatus: int) -> None:
    """Give the memory back; what failed can be looked at."""
    if _folders and exitstatus != pytest.ExitCode.TESTS_FAILED:
        shutil.rmtree(_folders, ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deal the slow tests to the heads of the workers' shares: they wait for others, and none shall be the last."""
    workers = int(getattr(config, "workerinput", {}).get("workercount", 1))
    slow = [item for item in items if item.get_closest_marker("slow")]
    quick = [item for item in items if not item.get_closest_marker("slow")]
    share = len(items) // workers
    dealt: list[pytest.Item] = []
    for number in range(workers):
        mine = slow[number::workers]
        count = max(0, share - len(mine))
        dealt += mine + quick[:count]
        del quick[:count]
    items[:] = dealt + quick


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the user's deployment, instance or cloud."""
    for name in (
        "BATCH_SCORING_DATA",
        "DAGSTER_HOME",
        "ALERT_URLS",
        "DAGSTER_UI_URL",
        "AWS_PROFILE",
        "AWS_ENDPOINT_URL",
        "BATCH_SCORING_EXECUTOR",
        "BATCH_SCORING_DATA_SHARED",
        "DAGSTER_CURRENT_IMAGE",
        "REPORTS_URL",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def on_disk() -> Iterator[Path]:
    """A folder that is not in memory, for the doctor, who warns of that."""
    with tempfile.TemporaryDirectory(prefix="batch_scoring_", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def tiny(tmp_path: Path) -> TinyProject:
    """A tiny pipeline on a local folder."""
    return TinyProject(tmp_path)
