"""A disk that is full, or that has become read-only, while a day is run: nothing is lost, nothing is mixed."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from batch_scoring.operations.automation import landing_scan
from batch_scoring.operations.automation.planner import TickState
from batch_scoring_tests.reliability.audit import audit, signature, some_rows
from batch_scoring_tests.reliability.disks import fill, lock, mounted
from batch_scoring_tests.tiny import DAY, TinyProject, error_of


@pytest.fixture
def disk() -> Iterator[Path]:
    with mounted() as place:
        if place is None:
            pytest.skip("nothing may be mounted here")
        yield place


@pytest.mark.parametrize(("trouble", "says"), [(fill, "No space left on device"), (lock, "Read-only file system")])
def test_a_day_on_a_disk_in_trouble_keeps_its_scores_and_is_tried_again(
    disk: Path, tmp_path: Path, trouble: Callable[[Path], Callable[[], None]], says: str
) -> None:
    project = TinyProject(tmp_path / "project", str(disk / "data"))
    project.land(DAY, some_rows(project, 200), age=300)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        project.run(instance=instance)
        before = signature(project.pipeline, DAY)
        project.land(DAY, some_rows(project, 250, shift=0.1), age=300)
        repair = trouble(disk)
        failed = project.run(instance=instance, raise_on_error=False)
        assert not failed.success and says in error_of(failed) and str(disk) in error_of(failed)
        assert signature(project.pipeline, DAY) == before, "a reader sees the old scores, whole"
        (waits,) = landing_scan.tick(project.pipeline, instance, TickState()).plan.waiting.values()
        assert waits.startswith("failed 1 times, run again in ")
        repair()
        (request,) = landing_scan.tick(project.pipeline, instance, TickState(), now=time.time() + 400).plan.requests
        assert request.attempt == 2
        project.run(instance=instance)
        assert audit(project.pipeline, DAY) == []
        assert landing_scan.tick(project.pipeline, instance, TickState()).plan.waiting == {}
