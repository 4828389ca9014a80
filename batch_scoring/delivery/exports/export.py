"""The export of a day: each published version arrives in the sink exactly once.

1. Compare what is published with the receipt. If they are equal, the sink is not even asked.
2. If the receipt is not of the step that the spec names, ask the sink. If it shows another step, withdraw the receipt.
3. Deliver: the sink writes the rows unseen, then shows them in one atomic step that compares versions.
4. Write the receipt, unless another export has written one since this one began.

A run that dies after any step leaves a day that the next run completes: without a receipt, the sink's own marker says
what it shows. A withdrawn receipt is of nothing, so none says of one step that it is exported while the sink shows
another: an export that was about to replace it may still do so, until the sink shows something else than that export
has found. That is why a version that was to be replaced is delivered again, and not found unchanged.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from batch_scoring.config.delivery_spec import AnyExport
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.delivery.exports import published
from batch_scoring.delivery.exports.selection import Selection, select
from batch_scoring.delivery.exports.sink import Delivered, Delivery, Marker, Outcome, Replaces, Sink, Version
from batch_scoring.delivery.exports.sinks import sink_of
from batch_scoring.errors import FileChangedError
from batch_scoring.runtime.step_context import StepContext
from batch_scoring.storage.state import ExportReceipt, PublishedDay, State

_MESSAGES: dict[Outcome, str] = {
    "exported": "exported",
    "unchanged": "is in the sink already",
    "superseded": "the sink shows a newer version, which stays",
    "kept": "was corrected; what was exported stays (corrections: keep)",
}


def export_day(
    pipeline: Pipeline, name: str, day: str, run: StepContext, *, again: bool = False, sink: Sink | None = None
) -> ExportReceipt:
    """Export what is published of a day, unless its receipt says that it is exported.

    Args:
        pipeline: whose day.
        name: of the export in the spec.
        day: YYYY-MM-DD.
        run: receives the log.
        again: export it in any case, also in place of the same version; a newer one in the sink stays.
        sink: the spec's if None.

    Returns:
        The receipt. It is in the state, unless another export has written one meanwhile.

    Raises:
        NotPublishedError: there is nothing to export.
        StateError, RuleError: the rows cannot be selected.
        SinkError, SinkRefusedError, RowsLostError: of the sink; what it showed before stands.
        FileChangedError: another export has begun to change the exported step; what the sink showed before stands.
    """
    work = _Export(pipeline, name, day, run, State(pipeline.output))
    token = work.state.receipt_token(name, day)  # before the receipt is read, so that no other is taken for it
    found = published.of_day(work.state, work.spec, day)
    receipt = published.receipt_of(work.state, name, day)
    if receipt and not published.is_there(receipt, work.spec):
        receipt = None  # of another sink: this one says itself what it shows
    if receipt and published.is_of(receipt, found.exported) and not again:
        run.log(f"{name} {day}: {_MESSAGES['unchanged']}, {receipt.rows:,} rows by run {receipt.run_id}")
        return receipt
    if receipt and work.spec.corrections == "keep" and not again:
        return work.record(work.receipt(found.exported, "kept", receipt.rows, where=receipt.where), token)
    rows, sink = _CountedRows(select(pipeline, name, found)), sink or sink_of(pipeline, name)
    delivery = work.delivery(found.exported, rows, again=again)
    if receipt is None or receipt.gives_way_to or receipt.of != delivery.of:
        delivery, token = work.after_another_step(sink, delivery, receipt, token)
    done = work.deliver(sink, delivery)
    if done.outcome == "superseded" and delivery.is_of_another_step(done.marker):
        return work.record(work.copy_of(done.marker), token)
    sent = rows.count if done.outcome == "exported" else None
    new = work.receipt(found.exported, done.outcome, done.marker.rows, sent=sent, bytes=done.bytes, where=done.where)
    return work.told(new) if _may_be_replaced(receipt, delivery, done.marker) else work.record(new, token)


def _may_be_replaced(receipt: ExportReceipt | None, delivery: Delivery, shown: Marker) -> bool:
    """Whether an export of another step was about to replace just what the sink shows, and may still do so."""
    if receipt is None or receipt.gives_way_to in ("", delivery.of) or delivery.replaces == "nothing":
        return False
    found = receipt.created, receipt.transaction, receipt.run_id, receipt.finished_at
    return found == (*shown.version, shown.run_id, shown.exported_at)


@dataclass(frozen=True)
class _Export:
    """One export of one day."""

    pipeline: Pipeline
    name: str
    day: str
    run: StepContext
    state: State
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def spec(self) -> AnyExport:
        return self.pipeline.spec.exports[self.name]

    def delivery(self, exported: PublishedDay, rows: "_CountedRows", *, again: bool) -> Delivery:
        keeps: Replaces = "nothing" if self.spec.corrections == "keep" else "older"
        return Delivery(
            pipeline=self.pipeline.name,
            export=self.name,
            day=self.day,
            version=published.version_of(exported),
            run_id=self.run.id,
            schema=rows.selection.schema,
            read=rows.read,
            replaces="same" if again else keeps,
            of=exported.step,
        )

    def after_another_step(
        self, sink: Sink, delivery: Delivery, receipt: ExportReceipt | None, token: str | None
    ) -> tuple[Delivery, str | None]:
        """A delivery that may change the step that the sink shows, and the token of the receipt, which it withdraws."""
        shown = sink.marker(self.day)
        if shown is None or delivery.replaces == "nothing":
            return delivery, token
        if delivery.is_of_another_step(shown):
            return replace(delivery, instead_of=shown), self.withdraw(shown, delivery.of, token)
        is_found_again = shown.version == delivery.version and _may_be_replaced(receipt, delivery, shown)
        return (replace(delivery, instead_of=shown) if is_found_again else delivery), token

    def withdraw(self, shown: Marker, of: str, token: str | None) -> str | None:
        """Say in the receipt that what is shown is about to give way to another step; return the receipt's token."""
        withdrawn = self.copy_of(shown, gives_way_to=of)
        self.state.put_receipt(withdrawn, token)
        token = self.state.receipt_token(self.name, self.day)
        if published.receipt_of(self.state, self.name, self.day) != withdrawn:
            raise FileChangedError(f"{self.name} {self.day}: another export has begun; what was exported stands")
        return token

    def deliver(self, sink: Sink, delivery: Delivery) -> Delivered:
        with self.run.timed("deliver"):
            return sink.deliver(delivery)

    def receipt(self, exported: PublishedDay, outcome: Outcome, rows: int, **fields: Any) -> ExportReceipt:  # noqa: ANN401
        """A receipt of what is published."""
        version = published.version_of(exported)
        return self._receipt(exported.step, version, outcome, rows, files=exported.table.files, **fields)

    def copy_of(self, shown: Marker, *, gives_way_to: str = "") -> ExportReceipt:
        """A receipt of what the sink shows; of no published version, as their files are unknown."""
        receipt = self._receipt(shown.of, shown.version, "superseded", shown.rows, files=(), gives_way_to=gives_way_to)
        return receipt.model_copy(update={"run_id": shown.run_id, "finished_at": shown.exported_at})

    def _receipt(self, of: str, version: Version, outcome: Outcome, rows: int, **fields: Any) -> ExportReceipt:  # noqa: ANN401
        return ExportReceipt(
            pipeline=self.pipeline.name,
            export=self.name,
            day=self.day,
            of=of,
            created=version.created,
            transaction=version.transaction,
            settings=published.settings_of(self.spec),
            place=published.place_of(self.spec),
            outcome=outcome,
            rows=rows,
            run_id=self.run.id,
            began_at=self.began_at,
            finished_at=datetime.now(UTC),
            **fields,
        )

    def told(self, receipt: ExportReceipt) -> ExportReceipt:
        self.run.log(f"{self.name} {self.day}: {_MESSAGES[receipt.outcome]}, {receipt.rows:,} rows")
        return receipt

    def record(self, receipt: ExportReceipt, token: str | None) -> ExportReceipt:
        """Write the receipt in place of the one with a token, which this export has found or written."""
        self.told(receipt)
        try:
            self.state.put_receipt(receipt, token)
        except FileChangedError:
            self.run.log(f"{self.name} {self.day}: another export has written the receipt meanwhile, which stays")
        return receipt


class _CountedRows:
    """The rows of an export, counted as they are read."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.count: int | None = None
        """None if they were never read."""

    def read(self) -> Iterator[pa.RecordBatch]:
        self.count = 0
        for batch in self.selection.read():
            self.count += batch.num_rows
            yield batch
