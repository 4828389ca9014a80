"""What is told, and that it is told once: real runs of the tiny pipeline, real receivers, the real daemon."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from batch_scoring.config.loader import PROJECT
from batch_scoring.dagster_internals import InstigatorStatus
from batch_scoring.defs.sensors import alerts_sensor
from batch_scoring.operations import run_history
from batch_scoring.operations.alerting import collector
from batch_scoring_tests.ended_runs import ended, ended_other
from batch_scoring_tests.exports import break_sink, mend_sink, refusing, run_exports, scored, tick_and_run, with_export
from batch_scoring_tests.operations.automation.test_sensor_status import Sensor
from batch_scoring_tests.receivers import LOG, PASSWORD, MailServer, Told, WebServer
from batch_scoring_tests.tiny import DAY, NEXT_DAY, TinyProject, days_ago, normalised

# states


def test_a_failed_check_without_a_day_is_told_when_it_begins(
    instance: dg.DagsterInstance, tiny: TinyProject, told: Told
) -> None:
    def land_and_run(day: str, rows: int) -> list[str]:
        tiny.land(day, tiny.rows(rows))
        tiny.run(day, instance=instance)
        return told()

    assert land_and_run(DAY, 64) == []
    tiny.land(DAY, tiny.rows(65))
    (message,) = land_and_run(NEXT_DAY, 64)
    title, check, *_ = message.splitlines()
    assert title == f"tiny {NEXT_DAY}: check days_are_current failed"
    assert check.startswith(f"tiny/model days_are_current (WARN): stale days: 1 (input: {DAY})")
    assert land_and_run(NEXT_DAY, 66) == []
    assert land_and_run(DAY, 65) == []
    tiny.land(NEXT_DAY, tiny.rows(67))
    assert len(land_and_run(DAY, 65)) == 1, "in between it had passed"


def test_a_state_that_has_more_to_say_is_told_again_and_one_that_has_less_is_not(
    instance: dg.DagsterInstance, tiny: TinyProject, told: Told
) -> None:
    for day in (DAY, NEXT_DAY):
        tiny.land(day, tiny.rows(64))
        tiny.run(day, instance=instance)
    tiny.land(DAY, tiny.rows(65))
    tiny.land("2024-03-06", tiny.rows(64))
    tiny.run("2024-03-06", instance=instance)
    assert len(told()) == 1, "another input of one day"
    tiny.land(NEXT_DAY, tiny.rows(65))
    tiny.run("2024-03-06", instance=instance)
    (message,) = told()
    assert f"{DAY} … {NEXT_DAY}" in message
    tiny.run(DAY, instance=instance)
    assert told() == [], "one of the two is done"
    tiny.deliver("v2", seed=3)
    tiny.run(DAY, instance=instance)
    assert len(told()) == 1, "another model"


def test_a_run_whose_events_cannot_be_read_is_told_all_the_same(
    instance: dg.DagsterInstance, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, sound = ended_other(instance, time.time() - 2), ended_other(instance, time.time() - 1)
    read = instance.all_logs

    def all_logs(run_id: str, of_type: set[dg.DagsterEventType]) -> Sequence[dg.EventLogEntry]:
        if run_id == broken:
            raise ValueError("a damaged event")
        return read(run_id, of_type=of_type)

    monkeypatch.setattr(instance, "all_logs", all_logs)
    first, second = told()
    assert "its events cannot be read" in first and f"http://ui/runs/{broken}" in first
    assert sound in second


def run_checks(instance: dg.DagsterInstance, *results: dg.AssetCheckResult) -> None:
    """A run with results of checks that are not the tiny pipeline's."""

    @dg.asset(
        key=["p", "a"],
        partitions_def=dg.DailyPartitionsDefinition("2024-01-01"),
        check_specs=[
            dg.AssetCheckSpec(
                result.check_name or "", asset=["p", "a"], partitions_def=dg.DailyPartitionsDefinition("2024-01-01")
            )
            for result in results
        ],
    )
    def a() -> dg.MaterializeResult:
        return dg.MaterializeResult(check_results=results)

    dg.materialize([a], instance=instance, partition_key=DAY)


