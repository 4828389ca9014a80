"""Which keys of a day have been seen: 64-bit hashes in sorted runs, equal ones compared in full.

About 30 bytes a key, no Python object a key. The same hash sums up row identities in the shards' accounts.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_LONGEST = 4096
"""Bytes of a key that weigh differently; beyond that equal hashes are likelier, and still compared in full."""

with np.errstate(over="ignore"):
    _WEIGHTS = np.cumprod(np.full(_LONGEST, 0x9E3779B97F4A7C15, np.uint64))


def hash64(keys: pa.Array) -> np.ndarray:
    """uint64[rows]: a hash of each key, the same in every process. The keys hold no nulls."""
    if pa.types.is_dictionary(keys.type):
        return hash64(keys.dictionary)[keys.indices.to_numpy()]
    if pa.types.is_integer(keys.type):
        return mix64(keys.cast(pa.int64(), safe=False).to_numpy().view(np.uint64))
    text = keys.cast(pa.large_string())
    offsets = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]
    lengths = np.diff(offsets)
    if not len(text) or offsets[0] == offsets[-1]:
        return mix64(np.zeros(len(text), np.uint64))
    data = np.frombuffer(text.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    length = int(lengths[0])
    if 0 < length <= _LONGEST and (lengths == length).all():  # the usual case, ten times faster column by column
        table = data.reshape(len(text), length)
        with np.errstate(over="ignore"):
            total = np.full(len(text), _WEIGHTS[:length].sum() + np.uint64(length), np.uint64)
            for place in range(length):
                total += table[:, place] * _WEIGHTS[place]
        return mix64(total)
    places = np.arange(len(data)) - np.repeat(offsets[:-1] - offsets[0], lengths)
    with np.errstate(over="ignore"):
        weighed = (data.astype(np.uint64) + np.uint64(1)) * _WEIGHTS[places % _LONGEST]
        sums = np.zeros(len(text), np.uint64)
        filled = np.flatnonzero(lengths)  # reduceat has no empty segments
        sums[filled] = np.add.reduceat(weighed, (offsets[:-1] - offsets[0])[filled])
        return mix64(sums + lengths.astype(np.uint64))


def mix64(values: np.ndarray) -> np.ndarray:
    """uint64[rows]: the finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014), a bijection."""
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))


def identity(hashes: np.ndarray) -> int:
    """The sum of hashes modulo 2**64: equal for equal multisets of rows, in any order."""
    return int(hashes.sum(dtype=np.uint64))


def row_identity(rows: np.ndarray) -> int:
    """`identity` of row numbers."""
    return identity(mix64(rows.astype(np.uint64)))


class KeyIndex:
    """The keys seen so far."""

    def __init__(self) -> None:
        self._runs: list[tuple[np.ndarray, np.ndarray]] = []  # sorted hashes, and the position of each in the keys
        self._keys: list[pa.Array] = []
        self._held = 0  # how many
        self.identity = 0
        """Sum of the hashes of all keys seen, modulo 2**64."""
        self._colliding: set[object] = set()  # keys whose hash another key holds

    def __len__(self) -> int:
        """Distinct keys seen."""
        return self._held + len(self._colliding)

    def add(self, keys: pa.Array) -> np.ndarray:
        """bool[rows]: whether each key comes for the first time, here and in this batch. They are seen from now on."""
        if not len(keys):
            return np.zeros(0, bool)
        hashes = hash64(keys)
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        leads = np.ones(len(keys), bool)
        leads[1:] = ordered[1:] != ordered[:-1]
        leads &= self._holders(ordered) < 0
        first = np.zeros(len(keys), bool)
        first[order[leads]] = True  # a stable sort: the first row of each hash
        if first.all():
            self._insert(ordered, order, keys)
        elif first.any():
            place_among_added = np.cumsum(first) - 1
            added = pa.array(np.flatnonzero(first))
            self._insert(ordered[leads], place_among_added[order[leads]], keys.take(added))
        repeated = np.flatnonzero(~first)
        if len(repeated):
            first[repeated] = ~self._equal(keys.take(pa.array(repeated)), hashes[repeated], remember=True)
        self.identity = (self.identity + identity(hashes if first.all() else hashes[first])) % 2**64
        return first

    def seen(self, keys: pa.Array) -> np.ndarray:
        """bool[rows]: whether each key has been seen before."""
        hashes = hash64(keys)
        found = self._holders(hashes) >= 0
        places = np.flatnonzero(found)
        if len(places):
            found[places] = self._equal(keys.take(pa.array(places)), hashes[places], remember=False)
        return found

    def _equal(self, keys: pa.Array, hashes: np.ndarray, *, remember: bool) -> np.ndarray:
        """Compare keys in full with the holders of their hashes."""
        held = pa.chunked_array(self._keys).take(pa.array(self._holders(hashes)))
        same = pc.equal(held.combine_chunks(), keys).to_numpy(zero_copy_only=False).copy()
        for place in np.flatnonzero(~same):  # two keys, one hash: rare enough for Python objects
            key = keys[int(place)].as_py()
            same[place] = key in self._colliding
            if remember:
                self._colliding.add(key)
        return same

    def _holders(self, hashes: np.ndarray) -> np.ndarray:
        """int64[rows]: the position of the key that holds each hash, or -1. Sorted hashes are found much faster."""
        holders = np.full(len(hashes), -1, np.int64)
        for run, positions in self._runs:
            places = np.minimum(np.searchsorted(run, hashes), len(run) - 1)
            found = run[places] == hashes
            holders[found] = positions[places[found]]
        return holders

    def _insert(self, hashes: np.ndarray, positions: np.ndarray, keys: pa.Array) -> None:
        """Remember keys; `hashes`: theirs, sorted, `positions`: where among the keys each of them stands."""
        run = hashes, positions + self._held
        while self._runs and len(self._runs[-1][0]) <= 2 * len(run[0]):  # merge equals: log(n) runs
            last = self._runs.pop()
            merged, where = (np.concatenate(pair) for pair in zip(last, run, strict=True))
            order = np.argsort(merged, kind="stable")
            run = merged[order], where[order]
        self._runs.append(run)
        self._keys.append(keys)
        self._held += len(keys)
