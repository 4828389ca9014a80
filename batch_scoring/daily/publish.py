"""What the two writing steps of a day share: finding finished shards, writing new ones, publishing the day.

`features.py` and `predictions.py` say what the rows are; here is what makes either of them resume, conserve and
publish. It knows no Dagster, no pandera and no torch.
"""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import perf_counter
from typing import TypeVar

import pyarrow as pa

from batch_scoring import tables
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import SupersededError
from batch_scoring.ingest import key_index, landing_files, quarantine
from batch_scoring.ingest.quarantine_blocks import Block
from batch_scoring.storage import shards
from batch_scoring.storage.shards import ShardFile, ShardWriter
from batch_scoring.storage.state import Account, DayInput, ModelInForce, PublishedPart, ShardAccount, State, StepName
from batch_scoring.tables import Part

Item = TypeVar("Item")


@dataclass(frozen=True)
class Run:
    """Who does the work, and since when."""

    id: str
    started: datetime
    """UTC; stands in the scored rows as `scored_at`."""
    log: Callable[[str], object]
    seconds: dict[str, float] = field(default_factory=dict)
    """By activity, waiting for it included; activities overlap, so their sum may exceed the wall time."""
    began: float = field(default_factory=perf_counter)
    """When this step took up the work, by `perf_counter`."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """With which it was started."""
    tag: Callable[[dict[str, str]], object] = lambda _: None
    """Notes something in the run's record."""

    @property
    def elapsed(self) -> float:
        """Seconds of wall time since the step began."""
        return perf_counter() - self.began

    @contextlib.contextmanager
    def timed(self, activity: str) -> Iterator[None]:
        """Count the time of a block under an activity."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[activity] = self.seconds.get(activity, 0.0) + perf_counter() - start

    def timed_each(self, activity: str, items: Iterable[Item]) -> Iterator[Item]:
        """Count the time that an iterator takes for its items under an activity."""
        iterator = iter(items)
        while True:
            with self.timed(activity):
                item = next(iterator, None)
            if item is None:
                return
            yield item


@dataclass(frozen=True)
class Finished:
    """A shard with its quarantine: complete files, committed or not."""

    account: ShardAccount
    file: ShardFile
    quarantine: tuple[ShardFile, ...]
    reused: bool


@dataclass(frozen=True)
class Prepared:
    """All shards of a day, ready to be published; nothing of it is visible yet."""

    shards: tuple[Finished, ...]
    schema: pa.Schema
    distinct_keys: int = 0
    """Keys among the rows of all shards (only the features know)."""
    settings: dict[str, int | str] = field(default_factory=dict)
    """How the work was done, for the operator."""
    published: Account | None = None
    """The account, if the day stood as it should and nothing is to be done."""

    @property
    def accounts(self) -> tuple[ShardAccount, ...]:
        """The shards' accounts; of a day that stands, those of its publication."""
        return self.published.shards if self.published else tuple(shard.account for shard in self.shards)

    @property
    def reused(self) -> int:
        """Shards that an earlier run had finished."""
        return len(self.published.shards) if self.published else sum(shard.reused for shard in self.shards)