def test_a_state_that_an_earlier_message_has_told_is_left_out(instance: dg.DagsterInstance, told: Told) -> None:
    continuing = dg.AssetCheckResult(check_name="drifts", passed=False, metadata={"continues_since": "2024-03-01"})
    run_checks(instance, continuing)
    assert told() == []
    other = dg.AssetCheckResult(
        check_name="fits", passed=False, description="too large", metadata={"observed": 3, "expected": "at most 2"}
    )
    run_checks(instance, continuing, other)
    (message,) = told()
    assert message.splitlines()[:2] == [
        f"p {DAY}: check fits failed",
        "p/a fits (ERROR): too large; observed: 3; expected: at most 2",
    ]


# the scan of runs


def test_the_first_tick_looks_back_a_day(instance: dg.DagsterInstance, told: Told) -> None:
    ended_other(instance, time.time() - 25 * 3600)
    recent = ended_other(instance, time.time() - 23 * 3600)
    (message,) = told()
    assert recent in message


def test_a_run_that_is_touched_after_its_end_is_not_told_again(instance: dg.DagsterInstance, told: Told) -> None:
    old, new = ended_other(instance, time.time() - 7200), ended_other(instance, time.time())
    assert len(told()) == 2
    for run_id in (old, new):
        instance.add_run_tags(run_id, {"seen": "yes"})
    assert told() == []


def test_a_run_that_is_touched_before_it_is_seen_is_told(instance: dg.DagsterInstance, told: Told) -> None:
    old, _ = ended_other(instance, time.time() - 7200), ended_other(instance, time.time())
    instance.add_run_tags(old, {"seen": "yes"})
    assert len(told()) == 2


def test_runs_of_one_instant_beyond_a_page_are_all_told_in_one_message(
    instance: dg.DagsterInstance, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "ENDED_PER_QUERY", 5)
    now = time.time()
    count = collector.ENDED_PER_QUERY + 10
    runs = [ended_other(instance, now, **{"dagster/partition": f"day {n:03}"}) for n in range(count)]
    (message,) = told()
    title, *lines = message.splitlines()
    assert title == f"other: {len(runs)} messages" and len(lines) == len(runs)
    assert lines[0] == "other day 000: failed: it is over"
    assert told() == []


def test_ends_that_are_stored_late_or_by_a_clock_ahead_lose_nothing(instance: dg.DagsterInstance, told: Told) -> None:
    now = time.time()
    ended_other(instance, now + 3600)
    assert len(told()) == 1
    ended_other(instance, now)
    assert len(told()) == 1
    ended_other(instance, now - collector.OVERLAP + 60)
    assert len(told()) == 1
    assert told() == []


def test_what_a_tick_has_no_time_for_is_told_in_the_next(
    instance: dg.DagsterInstance, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended_other(instance, time.time())
    with monkeypatch.context() as hurried:
        hurried.setattr(collector, "RUNS_UNTIL", 0.0)
        assert told() == []
    assert len(told()) == 1


def test_a_failure_waits_until_dagster_has_said_whether_it_runs_again(
    tmp_path: Path, tiny: TinyProject, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "dagster.yaml").write_bytes((PROJECT / "dagster.yaml").read_bytes())
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))

    def titles() -> list[str]:
        caplog.clear()
        collector.tick(instance, [], LOG)
        return [record.getMessage().splitlines()[0] for record in caplog.records if record.name == "tick"]

    with dg.DagsterInstance.get() as instance:
        retried = ended_other(instance, time.time(), **{"dagster/partition": "retried"})
        instance.add_run_tags(retried, {"dagster/will_retry": "true"})
        final = ended_other(instance, time.time(), **{"dagster/partition": "final"})
        instance.add_run_tags(final, {"dagster/will_retry": "false"})
        undecided = ended_other(instance, time.time(), **{"dagster/partition": "undecided"})
        with instance.run_storage.connect() as connection:  # between the failure and the tag
            connection.exec_driver_sql(
                f"update runs set run_body = replace(run_body, 'dagster/will_retry', 'x') where run_id = '{undecided}'"
            )
        assert "dagster/will_retry" not in instance.get_run_by_id(undecided).tags  # type: ignore[union-attr]
        assert titles() == ["other final: failed"]
        instance.add_run_tags(undecided, {"dagster/will_retry": "false"})
        assert titles() == ["other undecided: failed"]
        # Dagster says so of a run of a job's backfill too, and does not do it: test_dagster_behaviour.py
        ended_other(
            instance,
            time.time() - run_history.TO_RETRY - 1,
            **{"dagster/partition": "promised", "dagster/will_retry": "true"},
        )
        made = ended_other(instance, time.time() - run_history.TO_RETRY - 1, **{"dagster/partition": "made"})
        instance.add_run_tags(made, {"dagster/auto_retry_run_id": retried})
        assert titles() == ["other promised: failed"]


