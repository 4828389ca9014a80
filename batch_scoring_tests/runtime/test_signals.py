"""Commands that are told to end, each on a terminal of its own."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import pytest

from batch_scoring.config.loader import PROJECT
from batch_scoring.operations import run_history
from batch_scoring.runtime import signals
from batch_scoring_tests.terminals import Terminal

BIN = Path(sys.executable).parent
BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


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
