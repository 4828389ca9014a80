"""Exports to Redis, where services look up a key in less than a millisecond.

    rec:2026-11-28.3-9f1c2ab4:u17    the list of u17, as JSON: of the third version of a day
    rec:current                      hash: the list that readers use, of the newest day: prefix, day, rows, …
    rec:days                         hash: the marker of every day, by day, as JSON

A reader asks `HGET rec:current prefix`, then `GET <prefix><key>`, or `MGET` of many keys with one prefix.

*Unseen.* Every attempt writes keys under a prefix of its own, which no reader knows yet. Two attempts of one version
never share keys, so the one that is refused, full or interrupted can remove its own, whatever the other has done; the
day is in the prefix because transactions are counted per day. Keys of a process that was killed vanish by their TTL.
All keys of an attempt vanish in the same moment, never one before the other.

*Counted.* A server that evicts keys answers OK to every SET. Therefore the server counts the keys by name when all are
written, and before anybody sees them.

*Switched.* One script replaces the day's marker if it still is the one that the delivery was compared with; otherwise
the comparison begins anew. In the same step `current` turns to the new prefix, unless it shows a newer day: a backfill,
or yesterday's correction, becomes the list of its day, not the list that readers use. The keys that `current` pointed
to before stay until their TTL ends, for readers that have just read their prefix; it stands in `previous`.

A marker whose keys have vanished shows nothing, so its version can be exported again; it still keeps older ones out.

A TTL of two periods or more, 48 hours for a daily export, leaves readers the old list when a night fails. A day that
was exported by mistake and is newer than all others keeps `current`: `HDEL rec:days <day>` and `DEL rec:current`, then
`batch-scoring export … --again` for the right day.
"""

import contextlib
import io
import secrets
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from pydantic import BaseModel, ValidationError

from batch_scoring.config.delivery_spec import RedisExport
from batch_scoring.delivery.exports.redis.entries import entries, why_not_a_key
from batch_scoring.delivery.exports.redis.server import Keys, RedisServer, address_of, connected
from batch_scoring.delivery.exports.sink import Delivered, Delivery, Marker, Outcome, Version
from batch_scoring.errors import RowsLostError, SinkError, SinkRefusedError

_SWITCH = """
local marker = redis.call('HGET', KEYS[1], ARGV[1]) or ''
local shown = redis.call('HGET', KEYS[2], 'day')
local prefix = redis.call('HGET', KEYS[2], 'prefix') or ''
if marker ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
if not shown or shown <= ARGV[1] then redis.call('HSET', KEYS[2], 'previous', prefix, unpack(ARGV, 4)) end
return 1
"""
"""Keys: the markers, the pointer. Arguments: day, the marker as it was compared, the new one, fields of the pointer."""

_KEEPS_ALL = "noeviction"
"""The `maxmemory-policy` that refuses what does not fit, instead of removing keys."""

_IN_MEMORY = 2**20
"""Bytes of packed names that are kept in memory; more go to a file without a name."""

_OVERHEAD = 3
"""Memory of short keys, as a multiple of what is sent."""

_WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class ShownDay(BaseModel):
    """What Redis shows of a day: a marker in `days`, and the fields of `current`."""

    owner: str
    """Pipeline and export; no other may use the prefix."""
    day: str
    prefix: str
    """Beginning of the names of its keys."""
    created: int
    """When the exported table was created, in milliseconds since 1970."""
    transaction: int
    """Number of commits to the day in that table."""
    rows: int
    keys: int
    bytes: int
    """Of names and values, as they were sent."""
    run_id: str
    exported_at: datetime
    expires_at: datetime
    """When its keys vanish, by the server's clock."""
    of: str = ""
    """The step whose version it is; empty in markers from before it was written down."""

    @property
    def marker(self) -> Marker:
        """The version that is shown."""
        return Marker(Version(self.created, self.transaction), self.rows, self.run_id, self.exported_at, self.of)

    @property
    def fields(self) -> list[str]:
        """Names and values by turns, as a hash takes them."""
        return [text for name, value in self.model_dump(mode="json").items() for text in (name, str(value))]


