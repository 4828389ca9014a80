"""Which days a backfill runs and why, and what becomes of days that somebody else works on."""

import io
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import dagster as dg
import pandera.pandas  # noqa: F401  (a child shall find it imported)
import pytest
import torch
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._daemon.types import DaemonHeartbeat

from batch_scoring.cli.backfill import day_locks, run_days
from batch_scoring.cli.backfill.selection import Wanted
from batch_scoring.cli.main import main
from batch_scoring.config.loader import PROJECT
from batch_scoring.errors import HeldError
from batch_scoring.operations.run_history import PARTITION
from batch_scoring_tests.reliability.processes import Site, site_of
from batch_scoring_tests.tiny import SCHEMA, TinyProject

BIN = Path(sys.executable).parent
DAYS = [f"2024-03-0{number}" for number in range(1, 7)]
SERVER = multiprocessing.get_context("forkserver")
STALE, FAILED = Wanted(stale=True), Wanted(failed=True)


def within(first: str, last: str) -> Wanted:
    return Wanted(date.fromisoformat(first), date.fromisoformat(last))


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims of the test's own, and a working directory without a dagster.yaml: a passing instance."""
    for name in ("claims", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "claims"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "claims"))
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture(scope="module", autouse=True)
def _server() -> None:
    """The processes are forked from a server that imports while other tests run; its socket needs a short path."""
    SERVER.set_forkserver_preload([__name__])
    forkserver.ensure_running()


@pytest.fixture(scope="module")
def new_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DAGSTER_HOME with the repository's dagster.yaml; its databases take a second to make."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copy(PROJECT / "dagster.yaml", folder)
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        assert not instance.get_run_records()
    return folder


@pytest.fixture
def home(new_home: Path, tmp_path: Path) -> str:
    """A DAGSTER_HOME of the test's own."""
    return str(shutil.copytree(new_home, tmp_path / "home"))


def score(tiny: TinyProject, wanted: Wanted) -> tuple[int, dict[str, str]]:
    """Run the days: the exit code, and by day how it ended (the last column of its row)."""
    out = io.StringIO()
    code = run_days.score(tiny.pipeline, wanted, out)
    return code, endings(out.getvalue())


def endings(text: str) -> dict[str, str]:
    rows = [re.split(r"\s{2,}", line) for line in text.splitlines() if re.match(r"2024-.* s left$", line)]
    return {cells[0]: "scored" if cells[5][0].isdigit() else cells[5] for cells in rows}


def shown(tiny: TinyProject, wanted: Wanted) -> dict[str, str]:
    """What a dry run says of each day; it must not have written anything."""
    out, before = io.StringIO(), tree(Path(tiny.data_root))
    assert run_days.show(tiny.pipeline, wanted, out) == 0
    assert tree(Path(tiny.data_root)) == before
    lines = out.getvalue().splitlines()
    if len(lines) == 1 and lines[0].startswith("nothing to do: "):
        return {}
    return dict(line.split("  ", 1) for line in lines)


def tree(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in root.rglob("*")}


def land(tiny: TinyProject, *days: str) -> None:
    for day in days:
        tiny.land(day, tiny.rows(64, start=100 * int(day[-2:])))


def break_input(tiny: TinyProject, day: str) -> None:
    """A file that a blocking check refuses."""
    tiny.land(day, b"no parquet")


def runs_of(instance: dg.DagsterInstance) -> Counter[str]:
    return Counter(record.dagster_run.tags[PARTITION] for record in instance.get_run_records())


# which days, and why


