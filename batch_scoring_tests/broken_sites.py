"""A deployment for doctor to examine, ways to break it, and assertions on its report."""

import ctypes
import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from batch_scoring.cli.doctor.all_probes import look
from batch_scoring.cli.doctor.report import DoctorReport
from batch_scoring.config.loader import PROJECT, survey_pipelines
from batch_scoring_tests.tiny import TinyProject

IN_MEMORY = ("warning", "lasting storage")
"""What doctor says of every site whose data root is in memory."""


class Clinic:
    """A tiny project with its own Dagster home, which DAGSTER_HOME names."""

    def __init__(self, folder: Path, tiny: TinyProject) -> None:
        self.tiny, self.home = tiny, folder / "home"
        self.home.mkdir()
        (self.home / "dagster.yaml").write_bytes((PROJECT / "dagster.yaml").read_bytes())

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        with dg.DagsterInstance.from_config(str(self.home)) as found:
            yield found

    def look(self, *, send_test: bool = False) -> DoctorReport:
        """Return doctor's report, as the command would."""
        survey = survey_pipelines(self.tiny.packages, self.tiny.data_root)
        return look(survey.valid, survey.errors, send_test=send_test)


def findings(report: DoctorReport) -> list[tuple[str, str]]:
    """Return severity and probe of each finding that counts."""
    return [(finding.severity, by[0].probe.name) for finding, by in report.findings() if finding.severity != "info"]


def told(report: DoctorReport, severity: str, probe: str, *words: str) -> None:
    """Assert that doctor reports exactly this finding, with these words and what to do."""
    assert findings(report) == [(severity, probe)], report.text()
    finding = report.findings()[0][0]
    text = " ".join((finding.where, finding.found, finding.expected, finding.remedy))
    assert all(word in text for word in words), text
    assert finding.expected and finding.remedy, text


def without_hard_links(act: Callable[[], DoctorReport]) -> DoctorReport:
    """Run `act` in a thread in which link(2) fails with EPERM, as it does on FAT."""

    class Instruction(ctypes.Structure):
        _fields_: Sequence[Any] = [
            ("code", ctypes.c_ushort),
            ("true", ctypes.c_ubyte),
            ("false", ctypes.c_ubyte),
            ("value", ctypes.c_uint),
        ]

    class Program(ctypes.Structure):
        _fields_: Sequence[Any] = [("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(Instruction))]

    link, linkat = 86, 265  # on x86_64
    load, jump_if_equal, answer = 0x20, 0x15, 0x06
    instructions = (Instruction * 5)(
        Instruction(load, 0, 0, 0),
        Instruction(jump_if_equal, 1, 0, link),
        Instruction(jump_if_equal, 0, 1, linkat),
        Instruction(answer, 0, 0, 0x0005_0000 | errno.EPERM),
        Instruction(answer, 0, 0, 0x7FFF_0000),
    )
    program = Program(5, instructions)
    answers: list[DoctorReport] = []

    def run() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        no_new_privileges, seccomp, filter_mode = 38, 22, 2
        assert libc.prctl(no_new_privileges, 1, 0, 0, 0) == 0
        assert libc.prctl(seccomp, filter_mode, ctypes.byref(program), 0, 0) == 0
        answers.append(act())

    thread = threading.Thread(target=run)  # the filter applies to this thread and its children only
    thread.start()
    thread.join()
    return answers[0]
