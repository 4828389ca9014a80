"""Statistics of failed runs, from the records in the state: how many, of which class, and which days have recovered.

Whether a failure has recovered is nowhere recorded but derived: the day was published, or the export delivered, since;
or the failed run had published the day itself.
A superseded run is no failure of the system, as the day is run again with the newer files: it is counted on its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from batch_scoring.errors import FailureClass
from batch_scoring.storage.state import DayInput, ExportReceipt, FailureRecord, PublishedDay, State, StepName


@dataclass(frozen=True)
class FailureCount:
    """Failed runs of one class."""

    failure: FailureClass
    runs: int
    recovered: int
    days: tuple[str, ...]
    """Their days, in order."""
    last: datetime
    """When the last of them failed."""


@dataclass(frozen=True)
class OpenFailure:
    """A day, or its export, that has not recovered."""

    last: FailureRecord
    """Its newest failure."""
    runs: int
    """Its failed runs that have not recovered."""


@dataclass(frozen=True)
class FailureStatistics:
    """Failed runs of a pipeline."""

    failures: tuple[FailureRecord, ...] = ()
    """Without superseded runs, oldest first."""
    recovered: frozenset[str] = frozenset()
    """Ids of the runs among them whose day was published, or exported, since."""
    superseded: int = 0
    """Runs that newer files or another model have overtaken."""

    @property
    def recovered_ratio(self) -> float | None:
        """Fraction of the failed runs about a day that have recovered; None if there are none."""
        of_days = [failure for failure in self.failures if failure.day]
        return len(self.recovered) / len(of_days) if of_days else None

    @property
    def by_class(self) -> list[FailureCount]:
        """The failed runs by class, most frequent first."""
        found: dict[FailureClass, list[FailureRecord]] = {}
        for failure in self.failures:
            found.setdefault(failure.failure_class, []).append(failure)
        counted = [self._counted(name, failures) for name, failures in found.items()]
        return sorted(counted, key=lambda one: (-one.runs, one.failure))

    @property
    def open_failures(self) -> list[OpenFailure]:
        """Days and exports that have not recovered, by day."""
        found: dict[tuple[str, str], list[FailureRecord]] = {}
        for failure in self.failures:
            if failure.day and failure.run_id not in self.recovered:
                found.setdefault((failure.day, failure.export), []).append(failure)
        return [OpenFailure(failures[-1], len(failures)) for _, failures in sorted(found.items())]

    def _counted(self, name: FailureClass, failures: Sequence[FailureRecord]) -> FailureCount:
        days = tuple(sorted({failure.day for failure in failures if failure.day}))
        recovered = sum(failure.run_id in self.recovered for failure in failures)
        return FailureCount(name, len(failures), recovered, days, max(failure.at for failure in failures))


def statistics(state: State, since: datetime) -> FailureStatistics:
    """The failed runs of a pipeline since a time.

    Raises:
        OSError: the store does not answer.
    """
    recorded = state.failures_since(since)
    failures = [failure for failure in recorded if failure.failure_class != "superseded"]
    return FailureStatistics(tuple(failures), _recovered(state, failures), superseded=len(recorded) - len(failures))


def _recovered(state: State, failures: Sequence[FailureRecord]) -> frozenset[str]:
    """Ids of the failed runs whose day was published, or exported, since."""
    days = sorted({failure.day for failure in failures if failure.day})
    published = _Published(state, days, {failure.export for failure in failures if failure.export})
    newest = {(failure.day, failure.export): failure.at for failure in failures}
    return frozenset(
        failure.run_id
        for failure in failures
        if failure.day and published.is_since(failure, newest[failure.day, failure.export])
    )


class _Published:
    """What is published and exported of some days."""

    def __init__(self, state: State, days: Sequence[str], exports: Iterable[str]) -> None:
        self._inputs: Mapping[str, DayInput] = {pinned.day: pinned for pinned in state.day_inputs(days)}
        steps: tuple[StepName, ...] = ("predictions", "decisions")
        self._steps: Mapping[str, Mapping[str, PublishedDay]] = {
            step: {published.day: published for published in state.published_days_of(step, days)} for step in steps
        }
        self._receipts: Mapping[tuple[str, str], ExportReceipt] = {
            (receipt.day, name): receipt for name in exports for receipt in state.receipts_of(name, days)
        }

    def is_since(self, failure: FailureRecord, newest: datetime) -> bool:
        """Whether the day of a failure was published, or exported, after it or by it.

        Args:
            failure: of a run about a day.
            newest: when the last run of that day, or of its export, failed.
        """
        if failure.export:
            return self._is_exported(failure)
        scored = self._steps["predictions"].get(failure.day)
        last = self._steps["decisions"].get(failure.day) if scored and scored.followed_by else scored
        if scored is None or last is None or last.fingerprint != scored.fingerprint:
            return False
        # it failed after its commit, killed there or in the drift step: its retry finds nothing to publish
        has_published = last.run_id == failure.run_id
        return last.finished_at > failure.at or has_published or self._is_current(failure, scored, last, newest)

    def _is_current(self, failure: FailureRecord, scored: PublishedDay, last: PublishedDay, newest: datetime) -> bool:
        """Whether what stands of a day is of its newest files, and another run has published it or found it so."""
        pinned = self._inputs.get(failure.day)
        if pinned is None or pinned.fingerprint != scored.fingerprint:
            return False
        # a run of a day that is up to date leaves nothing but the input that it has pinned
        is_confirmed = pinned.pinned_at > newest
        # the process of the failed run was gone for long before that was noticed
        has_overtaken = failure.began is not None and last.finished_at > failure.began
        return is_confirmed or has_overtaken

    def _is_exported(self, failure: FailureRecord) -> bool:
        receipt = self._receipts.get((failure.day, failure.export))
        if receipt is None or receipt.gives_way_to:
            return False
        published = self._steps.get(receipt.of, {}).get(failure.day)
        is_current = published and (receipt.created, receipt.transaction, receipt.files) == (
            published.table.created,
            published.table.transaction,
            published.table.files,
        )
        return receipt.finished_at > failure.at or bool(is_current)