def test_stale_days_are_those_of_the_check_and_then_there_are_none(tiny: TinyProject) -> None:
    land(tiny, *DAYS[:3])
    assert score(tiny, within(DAYS[0], DAYS[1])) == (0, dict.fromkeys(DAYS[:2], "scored"))
    tiny.land(DAYS[1], tiny.rows(65))
    assert shown(tiny, STALE) == {DAYS[1]: "stale: input"}, "the third has never been scored, and is not stale"
    tiny.deliver("v2", seed=1)
    assert shown(tiny, STALE) == {DAYS[0]: "stale: model", DAYS[1]: "stale: model, input"}
    assert shown(tiny, Wanted(date(2024, 3, 2), None, stale=True)).keys() == {DAYS[1]}
    assert shown(tiny, Wanted(None, date(2024, 3, 1), stale=True)).keys() == {DAYS[0]}
    assert score(tiny, STALE) == (0, dict.fromkeys(DAYS[:2], "scored"))
    assert {tiny.published_day("predictions", day).model_version for day in DAYS[:2]} == {"v2"}
    out = io.StringIO()
    assert run_days.score(tiny.pipeline, STALE, out) == 0
    assert re.fullmatch(rf"nothing to do: no day of {tiny.name} from 2024-03-01 to \S+ is stale\n", out.getvalue())


def test_stale_days_without_landing_files_are_scored_from_their_features_if_these_are_of_the_code_in_force(
    tiny: TinyProject,
) -> None:
    land(tiny, DAYS[0])
    assert score(tiny, within(DAYS[0], DAYS[0]))[0] == 0
    shutil.rmtree(Path(tiny.pipeline.landing.uri, f"dt={DAYS[0]}"))
    validated = tiny.published_day("validated_features", DAYS[0])
    tiny.deliver("v2", seed=1)
    assert shown(tiny, STALE) == {DAYS[0]: "stale: model; its landing files are gone: its features are scored again"}
    assert score(tiny, STALE) == (0, {DAYS[0]: "scored"})
    assert tiny.published_day("predictions", DAYS[0]).model_version == "v2"
    assert tiny.published_day("validated_features", DAYS[0]) == validated
    tiny.write_code(schema=(tiny.folder / "schema.py").read_text() + "\n# another one\n")
    (why,) = shown(tiny, STALE).values()
    assert why.startswith("stale: code; cannot be run: its landing files are gone") and "land the files again" in why
    out = io.StringIO()
    assert run_days.score(tiny.pipeline, STALE, out) == 1
    assert endings(out.getvalue()) == {DAYS[0]: "failed"} and f"  {DAYS[0]}  {why}\n" in out.getvalue()


def test_days_that_a_blocking_check_stopped_are_found_with_an_empty_instance(tiny: TinyProject) -> None:
    land(tiny, DAYS[0], DAYS[2])
    break_input(tiny, DAYS[1])
    break_input(tiny, DAYS[3])
    assert score(tiny, within(DAYS[0], DAYS[3]))[0] == 1
    shutil.rmtree(Path(tiny.pipeline.landing.uri, f"dt={DAYS[3]}"))
    (said,) = shown(tiny, FAILED).items()
    stopped = tiny.state.checks("raw_input", DAYS[1])
    assert stopped is not None and said[0] == DAYS[1], "the fourth day failed, but nothing lies there any more"
    assert said[1].startswith(f"failed: run {stopped.run_id[:8]}, {tiny.name}/raw_input: input_is_complete: ")
    land(tiny, DAYS[1])
    assert score(tiny, FAILED) == (0, {DAYS[1]: "scored"})
    assert shown(tiny, FAILED) == {}


