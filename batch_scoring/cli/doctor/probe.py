"""Probes, and a runner that executes them in parallel, each with a time limit."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import dagster as dg

from batch_scoring.config.loader import PROJECT
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import BatchScoringError
from batch_scoring.runtime.printable import shell_word

Severity = Literal["error", "warning", "info"]
"""error: runs fail; warning: something is lost or unsafe; info: worth knowing, but fine."""

Need = Literal["landing", "output", "bundle", "instance"]
"""What a probe may depend on: another probe that found no error in it."""

PROBE_TIMEOUT = 30.0
"""Time limit of a probe in seconds; shorter for those that only wait for a network."""
NETWORK_TIMEOUT = 12.0

_PIP = f"{shell_word(sys.executable)} -m pip"


@dataclass(frozen=True)
class ProbeFinding:
    """A problem that a probe has found."""

    severity: Severity
    where: str
    """File, folder, address or setting."""
    found: str
    expected: str = ""
    remedy: str = ""
    """What to do, if possible a command."""


@dataclass
class Site:
    """The deployment under examination: pipelines with valid specs, and their Dagster instance."""

    pipelines: Sequence[Pipeline]
    send_test: bool = False
    """Whether to send a message to the alert channels."""
    home: Path | None = None
    """The instance's folder; None if there is none."""
    instance: dg.DagsterInstance | None = None
    """None if nothing has run in it yet, or if it cannot be opened."""
    faults: Sequence[str] = ()
    """Validation errors of all specs."""


@dataclass(frozen=True)
class Probe:
    """A function that examines one thing."""

    name: str
    states: str
    """The statement that holds if it finds nothing."""
    look: Callable[[Any], Iterable[ProbeFinding]]
    """Takes a Pipeline, or the Site for probes of the whole deployment."""
    needs: tuple[Need, ...] = ()
    gives: Need | None = None
    """What other probes may rely on if this one finds no error."""
    seconds: float = PROBE_TIMEOUT


def probe(
    name: str, *needs: Need, gives: Need | None = None, seconds: float = PROBE_TIMEOUT
) -> Callable[[Callable[[Any], Iterable[ProbeFinding]]], Probe]:
    """Turn a function into a probe; the first line of its docstring is the statement that holds if it finds nothing.

    Args:
        name: its name in reports.
        needs: what it depends on.
        gives: what others may rely on if it finds no error.
        seconds: its time limit.
    """

    def made(look: Callable[[Any], Iterable[ProbeFinding]]) -> Probe:
        return Probe(name, (look.__doc__ or "").split("\n")[0].rstrip("."), look, needs, gives, seconds)

    return made


@dataclass
class ProbeOutcome:
    """The result of a probe for one pipeline, or for the deployment."""

    probe: Probe
    pipeline: str
    """Empty if the probe examines the whole deployment."""
    findings: list[ProbeFinding] = field(default_factory=list)
    skipped: str = ""
    """Why it did not run."""
    seconds: float = 0.0
    hangs: bool = False
    """Whether it was still running at its time limit."""

    @property
    def has_error(self) -> bool:
        """Whether one of its findings makes runs fail."""
        return any(finding.severity == "error" for finding in self.findings)


class Look(threading.Thread):
    """A running probe: a daemon thread, so that one that hangs does not delay the exit."""

    def __init__(self, probe: Probe, pipeline: str, target: object) -> None:
        """`target`: the argument of the probe's function."""
        super().__init__(daemon=True, name=f"doctor {probe.name} {pipeline}")
        self.outcome = ProbeOutcome(probe, pipeline)
        self._target_of_probe = target
        self._began = 0.0

    def run(self) -> None:
        """Run the probe, and keep its findings."""
        self._began = time.monotonic()
        outcome = self.outcome
        try:
            for finding in outcome.probe.look(self._target_of_probe):
                outcome.findings.append(finding)
        except Exception as error:  # any error of a probe is a finding
            outcome.findings.append(_raised(outcome, error))
        outcome.seconds = time.monotonic() - self._began

    def finish(self) -> ProbeOutcome:
        """Wait for the outcome, at most until the time limit."""
        while not self._began:
            time.sleep(0.01)
        self.join(max(0.0, self._began + self.outcome.probe.seconds - time.monotonic()))
        if not self.is_alive():
            return self.outcome
        known, limit = self.outcome, self.outcome.probe.seconds
        late = ProbeFinding(
            "error",
            known.pipeline or known.probe.name,
            f"no answer within {limit:g} s, so it is unknown whether this holds: {known.probe.states}",
            "an answer in time",
            "check whether its disk, store or database answers at all; a hung mount does not",
        )
        return ProbeOutcome(known.probe, known.pipeline, [*known.findings, late], seconds=limit, hangs=True)


def examine(wanted: Sequence[tuple[Probe, str, object]]) -> list[ProbeOutcome]:
    """Run probes and wait for them.

    Args:
        wanted: each probe with the name of the pipeline (empty: the deployment) and the argument of its function.

    Returns:
        The outcomes, in the order of `wanted`. A probe is skipped, with the reason, if what it depends on has an error.
    """
    looks: dict[int, Look] = {}
    outcomes: dict[int, ProbeOutcome] = {}
    lacking: set[tuple[str, str]] = set()  # (need, pipeline)
    for number, (one, pipeline, target) in enumerate(wanted):
        if not one.needs:
            looks[number] = Look(one, pipeline, target)
            looks[number].start()
    for look in looks.values():
        if (gives := look.outcome.probe.gives) and look.finish().has_error:
            lacking.add((gives, look.outcome.pipeline))
    for number, (one, pipeline, target) in enumerate(wanted):
        if not one.needs:
            continue
        if missing := [need for need in one.needs if {(need, pipeline), (need, "")} & lacking]:
            outcomes[number] = ProbeOutcome(
                one, pipeline, skipped=f"depends on something that has an error: {', '.join(missing)}"
            )
        else:
            looks[number] = Look(one, pipeline, target)
            looks[number].start()
    outcomes |= {number: look.finish() for number, look in looks.items()}
    return [outcomes[number] for number in sorted(outcomes)]


def _raised(outcome: ProbeOutcome, error: Exception) -> ProbeFinding:
    where = outcome.pipeline or outcome.probe.name
    if isinstance(error, BatchScoringError | OSError):  # their messages are complete
        return ProbeFinding("error", where, str(error), outcome.probe.states)
    if isinstance(error, ImportError):
        remedy = f"{_PIP} check, then {_PIP} install --constraint constraints.txt --editable {shell_word(str(PROJECT))}"
        return ProbeFinding("error", where, f"a library does not import: {error}", outcome.probe.states, remedy)
    return ProbeFinding(
        "error",
        where,
        f"the probe itself failed: {type(error).__name__}: {error}",
        outcome.probe.states,
        "it is unknown whether this holds; check by hand, and report the probe's failure",
    )
