from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_scoring import keys
from batch_scoring.keys import KeyIndex, hash64, identity, mix64, row_identity

Hash = Callable[[pa.Array], np.ndarray]
TEXT = st.text(max_size=6)
BATCHES = st.lists(
    st.lists(st.sampled_from(["", "a", "b", "c", "aa", "ab", "ü", "日本", "a\nb", "k0", "k1"]), max_size=8)
)
QUICK = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

HASHES: dict[str, Hash] = {
    "as they are": hash64,
    "all equal": lambda values: np.zeros(len(values), np.uint64),
    "one bit": lambda values: hash64(values) % np.uint64(2),
    "two bits": lambda values: hash64(values) % np.uint64(4),
    "two bits of the upper half": lambda values: hash64(values) << np.uint64(62),
    "lower halves": lambda values: hash64(values) & np.uint64(2**32 - 1),
}
"""The hash itself, and others that collide almost always."""


def first_times(batches: list[list[object]]) -> list[list[bool]]:
    seen: set[object] = set()
    answers = []
    for batch in batches:
        answers.append([not (key in seen or seen.add(key)) for key in batch])
    return answers


@pytest.mark.parametrize("hashes", HASHES)
@given(batches=BATCHES)
@QUICK
def test_an_index_answers_as_a_set_does(monkeypatch: pytest.MonkeyPatch, hashes: str, batches: list[list[str]]) -> None:
    monkeypatch.setattr(keys, "hash64", HASHES[hashes])
    index, known = KeyIndex(), set[str]()
    for batch, expected in zip(batches, first_times(batches), strict=True):  # type: ignore[arg-type]
        array = pa.array(batch, pa.string())
        assert index.seen(array).tolist() == [key in known for key in batch]
        assert index.add(array).tolist() == expected
        known |= set(batch)
        assert len(index) == len(known)
        assert index.seen(array).all()
        assert not index.add(array).any()


@given(batches=st.lists(st.lists(st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1), max_size=8)))
@QUICK
def test_integer_keys_are_told_apart(batches: list[list[int]]) -> None:
    index = KeyIndex()
    found = [index.add(pa.array(batch, pa.int64())).tolist() for batch in batches]
    assert found == first_times(batches)  # type: ignore[arg-type]


def test_many_batches_of_keys_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_LEAST_BITS", 6)
    index = KeyIndex()
    for start in range(0, 50_000, 1000):
        batch = pa.array([f"k{n}" for n in range(start, start + 1500)])  # the last 500 come again in the next
        assert index.add(batch).tolist() == [start == 0 or n >= start + 500 for n in range(start, start + 1500)]
    assert len(index) == 50_500
    assert not index.seen(pa.array(["k50500", "x"])).any()


def test_keys_with_equal_halves_of_their_hashes_are_told_apart_in_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """As some of a hundred million have: runs of any size hold several of them, in no order of the keys."""
    monkeypatch.setattr(keys, "hash64", lambda values: hash64(values) & np.uint64(0x1F_0000_0000 | 2**32 - 1))
    index, known = KeyIndex(), set[str]()
    for seed in range(12):
        batch = [f"k{n}" for n in np.random.default_rng(seed).integers(0, 900, 10 + 20 * (seed % 4))]
        expected = first_times([list(known), batch])[1]  # type: ignore[list-item]
        assert index.add(pa.array(batch)).tolist() == expected
        known |= set(batch)
    assert index.seen(pa.array(["k901", *known])).tolist() == [False] + [True] * len(known)
    assert index.identity == identity(keys.hash64(pa.array(sorted(known))))


def test_no_more_keys_are_taken_than_positions_can_name() -> None:
    index = KeyIndex()
    index._held = 2**32 - 3
    assert index.add(pa.array(["a", "b", "b"])).tolist() == [True, True, False]
    with pytest.raises(OverflowError, match=r"more than 4,294,967,295 keys in one day; expected fewer: split the day"):
        index.add(pa.array(["c"]))


@given(values=st.lists(TEXT, min_size=1, max_size=20))
@QUICK
def test_a_hash_depends_on_the_key_alone(values: list[str]) -> None:
    hashes = hash64(pa.array(values))
    alone = [hash64(pa.array([value]))[0] for value in values]
    assert hashes.tolist() == alone
    padded = pa.array(["front", *values, "back"])
    assert hash64(padded.slice(1, len(values))).tolist() == alone
    assert hash64(pa.array(values).dictionary_encode()).tolist() == alone
    assert hash64(pa.array(values, pa.large_string())).tolist() == alone
    assert len(set(hashes.tolist())) == len(set(values))


def test_a_hash_is_the_same_in_every_process() -> None:
    assert hash64(pa.array(["", "a", "ü", "a" * 5000])).tolist() == [
        16294208416658607535, 2106293278287090, 16148916765659545268, 18342431870269048941,
    ]  # fmt: skip
    assert hash64(pa.array([0, 1, -1])).tolist() == [16294208416658607535, 10451216379200822465, 16490336266968443936]


def test_keys_without_any_text_have_hashes() -> None:
    assert hash64(pa.array([], pa.string())).tolist() == []
    assert len(set(hash64(pa.array(["", ""])).tolist())) == 1


@given(numbers=st.lists(st.integers(0, 2**64 - 1), max_size=50, unique=True))
@QUICK
def test_mixing_is_a_bijection(numbers: list[int]) -> None:
    mixed = mix64(np.array(numbers, np.uint64))
    assert len(set(mixed.tolist())) == len(numbers)


@given(rows=st.lists(st.integers(1, 10**6), min_size=1, max_size=30, unique=True), chosen=st.randoms())
@QUICK
def test_an_identity_is_of_the_rows_in_any_order_and_tells_a_lost_or_doubled_one(
    rows: list[int], chosen: object
) -> None:
    whole = row_identity(np.array(rows))
    shuffled = rows.copy()
    chosen.shuffle(shuffled)  # type: ignore[attr-defined]
    assert row_identity(np.array(shuffled)) == whole
    half = len(rows) // 2
    parts = row_identity(np.array(rows[:half], np.int64)) + row_identity(np.array(rows[half:], np.int64))
    assert parts % 2**64 == whole
    assert row_identity(np.array(rows[1:], np.int64)) != whole
    assert row_identity(np.array([*rows, rows[0]])) != whole
    assert identity(np.array([], np.uint64)) == 0