def test_days_whose_last_run_failed_otherwise_are_found_in_the_instance_until_they_are_settled(
    tiny: TinyProject, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(tiny, *DAYS[:2])
    network = (tiny.folder / "network.py").read_text()
    monkeypatch.setenv("DAGSTER_HOME", home)
    tiny.write_code(network=f"raise RuntimeError('no licence')\n{network}")
    assert score(tiny, within(DAYS[0], DAYS[0])) == (1, {DAYS[0]: "failed"})
    tiny.write_code(network=network)
    with dg.DagsterInstance.get() as instance:
        tiny.run(DAYS[0], steps=["model", "raw_input"], instance=instance)
        before = runs_of(instance)
        found = shown(tiny, FAILED)
        assert runs_of(instance) == before
    assert found.keys() == {DAYS[0]}, "the second day never ran; what the first one's steps do alone mends nothing"
    assert re.match(rf"failed: run \w{{8}}, {tiny.name}/model: .*no licence", found[DAYS[0]])
    monkeypatch.delenv("DAGSTER_HOME")
    assert shown(tiny, FAILED) == {}, "no check of the day has failed"
    tiny.run(DAYS[0])
    monkeypatch.setenv("DAGSTER_HOME", home)
    assert shown(tiny, FAILED) == {}, "it is settled, though this instance has not heard of it"


def test_stale_and_failed_days_together(tiny: TinyProject) -> None:
    land(tiny, *DAYS[1:4])
    assert score(tiny, within(DAYS[1], DAYS[1]))[0] == 0
    break_input(tiny, DAYS[1])
    break_input(tiny, DAYS[2])
    assert score(tiny, within(DAYS[1], DAYS[2]))[0] == 1
    both = Wanted(stale=True, failed=True)
    found = shown(tiny, both)
    assert found.keys() == {DAYS[1], DAYS[2]}
    assert found[DAYS[1]].startswith("failed: run ") and found[DAYS[1]].endswith("; stale: input")
    assert "stale:" not in found[DAYS[2]]
    assert shown(tiny, Wanted(date(2024, 3, 3), None, stale=True, failed=True)).keys() == {DAYS[2]}
    land(tiny, DAYS[2])
    assert score(tiny, both) == (1, {DAYS[1]: "failed", DAYS[2]: "scored"})


def test_a_dry_run_of_a_range_says_of_each_day_what_a_run_would_find(tiny: TinyProject) -> None:
    land(tiny, *DAYS[:4])
    assert score(tiny, within(DAYS[0], DAYS[2]))[0] == 0
    tiny.land(DAYS[1], tiny.rows(65))
    shutil.rmtree(Path(tiny.pipeline.landing.uri, f"dt={DAYS[2]}"))
    break_input(tiny, DAYS[4])
    assert score(tiny, within(DAYS[4], DAYS[4]))[0] == 1
    found = shown(tiny, within(DAYS[0], DAYS[5]))
    assert found.pop(DAYS[4]).startswith("failed: run ")
    assert found == {
        DAYS[0]: "up to date: nothing would be written",
        DAYS[1]: "stale: input",
        DAYS[2]: "its landing files are gone; its scores are kept",
        DAYS[3]: "landed, never scored",
        DAYS[5]: "no file has landed",
    }
    tiny.write_code(schema=SCHEMA + "\n# a deploy\n")
    assert shown(tiny, within(DAYS[0], DAYS[0])) == {DAYS[0]: "stale: code"}
    tiny.run(DAYS[0], steps=["raw_input", "validated_features"])
    tiny.write_code(schema=SCHEMA)
    assert shown(tiny, within(DAYS[0], DAYS[0])) == {DAYS[0]: "scored, and changed since"}


def test_a_bundle_that_cannot_be_read_is_one_line_where_days_are_compared_with_it(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    land(tiny, DAYS[0])
    pipeline = tiny.pipeline
    monkeypatch.setattr(run_days, "find_pipeline", lambda _: pipeline)
    Path(pipeline.bundle.uri, "bundle.json").write_text("{")
    assert main(["backfill", tiny.name, "--stale"]) == 1
    said = capsys.readouterr()
    assert said.out == "" and re.match(r"batch-scoring: .*/v1/bundle\.json is not a manifest: .*\n$", said.err)


# beside others


def at_work(site: Site, said: Path, days: Wanted) -> None:
    """A backfill in a process that has the heavy imports behind it."""
    os.environ.update(site.environment)
    os.chdir(said.parent)
    tempfile.tempdir = str(said.parent)
    torch.set_num_threads(1)
    pipeline = site.pipeline()
    said.touch()
    wait_until((said.parent / "go").exists)
    with said.open("w") as out:
        sys.exit(run_days.score(pipeline, days, out))


def two_at_work(
    tiny: TinyProject, tmp_path: Path, environment: dict[str, str], days: Wanted
) -> tuple[list[Any], list[Path]]:
    """Two backfills of the same days that begin at once, and where each of them writes."""
    said = [tmp_path / "claims" / name for name in ("one", "two")]
    site = site_of(tiny, environment)
    both = [SERVER.Process(target=at_work, args=(site, file, days), daemon=True) for file in said]
    for process in both:
        process.start()
    wait_until(lambda: all(file.exists() for file in said))
    (tmp_path / "claims" / "go").touch()
    return both, said


def slow_down(tiny: TinyProject, seconds: float) -> None:
    """Let a day take a while: its network dawdles."""
    network = (tiny.folder / "network.py").read_text()
    nap = f"        import time\n        time.sleep({seconds})\n"
    dawdling = network.replace("        result =", f"{nap}        result =")
    assert dawdling != network
    tiny.write_code(network=dawdling)


def test_two_backfills_at_once_run_each_day_once(tiny: TinyProject, home: str, tmp_path: Path) -> None:
    land(tiny, *DAYS)
    both, said = two_at_work(tiny, tmp_path, {"DAGSTER_HOME": home}, within(DAYS[0], DAYS[-1]))
    for process in both:
        process.join(60)
    texts = [file.read_text() for file in said]
    assert [process.exitcode for process in both] == [0, 0], texts
    with dg.DagsterInstance.from_config(home) as instance:
        assert runs_of(instance) == Counter(DAYS)
    ends = [endings(text) for text in texts]
    assert all(found.keys() == set(DAYS) for found in ends)
    assert all(sorted(found[day] for found in ends) == ["by another", "scored"] for day in DAYS), texts
    assert any("postponed: process" in text for text in texts)


def test_a_killed_backfill_blocks_nobody(tiny: TinyProject, tmp_path: Path) -> None:
    land(tiny, *DAYS[:3])
    slow_down(tiny, 0.1)
    (killed, other), said = two_at_work(tiny, tmp_path, {}, within(DAYS[0], DAYS[2]))
    wait_until(lambda: any(file.read_text() == str(killed.pid) for file in tmp_path.rglob("*.lock")))
    killed.kill()
    killed.join()
    other.join(60)
    text = said[1].read_text()
    assert killed.exitcode == -signal.SIGKILL
    assert (other.exitcode, endings(text).keys()) == (0, set(DAYS[:3])), text
    assert all(tiny.read(day).num_rows == 64 for day in DAYS[:3])


def wait_until(holds: Callable[[], bool]) -> None:
    limit = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.02)


def launched(
    tiny: TinyProject, instance: dg.DagsterInstance, day: str, status: dg.DagsterRunStatus, *, by_shell: bool = False
) -> dg.DagsterRun:
    """A run as the daemon or the UI starts it in another process, or a command of a shell."""
    place = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("elsewhere"), "__repository__")
    job = f"score_{tiny.name}"
    origin = None if by_shell else RemoteJobOrigin(place, job)
    return instance.run_storage.add_run(
        dg.DagsterRun(job_name=job, status=status, tags={PARTITION: day}, remote_job_origin=origin)
    )


