"""Commands that are told to end, each on a terminal of its own."""

import fcntl
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import dagster as dg
import pytest

from batch_scoring.cli.backfill import run_days as backfill
from batch_scoring.config.loader import PROJECT
from batch_scoring.operations import run_history
from batch_scoring.runtime import signals
from batch_scoring.storage.state import State
from batch_scoring_tests.tiny import DAY, TinyProject

BIN = Path(sys.executable).parent
BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


class Terminal:
    """A command on a terminal; Ctrl-C reaches all of its processes, as there."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], *, ignored: Sequence[int] = ()) -> None:
        """`ignored`: signals that the command ignores from the start."""
        self._master, slave = pty.openpty()

        def prepare() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            for number in ignored:
                signal.signal(number, signal.SIG_IGN)

        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=environment,
            cwd=PROJECT,
            preexec_fn=prepare,
        )
        os.close(slave)
        self.text = ""

    def read_until(self, holds: Callable[[str], object], seconds: float = 60) -> None:
        """Read what is shown until that holds, or nobody writes any more."""
        until = time.monotonic() + seconds
        while not holds(self.text):
            assert time.monotonic() < until, self.text
            if select.select([self._master], [], [], 0.02)[0]:
                try:
                    read = os.read(self._master, 65536)
                except OSError:  # all of its processes are gone
                    return
                self.text += read.decode(errors="replace")

    def tell(self, number: int) -> None:
        if number == signal.SIGINT:
            os.write(self._master, b"\x03")
        else:
            self.process.send_signal(number)

    def end(self) -> tuple[int, list[str]]:
        """The exit code, and the lines that were shown but for the terminal's own echo."""
        self.read_until(lambda _: False)
        os.close(self._master)
        return self.process.wait(30), [line for line in re.split(r"[\r\n]+", self.text.replace("^C", "")) if line]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A data root with what the repository embeds of customer_churn, and a DAGSTER_HOME."""
    for part in ("customer_churn/landing", "customer_churn/models", "flight_delay/models"):
        shutil.copytree(PROJECT / "data" / part, tmp_path / "data" / part)
    (tmp_path / "home").mkdir()
    shutil.copy(PROJECT / "dagster.yaml", tmp_path / "home")
    own = {"BATCH_SCORING_DATA": str(tmp_path / "data"), "DAGSTER_HOME": str(tmp_path / "home")}
    return {**os.environ, **own, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}


@BOTH
def test_a_backfill_ends_at_once_and_its_last_line_goes_on(
    environment: dict[str, str], number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = ["2024-01-01", "2024-01-02"]
    terminal = Terminal([str(BIN / "batch-scoring"), "backfill", "customer_churn", *days], environment)
    begun = Path(environment["DAGSTER_HOME"], "history/alive")
    terminal.read_until(lambda text: list(begun.glob("*.lock")))
    time.sleep(0.1)  # within the first day, where Dagster's own handlers would raise
    began = time.monotonic()
    terminal.tell(number)
    code, lines = terminal.end()
    assert time.monotonic() - began < 15
    assert (code, len(lines)) == (128 + number, 2), lines
    assert (
        lines[1] == f"batch-scoring: interrupted; continue with: batch-scoring backfill customer_churn {' '.join(days)}"
    )
    monkeypatch.setenv("DAGSTER_HOME", environment["DAGSTER_HOME"])
    with dg.DagsterInstance.get() as instance:
        assert [(run.status.value, run_history.is_stopped(run)) for run in instance.get_runs()] == [("CANCELED", True)]
    command = shlex.split(lines[1].partition("continue with: ")[2])
    done = subprocess.run([BIN / command[0], *command[1:]], env=environment, cwd=PROJECT, check=False)
    assert done.returncode == 0


EARLY = {
    "backfill": ("batch_scoring.cli.main", "backfill customer_churn 2024-01-01 2024-01-02"),
    "score": ("batch_scoring.cli.main", "score --pipeline customer_churn --input a --output b"),
    "doctor": ("batch_scoring.cli.main", "doctor"),
    "calibrate": ("batch_scoring.cli.main", "calibrate customer_churn"),
    "checkpoint": (
        "batch_scoring.cli.main",
        "checkpoint --pipeline customer_churn --checkpoint a --sample b --classes c d --out e",
    ),
}


@BOTH
@pytest.mark.parametrize("name", EARLY)
def test_a_command_that_is_still_importing_ends_with_one_line(
    environment: dict[str, str], name: str, number: signal.Signals
) -> None:
    module, arguments = EARLY[name]
    terminal = Terminal([sys.executable, "-v", "-m", module, *arguments.split()], environment)
    terminal.read_until(lambda text: re.search(r"import 'pyarrow\.lib'|import 'dagster", text))
    terminal.text = ""
    terminal.tell(number)
    code, lines = terminal.end()
    said = [line for line in lines if not line.startswith(("#", "import "))][-1:]  # Python's own, of -v
    assert code == 128 + number and sum("interrupted" in line for line in lines) == 1, lines[-5:]
    assert "interrupted" in said[0]
    assert not any("Traceback" in line for line in lines)
    if name == "backfill":
        assert said[0].endswith(f"interrupted; continue with: batch-scoring {arguments}")


def test_a_client_that_waits_for_an_answer_ends_and_says_what_goes_on(environment: dict[str, str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        terminal = Terminal([str(BIN / "batch-scoring"), "wait", "abc", "--url", url], environment)
        mute.settimeout(60)
        connection, _ = mute.accept()
        terminal.tell(signal.SIGINT)
        code, lines = terminal.end()
        connection.close()
    assert code == 130
    assert lines == ["batch-scoring: interrupted; no longer waiting, what was started continues"]


def test_make_passes_it_on(environment: dict[str, str]) -> None:
    rule = f"go:\n\t{BIN}/batch-scoring backfill customer_churn 2024-01-01 2024-01-02\n"
    file = Path(environment["TMPDIR"], "Makefile")
    file.write_text(rule)
    terminal = Terminal(["make", "-f", str(file)], environment)
    terminal.read_until(lambda text: "rows/s" in text)
    terminal.tell(signal.SIGINT)
    code, lines = terminal.end()
    assert code in (2, -signal.SIGINT) and sum("interrupted; continue with: " in line for line in lines) == 1
    assert not any("Traceback" in line or "failed" in line.replace("failed checks", "") for line in lines)


# what is done before the end

PROGRAM = """
import os, sys, time
from batch_scoring.runtime import signals

