"""Summary that `batch-scoring score` prints at its end: text for a screen, or JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from batch_scoring.cli.score.locations import InputFiles, OutputFiles
from batch_scoring.ingest.quarantine import Rejected
from batch_scoring.monitoring.finding import Finding

_REASONS = 12
"""Most reasons in the text."""
_WIDE = 60
"""Most characters of a value in the text."""


@dataclass(frozen=True)
class Summary:
    """The result of one command."""

    pipeline: str
    source: InputFiles
    output: OutputFiles
    run_id: str
    started: datetime
    seconds: float
    """From the start of the command, without importing libraries, until the output is complete."""
    loading: float
    """The part before the first row was read: mostly torch and the model."""
    rows_in: int
    rows_scored: int
    counts: Mapping[str, Mapping[str, int]]
    """Rejected rows by stage and reason."""
    examples: Mapping[tuple[str, str], Rejected]
    """The first row of each."""
    model_version: str
    model_sha256: str
    device: str
    batch_rows: int
    unknown: Mapping[str, Mapping[str, int]]
    """Rows by categorical column and value that the model has not seen; they are scored as unknown."""
    failed: Sequence[Finding]
    """Checks that did not pass."""
    stopping: Sequence[Finding]
    """Those that stop the command."""

    @property
    def written(self) -> bool:
        """Whether there is an output."""
        return not self.stopping

    @property
    def rows_quarantined(self) -> int:
        """Rejected rows."""
        return sum(sum(reasons.values()) for reasons in self.counts.values())

    @property
    def speed(self) -> float:
        """Rows per second, once the model is loaded."""
        return self.rows_in / max(self.seconds - self.loading, 1e-3)

    def document(self) -> dict[str, Any]:
        """The summary as a JSON object."""
        output = self.output
        return {
            "pipeline": self.pipeline,
            "run_id": self.run_id,
            "started": self.started.isoformat(),
            "seconds": round(self.seconds, 3),
            "seconds_to_load": round(self.loading, 3),
            "rows_per_second": round(self.speed),
            "input": {"uri": self.source.uri, "files": len(self.source.files), "bytes": self.source.size},
            "written": self.written,
            "predictions": output.uri(output.predictions) if self.written else None,
            "quarantine": output.uri(output.quarantine) if self.written and self.rows_quarantined else None,
            "rows_in": self.rows_in,
            "rows_scored": self.rows_scored,
            "rows_quarantined": self.rows_quarantined,
            "quarantined": [
                {"stage": stage, "reason": reason, "rows": rows, "first": _first(self.examples[stage, reason])}
                for (stage, reason), rows in self._reasons()
            ],
            "model": {"version": self.model_version, "sha256": self.model_sha256},
            "device": self.device,
            "batch_rows": self.batch_rows,
            "unknown_categories": self.unknown,
            "failed_checks": [
                {"check": finding.check, "stopped": finding in self.stopping, "message": finding.message}
                for finding in self.failed
            ],
        }

    def text(self) -> str:
        """The summary as text that fits on a screen."""
        files = "1 file" if len(self.source.files) == 1 else f"{len(self.source.files)} files"
        lines = [
            ("pipeline", f"{self.pipeline}, model {self.model_version} ({self.model_sha256[:12]}), on {self.device}"),
            ("input", f"{self.source.uri} ({files}, {self.source.size / 1e6:,.1f} MB)"),
            ("rows in", f"{self.rows_in:,}"),
            ("scored", f"{self.rows_scored:,}"),
            ("quarantined", f"{self.rows_quarantined:,}"),
        ]
        reasons = self._reasons()
        for (stage, reason), rows in reasons[:_REASONS]:
            row = self.examples[stage, reason]
            value = "" if row.reason.value is None else f": {row.reason.value}"
            first = f"{row.source_file.rpartition('/')[2]} row {row.row_number:,}{value}"
            lines.append(("", f"{rows:>9,}  {stage}  {reason}  ({_cut(first)})"))
        if more := reasons[_REASONS:]:
            lines.append(("", f"{sum(rows for _, rows in more):>9,}  for {len(more)} more reasons"))
        for column, values in self.unknown.items():
            words = _cut(", ".join(f'"{value}"' for value in values))
            lines.append(("unknown", f"{column}: {words} ({sum(values.values()):,} rows)"))
        lines.append(("time", f"{self.seconds:.1f} s, {self.loading:.1f} s of them to load; {self.speed:,.0f} rows/s"))
        for finding in self.failed:
            if finding not in self.stopping:
                lines.append(("warning", f"{finding.check}: {finding.message}"))
        if self.written:
            lines.append(("predictions", self.output.uri(self.output.predictions)))
            if self.rows_quarantined:
                lines.append(("quarantine", self.output.uri(self.output.quarantine)))
        else:
            lines.append(("output", "nothing is written"))
        return "".join(f"{name:<12} {said}\n" for name, said in lines)

    def _reasons(self) -> list[tuple[tuple[str, str], int]]:
        """Rows by stage and reason, most first."""
        counts = {(stage, reason): n for stage, reasons in self.counts.items() for reason, n in reasons.items()}
        return sorted(counts.items(), key=lambda item: -item[1])


def _first(row: Rejected) -> dict[str, Any]:
    return {"file": row.source_file, "row_number": row.row_number, "key": row.key, "value": row.reason.value}


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _WIDE else f"{text[: _WIDE - 1]}…"