def test_a_day_that_a_launched_run_works_on_comes_last_and_is_done_by_another_or_run(
    tiny: TinyProject, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(tiny, *DAYS[:2])
    tiny.run(DAYS[0])
    monkeypatch.setattr(day_locks, "POLL", 0.1)
    monkeypatch.setenv("DAGSTER_HOME", home)
    with dg.DagsterInstance.get() as instance:
        going = [launched(tiny, instance, day, dg.DagsterRunStatus.STARTED) for day in DAYS[:2]]
        out, waited = io.StringIO(), []

        def end() -> None:
            wait_until(lambda: f"{DAYS[1]}  postponed" in out.getvalue())
            time.sleep(0.3)
            waited.append(endings(out.getvalue()))
            for run in going:
                instance.report_run_failed(run)

        ending = threading.Thread(target=end)
        ending.start()
        assert run_days.score(tiny.pipeline, within(DAYS[0], DAYS[1]), out) == 0
        ending.join()
    assert f"{DAYS[0]}  postponed: run {going[0].run_id[:8]} is started\n" in out.getvalue()
    assert waited == [{}] and endings(out.getvalue()) == {DAYS[0]: "by another", DAYS[1]: "scored"}


def test_a_run_in_the_queue_is_waited_for_only_if_a_daemon_will_start_it(tiny: TinyProject, home: str) -> None:
    with dg.DagsterInstance.from_config(home) as instance:
        queued = launched(tiny, instance, DAYS[0], dg.DagsterRunStatus.QUEUED)
        assert day_locks.launched_run(tiny.pipeline, instance, DAYS[0]) is None
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", "x"))
        found = day_locks.launched_run(tiny.pipeline, instance, DAYS[0])
        assert found is not None and (found.id, found.status) == (queued.run_id, "queued")
        launched(tiny, instance, DAYS[1], dg.DagsterRunStatus.STARTED, by_shell=True)
        assert day_locks.launched_run(tiny.pipeline, instance, DAYS[1]) is None, "whether that lives its claim says"


@pytest.mark.parametrize("wanted", [STALE, within(DAYS[0], DAYS[1])])
def test_a_day_that_another_backfill_has_done_since_this_one_began_is_not_run_again(
    tiny: TinyProject, wanted: Wanted
) -> None:
    land(tiny, *DAYS[:2])
    assert score(tiny, within(DAYS[0], DAYS[1]))[0] == 0
    tiny.deliver("v2", seed=1)

    class Out(io.StringIO):
        def write(self, text: str) -> int:
            if text.startswith("day "):  # the head of the table: the days are chosen, none is run
                with day_locks.hold(tiny.pipeline, DAYS[0]):
                    tiny.run(DAYS[0])
            return super().write(text)

    out = Out()
    assert run_days.score(tiny.pipeline, wanted, out) == 0
    assert endings(out.getvalue()) == {DAYS[0]: "by another", DAYS[1]: "scored"}
    if wanted.is_range:
        assert score(tiny, wanted) == (0, dict.fromkeys(DAYS[:2], "unchanged")), "it was done before this one began"


# claims


def test_a_day_is_held_once_whatever_way_leads_to_its_output(tiny: TinyProject, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tiny.data_root)
    other = TinyProject(tmp_path / "other", str(tmp_path / "link"))
    other.spec["output"] = tiny.pipeline.output.uri.replace(tiny.data_root, str(tmp_path / "link"))
    other.write_spec()
    with day_locks.hold(tiny.pipeline, DAYS[0]) as left_at:
        assert left_at == 0.0
        for pipeline in (tiny.pipeline, other.pipeline):
            with pytest.raises(HeldError, match=f"process {os.getpid()} is working on it"):
                day_locks.hold(pipeline, DAYS[0]).__enter__()
        with day_locks.hold(tiny.pipeline, DAYS[1]):
            pass
    began = time.time()
    with day_locks.hold(tiny.pipeline, DAYS[0]) as left_at:
        assert began - 5 < left_at <= began


def test_a_claim_whose_file_was_cleaned_away_while_another_waited_is_taken_anew(
    tiny: TinyProject, tmp_path: Path
) -> None:
    seen: list[str] = []

    def second() -> None:
        with day_locks.hold(tiny.pipeline, DAYS[0], waits=True):
            try:
                day_locks.hold(tiny.pipeline, DAYS[0]).__enter__()
            except HeldError as held:
                seen.append(str(held))

    waiting = threading.Thread(target=second)
    with day_locks.hold(tiny.pipeline, DAYS[0]):
        waiting.start()
        time.sleep(0.1)
        assert seen == []
        for file in (tmp_path / "claims").rglob("*.lock"):
            file.unlink()
    waiting.join(10)
    assert seen == [f"process {os.getpid()} is working on it"]


def test_a_folder_of_claims_that_is_a_link_is_refused(tiny: TinyProject, tmp_path: Path) -> None:
    (tmp_path / "claims" / f"batch_scoring-{os.getuid()}").symlink_to(tmp_path)
    with pytest.raises(PermissionError, match="remove it, or let TMPDIR name another folder"):
        day_locks.hold(tiny.pipeline, DAYS[0]).__enter__()
