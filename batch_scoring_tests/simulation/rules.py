"""The protocol's rules, each with a patch that disables it: without it some history must break a guarantee."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from deltalake.transaction import CommitProperties

from batch_scoring.daily import publish, validate
from batch_scoring.daily.publish import DayStep, Draft, Finished, FinishedShards
from batch_scoring.defs.assets import predictions
from batch_scoring.ingest import landing_files, quarantine
from batch_scoring.storage import delta, shards
from batch_scoring.storage.delta import Part, Snapshot
from batch_scoring.storage.folders.folder import FileVersion
from batch_scoring.storage.shards import ShardFile
from batch_scoring.storage.state import PublishedDay, State
from batch_scoring_tests.simulation.history import Substitutes
from batch_scoring_tests.simulation.memory import MemoryFolder
from batch_scoring_tests.simulation.world import World


@dataclass(frozen=True)
class Rule:
    """A rule of the protocol."""

    name: str
    without: Callable[[], Substitutes]
    """Patches after which the code does not keep it."""
    kind: str
    """Of `history.KINDS`, where its absence shows soonest; empty for a rule that is not needed by itself."""
    covered: str = ""
    """Why no history breaks without it: what else keeps the promise."""
    seen_at: int = 0
    """The seed of a history that breaks without it, where the first is far: looking begins there."""


def _library_commit() -> Substitutes:
    def properties(**options: Any) -> CommitProperties:  # noqa: ANN401
        return CommitProperties(**(options | {"max_commit_retries": None}))

    return [(delta, "CommitProperties", properties)]


def _blind_commit() -> Substitutes:
    """Lands although another commit came in between, whatever that one did."""

    def properties(**options: Any) -> CommitProperties:  # noqa: ANN401
        return CommitProperties(**(options | {"max_commit_retries": None, "app_transactions": []}))

    def published(snapshot: Snapshot) -> Any:  # noqa: ANN401
        return _PUBLISHED(replace(snapshot, transaction=0))

    def holds(snapshot: Snapshot, published: Any) -> bool:  # noqa: ANN401
        return set(snapshot.files) == set(published.files)

    return [(delta, "CommitProperties", properties), (delta, "_published", published), (Snapshot, "holds", holds)]


def _files_alone() -> Substitutes:
    return [(Snapshot, "holds", lambda self, published: set(self.files) == set(published.files))]


def _versions_alone() -> Substitutes:
    return [(Snapshot, "holds", lambda self, published: self.transaction == published.transaction)]


_PUBLISH, _DIFFERENCE, _PUBLISHED = delta.publish, delta._difference, delta._published


def _no_check_current() -> Substitutes:
    def publish(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        return _PUBLISH(*arguments, **(options | {"check_current": lambda: None}))

    return [(delta, "publish", publish)]


@dataclass(frozen=True)
class _CheckFirst(delta.Table):
    check: Callable[[], None] = lambda: None

    def load(self) -> Any:  # noqa: ANN401
        self.check()
        return super().load()


def _check_before_load() -> Substitutes:
    def publish(part: Part, *arguments: Any, check_current: Callable[[], None], **options: Any) -> Any:  # noqa: ANN401
        table = _CheckFirst(part.table.folder, part.table.name, part.table.partition_by, check_current)
        return _PUBLISH(replace(part, table=table), *arguments, check_current=lambda: None, **options)

    return [(delta, "publish", publish)]


_READ_SOURCE = predictions.read_source


def _fingerprint_from_input() -> Substitutes:
    """The day is scored and labelled with what raw_input pinned, whatever features there are."""

    def published_day(state: State, step: Any, day: str) -> PublishedDay | None:  # noqa: ANN401
        found = _PUBLISHED_DAY(state, step, day)
        return found.model_copy(update={"fingerprint": state.day_input(day).fingerprint}) if found else None

    def read_source(step: DayStep) -> predictions.Source:
        step.state = type("Relabelled", (State,), {"published_day": published_day})(step.pipeline.output)
        try:
            return _READ_SOURCE(step)
        finally:
            step.state = State(step.pipeline.output)

    return [(predictions, "read_source", read_source)]


_PUBLISHED_DAY, _PUT_PUBLISHED_DAY = State.published_day, State.put_published_day


def _any_features_snapshot() -> Substitutes:
    class Unchecked(DayStep):
        def __init__(self, *arguments: Any) -> None:  # noqa: ANN401
            super().__init__(*arguments)
            if self.name == "validated_features":
                self.table = _Trusting(**vars(self.table))

    return [(predictions, "DayStep", Unchecked)]


class _Trusting(Part):
    def snapshot(self) -> Any:  # noqa: ANN401
        super().snapshot()
        return type("Any", (), {"holds": lambda self, published: True})()


def _account_after_commits_only() -> Substitutes:
    mine = threading.local()

    def publish(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        part, committed = _PUBLISH(*arguments, **options)
        mine.committed = getattr(mine, "committed", False) or committed
        return part, committed

    def put_published_day(state: State, published_day: PublishedDay) -> None:
        committed, mine.committed = getattr(mine, "committed", False), False
        if committed:
            _PUT_PUBLISHED_DAY(state, published_day)

    return [(delta, "publish", publish), (State, "put_published_day", put_published_day)]


def _quarantine_of_all() -> Substitutes:
    every = quarantine.STAGES_OF_FEATURES + quarantine.STAGES_OF_PREDICTIONS
    return [(publish, "STAGES", dict.fromkeys(publish.STAGES, every))]


_DIGEST = shards.digest


def _digest_without(kind: str, position: int) -> Substitutes:
    def digest(*parts: object) -> str:
        kept = [part for index, part in enumerate(parts) if parts[0] != kind or index != position]
        return _DIGEST(*kept)

    return [(shards, "digest", digest)]


def _dropped_rows_unnamed() -> Substitutes:
    return [(validate, "_name", lambda base, dropped: base)]


def _reuse_for_ever() -> Substitutes:
    return [(shards, "REUSE_WITHIN", timedelta(days=10_000))]


def _no_verify() -> Substitutes:
    return [(delta, "_verify", lambda part, adds: None)]


def _difference_by_path() -> Substitutes:
    def difference(snapshot: Snapshot, planned: Mapping[str, ShardFile]) -> Any:  # noqa: ANN401
        paths = {shard.path for shard in planned.values()}
        removes = {path: size for path, size in snapshot.files.items() if path not in paths}
        return [shard for shard in planned.values() if shard.path not in snapshot.files], removes

    return [(delta, "_difference", difference)]


def _second_file_stays() -> Substitutes:
    def difference(snapshot: Snapshot, planned: Mapping[str, ShardFile]) -> Any:  # noqa: ANN401
        active = {shards.identity_of(path) for path in snapshot.files}
        removes = {path: size for path, size in snapshot.files.items() if shards.identity_of(path) not in planned}
        return [shard for identity, shard in planned.items() if identity not in active], removes

    return [(delta, "_difference", difference)]


def _planned_once() -> Substitutes:
    """After a conflict the first difference is committed again."""
    first: dict[int, Any] = {}

    def difference(snapshot: Snapshot, planned: Mapping[str, ShardFile]) -> Any:  # noqa: ANN401
        adds, removes = _DIFFERENCE(snapshot, planned)
        if not adds and not removes:
            return adds, removes
        return first.setdefault(id(planned), (planned, adds, removes))[1:]

    return [(delta, "_difference", difference)]


def _two_transactions() -> Substitutes:
    def difference(snapshot: Snapshot, planned: Mapping[str, ShardFile]) -> Any:  # noqa: ANN401
        adds, removes = _DIFFERENCE(snapshot, planned)
        return (adds, {}) if adds else (adds, removes)

    return [(delta, "_difference", difference)]


def _table_first() -> Substitutes:
    original = DayStep.publish

    def publish(step: DayStep, prepared: Any, run: Any, **options: Any) -> Any:  # noqa: ANN401
        if prepared.published:
            return original(step, prepared, run, **options)
        planned = {shard.file.identity: shard.file for shard in prepared.shards}
        delta.publish(
            step.table, planned, prepared.schema, check_current=options["check_current"], lineage={"run_id": run.id}
        )
        published_day, _ = original(step, prepared, run, **options)
        return published_day, True

    return [(DayStep, "publish", publish)]


def _shard_first() -> Substitutes:
    def finish(draft: Draft, published_day: Any, meter: Any) -> Finished:  # noqa: ANN401
        file = draft._writer.finish(draft._step.table.prefixes[0], published_day)
        done: Any = type("Done", (), {"finish": lambda *_: file, "flush": lambda _: None, "rows": published_day.rows})
        held, draft._writer = draft._writer, done()
        try:
            return _FINISH(draft, published_day, meter)
        finally:
            draft._writer = held

    return [(Draft, "finish", finish)]


_FINISH, _FIND = Draft.finish, FinishedShards.find


def _shard_without_its_quarantine() -> Substitutes:
    def find(finished: FinishedShards, digest: str) -> Finished | None:
        file = finished._files.get(f"{finished._step.table.prefixes[0]}{digest}")
        published_day = shards.read_stats(finished._step.table.table.folder, file) if file else None
        if file is None or published_day is None:
            return None
        wanted = [f"dt={finished._step.day}/stage={stage}/{digest}" for stage in published_day.quarantined]
        there = tuple(finished._rejected[identity] for identity in wanted if identity in finished._rejected)
        return Finished(published_day, file, there, reused=True)

    return [(FinishedShards, "find", find)]


def _one_name_a_shard() -> Substitutes:
    class Names:
        @staticmethod
        def uuid4() -> Any:  # noqa: ANN401
            return type("Name", (), {"hex": "00000000"})()

    return [(shards, "uuid", Names)]


def _any_version_of_a_file() -> Substitutes:
    original = MemoryFolder.open
    return [(MemoryFolder, "open", lambda folder, path, token=None: original(folder, path))]


def _fingerprint_without_order() -> Substitutes:
    def fingerprint(files: Any) -> str:  # noqa: ANN401
        return _FINGERPRINT(sorted((replace_time(file) for file in files), key=lambda file: file.path))

    def replace_time(file: Any) -> FileVersion:  # noqa: ANN401
        return FileVersion(file.path, file.token, file.size, datetime(2024, 1, 1, tzinfo=UTC))

    return [(landing_files, "fingerprint", fingerprint)]


_FINGERPRINT = landing_files.fingerprint


def _settled_by_predictions() -> Substitutes:
    return [(World, "settled_by", ("predictions",))]


def _never_again() -> Substitutes:
    return [(Snapshot, "holds", lambda self, published: True)]


RULES = [
    Rule("the commit is strict (without: the library's conflict rules)", _library_commit, "optimizers"),
    Rule("the commit is strict (without: it always lands)", _blind_commit, "optimizers"),
    Rule("a conflict means: load and plan again", _planned_once, "crowd", seen_at=36),
    Rule("adds and removes are one transaction", _two_transactions, "anything"),
    Rule("input and model are compared at every attempt", _no_check_current, "crowd"),
    Rule("the table is loaded before they are compared", _check_before_load, "crowd"),
    Rule("planned files are verified before the commit", _no_verify, "housekeeping", seen_at=67),
    Rule("only young or committed files are used again", _reuse_for_ever, "leftovers", seen_at=87),
    Rule("done compares the tables with the account", _never_again, "tampering"),
    Rule("done compares active files, not transaction versions alone", _versions_alone, "tampering"),
    Rule("a day is settled by both accounts", _settled_by_predictions, "tampering"),
    Rule(
        "predictions take their fingerprint from the features account",
        _fingerprint_from_input,
        "corrections",
        seen_at=228,
    ),
    Rule("the account is written on an empty difference", _account_after_commits_only, "tampering"),
    Rule("each step owns its stages of the quarantine", _quarantine_of_all, "anything"),
    Rule("a shard is used again only with its quarantine", _shard_without_its_quarantine, "leftovers"),
    Rule("a shard's quarantine is written before it", _shard_first, "leftovers", seen_at=56),
    Rule("every file has a name of its own", _one_name_a_shard, "leftovers"),
    Rule("the path is in the digest", lambda: _digest_without("features", 1), "crowd"),
    Rule("the version token is in the digest", lambda: _digest_without("features", 2), "crowd"),
    Rule("the rows dropped as duplicates are in the digest", _dropped_rows_unnamed, "crowd"),
    Rule("the model is in the digest", lambda: _digest_without("predictions", 2), "crowd"),
    Rule("a file is read in the version pinned", _any_version_of_a_file, "corrections"),
    Rule("the fingerprint tells which file is newest", _fingerprint_without_order, "reuploads", seen_at=64),
    Rule(
        "done compares transaction versions, not active files alone",
        _files_alone,
        "",
        "every file has a name of its own: equal names are equal rows",
    ),
    Rule(
        "the features table is as its account says",
        _any_features_snapshot,
        "",
        "shards are read by the names in the account, whatever the table shows",
    ),
    Rule(
        "the difference is by digest",
        _difference_by_path,
        "",
        "of a finished shard the committed file is found first",
    ),
    Rule(
        "a second active file of a shard is removed",
        _second_file_stays,
        "",
        "the strict commit lets no second one in",
    ),
    Rule(
        "the quarantine is committed before the table",
        _table_first,
        "",
        "a day is settled by its accounts, which are written after both",
    ),
]


def needed() -> list[Rule]:
    """The rules without which a promise breaks."""
    return [rule for rule in RULES if rule.kind]
