"""Entries of the landing folder that are in trouble, corrections that look like the original, days from before.

Real runs and the sensor over a real folder: one day's trouble is that day's, told once, and mended it is scored whole.
"""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from batch_scoring.cli.backfill import selection
from batch_scoring.cli.backfill.selection import Wanted
from batch_scoring.config.loader import PROJECT
from batch_scoring.config.spec import Complete
from batch_scoring.daily import freshness
from batch_scoring.daily.freshness import stale_days
from batch_scoring.daily.publish import check_input
from batch_scoring.errors import BundleError, StateError, SupersededError
from batch_scoring.inference.bundle import read_bundle, read_sha256
from batch_scoring.ingest import landing_files
from batch_scoring.ingest.completeness import waits_for
from batch_scoring.operations import failed_runs, run_history
from batch_scoring.operations.automation import landing_scan
from batch_scoring.operations.automation.landing_scan import Tick
from batch_scoring.operations.automation.planner import TickState
from batch_scoring_tests.deployed import PACKAGES, ROOT
from batch_scoring_tests.storage.folders.test_entries import SECRET, _in_time  # noqa: F401  (what hangs fails)
from batch_scoring_tests.tiny import DAY, NEXT_DAY, TinyProject, checks, error_of

OTHER_DAY = "2024-03-06"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def look(tiny: TinyProject, instance: dg.DagsterInstance, memory: TickState | None = None) -> Tick:
    """A tick, ten minutes later: everything has been quiet."""
    return landing_scan.tick(tiny.pipeline, instance, memory or TickState(), now=time.time() + 600)


def asked(tick: Tick) -> list[str]:
    return [request.day for request in tick.plan.requests]


def run(tiny: TinyProject, instance: dg.DagsterInstance, tick: Tick, day: str) -> dg.ExecuteInProcessResult:
    """The run that a tick has asked for, tagged as the sensor tags it."""
    (request,) = [request for request in tick.plan.requests if request.day == day]
    tags = {run_history.FINGERPRINT: request.fingerprint, run_history.CODE: run_history.current_code(tiny.pipeline)}
    job = tiny.definitions.resolve_job_def(f"score_{tiny.name}")
    return job.execute_in_process(partition_key=day, instance=instance, tags=tags, raise_on_error=False)


@dataclass(frozen=True)
class Place:
    """Where trouble is made."""

    root: Path
    day: Path
    outside: Path


def bad_name(place: Place) -> None:
    shutil.copy(place.day / "a.parquet", os.path.join(os.fsencode(place.day), b"caf\xe9.parquet"))  # noqa: PTH118


def linked_out(place: Place) -> None:
    (place.day / "x.csv").symlink_to(place.outside / "passwd")


def folder_out(place: Place) -> None:
    shutil.move(place.day, place.outside / "day")
    place.day.symlink_to(place.outside / "day")


def day_of(what: str | None, to: str) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        if what is None:
            shutil.rmtree(place.day)
        (place.day / what if what else place.day).symlink_to(to)

    return make


TROUBLES: dict[str, tuple[Callable[[Place], None], str, str]] = {
    "a name that is not UTF-8": (bad_name, r"caf\xe9.parquet", "its name is not UTF-8: rename it"),
    "a backslash": (lambda place: (place.day / "a\\b.csv").touch(), r"a\b.csv", "its name has a backslash"),
    "a link to itself": (day_of("x.csv", "x.csv"), "x.csv", "which leads back to itself: remove it"),
    "a link to nothing": (day_of("x.csv", "gone.csv"), "x.csv", "which does not exist: restore the target"),
    "a share that is not mounted": (day_of("share", "/mnt/no"), "share", "a link to '/mnt/no', which leads out of"),
    "a FIFO": (lambda place: os.mkfifo(place.day / "x.csv"), "x.csv", "it is a FIFO; expected a file: remove it"),
    "a link to a stranger's file": (linked_out, "x.csv", "which leads out of"),
    "a day that is a link elsewhere": (folder_out, "", "which leads out of"),
    "a day that is a link to itself": (day_of(None, f"dt={NEXT_DAY}"), "", "which leads back to itself: remove it"),
    "a day that is a link to nothing": (day_of(None, "gone"), "", "which does not exist: restore the target"),
}


def mend(place: Place) -> None:
    """As an operator would: take away what is told, bring the day's file."""
    if place.day.is_symlink():
        place.day.unlink()
        place.day.mkdir()
    for entry in place.day.iterdir():
        if entry.name != "a.parquet":
            entry.unlink()