class DayStep:
    """One writing step of one day."""

    def __init__(self, pipeline: Pipeline, day: str, name: StepName) -> None:
        """The parts of the tables that this step owns."""
        self.pipeline, self.day, self.name = pipeline, day, name
        self.state = State(pipeline.output)
        is_features = name == "validated_features"
        stages = quarantine.STAGES_OF_FEATURES if is_features else quarantine.STAGES_OF_PREDICTIONS
        self.table = Part(tables.TABLES[name](pipeline), day, name)
        self.quarantine = Part(tables.quarantine_table(pipeline), day, name, stages)

    def published(self, fingerprint: str, code: str, model_sha256: str | None = None) -> Account | None:
        """The day's account, if it is of this input, code and model and both tables are as it left them."""
        account = self.state.account(self.name, self.day)
        if account is None or (account.fingerprint, account.code) != (fingerprint, code):
            return None
        if account.model_sha256 != model_sha256:
            return None
        stands = self.table.snapshot().holds(account.table) and self.quarantine.snapshot().holds(account.quarantine)
        return account if stands else None

    def finished(self) -> "FinishedShards":
        """What earlier runs have finished for this day."""
        return FinishedShards(self)

    @contextlib.contextmanager
    def draft(self, schema: pa.Schema, dictionary: Iterable[str]) -> Iterator["Draft"]:
        """Write a shard; unless it is finished, nothing of it remains."""
        with contextlib.ExitStack() as files:
            writer = files.enter_context(shards.writing(self.table.table.folder, schema, dictionary))
            yield Draft(self, writer, files)

    def publish(
        self,
        prepared: Prepared,
        run: Run,
        *,
        fingerprint: str,
        code: str,
        model: ModelInForce | None,
        features_code: str | None = None,
        check_current: Callable[[], None],
    ) -> tuple[Account, bool]:
        """Commit the quarantine, then the table, then write the account: it, and whether anything was committed.

        Raises:
            SupersededError: newer input or another model came first.
            SchemaChangedError, PublicationError: see `tables.publish`.
        """
        if prepared.published:
            return prepared.published, False
        accounts = prepared.accounts
        lineage = {
            "run_id": run.id,
            "input_fingerprint": fingerprint,
            "code_version": code,
            "rows_in": str(sum(shard.rows_in for shard in accounts)),
            "rows_scored": str(sum(shard.rows for shard in accounts)),
            "rows_quarantined": str(sum(shard.rows_quarantined for shard in accounts)),
        }
        if model is not None:
            lineage |= {"model_version": model.version, "model_sha256": model.sha256}

        def commit(part: Part, files: Iterable[ShardFile], schema: pa.Schema) -> tuple[PublishedPart, bool]:
            planned = {file.identity: file for file in files}
            return tables.publish(part, planned, schema, check_current=check_current, lineage=lineage, log=run.log)

        with run.timed("commit"):
            tables.refuse_retyped(self.table.table, prepared.schema)
            rejected = [file for shard in prepared.shards for file in shard.quarantine]
            kept, some = commit(self.quarantine, rejected, quarantine.schema(self.pipeline.spec.input.key))
            table, more = commit(self.table, [shard.file for shard in prepared.shards], prepared.schema)
            account = Account(
                pipeline=self.pipeline.name,
                day=self.day,
                step=self.name,
                run_id=run.id,
                finished_at=datetime.now(UTC),
                fingerprint=fingerprint,
                code=code,
                features_code=features_code,
                model_version=model.version if model else None,
                model_sha256=model.sha256 if model else None,
                shards=accounts,
                table=table,
                quarantine=kept,
                seconds=round(run.elapsed, 4),
            )
            self.state.put_account(account)
        return account, some or more


class FinishedShards:
    """The complete shards of a day, by digest."""

    def __init__(self, step: DayStep) -> None:
        self._step = step
        self._files = self._complete(step.table)
        self._rejected = self._complete(step.quarantine)

    def find(self, digest: str) -> Finished | None:
        """The shard of that digest with its whole quarantine, if both are there."""
        file = self._files.get(f"{self._step.table.prefixes[0]}{digest}")
        account = shards.read_account(self._step.table.table.folder, file) if file else None
        if file is None or account is None:
            return None
        found = (self._quarantine(digest, stage, sum(n.values())) for stage, n in account.quarantined.items())
        rejected = tuple(part for part in found if part)
        if len(rejected) < len(account.quarantined):
            return None
        return Finished(account, replace(file, rows=account.rows), rejected, reused=True)

    def _quarantine(self, digest: str, stage: str, rows: int) -> ShardFile | None:
        """The file with the rows that the shard sent to a stage, if it holds as many as the shard says."""
        file = self._rejected.get(f"dt={self._step.day}/stage={stage}/{digest}")
        account = shards.read_account(self._step.quarantine.table.folder, file) if file else None
        return replace(file, rows=rows) if file and account and account.rows == rows else None

    @staticmethod
    def _complete(part: Part) -> dict[str, ShardFile]:
        active = part.snapshot().files
        found: dict[str, ShardFile] = {}
        for prefix in part.prefixes:
            found |= shards.complete(part.table.folder, prefix, active)
        return found