signals.watch("it")
{}
"""


def told(body: str, *numbers: int, ignored: Sequence[int] = ()) -> tuple[int, list[str], float]:
    """Run a program that says "now" when it is to be told; its exit code, its lines, the seconds that it then took."""
    program = [sys.executable, "-c", PROGRAM.format(body)]
    terminal = Terminal(program, {**os.environ, "PYTHONPATH": str(PROJECT)}, ignored=ignored)
    terminal.read_until(lambda text: "now\n" in text.replace("\r", ""))
    began = time.monotonic()
    for number in numbers:
        terminal.tell(number)
        time.sleep(0.3)
    code, lines = terminal.end()
    return code, [line for line in lines if line != "now"], time.monotonic() - began


def test_what_is_registered_is_done_from_the_inside_out_and_the_innermost_words_are_told() -> None:
    body = (
        "with signals.at_end(lambda: os.write(1, b'outer\\n') and 'outside'):\n"
        "    with signals.at_end(lambda: 1 / 0), signals.at_end(lambda: os.write(1, b'inner\\n') and None):\n"
        "        with signals.at_end(lambda: 'over'): pass\n"
        "        print('now', flush=True); time.sleep(60)\n"
    )
    assert told(body, signal.SIGTERM)[:2] == (143, ["inner", "outer", "it: interrupted; outside"])


def test_no_block_is_left_or_begun_any_more() -> None:
    body = (
        "with signals.at_end(lambda: time.sleep(1) or 'slow'):\n"
        "    print('now', flush=True); time.sleep(0.3)\n"
        "print('too far', flush=True)\n"
    )
    assert told(body, signal.SIGINT)[:2] == (130, ["it: interrupted; slow"])


def test_the_last_acts_have_their_time_and_a_second_signal_means_now() -> None:
    body = "with signals.at_end(lambda: time.sleep(60)): print('now', flush=True); time.sleep(60)"
    code, lines, seconds = told(body, signal.SIGINT, signal.SIGINT)
    assert (code, lines) == (130, ["it: interrupted"]) and seconds < signals.GRACE
    code, lines, seconds = told(body, signal.SIGINT)
    assert (code, lines) == (130, ["it: interrupted"]) and seconds < 30


def test_a_signal_within_what_belongs_together_comes_too_late() -> None:
    body = "with signals.uninterrupted(): print('now', flush=True); time.sleep(1)\nprint('done')"
    assert told(body, signal.SIGTERM)[:2] == (0, ["done"])


def test_a_signal_that_the_caller_ignores_is_ignored() -> None:
    body = "print('now', flush=True); time.sleep(1); print('done')"
    assert told(body, signal.SIGINT, ignored=[signal.SIGINT])[:2] == (0, ["done"])


def test_handlers_of_others_are_not_set_and_processes_that_were_started_end_too() -> None:
    body = (
        "import signal, subprocess\n"
        "signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
        "sleep = subprocess.Popen(['sleep', '60'])\n"
        "print(sleep.pid, 'now', flush=True); time.sleep(60)"
    )
    code, lines, _ = told(body, signal.SIGTERM)
    assert code == 143 and lines[1:] == ["it: interrupted"]
    sleep = Path("/proc", lines[0].split()[0], "stat")
    assert not sleep.exists() or ") Z " in sleep.read_text()


# the run of a day that was stopped


def test_a_day_that_was_stopped_is_no_failed_try_and_is_run_again(tiny: TinyProject, tmp_path: Path) -> None:
    tiny.land(DAY, tiny.rows(64))
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        job = tiny.definitions.resolve_job_def(f"score_{tiny.name}")
        run = instance.create_run_for_job(job, tags={run_history.PARTITION: DAY})
        start = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, run.job_name)
        instance.report_dagster_event(start, run.run_id)
        assert [one.status for one in run_history.of_day(instance, tiny.pipeline, DAY)] == ["started"]
        backfill._cancel(instance, run.run_id)
        assert [one.status.value for one in instance.get_runs()] == ["CANCELED"]
        assert run_history.of_day(instance, tiny.pipeline, DAY) == []
        copy = instance.create_run_for_job(job, tags={run_history.PARTITION: DAY, run_history.STOPPED: run.run_id})
        instance.report_run_failed(copy)
        assert [one.status for one in run_history.of_day(instance, tiny.pipeline, DAY)] == ["failed"], (
            "a tag that was copied"
        )
    assert State(tiny.pipeline.output).published_day("predictions", DAY) is None


def test_a_run_that_has_ended_well_meanwhile_is_not_canceled(tiny: TinyProject, tmp_path: Path) -> None:
    tiny.land(DAY, tiny.rows(64))
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        run_id = tiny.run(instance=instance).run_id
        backfill._cancel(instance, run_id)
        found = instance.get_run_by_id(run_id)
        assert found is not None and found.is_success and json.dumps(found.tags).count("stopped") == 0