@pytest.fixture
def place(tiny: TinyProject, tmp_path: Path) -> Place:
    """Three landed days, of which the one in the middle gets into trouble."""
    for day in (DAY, NEXT_DAY, OTHER_DAY):
        tiny.land(day, tiny.rows(8))
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "passwd").write_bytes(SECRET)
    root = Path(tiny.pipeline.landing.uri)
    return Place(root, root / f"dt={NEXT_DAY}", tmp_path / "outside")


@pytest.mark.parametrize("case", TROUBLES)
def test_a_days_trouble_is_that_days_told_once_and_mended_it_is_scored_whole(
    tiny: TinyProject, instance: dg.DagsterInstance, place: Place, case: str
) -> None:
    make, name, reason = TROUBLES[case]
    make(place)
    tick = look(tiny, instance)
    assert asked(tick) == [OTHER_DAY, NEXT_DAY, DAY]
    result = run(tiny, instance, tick, NEXT_DAY)
    assert checks(result)["raw_input/input_is_complete"] is False
    said = error_of(result)
    assert f"{place.day}/{name}".rstrip("/") in said and reason in said and SECRET.decode() not in said
    json.dumps(said).encode("ascii"), said.encode()
    assert "\n" not in said.strip() and all(char.isprintable() for char in said.strip())
    after = look(tiny, instance, tick.plan.memory)
    assert (
        asked(after) == [OTHER_DAY, DAY]
        and "refused by its checks" in after.plan.waiting[NEXT_DAY]
        and after.plan.reports == ()
    )
    mend(place)
    tiny.land(NEXT_DAY, tiny.rows(8))
    again = look(tiny, instance, after.plan.memory)
    assert asked(again) == [OTHER_DAY, NEXT_DAY, DAY] and run(tiny, instance, again, NEXT_DAY).success
    assert tiny.read(NEXT_DAY).num_rows == 8 and asked(look(tiny, instance)) == [OTHER_DAY, DAY]


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
@pytest.mark.parametrize("what", ["", "/a.parquet"])
def test_what_the_disk_does_not_give_is_waited_for_and_told_once(
    tiny: TinyProject,
    instance: dg.DagsterInstance,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    what: str,
) -> None:
    call = "lstat" if what else "listdir"
    real = getattr(os, call)

    def broken(where: Any, *more: Any, **named: Any) -> Any:  # noqa: ANN401
        if str(where) == f"{place.day}{what}":
            raise OSError(number, os.strerror(number), where)
        return real(where, *more, **named)

    monkeypatch.setattr(os, call, broken)
    tick = look(tiny, instance)
    assert asked(tick) == [OTHER_DAY, DAY]
    (report,) = tick.plan.reports
    assert report.name == NEXT_DAY and f"{place.day}{what}: {os.strerror(number)}: " in report.text
    assert report.text.endswith(
        "grant this process read access" if number == errno.EACCES else "check its disk or mount"
    )
    assert tick.plan.waiting[NEXT_DAY] in report.text
    assert look(tiny, instance, tick.plan.memory).plan.reports == ()
    result = tiny.run(NEXT_DAY, raise_on_error=False)
    assert f"{place.day}{what}: {os.strerror(number)}" in error_of(result)
    monkeypatch.undo()
    assert asked(look(tiny, instance, tick.plan.memory)) == [OTHER_DAY, NEXT_DAY, DAY]


