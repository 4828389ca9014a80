"""Sites for doctor to look at, made once and copied."""

import copy
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batch_scoring.cli.doctor import delta_tables
from batch_scoring_tests.broken_sites import Clinic
from batch_scoring_tests.tiny import DAY, NEXT_DAY, TinyProject


@pytest.fixture
def tmp_path(on_disk: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=on_disk))


@pytest.fixture
def clinic(tmp_path: Path, tiny: TinyProject, monkeypatch: pytest.MonkeyPatch) -> Clinic:
    """A site with a file that has landed, never scored."""
    site = Clinic(tmp_path, tiny)
    monkeypatch.setenv("DAGSTER_HOME", str(site.home))
    tiny.land(DAY, tiny.rows(64), age=300)
    return site


@pytest.fixture(scope="package")
def _template(on_disk: Path) -> Clinic:
    """A site with a file that has landed, and an instance in which nothing has happened; nobody changes it."""
    folder = on_disk / "template"
    site = Clinic(folder, TinyProject(folder))
    site.tiny.land(DAY, site.tiny.rows(64), age=300)
    with site.instance() as instance:
        instance.get_runs_count()
        instance.all_instigator_state()
    return site


@pytest.fixture
def deployed(tmp_path: Path, _template: Clinic, monkeypatch: pytest.MonkeyPatch) -> Clinic:
    """The same site with an instance of the test's own: for faults that are not the pipeline's."""
    site = copy.copy(_template)
    site.home = tmp_path / "home"
    shutil.copytree(_template.home, site.home)
    monkeypatch.setenv("DAGSTER_HOME", str(site.home))
    return site


@pytest.fixture(scope="package")
def _two_days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a tiny pipeline holds that has scored two days."""
    tiny = TinyProject(tmp_path_factory.mktemp("scored"))
    tiny.land(DAY, tiny.rows(64), age=300)
    tiny.land(NEXT_DAY, tiny.rows(60, start=100), age=300)
    for day in (DAY, NEXT_DAY):
        tiny.run(day)
    return Path(tiny.pipeline.output.uri)


@pytest.fixture
def scored(clinic: Clinic, _two_days: Path, monkeypatch: pytest.MonkeyPatch) -> Clinic:
    """The same, with two days scored."""
    for part in ("models", "landing", "tables", "state"):
        shutil.copytree(_two_days / part, Path(clinic.tiny.pipeline.output.uri, part), dirs_exist_ok=True)
    monkeypatch.setattr(delta_tables, "SETTLES", 0.01)
    with clinic.instance() as instance:
        instance.get_runs_count()
    return clinic


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small disk in memory with options; it takes a right that not everybody has."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("nothing may be mounted here")
        return place

    yield mount
    if place.is_mount():
        subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def on_small_disk(
    disk: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Clinic]:
    """Makes a site whose data root is on such a disk."""

    def made(options: str) -> Clinic:
        clinic = Clinic(tmp_path, TinyProject(tmp_path / "project", str(disk(options) / "data")))
        monkeypatch.setenv("DAGSTER_HOME", str(clinic.home))
        clinic.tiny.land(DAY, clinic.tiny.rows(64))
        return clinic

    return made
