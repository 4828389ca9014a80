"""A hash of keys with a random seed, so that nobody can construct keys that collide.

Multilinear hashing with secret random weights (Lemire and Kaser, "Strongly universal string hashing is fast", The
Computer Journal 57, 2014): the upper 32 bits of w + sum(w_i * x_i) modulo 2**64, over 32-bit characters x_i, are
strongly universal, so any two different keys collide with probability 2**-32, even if chosen by an attacker. The lower
bits carry no such guarantee. Hashes differ between processes: use `key_index.hash64` for anything that is stored.
"""

import hashlib
import os

import numpy as np
import pyarrow as pa

_LONGEST = 4096
"""Bytes of a key that have weights of their own; a longer key costs more than a cryptographic hash."""

_CHARACTER = 4
"""Bytes of a key that are multiplied at a time."""

_ROWS_AT_ONCE = 32_768
"""Rows whose sums stay in the cache."""

_U64 = np.uint64


class SeededHash:
    """A hash function with its own random weights."""

    def __init__(self) -> None:
        self._seed = os.urandom(16)
        start, length, *weights = np.frombuffer(os.urandom(8 * (2 + _LONGEST // _CHARACTER)), _U64)
        self._start, self._length, self._weights = start, length, np.array(weights)

    def __call__(self, keys: pa.Array) -> np.ndarray:
        """uint64[rows]: equal for equal keys; use the upper 32 bits to compare. The keys must not contain nulls."""
        if pa.types.is_dictionary(keys.type):
            hashes: np.ndarray = self(keys.dictionary)[keys.indices.to_numpy()]
            return hashes
        with np.errstate(over="ignore"):
            if pa.types.is_integer(keys.type):
                return self._of_integers(keys.cast(pa.int64(), safe=False).to_numpy().view(_U64))
            return self._of_text(keys.cast(pa.large_string()))

    def _of_integers(self, values: np.ndarray) -> np.ndarray:
        low, high = self._weights[:2]
        hashes: np.ndarray = self._start + (values & _U64(2**32 - 1)) * low + (values >> _U64(32)) * high
        return hashes

    def _of_text(self, text: pa.Array) -> np.ndarray:
        offsets = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]
        lengths = np.diff(offsets)
        sums: np.ndarray = self._start + lengths.astype(_U64) * self._length
        if not len(text) or offsets[0] == offsets[-1]:
            return sums
        data = np.frombuffer(text.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
        length = int(lengths[0])
        if length <= _LONGEST and (lengths == length).all():  # the usual case, faster column by column
            for start in range(0, len(text), _ROWS_AT_ONCE):
                part = data[start * length : (start + _ROWS_AT_ONCE) * length].reshape(-1, length)
                self._add_columns(part, sums[start : start + _ROWS_AT_ONCE])
            return sums
        starts = offsets[:-1] - offsets[0]
        short = np.where(lengths <= _LONGEST, lengths, 0)
        padded = np.concatenate([data, np.zeros(_CHARACTER - 1, np.uint8)])
        anywhere = np.ndarray(len(data), "<u4", buffer=padded, strides=(1,))
        for start in range(0, len(text), _ROWS_AT_ONCE):
            stop = start + _ROWS_AT_ONCE
            self._add_characters(anywhere, starts[start:stop], short[start:stop], sums[start:stop])
        for row in np.flatnonzero(lengths > _LONGEST):
            key = data[starts[row] : starts[row] + lengths[row]]
            digest = hashlib.blake2b(key.tobytes(), digest_size=8, key=self._seed).digest()
            sums[row] = int.from_bytes(digest, "little")
        return sums

    def _add_columns(self, table: np.ndarray, sums: np.ndarray) -> None:
        """Add the characters of keys of equal length, uint8[rows, length]."""
        rows, length = table.shape
        whole, rest = divmod(length, _CHARACTER)
        characters = np.ndarray((rows, whole), "<u4", buffer=table, strides=(length, _CHARACTER))
        for place in range(whole):
            sums += characters[:, place] * self._weights[place]
        if rest:
            last = np.zeros((rows, _CHARACTER), np.uint8)
            last[:, :rest] = table[:, -rest:]
            sums += last.view("<u4")[:, 0] * self._weights[whole]

    def _add_characters(self, anywhere: np.ndarray, starts: np.ndarray, lengths: np.ndarray, sums: np.ndarray) -> None:
        """Add the characters of keys of any length; `anywhere`: the character that starts at each byte."""
        filled = np.flatnonzero(lengths)  # reduceat does not support empty segments
        starts, lengths = starts[filled], lengths[filled]
        if not len(filled):
            return
        counts = -(-lengths // _CHARACTER)
        ends = np.cumsum(counts)
        places = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
        characters = anywhere[np.repeat(starts, counts) + _CHARACTER * places].astype(_U64)
        beyond = (8 * (_CHARACTER * counts - lengths)).astype(_U64)  # bits of the last one that belong to the next key
        characters[ends - 1] &= _U64(2**32 - 1) >> beyond
        sums[filled] += np.add.reduceat(characters * self._weights[places], ends - counts)
