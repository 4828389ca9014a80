"""What a probe is, and how probes are run: beside each other, each with a time limit. Knows none of them."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import dagster as dg

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import BatchScoringError

Severity = Literal["error", "warning", "info"]
"""error: the night fails; warning: something is lost or unsafe; info: worth knowing, and well."""

Need = Literal["landing", "output", "bundle", "libraries", "instance"]
"""What must have been found well, for a probe to have something to look at."""

LIMIT = 30.0
"""Seconds that a probe has; those that only wait for a network have less."""
NETWORK_LIMIT = 12.0


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    severity: Severity
    where: str
    """File, folder, address or setting."""
    found: str
    expected: str = ""
    remedy: str = ""
    """What to do; a command where there is one."""


@dataclass
class Site:
    """What is looked at: pipelines whose specs are right, and the Dagster instance they run in."""

    pipelines: Sequence[Pipeline]
    send_test: bool = False
    """Whether alert channels are sent a message."""
    home: Path | None = None
    """The instance's folder; None if there is none."""
    instance: dg.DagsterInstance | None = None
    """None as long as nothing has ever run in it, or if it cannot be opened."""
    faults: Sequence[str] = ()
    """Of all specs."""


@dataclass(frozen=True)
class Probe:
    """A function that looks at one thing."""

    name: str
    states: str
    """What is so if it finds nothing; in words."""
    look: Callable[[Any], Iterable[Finding]]
    """Takes a Pipeline, or the Site for probes of the whole deployment."""
    needs: tuple[Need, ...] = ()
    gives: Need | None = None
    """What others need and this one finds well if it has no error."""
    seconds: float = LIMIT


def probe(
    name: str, *needs: Need, gives: Need | None = None, seconds: float = LIMIT
) -> Callable[[Callable[[Any], Iterable[Finding]]], Probe]:
    """Make a probe of a function; the first line of its docstring says what is so if it finds nothing.

    Args:
        name: how reports call it.
        needs: what it cannot do without.
        gives: what it finds well for others, unless it has an error.
        seconds: how long it may take.
    """

    def made(look: Callable[[Any], Iterable[Finding]]) -> Probe:
        return Probe(name, (look.__doc__ or "").split("\n")[0].rstrip("."), look, needs, gives, seconds)

    return made


@dataclass
class Outcome:
    """What a probe has said of one pipeline, or of the deployment."""

    probe: Probe
    pipeline: str
    """Empty if it looks at the whole deployment."""
    findings: list[Finding] = field(default_factory=list)
    skipped: str = ""
    """Why it has not looked."""
    seconds: float = 0.0
    hangs: bool = False
    """Whether it was still at work when its time was over."""

    @property
    def has_error(self) -> bool:
        """Whether the night fails of it."""
        return any(finding.severity == "error" for finding in self.findings)


class Look(threading.Thread):
    """A probe at work; a daemon thread, so that one that hangs holds up nobody's exit."""

    def __init__(self, probe: Probe, pipeline: str, target: object) -> None:
        """`target`: what the probe's function takes."""
        super().__init__(daemon=True, name=f"doctor {probe.name} {pipeline}")
        self.outcome = Outcome(probe, pipeline)
        self._target_of_probe = target
        self._began = 0.0

    def run(self) -> None:
        """Look, and keep what is found."""
        self._began = time.monotonic()
        outcome = self.outcome
        try:
            for finding in outcome.probe.look(self._target_of_probe):
                outcome.findings.append(finding)
        except Exception as error:  # whatever it is, it is a finding
            outcome.findings.append(_raised(outcome, error))
        outcome.seconds = time.monotonic() - self._began

    def finish(self) -> Outcome:
        """Its outcome, when it is done or its time is over."""
        while not self._began:
            time.sleep(0.01)
        self.join(max(0.0, self._began + self.outcome.probe.seconds - time.monotonic()))
        if not self.is_alive():
            return self.outcome
        known, limit = self.outcome, self.outcome.probe.seconds
        late = Finding(
            "error",
            known.pipeline or known.probe.name,
            f"no answer within {limit:g} s, so nobody knows: {known.probe.states}",
            "an answer in time",
            "see whether its disk, store or database answers at all; a hung mount does not",
        )
        return Outcome(known.probe, known.pipeline, [*known.findings, late], seconds=limit, hangs=True)


def examine(wanted: Sequence[tuple[Probe, str, object]]) -> list[Outcome]:
    """Run probes and wait for them.

    Args:
        wanted: each probe with the pipeline it is of (empty: the deployment) and what its function takes.

    Returns:
        The outcomes, in the order of `wanted`. A probe that lacks what it needs has not looked, and says why.
    """
    looks: dict[int, Look] = {}
    outcomes: dict[int, Outcome] = {}
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
            outcomes[number] = Outcome(one, pipeline, skipped=f"needs what has an error: {', '.join(missing)}")
        else:
            looks[number] = Look(one, pipeline, target)
            looks[number].start()
    outcomes |= {number: look.finish() for number, look in looks.items()}
    return [outcomes[number] for number in sorted(outcomes)]


def _raised(outcome: Outcome, error: Exception) -> Finding:
    where = outcome.pipeline or outcome.probe.name
    if isinstance(error, BatchScoringError | OSError):  # their text says all that there is to say
        return Finding("error", where, str(error), outcome.probe.states)
    return Finding(
        "error",
        where,
        f"the probe itself has failed: {type(error).__name__}: {error}",
        outcome.probe.states,
        "nobody knows whether this is well; look by hand, and report the probe's failure",
    )
