"""The arm of a key: the same in Python, in any batch, and in the SQL that the guide gives to an analyst."""

import hashlib
import re
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from batch_scoring.config.delivery_spec import Decisions
from batch_scoring.delivery.decisions import arms
from batch_scoring.delivery.decisions.decide import decide
from benchmarks.side_by_side import PROJECT

if TYPE_CHECKING:
    from batch_scoring_tests.postgres_server import Server

GUIDE = PROJECT / "docs/guides/decisions.md"
WORDS = ("é", "ß", "字", "🙂", "a'b:c ", "")
KEYS = {
    "bigint": pa.array([0, 7, -3, 2**63 - 1, *range(10**12, 10**12 + 2_000)], pa.int64()),
    "text": pa.array([f"customer-{number:06d}" for number in range(2_000)]),
    "text in many scripts": pa.array([f"{word}{number}" for word in WORDS for number in range(300)]),
}


def of_the_guide(salt: str, share: float) -> str:
    """The guide's query, for another hold-out."""
    found = re.search(r"```sql\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert found
    query = found[1].replace("'calls-2026:'", f"'{salt}:'").replace("< 0.05 *", f"< {share} *")
    assert salt in query
    assert str(share) in query
    return query


def arms_of(keys: pa.Array, salt: str, share: float) -> dict[object, str]:
    """The arms that decisions give, if every row would get the action."""
    rows = pa.record_batch({"id": keys, "prob_class_1": np.ones(len(keys))})
    holdout = {"share": share, "salt": salt}
    day = decide([rows], Decisions.model_validate({"actions": {"call": {"holdout": holdout}}}), "id", rows.schema)
    return {key: arms.ARMS[arm] for key, arm in zip(keys.to_pylist(), day.arm.tolist(), strict=True)}


@pytest.mark.parametrize(("salt", "share"), [("calls-2026", 0.05), ("Zürich 字", 0.5), ("s", 0.123456789), ("s", 0.0)])
@pytest.mark.parametrize("kind", KEYS)
def test_postgresql_computes_the_same_arms(kind: str, salt: str, share: float, postgres: "Server") -> None:
    keys = KEYS[kind]
    values = ", ".join(f"($key${key}$key$::{kind.split()[0]})" for key in keys.to_pylist())
    customers = f"CREATE TABLE customers AS SELECT * FROM (VALUES {values}) AS _ (id)"

    found = dict(postgres.query(f"{customers}; {of_the_guide(salt, share)}"))

    assert found == arms_of(keys, salt, share)
    assert len(set(found.values())) == (2 if share else 1)


def test_digests_are_those_of_md5_and_arm_and_tie_are_other_digits() -> None:
    keys = pa.array(["a", "é", ""])

    found = arms.digests(keys, "s")

    digits = [hashlib.md5(f"s:{key}".encode()).hexdigest() for key in keys.to_pylist()]
    assert found["arm"].tolist() == [int(text[:8], 16) for text in digits]
    assert found["tie"].tolist() == [int(text[8:24], 16) for text in digits]


def test_keys_are_hashed_in_pieces_like_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = KEYS["text"]
    whole = arms.digests(keys, "s")

    monkeypatch.setattr(arms, "_AT_ONCE", 7)

    assert np.array_equal(arms.digests(keys, "s"), whole)
    assert np.array_equal(arms.digests(keys[5:], "s"), whole[5:])


def test_all_and_none_are_shares() -> None:
    digests = arms.digests(KEYS["bigint"], "s")

    assert not arms.is_control(digests, 0).any()
    assert arms.is_control(digests, 1).all()
