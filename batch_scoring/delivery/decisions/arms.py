"""Arms of an action, and the order of rows with equal scores: both from the md5 of `<salt>:<key>`.

md5 gives the same digits everywhere, so an analyst can compute the arm of a key in SQL, for example in PostgreSQL:

    ('x' || substr(md5(salt || ':' || key), 1, 8))::bit(32)::bigint < share * 4294967296

The order of equal scores uses other digits than the arm: otherwise the control group would stand first among them, and
be over-represented before a cap.
"""

import hashlib

import numpy as np
import pyarrow as pa

ARMS = ("treated", "control")
"""The names of the arms, by code."""

NO_ARM, TREATED, CONTROL = -1, 0, 1

_DIGEST = np.dtype([("arm", ">u4"), ("tie", ">u8"), ("rest", ">u4")])
"""The first 8 hexadecimal digits, and the next 16."""

_AT_ONCE = 65_536
"""Keys that are Python objects at the same time."""


def as_text(keys: pa.Array) -> pa.Array:
    """large_string[rows]: keys as they are hashed, whatever their type."""
    if pa.types.is_dictionary(keys.type):
        keys = keys.dictionary_decode()
    return keys.cast(pa.large_string())


def digests(keys: pa.Array, salt: str) -> np.ndarray:
    """Return the digest of each key: `arm`, an integer below 2**32, and `tie`, which orders equal scores."""
    found = np.empty(len(keys), _DIGEST)
    prefix = f"{salt}:".encode()
    for start in range(0, len(keys), _AT_ONCE):
        texts = as_text(keys[start : start + _AT_ONCE]).cast(pa.large_binary()).to_pylist()
        joined = b"".join([hashlib.md5(prefix + text, usedforsecurity=False).digest() for text in texts])
        found[start : start + _AT_ONCE] = np.frombuffer(joined, _DIGEST)
    return found


def is_control(digest: np.ndarray, share: float) -> np.ndarray:
    """bool[rows]: whether a digest belongs to the control group, for a hold-out of this share."""
    below: np.ndarray = digest["arm"] < share * 2**32
    return below