class RedisSink:
    """Keys of an export, and the pointer to those of the newest day."""

    def __init__(self, export: RedisExport, url: str) -> None:
        """Nothing is sent yet.

        Args:
            export: section of the spec.
            url: address of the server, with user and password.

        Raises:
            SinkRefusedError: the address cannot be read.
        """
        self._export, self._url = export, url
        self.address = address_of(url)
        self._days, self._current = f"{export.prefix}:days", f"{export.prefix}:current"

    def marker(self, day: str) -> Marker | None:
        """See `Sink.marker`."""
        with connected(self._url) as server:
            shown = self._shown(server, day)[1]
            return shown.marker if shown and shown.expires_at > _now(server) else None

    def deliver(self, delivery: Delivery) -> Delivered:
        """See `Sink.deliver`."""
        with connected(self._url) as server:
            now = _now(server)
            self._check_owner(server, delivery)
            shown = self._shown(server, delivery.day)[1]
            if shown and (outcome := _refused(delivery, shown, now)):
                return self._delivered(outcome, shown)
            ttl = timedelta(hours=self._export.ttl_hours)
            attempt = f"{delivery.version.transaction}-{secrets.token_hex(4)}"
            prefix = f"{self._export.prefix}:{delivery.day}.{attempt}:"
            with tempfile.SpooledTemporaryFile(_IN_MEMORY) as names:
                keys = Keys(server, prefix, ttl.total_seconds(), names)
                rows = self._write(server, keys, delivery)
                new = ShownDay(
                    owner=_owner(delivery),
                    day=delivery.day,
                    prefix=prefix,
                    created=delivery.version.created,
                    transaction=delivery.version.transaction,
                    rows=rows,
                    keys=keys.sent,
                    bytes=keys.bytes,
                    run_id=delivery.run_id,
                    exported_at=datetime.now(UTC),
                    expires_at=now + ttl,
                    of=delivery.of,
                )
                return self._show(server, keys, delivery, new)

    def problems(self, schema: pa.Schema) -> Iterator[str]:
        """See `Sink.problems`."""
        for column in (self._export.key, self._export.value):
            if column not in schema.names:
                yield f"there is no column {column}; the columns are {', '.join(schema.names)}"
        if self._export.key in schema.names and (why := why_not_a_key(schema.field(self._export.key).type)):
            yield f"column {self._export.key} {why}"
        if self._export.ttl_hours < 2 * (hours := _hours_between(self._export)):
            yield (
                f"ttl_hours is {self._export.ttl_hours:g}, but up to {hours} hours lie between two exports; set it to "
                f"{2 * hours} or more, so that readers keep a list when one export fails"
            )
        try:
            with connected(self._url) as server:
                yield from self._problems_of(server)
        except (SinkError, SinkRefusedError) as error:
            yield str(error)

    def _write(self, server: RedisServer, keys: Keys, delivery: Delivery) -> int:
        """Write and count the keys of a delivery, or remove them; return the number of rows."""
        rows = 0

        def counted() -> Iterator[pa.RecordBatch]:
            nonlocal rows
            for batch in delivery.read():
                rows += batch.num_rows
                yield batch

        with _removed_on_failure(keys):
            written = sum(keys.write(*entry) for entry in entries(counted(), self._export))
            if self._export.form == "single" and written < keys.sent:
                raise SinkRefusedError(
                    f"{keys.sent - written:,} rows have the {self._export.key} of another row, but form: single wants "
                    "one row per key; set form: list, or select the rows with where"
                )
            if (found := keys.count()) != keys.sent:
                raise RowsLostError(
                    f"{self.address}: {found:,} of {keys.sent:,} keys are there after all were written; nothing was "
                    f"switched to. {_lost_by(server)}"
                )
        return rows

    def _show(self, server: RedisServer, keys: Keys, delivery: Delivery, new: ShownDay) -> Delivered:
        """Switch to the new keys, unless the delivery is refused by now: then remove them."""
        while True:
            with _removed_on_failure(keys):
                text, shown = self._shown(server, delivery.day)
            if shown and (outcome := _refused(delivery, shown, _now(server))):
                keys.remove()
                return self._delivered(outcome, shown)
            try:
                is_switched = _switch(server, self._days, self._current, text, new)
            except (SinkError, SinkRefusedError):
                if server.was_answered:  # otherwise it may have switched
                    keys.remove()
                raise
            if is_switched:
                return self._delivered("exported", new, new.bytes)

    def _shown(self, server: RedisServer, day: str) -> tuple[str, ShownDay | None]:
        """The marker of a day, as it stands in Redis and as it is read."""
        text = (server.ask("HGET", self._days, day) or b"").decode(errors="replace")
        try:
            return text, ShownDay.model_validate_json(text) if text else None
        except ValidationError as error:
            raise SinkRefusedError(
                f"{self.address}: field {day} of {self._days} is not a marker of an export "
                f"({error.errors()[0]['msg']}); remove it, or choose another prefix"
            ) from error

    def _check_owner(self, server: RedisServer, delivery: Delivery) -> None:
        """Refuse to share the prefix: one export would take the other's versions for its own."""
        owner = (server.ask("HGET", self._current, "owner") or b"").decode(errors="replace")
        if owner and owner != _owner(delivery):
            raise SinkRefusedError(
                f"{self.address}: the prefix {self._export.prefix} is used by the export {owner}; choose another "
                f"prefix for {_owner(delivery)}; if that export is no more, remove {self._current} and {self._days}"
            )

    def _delivered(self, outcome: Outcome, shown: ShownDay, size: int = 0) -> Delivered:
        return Delivered(outcome, shown.marker, size, (f"{self.address} {shown.prefix}*",))

    def _problems_of(self, server: RedisServer) -> Iterator[str]:
        """What the server says against it."""
        self._try(server)
        memory = server.info("memory")
        most, policy = int(memory.get("maxmemory", 0)), memory.get("maxmemory_policy", _KEEPS_ALL)
        if most and policy != _KEEPS_ALL:
            yield (
                f"{self.address}: maxmemory-policy is {policy}, which removes keys without an error when memory is "
                f"full; set it to {_KEEPS_ALL}, or export to a Redis of its own"
            )
        last = server.ask("HGET", self._current, "bytes")
        free, needed = most - int(memory.get("used_memory", 0)), _OVERHEAD * int(last or 0)
        if most and free < needed:
            yield (
                f"{self.address}: {free / 2**20:,.0f} MiB of maxmemory are free, but the next version needs about "
                f"{needed / 2**20:,.0f} MiB beside the ones before; raise maxmemory, or lower ttl_hours"
            )

    def _try(self, server: RedisServer) -> None:
        """Do all that an export does, with keys that are removed."""
        now, probe = _now(server), f"{self._export.prefix}:probe-{secrets.token_hex(4)}:"
        new = ShownDay(
            owner="",
            day="",
            prefix=probe,
            created=0,
            transaction=0,
            rows=0,
            keys=0,
            bytes=0,
            run_id="",
            exported_at=now,
            expires_at=now,
        )
        hashes = (f"{probe}days", f"{probe}current")
        keys = Keys(server, probe, 60, io.BytesIO())
        try:
            keys.write(*(pa.array([text], pa.large_string()) for text in ("key", "value")))
            keys.count()
            _switch(server, *hashes, "", new)
        finally:
            server.ask("UNLINK", f"{probe}key", *hashes)


