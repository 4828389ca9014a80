"""A hash with secret weights: of the key alone, and different for different keys of any length."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_scoring.ingest.seeded_hash import SeededHash


@given(
    values=st.lists(st.text(max_size=6) | st.text("ab", max_size=12), min_size=1, max_size=20),
    kind=st.sampled_from(["text", "int"]),
)
@settings(max_examples=80, deadline=None)
def test_a_seeded_hash_depends_on_the_key_alone(values: list[str], kind: str) -> None:
    hashed = SeededHash()
    cells = values if kind == "text" else [hash(value) for value in values]
    hashes = hashed(pa.array(cells))
    assert hashes.tolist() == [hashed(pa.array([cell]))[0] for cell in cells]
    assert hashed(pa.array([cells[0], *cells, cells[0]]).slice(1, len(cells))).tolist() == hashes.tolist()
    assert hashed(pa.array(cells).dictionary_encode()).tolist() == hashes.tolist()
    assert len(set((hashes >> np.uint64(31)).tolist())) == len(set(cells))


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 4095, 4096, 4097, 5001])
def test_a_seeded_hash_tells_apart_keys_of_any_length(length: int) -> None:
    hashed = SeededHash()
    variants = ["a" * length, "a" * length + "\0", "\0" + "a" * length]
    variants += ["a" * place + "b" + "a" * (length - place - 1) for place in {0, length // 2, length - 1} if length]
    assert len({hash_ >> 32 for hash_ in hashed(pa.array(variants)).tolist()}) == len(set(variants))
    assert hashed(pa.array(variants[:1])).tolist() == hashed(pa.array(variants))[:1].tolist(), "alone or among others"
    assert hashed(pa.array(variants)).tolist() != SeededHash()(pa.array(variants)).tolist(), "each has its own weights"
