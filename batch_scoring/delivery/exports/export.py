"""The export of a day: each published version arrives in the sink exactly once.

1. Compare what is published with the receipt. If they are equal, the sink is not even asked.
2. Deliver: the sink writes the rows unseen, then shows them in one atomic step that compares versions.
3. Write the receipt.

A run that dies after any step leaves a day that the next run completes: without a receipt, the sink's own marker says
what it shows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa

from batch_scoring.config.delivery_spec import AnyExport
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.delivery.exports import published
from batch_scoring.delivery.exports.selection import Selection, select
from batch_scoring.delivery.exports.sink import Delivered, Delivery, Outcome, Replaces, Sink
from batch_scoring.delivery.exports.sinks import sink_of
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
        The receipt, as it now is in the state.

    Raises:
        NotPublishedError: there is nothing to export.
        StateError, RuleError: the rows cannot be selected.
        SinkError, SinkRefusedError, RowsLostError: of the sink; what it showed before stands.
    """
    work = _Export(pipeline, name, day, run, State(pipeline.output))
    found = published.of_day(work.state, work.spec, day)
    receipt = published.receipt_of(work.state, name, day)
    if receipt and not published.is_there(receipt, work.spec):
        receipt = None  # of another sink: this one says itself what it shows
    if receipt and published.is_of(receipt, found.exported) and not again:
        run.log(f"{name} {day}: {_MESSAGES['unchanged']}, {receipt.rows:,} rows by run {receipt.run_id}")
        return receipt
    if receipt and work.spec.corrections == "keep" and not again:
        return work.record(found.exported, "kept", receipt.rows, where=receipt.where)
    rows = _CountedRows(select(pipeline, name, found))
    done = work.deliver(sink or sink_of(pipeline, name), found.exported, rows, again=again)
    sent = rows.count if done.outcome == "exported" else None
    return work.record(found.exported, done.outcome, done.marker.rows, sent=sent, size=done.bytes, where=done.where)


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

    def deliver(self, sink: Sink, exported: PublishedDay, rows: "_CountedRows", *, again: bool) -> Delivered:
        keeps: Replaces = "nothing" if self.spec.corrections == "keep" else "older"
        with self.run.timed("deliver"):
            return sink.deliver(
                Delivery(
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
            )

    def record(
        self,
        exported: PublishedDay,
        outcome: Outcome,
        rows: int,
        *,
        sent: int | None = None,
        size: int = 0,
        where: tuple[str, ...] = (),
    ) -> ExportReceipt:
        """Write the receipt."""
        self.run.log(f"{self.name} {self.day}: {_MESSAGES[outcome]}, {rows:,} rows")
        receipt = ExportReceipt(
            pipeline=self.pipeline.name,
            export=self.name,
            day=self.day,
            of=exported.step,
            created=exported.table.created,
            transaction=exported.table.transaction,
            files=exported.table.files,
            settings=published.settings_of(self.spec),
            place=published.place_of(self.spec),
            outcome=outcome,
            rows=rows,
            sent=sent,
            bytes=size,
            where=where,
            run_id=self.run.id,
            began_at=self.began_at,
            finished_at=datetime.now(UTC),
        )
        self.state.put_receipt(receipt)
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