def _switch(server: RedisServer, days: str, current: str, compared: str, new: ShownDay) -> bool:
    """Show a day, in one step, if its marker still is the one that was compared."""
    marker = new.model_dump_json()
    return bool(server.ask("EVAL", _SWITCH, 2, days, current, new.day, compared, marker, *new.fields))


def _owner(delivery: Delivery) -> str:
    return f"{delivery.pipeline}.{delivery.export}"


def _refused(delivery: Delivery, shown: ShownDay, now: datetime) -> Outcome | None:
    """Why a delivery is not shown; one whose keys have vanished may come again, unless what was exported is to stay."""
    is_other = shown.marker.version == delivery.version or delivery.is_of_another_step(shown.marker)
    if shown.expires_at <= now and is_other and delivery.replaces != "nothing":
        return None
    return delivery.refused(shown.marker)


@contextlib.contextmanager
def _removed_on_failure(keys: Keys) -> Iterator[None]:
    try:
        yield
    except BaseException:
        keys.remove()
        raise


def _now(server: RedisServer) -> datetime:
    seconds, microseconds = map(int, server.ask("TIME"))
    return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)


def _lost_by(server: RedisServer) -> str:
    """The likely reason why keys are missing."""
    with contextlib.suppress(SinkError, SinkRefusedError):
        policy = server.info("memory").get("maxmemory_policy", "")
        if policy not in ("", _KEEPS_ALL):
            return (
                f"Its maxmemory-policy is {policy}, which removes keys when memory is full; set it to {_KEEPS_ALL} and "
                "raise maxmemory, or export to a Redis of its own"
            )
    return "Somebody else has removed keys, or it was emptied; export again"


def _hours_between(export: RedisExport) -> int:
    """Longest time between two exports."""
    days = sorted(map(_WEEK.index, export.days)) or list(range(7))
    return 24 * max((after - day) % 7 or 7 for day, after in zip(days, [*days[1:], days[0]], strict=True))
