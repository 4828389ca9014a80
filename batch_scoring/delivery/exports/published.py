"""What is published of a day, as an export finds it, and whether a receipt is of it. Read from the state alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import get_args

from batch_scoring.config.delivery_spec import AnyExport, Export, FileExport, PostgresExport, Weekday
from batch_scoring.delivery.exports.sink import Version
from batch_scoring.errors import NotPublishedError
from batch_scoring.storage.shards import digest
from batch_scoring.storage.state import ExportReceipt, PublishedDay, State

_WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)


@dataclass(frozen=True)
class Published:
    """The published steps of a day that an export reads."""

    features: PublishedDay | None
    predictions: PublishedDay
    decisions: PublishedDay | None
    """None for an export of predictions."""

    @property
    def exported(self) -> PublishedDay:
        """The step whose version is exported."""
        return self.decisions or self.predictions


def of_day(state: State, export: Export, day: str) -> Published:
    """What is published of a day.

    Raises:
        NotPublishedError: what is exported was never published.
        StateError: a document is damaged.
    """
    predictions = state.published_day("predictions", day)
    decisions = state.published_day("decisions", day) if export.of == "decisions" else None
    if predictions is None or (export.of == "decisions" and decisions is None):
        raise NotPublishedError(f"{day} has no {export.of} yet; run the day first")
    return Published(state.published_day("validated_features", day), predictions, decisions)


def version_of(published: PublishedDay) -> Version:
    """The version of a published day."""
    return Version(published.table.created, published.table.transaction)


def settings_of(export: Export) -> str:
    """Digest of an export's section of the spec."""
    return digest("export", export.model_dump_json())


def place_of(export: AnyExport) -> str:
    """Digest of where an export's sink is, as the spec names it: what its variable holds is a secret."""
    match export:
        case FileExport():
            return digest(export.to, export.path)
        case PostgresExport():
            return digest(export.to, export.url_from, export.table)
    return digest(export.to, export.url_from, export.prefix)


def is_of(receipt: ExportReceipt, published: PublishedDay) -> bool:
    """Whether a receipt is of what is published, wherever its sink is."""
    return not receipt.gives_way_to and (receipt.of, receipt.created, receipt.transaction, receipt.files) == (
        published.step,
        *version_of(published),
        published.table.files,
    )


def is_there(receipt: ExportReceipt, export: AnyExport) -> bool:
    """Whether a receipt is of the place that the spec names now."""
    return receipt.place in ("", place_of(export))


def is_day_of(export: Export, day: str) -> bool:
    """Whether a day is exported, by its day of the week."""
    return not export.days or _WEEKDAYS[date.fromisoformat(day).weekday()] in export.days


def receipt_of(state: State, name: str, day: str) -> ExportReceipt | None:
    """The receipt of an export; None also if it is damaged: the sink then says what it shows."""
    return next(iter(state.receipts_of(name, [day])), None)


def receipts_by_day(state: State, name: str, days: Sequence[str]) -> dict[str, ExportReceipt]:
    """The readable receipts of an export, by day."""
    return {receipt.day: receipt for receipt in state.receipts_of(name, days)}
