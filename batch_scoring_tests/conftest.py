"""Fixtures shared by several test modules, and measures that make the suite faster."""

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from batch_scoring.runtime import gc_freeze

if TYPE_CHECKING:  # the process that distributes the tests to the workers runs none
    from batch_scoring_tests.postgres_server import Server
    from batch_scoring_tests.reliability.store import Store
    from batch_scoring_tests.tiny import TinyProject

TESTS = Path(__file__).parent
FAST = {"config", "daily", "inference", "ingest", "learning", "runtime", "storage", "test_errors.py", "test_layout.py"}
"""What `make check` runs tests of: the layers without Dagster's objects, and the layout."""

MEMORY = Path("/dev/shm")
_folders = ""
"""Temporary folder of this session's tests, if this process has chosen it."""
if (
    "PYTEST_DEBUG_TEMPROOT" not in os.environ
    and os.access(MEMORY, os.W_OK)
    and shutil.disk_usage(MEMORY).free > 4 * 2**30
):
    # no test cuts the power, so fsync proves nothing here and would take most of the time
    _folders = os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.mkdtemp(prefix="batch_scoring_tests_", dir=MEMORY)


if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as for commands that a shell starts with `&`
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the collector of garbage what is imported with the tests, a million objects that stay."""
    with gc_freeze.imports():
        return (yield)


def pytest_collection_finish() -> None:
    """Prepare a process that runs tests.

    It keeps what is compiled of the tests, and nothing of what they write: a pipeline's file that a test writes twice
    within a second, in the same size, would be the first one's bytecode.
    """
    import torch

    from batch_scoring_tests import databases

    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    torch.set_num_threads(1)  # torch's threads would compete with those of parallel tests
    databases.keep_engines()
    gc.set_threshold(20_000, 20, 20)  # Dagster makes much that is gone without the collector


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(exitstatus: int) -> None:
    """Free the memory, unless tests failed, so that they can be investigated."""
    if _folders and exitstatus != pytest.ExitCode.TESTS_FAILED:
        shutil.rmtree(_folders, ignore_errors=True)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what holds no fast tests if nothing else is asked for: importing it is what collecting costs."""
    is_asked = config.option.markexpr != "fast" or collection_path.parent != TESTS
    return None if is_asked or collection_path.name in FAST else True


def _is_fast(item: pytest.Item) -> bool:
    starts_processes = vars(item.module).keys() & {"multiprocessing", "subprocess", "terminals"}  # type: ignore[attr-defined]
    waits = any(item.get_closest_marker(name) for name in ("slow", "s3"))
    return item.path.relative_to(TESTS).parts[0] in FAST and not starts_processes and not waits


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the fast tests; distribute slow ones to the workers first: none of them should be the last to start."""
    for item in items:
        if _is_fast(item):
            item.add_marker("fast")
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
    """Isolate tests from the user's deployment, instance and cloud."""
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
    """Provide a folder that is not in memory, because doctor warns of those."""
    with tempfile.TemporaryDirectory(prefix="batch_scoring_", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def tiny(tmp_path: Path) -> "TinyProject":
    """Provide a tiny pipeline in a local folder."""
    from batch_scoring_tests.tiny import TinyProject

    return TinyProject(tmp_path)


@pytest.fixture(scope="session")
def _store() -> "Iterator[Store]":
    from batch_scoring_tests.reliability.store import running_store

    with running_store() as store:
        yield store


@pytest.fixture
def store(_store: "Store", monkeypatch: pytest.MonkeyPatch) -> "Iterator[Store]":
    """Provide S3 and SQS as this process and its children access them, initially without faults."""
    for name in ("AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in _store.environment.items():
        monkeypatch.setenv(name, value)
    yield _store
    _store.proxy.faults, _store.proxy.dropped, _store.proxy.clock_ahead = [], set(), 0.0


@pytest.fixture(scope="session")
def _postgres() -> Iterator["Server"]:
    from batch_scoring_tests.postgres_server import running_server, skip_without_server

    skip_without_server()
    with running_server() as server:
        yield server


@pytest.fixture
def postgres(_postgres: "Server") -> Iterator["Server"]:
    """Provide a real PostgreSQL with an empty database."""
    server = _postgres.with_new_database()
    yield server
    _postgres.query(f"DROP DATABASE {server.database} WITH (FORCE)")