def test_where_no_day_can_be_read_the_sensor_fails_which_is_told(
    tiny: TinyProject, instance: dg.DagsterInstance, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.listdir

    def broken(where: Any) -> Any:  # noqa: ANN401
        if Path(where).name.startswith("dt="):
            raise OSError(errno.EIO, os.strerror(errno.EIO), where)
        return real(where)

    monkeypatch.setattr(os, "listdir", broken)
    with pytest.raises(OSError, match=rf"{place.root}/dt={OTHER_DAY}: Input/output error: check its disk or mount"):
        look(tiny, instance)
    monkeypatch.undo()
    assert len(asked(look(tiny, instance))) == 3


def test_a_scored_day_whose_file_gets_into_trouble_keeps_its_scores_and_is_told_once(
    tiny: TinyProject, instance: dg.DagsterInstance, place: Place
) -> None:
    tiny.land(NEXT_DAY, tiny.rows(4, start=50), "b.parquet")
    assert run(tiny, instance, look(tiny, instance), NEXT_DAY).success
    (place.day / "b.parquet").unlink()
    (place.day / "b.parquet").symlink_to("/mnt/share/b.parquet")
    tick = look(tiny, instance)
    assert NEXT_DAY not in asked(tick)
    (report,) = tick.plan.reports
    assert "cannot be read any more, its scores are kept" in report.text and "b.parquet: it is a link" in report.text
    assert look(tiny, instance, tick.plan.memory).plan.reports == ()
    (place.day / "new.csv").symlink_to("nothing")
    assert NEXT_DAY in asked(look(tiny, instance)), "a file that was never scored"


def test_names_beside_the_days_that_are_in_trouble_are_told_with_their_reason(
    tiny: TinyProject, instance: dg.DagsterInstance, place: Place
) -> None:
    for name in (b"caf\xe9", b"note\\s"):
        os.mkdir(os.path.join(os.fsencode(place.root), name))  # noqa: PTH102, PTH118
    (place.root / "latest").symlink_to(place.outside)
    (place.root / "_latest").symlink_to(place.outside)
    tick = look(tiny, instance)
    assert len(asked(tick)) == 3
    assert sorted(report.text.split(":")[0] for report in tick.plan.reports) == [r"caf\xe9", "latest", r"note\s"]
    assert "its name is not UTF-8" in tick.plan.memory.model_dump_json()


@pytest.mark.parametrize("by", ["marker", "manifest"])
def test_a_marker_that_is_a_fifo_or_leads_out_is_named_and_not_waited_for(
    tiny: TinyProject, place: Place, by: str
) -> None:
    complete = Complete(by=by)  # type: ignore[arg-type]
    marker = place.day / complete.name
    for make, reason in ((os.mkfifo, "it is a FIFO"), (lambda at: at.symlink_to(place.outside / "passwd"), "out of")):
        make(marker)
        said = waits_for(complete, tiny.pipeline.landing, NEXT_DAY, tiny.pipeline.landing.look(f"dt={NEXT_DAY}/"))
        assert str(marker) in said and reason in said and SECRET.decode() not in said
        marker.unlink()


def test_a_manifest_may_list_names_that_are_none(tiny: TinyProject, place: Place) -> None:
    (place.day / "_manifest.json").write_text(r'["\ud800.csv", "a.parquet", "caf\udce9.csv"]')
    listed = tiny.pipeline.landing.look(f"dt={NEXT_DAY}/")
    said = waits_for(Complete(by="manifest"), tiny.pipeline.landing, NEXT_DAY, listed)
    assert r"\ud800.csv is missing; caf\xe9.csv is missing" in said and said.encode()


@pytest.mark.parametrize("name", ["bundle.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["FIFO", "out of"])
def test_a_bundles_file_that_is_none_is_refused_by_name(tiny: TinyProject, place: Place, name: str, kind: str) -> None:
    bundle = tiny.pipeline.bundle
    file = Path(bundle.uri, name)
    file.rename(place.outside / name)
    os.mkfifo(file) if kind == "FIFO" else file.symlink_to(place.outside / name)
    with pytest.raises(BundleError, match=rf"{file}: it is a .*{kind}.*deliver it again"):
        read_bundle(bundle)


def test_a_document_of_the_state_that_is_none_is_its_days_trouble(tiny: TinyProject, place: Place) -> None:
    for day in (DAY, NEXT_DAY):
        tiny.run(day)
    file = Path(tiny.pipeline.output.uri, f"state/dt={DAY}/predictions.json")
    for make in (os.mkfifo, lambda at: at.symlink_to(at.name), lambda at: at.symlink_to(place.outside / "passwd")):
        file.unlink()
        make(file)
        with pytest.raises(StateError, match=rf"{file}: it is a .*run the day again") as refused:
            tiny.state.published_day("predictions", DAY)
        assert SECRET.decode() not in str(refused.value)
        assert list(freshness.fingerprints(tiny.pipeline, [DAY, NEXT_DAY])) == [NEXT_DAY]


def test_a_link_that_took_a_pinned_files_place_is_never_read(tiny: TinyProject, place: Place) -> None:
    tiny.run(NEXT_DAY, steps=["raw_input"])
    (place.day / "a.parquet").rename(place.outside / "a.parquet")
    (place.day / "a.parquet").symlink_to(place.outside / "a.parquet")
    said = error_of(tiny.run(NEXT_DAY, steps=["validated_features"], raise_on_error=False))
    assert f"superseded: {place.day}/a.parquet: it is a link to " in said and "leads out of" in said


# corrections that look like the original


def rewritten_in_place(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def replaced(file: Path, content: bytes) -> None:
    fresh = file.with_name("_fresh")
    fresh.write_bytes(content)
    shutil.copystat(file, fresh)  # cp -p and rsync -t do so
    fresh.replace(file)


@pytest.mark.parametrize("correct", [rewritten_in_place, replaced])
def test_a_correction_of_equal_size_and_time_is_scored(
    tiny: TinyProject, instance: dg.DagsterInstance, correct: Callable[[Path, bytes], None]
) -> None:
    tiny.land(DAY, b"id,x,y,n,c\nk1,1,2,3,red\n", "a.csv")
    tiny.run(instance=instance)
    file = Path(tiny.pipeline.landing.uri, f"dt={DAY}", "a.csv")
    before, scores = file.stat(), tiny.read()["prob_class_0"]
    correct(file, b"id,x,y,n,c\nk1,9,2,3,red\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    now = file.stat()
    assert (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    tick = look(tiny, instance)
    assert asked(tick) == [DAY] and run(tiny, instance, tick, DAY).success
    assert tiny.read()["prob_class_0"] != scores and tiny.read(table="validated_features")["x"].to_pylist() == [9.0]


def touch_only(root: Path) -> None:
    for file in root.rglob("*.parquet"):
        file.chmod(0o640)


def copied(root: Path) -> None:
    shutil.copytree(root, root.with_name("copy"))
    shutil.rmtree(root)
    root.with_name("copy").rename(root)


@pytest.mark.parametrize("change", [touch_only, copied])
def test_a_chmod_and_a_copied_folder_are_looked_at_again_and_scored_no_second_time(
    tiny: TinyProject, instance: dg.DagsterInstance, change: Callable[[Path], None]
) -> None:
    tiny.land(DAY, tiny.rows(64))
    tiny.run(instance=instance)
    before = tiny.published_day("validated_features"), tiny.published_day("predictions")
    change(Path(tiny.pipeline.landing.uri))
    tick = look(tiny, instance)
    assert asked(tick) == [DAY] and run(tiny, instance, tick, DAY).success
    for old, new in zip(
        before, (tiny.published_day("validated_features"), tiny.published_day("predictions")), strict=True
    ):
        assert new.fingerprint != old.fingerprint and new.shards == old.shards
        assert (new.table.version, new.table.files) == (old.table.version, old.table.files)
    assert asked(look(tiny, instance)) == []


# days from before


def former(tiny: TinyProject, day: str = DAY) -> str:
    """The state of a day as the version before 2026-11-30 left it, by its own formula; the fingerprint."""
    state, root = Path(tiny.pipeline.output.uri, "state", f"dt={day}"), Path(tiny.pipeline.landing.uri)
    pinned = json.loads((state / "input.json").read_text())
    lines = []
    for file in sorted(pinned["files"], key=lambda file: (file["modified"], file["path"]), reverse=True):
        found = (root / file["path"]).stat()
        file["token"] = f"{found.st_mtime_ns:x}-{found.st_size:x}"
        file.pop("content", None)
        lines.append(f"{file['path']}\0{file['token']}\0{found.st_size}\n")
    pinned["fingerprint"] = hashlib.sha256("".join(lines).encode()).hexdigest()
    (state / "input.json").write_text(json.dumps(pinned))
    for step in ("validated_features", "predictions"):
        published_day = json.loads((state / f"{step}.json").read_text()) | {"fingerprint": pinned["fingerprint"]}
        (state / f"{step}.json").write_text(json.dumps(published_day))
    return str(pinned["fingerprint"])


@pytest.fixture
def upgraded(tiny: TinyProject, instance: dg.DagsterInstance) -> TinyProject:
    for name in ("a.parquet", "b.parquet"):
        tiny.land(DAY, tiny.rows(8, start=ord(name[0])), name)
    tiny.run(instance=instance)
    former(tiny)
    return tiny


def test_a_day_pinned_by_the_version_before_is_compared_as_it_was_then(
    upgraded: TinyProject, instance: dg.DagsterInstance
) -> None:
    pipeline, pinned = upgraded.pipeline, upgraded.state.day_input(DAY)
    listed = landing_files.list_day(pipeline.landing, DAY)
    assert landing_files.fingerprint(listed) != pinned.fingerprint and landing_files.is_of(pinned.fingerprint, listed)
    assert asked(look(upgraded, instance)) == []
    sha256 = read_sha256(pipeline.bundle)
    assert stale_days(pipeline, sha256).days == []
    assert selection.up_to_date(pipeline, {DAY: listed}, sha256) == {DAY}
    (choice,) = selection.explain(pipeline, [DAY], instance)
    assert choice.why == "up to date: nothing would be written"
    assert selection.choose(pipeline, [DAY], Wanted(stale=True), instance) == []
    check_input(pipeline, pinned, may_be_archived=False)
    with pipeline.landing.open(pinned.files[0].path, pinned.files[0].token):
        pass


def test_steps_go_on_with_what_was_pinned_before_and_a_new_pin_has_the_new_form(
    upgraded: TinyProject, instance: dg.DagsterInstance
) -> None:
    assert upgraded.run(steps=["validated_features", "predictions"], instance=instance).success
    assert "." not in upgraded.state.day_input(DAY).files[0].token
    upgraded.run(instance=instance)
    assert all(file.token.count(".") == 2 and file.content for file in upgraded.state.day_input(DAY).files)
    assert asked(look(upgraded, instance)) == []


def test_a_change_of_a_day_from_before_is_seen_and_a_deletion_told(
    upgraded: TinyProject, instance: dg.DagsterInstance
) -> None:
    file = Path(upgraded.pipeline.landing.uri, f"dt={DAY}", "b.parquet")
    kept = file.rename(file.with_name("_b"))
    tick = look(upgraded, instance)
    assert asked(tick) == [] and "some of its files were deleted" in tick.plan.reports[0].text
    kept.rename(file)
    assert asked(look(upgraded, instance)) == []
    os.utime(file)
    assert asked(look(upgraded, instance)) == [DAY]
    with pytest.raises(SupersededError, match="have changed since raw_input pinned them"):
        check_input(upgraded.pipeline, upgraded.state.day_input(DAY), may_be_archived=False)


# a real daemon

DEPLOYMENT = """
from batch_scoring_tests.deployed import deployment

defs = deployment()
"""


@pytest.mark.slow
def test_under_a_real_daemon_the_other_days_are_scored_and_each_trouble_is_one_failed_run(
    tiny: TinyProject, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal.alarm(300)
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_bytes((PROJECT / "dagster.yaml").read_bytes())
    (home / "deployment.py").write_text(DEPLOYMENT)
    for name, value in ((PACKAGES, tiny.packages), (ROOT, tiny.data_root), ("DAGSTER_HOME", home)):
        monkeypatch.setenv(name, str(value))
    tiny.spec["input"]["complete"] = {"quiet_minutes": 0}
    tiny.spec["uploads"] = {"interval_seconds": 2}
    tiny.write_spec()
    bad_name(place)
    os.mkfifo(place.root / f"dt={OTHER_DAY}" / "x.csv")
    (place.root / "dt=2024-03-07").symlink_to("dt=2024-03-07")
    troubled = [NEXT_DAY, OTHER_DAY, "2024-03-07"]
    program = [str(Path(sys.executable).with_name("dagster-daemon")), "run", "-f", "deployment.py"]
    with (home / "log").open("wb") as log:
        daemon = subprocess.Popen(program, cwd=home, stdout=log, stderr=log, start_new_session=True)
    try:
        with dg.DagsterInstance.get() as instance:
            give_up = time.monotonic() + 240
            while (done := ended(instance)).keys() != {DAY, *troubled} and time.monotonic() < give_up:
                time.sleep(0.5)
            time.sleep(6)  # some ticks more
            assert ended(instance) == done == {DAY: ["SUCCESS"]} | {day: ["FAILURE"] for day in troubled}
            tags = [
                run.tags[failed_runs.TAG] for run in instance.get_runs() if run.status == dg.DagsterRunStatus.FAILURE
            ]
            assert tags == ["bad_input"] * 3
    finally:
        os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()
    assert tiny.read().num_rows == 8


def ended(instance: dg.DagsterInstance) -> dict[str, list[str]]:
    """How the runs of each day have ended."""
    found: dict[str, list[str]] = {}
    for run in instance.get_runs():
        if run.is_finished:
            found.setdefault(run.tags[run_history.PARTITION], []).append(run.status.value)
    return found
