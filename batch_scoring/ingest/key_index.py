"""An index of the keys seen in a day: half of each 64-bit hash, with full comparison of keys whose halves match.

It needs 10 to 12 bytes per key in addition to the key itself (up to 24 while runs are merged), and no Python object per
key. The index hashes with a random seed, so that nobody can construct colliding keys; the hashes that are summed into
row identities in the shard statistics are the same in every process.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.ingest.seeded_hash import SeededHash

_LONGEST = 4096
"""Bytes of a key that have weights of their own."""

_HALF = np.uint64(32)
_UPPER, _LOWER = np.uint64(0xFFFFFFFF00000000), np.uint64(0x00000000FFFFFFFF)

_AT_ONCE = 65_536
"""Hashes processed at a time, so that intermediate results stay in the cache."""

_LEAST_BITS = 20
"""Initial size, as a power of two, of the bit table: 128 KB, enough for 65,536 keys."""

with np.errstate(over="ignore"):
    _WEIGHTS = np.cumprod(np.full(_LONGEST, 0x9E3779B97F4A7C15, np.uint64))


def hash64(keys: pa.Array) -> np.ndarray:
    """uint64[rows]: a hash of each key, the same in every process. The keys must not contain nulls."""
    if pa.types.is_dictionary(keys.type):
        hashes: np.ndarray = hash64(keys.dictionary)[keys.indices.to_numpy()]
        return hashes
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
        filled = np.flatnonzero(lengths)  # reduceat does not support empty segments
        sums[filled] = np.add.reduceat(weighed, (offsets[:-1] - offsets[0])[filled])
        return mix64(sums + lengths.astype(np.uint64))


def mix64(values: np.ndarray) -> np.ndarray:
    """uint64[rows]: the finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014), a bijection."""
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        values = values ^ (values >> np.uint64(31))
    return values


def identity(hashes: np.ndarray) -> int:
    """Return the sum of hashes modulo 2**64: equal for equal multisets of rows, in any order."""
    return int(hashes.sum(dtype=np.uint64))


def row_identity(rows: np.ndarray) -> int:
    """Return the `identity` of row numbers."""
    return identity(mix64(rows.astype(np.uint64)))


class KeyIndex:
    """An index of the keys seen so far.

    Each entry is one integer: the upper half of the key's hash, then its position among the keys. Entries are kept in
    sorted runs, which are merged when they are of similar size. A table with one bit per hash prefix first identifies
    keys that are certainly new, which nearly all are; the others are looked up and compared in full with the keys that
    have the same upper half.
    """

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []
        self._keys: list[pa.Array] = []
        self._starts: list[int] = []  # position of the first key of each batch
        self._held = 0  # number of keys held
        self._bits = _Bits(_LEAST_BITS)
        self._hash = SeededHash()

    def __len__(self) -> int:
        """Number of distinct keys seen."""
        return self._held

    def add(self, keys: pa.Array) -> np.ndarray:
        """bool[rows]: whether each key appears for the first time, in this batch and all before; remember it.

        Raises:
            OverflowError: there are more keys than positions.
        """
        hashes = self._hash(keys)
        ordered = np.sort((hashes & _UPPER) | np.arange(len(keys), dtype=np.uint64))
        rows = (ordered & _LOWER).astype(np.int64)
        doubtful = self._bits.has(ordered)
        alike = ordered[1:] >> _HALF == ordered[:-1] >> _HALF
        doubtful[1:] |= alike
        doubtful[:-1] |= alike
        first = np.ones(len(keys), bool)
        if doubtful.any():
            suspects = rows[doubtful]
            some = keys.take(pa.array(suspects))
            first[suspects] = _first_of_each(some, hashes[suspects]) & ~self._holds(some, hashes[suspects])
        self._insert(ordered, rows, first, keys)
        return first

    def seen(self, keys: pa.Array) -> np.ndarray:
        """bool[rows]: whether each key was seen in an earlier batch."""
        hashes = self._hash(keys)
        found = self._bits.has(hashes)
        suspects = np.flatnonzero(found)
        found[suspects] = self._holds(keys.take(pa.array(suspects)), hashes[suspects])
        return found

    def _holds(self, keys: pa.Array, hashes: np.ndarray) -> np.ndarray:
        """bool[rows]: whether each key is in the index, compared in full with all keys with the same upper half."""
        held = np.zeros(len(keys), bool)
        order = np.argsort(hashes)  # sorted hashes are found much faster
        for run in self._runs:
            rows = order[~held[order]]
            places = np.searchsorted(run, hashes[rows] & _UPPER)
            while True:
                found = run[np.minimum(places, len(run) - 1)]
                alike = (found >> _HALF == hashes[rows] >> _HALF) & (places < len(run))
                if not alike.any():
                    break
                rows, places = rows[alike], places[alike]
                same = self._equal(keys.take(pa.array(rows)), (found[alike] & _LOWER).astype(np.int64))
                held[rows[same]] = True
                rows, places = rows[~same], places[~same] + 1
        return held

    def _equal(self, keys: pa.Array, positions: np.ndarray) -> np.ndarray:
        """bool[rows]: whether each key equals the key stored at its position."""
        same = np.zeros(len(keys), bool)
        batches = np.searchsorted(self._starts, positions, side="right") - 1
        for batch in np.unique(batches):  # Arrow would first copy all batches into one
            rows = np.flatnonzero(batches == batch)
            held = self._keys[batch].take(pa.array(positions[rows] - self._starts[batch]))
            same[rows] = pc.equal(held, keys.take(pa.array(rows))).to_numpy(zero_copy_only=False)
        return same

    def _insert(self, ordered: np.ndarray, rows: np.ndarray, first: np.ndarray, keys: pa.Array) -> None:
        """Remember keys that appear for the first time; `ordered`: half hashes combined with row numbers, sorted."""
        if not first.all():
            ordered, rows = ordered[first[rows]], (np.cumsum(first) - 1)[rows[first[rows]]]
            keys = keys.filter(pa.array(first))
        if not len(keys):
            return
        if self._held + len(keys) > _LOWER:
            raise OverflowError(f"more than {_LOWER:,} keys in one day; expected fewer: split the day's table in two")
        run = (ordered & _UPPER) | (rows + self._held).astype(np.uint64)
        while self._runs and len(self._runs[-1]) <= 2 * len(run):  # merge runs of similar size: log(n) runs remain
            run = np.concatenate([self._runs.pop(), run])
            run.sort(kind="stable")  # merges the two sorted halves
        self._runs.append(run)
        self._keys.append(keys)
        self._starts.append(self._held)
        self._held += len(keys)
        if self._bits.are_few_for(self._held):
            self._bits = _Bits(self._bits.exponent + 1)
            for each in self._runs:
                self._bits.set(each)
        else:
            self._bits.set(ordered)


class _Bits:
    """One bit per hash prefix: if it is not set, no key with this prefix has been seen."""

    def __init__(self, exponent: int) -> None:
        self.exponent = exponent
        self._bytes = np.zeros(2 ** (exponent - 3), np.uint8)

    def are_few_for(self, keys: int) -> bool:
        """Whether more than a sixteenth of the bits is set, and half a hash has room for a larger table."""
        return 16 * keys > 2**self.exponent and self.exponent < int(_HALF)

    def has(self, hashes: np.ndarray) -> np.ndarray:
        """bool[rows]: whether each bit is set. Sorted hashes access memory sequentially, which is faster."""
        place = hashes >> np.uint64(64 - self.exponent)
        bit: np.ndarray = self._bytes[place >> np.uint64(3)] >> (place & np.uint64(7)).astype(np.uint8)
        return (bit & np.uint8(1)).astype(bool)

    def set(self, hashes: np.ndarray) -> None:
        """Set the bit of each hash."""
        for start in range(0, len(hashes), _AT_ONCE):
            place = hashes[start : start + _AT_ONCE] >> np.uint64(64 - self.exponent)
            np.bitwise_or.at(self._bytes, place >> np.uint64(3), np.uint8(1) << (place & np.uint64(7)).astype(np.uint8))


def _first_of_each(keys: pa.Array, hashes: np.ndarray) -> np.ndarray:
    """bool[rows]: whether no earlier row has the same key; the rows are sorted by the upper half of their hashes.

    Arrow's own dictionary encoding is not used because its hash has no seed.
    """
    first = np.zeros(len(keys), bool)
    order, halves = np.arange(len(keys)), hashes >> _HALF
    while len(order):
        leads = np.ones(len(order), bool)
        leads[1:] = halves[order[1:]] != halves[order[:-1]]
        leaders = order[leads]
        first[leaders] = True
        order, alike = order[~leads], leaders[np.cumsum(leads) - 1][~leads]
        same = pc.equal(keys.take(pa.array(order)), keys.take(pa.array(alike))).to_numpy(zero_copy_only=False)
        order = order[~same]
    return first
