"""Doctor's report as text or JSON, with secrets removed from the messages of libraries and services."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from batch_scoring.cli.doctor.probe import ProbeFinding, ProbeOutcome, Severity
from batch_scoring.operations.alerting import channels

FORMAT = 1
"""Version of the JSON; raised when a field changes its meaning."""

_SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "ALERT_URLS")


@dataclass(frozen=True)
class DoctorReport:
    """The outcomes of all probes."""

    outcomes: Sequence[ProbeOutcome]
    seconds: float

    def count(self, severity: Severity) -> int:
        """Number of distinct findings of a severity."""
        return sum(finding.severity == severity for finding, _ in self.findings())

    def fails(self, fail_on: Literal["warning", "error"]) -> bool:
        """Whether there is a finding of at least that severity."""
        return self.count("error") > 0 or (fail_on == "warning" and self.count("warning") > 0)

    def findings(self) -> list[tuple[ProbeFinding, list[ProbeOutcome]]]:
        """Each finding once, with the outcomes that contain it; the worst first."""
        found: dict[ProbeFinding, list[ProbeOutcome]] = {}
        for outcome in self.outcomes:
            for finding in outcome.findings:
                found.setdefault(finding, []).append(outcome)
        order = get_args(Severity)
        return sorted(found.items(), key=lambda item: order.index(item[0].severity))

    def text(self) -> str:
        """Text: one line per probe that found nothing wrong, then the findings, then their counts."""
        lines = [*self._well(), *self._skipped()]
        for finding, by in self.findings():
            lines += _lines(finding, by)
        errors, warnings, skipped = self.count("error"), self.count("warning"), sum(1 for _ in self._skipped())
        counts = (
            f"{_many(errors, 'error')}, {_many(warnings, 'warning')}" if errors + warnings else "no errors or warnings"
        )
        looked = len(self.outcomes) - skipped
        counts += f"; {_many(looked, 'probe')} run, {skipped} skipped" if skipped else f"; {_many(looked, 'probe')}"
        return _without_secrets("\n".join([*lines, f"{counts}, {self.seconds:.1f} s"]) + "\n")

    def json(self) -> str:
        """JSON object; docs/guides/preflight-checks.md describes it."""
        content = {
            "format": FORMAT,
            "healthy": not self.fails("warning"),
            "errors": self.count("error"),
            "warnings": self.count("warning"),
            "seconds": round(self.seconds, 2),
            "probes": [
                {
                    "probe": outcome.probe.name,
                    "pipeline": outcome.pipeline or None,
                    "states": outcome.probe.states,
                    "status": _status(outcome),
                    "skipped": outcome.skipped or None,
                    "seconds": round(outcome.seconds, 2),
                }
                for outcome in self.outcomes
            ],
            "findings": [
                {
                    "probe": by[0].probe.name,
                    "pipelines": list(dict.fromkeys(outcome.pipeline for outcome in by if outcome.pipeline)),
                    **asdict(finding),
                }
                for finding, by in self.findings()
            ],
        }
        return json.dumps(_cleaned(content), indent=1, ensure_ascii=False) + "\n"

    def _well(self) -> Iterator[str]:
        """One line per probe without errors and warnings, with the pipelines for which it has none.

        What a probe of the deployment reports as information is its result: no daemon has run, no channel is set.
        """
        by_probe: dict[str, list[ProbeOutcome]] = {}
        for outcome in self.outcomes:
            if _status(outcome) == "ok" and (outcome.pipeline or not outcome.findings):
                by_probe.setdefault(outcome.probe.name, []).append(outcome)
        for name, outcomes in by_probe.items():
            pipelines = ", ".join(outcome.pipeline for outcome in outcomes if outcome.pipeline)
            yield f"ok       {name:20}  {outcomes[0].probe.states}{f' ({pipelines})' if pipelines else ''}"

    def _skipped(self) -> Iterator[str]:
        for outcome in self.outcomes:
            if outcome.skipped:
                yield f"-        {outcome.probe.name:20}  {outcome.pipeline}: skipped, {outcome.skipped}"


def _status(outcome: ProbeOutcome) -> str:
    if outcome.skipped:
        return "skipped"
    severities = {finding.severity for finding in outcome.findings}
    return next((severity for severity in ("error", "warning") if severity in severities), "ok")


def _lines(finding: ProbeFinding, by: Sequence[ProbeOutcome]) -> Iterator[str]:
    pipelines = list(dict.fromkeys(outcome.pipeline for outcome in by if outcome.pipeline))
    whose = f" ({', '.join(pipelines)})" if pipelines else ""
    yield f"{finding.severity:8} {by[0].probe.name}: {finding.where}{whose}"
    for word, text in (("found", finding.found), ("expected", finding.expected), ("do", finding.remedy)):
        if text:
            yield f"         {word + ':':9} {text}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _secrets() -> Iterable[str]:
    for name in _SECRET_VARIABLES:
        if value := os.environ.get(name, "").strip():
            yield value
    yield from (channel.url for channel in channels.of("ALERT_URLS"))


def _without_secrets(text: str) -> str:
    for secret in sorted(_secrets(), key=len, reverse=True):
        if len(secret) > 5:  # a shorter one is not a secret, and may be part of a word
            text = text.replace(secret, "…")
    return re.sub(r"(\w://)\S+@", r"\1…@", text)  # up to the last @: a password may contain any character


def _cleaned(value: object) -> object:
    if isinstance(value, dict):
        return {key: _cleaned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    return _without_secrets(value) if isinstance(value, str) else value