def test_the_fields_of_alerts_change_no_code_digest(tiny: TinyProject) -> None:
    before = tiny.pipeline.features_code, tiny.pipeline.scoring_code
    tiny.spec["input"]["deadline_hours"] = 9
    tiny.spec["alerts"] = {"on_success": True, "scored_hours": 12.5}
    tiny.write_spec()
    assert (tiny.pipeline.features_code, tiny.pipeline.scoring_code) == before


# delivery


def test_without_a_channel_the_sensor_writes_messages_into_its_log(
    instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    ended_other(instance, time.time())
    said = alerts_sensor([])(dg.build_sensor_context(instance=instance))
    assert isinstance(said, dg.SkipReason) and said.skip_message == "1 new"
    assert "WARNING - other: failed\nit is over\n" in capfd.readouterr().err


def test_no_secret_of_an_address_is_written_anywhere(
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    web = WebServer()
    web.is_down = True
    unclear = [f"nosuch://{PASSWORD}@host", f"json://127.0.0.1:1x{PASSWORD}/"]
    monkeypatch.setenv("ALERT_URLS", f"{web.url} {' '.join(unclear)}")
    ended_other(instance, time.time())
    with caplog.at_level(1):
        said = collector.tick(instance, [], LOG)
    web.stop()
    assert said.startswith("1 new; 1 wait for ALERT_URLS[1] (json) since ") and "last error: HTTP status 503" in said
    for position in (2, 3):
        assert f"ALERT_URLS[{position}] is not understood by apprise" in said
        assert any(said.startswith(f"ALERT_URLS[{position}] is not understood by apprise") for said in caplog.messages)
    assert web.attempts == 1
    stored = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"HTTP status 503" in stored and PASSWORD.encode() not in stored
    for text in (said, caplog.text, *capfd.readouterr()):
        assert PASSWORD not in text


def test_what_is_told_while_an_address_is_mistyped_comes_when_it_is_right(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    web, other = WebServer(), WebServer()
    monkeypatch.setattr(collector, "_said_at", {})
    monkeypatch.setenv("ALERT_URLS", f"{other.url} {web.url.replace('json:', 'jsn:')}")
    ended_other(instance, time.time())
    said = [collector.tick(instance, [], LOG) for _ in range(2)]
    assert "1 wait for ALERT_URLS[2] since " in said[1] and "no alert is sent there: correct the address" in said[1]
    loud = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(loud) == 1, "not each tick, but at most hourly"
    monkeypatch.setenv("ALERT_URLS", f"{other.url} {web.url}")
    assert collector.tick(instance, [], LOG) == "delivered 1"
    assert [title for title, _ in web.received] == [title for title, _ in other.received] == ["other: failed"]
    web.stop(), other.stop()


@pytest.mark.parametrize("wrong", ["jsn://127.0.0.1:1/", "json:/127.0.0.1", "127.0.0.1", ",", "json://"])
def test_a_mistyped_address_is_said_when_the_code_location_is_loaded(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALERT_URLS", wrong)
    with pytest.warns(UserWarning, match=r"ALERT_URLS\[1\] is not understood by apprise"):
        collector.warn_of_mistakes()
    assert "warn_of_mistakes()" in (PROJECT / "batch_scoring/definitions.py").read_text()


# records of failed runs


def records(tiny: TinyProject) -> list[tuple[str, str]]:
    files = tiny.pipeline.output.list("state/failures/")
    found = tiny.state.failures_since(datetime(2024, 1, 1, tzinfo=UTC))
    assert len(found) == len(files), "one document a run"
    return [(record.run_id, record.failure_class) for record in found]


def test_a_run_whose_process_is_gone_is_recorded_in_the_state(
    instance: dg.DagsterInstance, tiny: TinyProject, told: Told
) -> None:
    lost = ended(instance, tiny, "Run worker is gone.")
    assert len(told()) == 1
    assert records(tiny) == [(lost.run_id, "lost")]
    told()
    assert records(tiny) == [(lost.run_id, "lost")]


def test_what_a_step_has_recorded_is_not_recorded_again(
    instance: dg.DagsterInstance, tiny: TinyProject, told: Told
) -> None:
    tiny.land(DAY, b"PAR1, and no more")
    run_id = tiny.run(instance=instance, raise_on_error=False).run_id
    assert len(told()) == 1
    assert records(tiny) == [(run_id, "bad_input")]


def test_a_failure_of_a_store_that_is_down_is_recorded_when_it_is_back(
    instance: dg.DagsterInstance, tiny: TinyProject, told: Told
) -> None:
    """A file where the folder should be: neither the step nor the tick can write."""
    tiny.pipeline.output.put("state/failures", b"in the way")
    tiny.land(DAY, b"PAR1, and no more")
    failed = tiny.run(instance=instance, raise_on_error=False).run_id
    lost = ended(instance, tiny, "Run worker is gone.").run_id
    said = collector.tick(instance, [tiny.pipeline], LOG)
    assert f"failed runs of {tiny.name} are not recorded yet: " in said
    assert "tried again" in collector.tick(instance, [tiny.pipeline], LOG)
    tiny.pipeline.output.remove("state/failures")
    assert collector.tick(instance, [tiny.pipeline], LOG) == "no new alerts"
    assert records(tiny) == [(failed, "bad_input"), (lost, "lost")]
    tiny.pipeline.output.remove(tiny.pipeline.output.list("state/failures/")[0].path)
    collector.tick(instance, [tiny.pipeline], LOG)
    assert records(tiny) == [(lost, "lost")], "what is recorded is not looked for again"


DEPLOYMENT = """
import batch_scoring.pipelines
from pathlib import Path
from batch_scoring.definitions import deploy
from batch_scoring.config.loader import load_pipelines

batch_scoring.pipelines.__path__.append({packages!r})
defs = deploy(load_pipelines(Path({packages!r}), {root!r}))
"""


@pytest.mark.slow
def test_the_daemon_delivers_each_message_once_to_each_channel_also_when_it_was_killed(
    tiny: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dagster.yaml").write_bytes((PROJECT / "dagster.yaml").read_bytes())
    (tmp_path / "deployment.py").write_text(DEPLOYMENT.format(packages=str(tiny.packages), root=tiny.data_root))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    mail, web = MailServer(), WebServer()
    web.is_down = True
    monkeypatch.setenv("ALERT_URLS", f"{mail.url} {web.url}")
    scored, missing, failed = days_ago(3), days_ago(2), days_ago(1)
    tiny.spec["partitions"]["start"] = scored
    tiny.spec["input"]["deadline_hours"] = 30
    tiny.write_spec()
    tiny.land(scored, tiny.rows(64))
    tiny.land(failed, tiny.rows(64))
    expected = [
        f"tiny {failed}: check days_are_current failed",
        f"tiny {failed}: failed at raw_input",
        f"tiny {missing}: missing, no file has landed",
    ]

    def titles(receiver: MailServer | WebServer) -> list[str]:
        return [normalised(title) for title, _ in receiver.received]

    def daemon() -> "subprocess.Popen[bytes]":
        program = str(Path(sys.executable).with_name("dagster-daemon"))
        command = [program, "run", "-f", "deployment.py"]
        return subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True)

    def wait(until: Callable[[], bool]) -> None:
        give_up = time.monotonic() + 120
        while not until() and time.monotonic() < give_up:
            time.sleep(0.2)
        assert until()

    started = []
    try:
        with dg.DagsterInstance.get() as instance:
            tiny.run(scored, instance=instance)
            tiny.land(scored, tiny.rows(65))
            tiny.run(failed, instance=instance)
            tiny.land(failed, b"PAR1, and no more")
            tiny.run(failed, instance=instance, raise_on_error=False)
            started.append(daemon())
            wait(lambda: len(mail.received) == 3 and web.attempts > 0)
            time.sleep(2)  # the delivery is noted, the tick is over
            started[0].kill()
            web.is_down = False
            started.append(daemon())
            wait(lambda: len(web.received) == 3)
            time.sleep(2)
            ticks = instance.get_ticks(*tick_origin(instance))
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        mail.stop()
        web.stop()
    assert titles(mail) == titles(web) == expected
    said = [tick.skip_reason or "" for tick in reversed(ticks)]
    assert said[0].startswith("3 new; delivered 3; 3 wait for ALERT_URLS[2] (json) since ")
    assert "delivered 3" in said


def tick_origin(instance: dg.DagsterInstance) -> tuple[str, str]:
    (state,) = [state for state in instance.all_instigator_state() if state.name == "alerts"]
    return state.instigator_origin_id, state.selector_id


# exports


def exports_told(told: Told) -> list[str]:
    return [message for message in told() if "export" in message.splitlines()[0]]


def test_a_sink_that_is_down_is_told_once_with_the_last_attempt_and_heals_by_itself(
    instance: dg.DagsterInstance, tiny: TinyProject, told: Told
) -> None:
    tiny.spec["runs"] = {"retries": 2, "retry_minutes": 0}
    scored(with_export(tiny), DAY, NEXT_DAY)
    break_sink(tiny)
    assert told() == []
    messages = []
    for _ in range(6):
        assert tick_and_run(tiny, instance) == [f"list {NEXT_DAY} failed"]
        messages.append(exports_told(told))
    assert [len(found) for found in messages] == [0, 0, 1, 0, 0, 0]
    title, *lines = messages[2][0].splitlines()
    assert title.startswith(f"tiny {NEXT_DAY}: failed at export_list, keeps failing: 3 failed runs in a row since 20")
    assert "class: sink" in lines
    command = f"batch-scoring export {tiny.name} list {NEXT_DAY} {NEXT_DAY}"
    assert f"tried again every hour, and of itself once the sink is back; by hand: {normalised(command)}" in lines
    mend_sink(tiny)
    assert [tick_and_run(tiny, instance) for _ in range(2)] == [[f"list {day} succeeded"] for day in (NEXT_DAY, DAY)]
    assert told() == []


def test_a_refusal_is_told_at_once_and_not_for_every_day(
    instance: dg.DagsterInstance, tiny: TinyProject, told: Told
) -> None:
    scored(refusing(tiny), DAY, NEXT_DAY)
    assert tick_and_run(tiny, instance) == [f"list {NEXT_DAY} failed"]
    (message,) = exports_told(told)
    assert (
        "class: bad_sink" in message and "until the day or the export's settings change, or the code server" in message
    )
    assert tick_and_run(tiny, instance) == [f"list {DAY} failed"]
    assert told() == []


def test_two_sinks_are_told_each_and_a_run_by_hand_always(
    instance: dg.DagsterInstance, tiny: TinyProject, told: Told
) -> None:
    refusing(refusing(tiny), "other")
    scored(tiny, DAY)
    assert tick_and_run(tiny, instance) == [f"list {DAY} failed", f"other {DAY} failed"]
    assert [message.splitlines()[0] for message in exports_told(told)] == [
        f"tiny {DAY}: failed at export_list",
        f"tiny {DAY}: failed at export_other",
    ]
    run_exports(tiny, instance, "list")
    assert len(exports_told(told)) == 1


def test_every_failure_is_told_if_the_sensor_of_exports_is_off(
    instance: dg.DagsterInstance, tiny: TinyProject, told: Told
) -> None:
    tiny.spec["runs"] = {"retry_minutes": 0}
    scored(with_export(tiny), DAY)
    break_sink(tiny)
    with_export(tiny, "other", path="elsewhere/{day}.csv")
    Sensor(instance, f"{tiny.name}_exports").switch(InstigatorStatus.STOPPED)
    tick_and_run(tiny, instance)
    assert len(exports_told(told)) == 1