class Draft:
    """A shard that is being written, with the rows it rejects."""

    def __init__(self, step: DayStep, writer: ShardWriter, files: contextlib.ExitStack) -> None:
        self._step, self._writer, self._files = step, writer, files
        self._key = step.pipeline.spec.input.key
        self._rejected: defaultdict[str, quarantine.Waiting] = defaultdict(quarantine.Waiting)
        self._writers: dict[str, ShardWriter] = {}
        self.rows = 0
        self.keys = 0
        """Sum of the hashes of the accepted keys, modulo 2**64."""
        self.quarantined: dict[str, dict[str, int]] = {}

    def accept(self, batch: pa.RecordBatch) -> None:
        """Append rows to the shard; the key is one of the columns."""
        self._writer.write(batch)
        self.rows += batch.num_rows
        self.keys = (self.keys + key_index.identity(key_index.hash64(batch.column(self._key)))) % 2**64

    def reject(self, rows: Iterable[quarantine.Rejected]) -> None:
        """Send rows to the quarantine."""
        for row in rows:
            quarantine.count(self.quarantined, row)
            waiting = self._rejected[row.reason.stage]
            waiting.add(row)
            if waiting.is_full:
                self._flush(row.reason.stage)

    def reject_block(self, block: Block) -> None:
        """Send many rows of one stage to the quarantine."""
        counts = self.quarantined.setdefault(block.stage, {})
        for reason, rows in block.counts.items():
            counts[reason] = counts.get(reason, 0) + rows
        self._quarantine(block.stage).write(block.rows)

    def finish(self, account: ShardAccount) -> Finished:
        """Give the files their names, from the account's digest: the quarantine first, the shard vouches for it."""
        filed = []
        for stage in self.quarantined:
            self._flush(stage)
            rows = sum(self.quarantined[stage].values())
            own = ShardAccount(
                digest=account.digest, source=account.source, run_id=account.run_id, rows_in=rows, rows=rows
            )
            filed.append(self._writers[stage].finish(f"dt={self._step.day}/stage={stage}/", own))
        file = self._writer.finish(self._step.table.prefixes[0], account)
        return Finished(account, file, tuple(filed), reused=False)

    def _quarantine(self, stage: str) -> ShardWriter:
        if stage not in self._writers:
            folder = self._step.quarantine.table.folder
            opened = shards.writing(folder, quarantine.schema(self._key), ["rule", "column", "source_file"])
            self._writers[stage] = self._files.enter_context(opened)
        return self._writers[stage]

    def _flush(self, stage: str) -> None:
        if rows := self._rejected[stage].take():
            self._quarantine(stage).write(quarantine.table(rows, self._key))


def check_input(pipeline: Pipeline, pinned: DayInput, *, may_be_archived: bool) -> None:
    """Raise if the landing no longer holds the input that was pinned.

    Args:
        pipeline: whose landing to list.
        pinned: the input that this run works on.
        may_be_archived: an empty landing is then no newer input.

    Raises:
        SupersededError: a file came, changed or went.
    """
    listed = landing_files.list_day(pipeline.landing, pinned.day)
    if not landing_files.is_of(pinned.fingerprint, listed) and (listed or not may_be_archived):
        raise SupersededError(
            f"superseded: the files of {pipeline.name} {pinned.day} have changed since raw_input pinned them; "
            "nothing was published: run the day again from raw_input"
        )
