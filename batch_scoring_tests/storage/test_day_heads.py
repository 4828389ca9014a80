"""The heads of documents say what the documents say, and stay small."""

import pickle
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from batch_scoring.daily.freshness import are_of
from batch_scoring.storage.day_heads import HEAD_BYTES, InputHead, PublishedHead
from batch_scoring.storage.state import DayInput, LandingFile, PublishedDay, PublishedPart, ShardStats

NOW = datetime(2024, 3, 4, tzinfo=UTC)


def published(step: str, sources: list[str], digests: list[str] | None = None) -> PublishedDay:
    shards = [
        ShardStats(digest=digest, source=source, run_id="r", rows_in=1, rows=1)
        for digest, source in zip(
            digests or [f"{step} {number}" for number in range(len(sources))], sources, strict=True
        )
    ]
    fields: dict[str, Any] = {"pipeline": "p", "run_id": "r", "finished_at": NOW, "fingerprint": "f", "code": "c"}
    part = PublishedPart(transaction=1, version=1, files=("a.parquet",))
    return PublishedDay(
        day="2024-03-04", step=step, shards=tuple(shards), table=part, followed_by=("decisions",), **fields
    )


def head(of: PublishedDay) -> PublishedHead:
    return PublishedHead.model_validate_json(of.model_dump_json())


def test_a_head_says_what_its_document_says() -> None:
    whole = published("predictions", ["a", "b"])
    found = head(whole)
    assert (found.day, found.finished_at, found.fingerprint, found.followed_by) == (
        whole.day,
        whole.finished_at,
        whole.fingerprint,
        whole.followed_by,
    )


def test_decisions_are_of_predictions_by_their_heads_as_by_their_documents() -> None:
    predictions, others = published("predictions", ["a", "b"]), published("predictions", ["a", "b"], ["x", "y"])
    identity = head(predictions).identity
    candidates = [
        published("decisions", [identity]),
        published("decisions", [identity, identity]),
        published("decisions", [identity, "another"]),
        published("decisions", ["another"]),
        published("decisions", []),
    ]
    for decisions in candidates:
        for scored in (predictions, others):
            assert head(decisions).is_of(head(scored)) == are_of(decisions, scored)
    assert head(candidates[0]).is_of(head(predictions)) and not head(candidates[0]).is_of(head(others))


def test_a_head_of_thousands_of_shards_or_files_is_small() -> None:
    many = head(published("predictions", [f"{number:032}" for number in range(5_000)]))
    assert len(pickle.dumps(many)) < HEAD_BYTES
    files = tuple(
        LandingFile(path=f"{number}.csv", token="t", size=1, modified=NOW, rows=1, columns={"a": "int64"})
        for number in range(5_000)
    )
    pinned = DayInput(day="2024-03-04", fingerprint="f", files=files, run_id="r", pinned_at=NOW)
    found = InputHead.model_validate_json(pinned.model_dump_json())
    assert (found.day, found.fingerprint, found.pinned_at) == (pinned.day, pinned.fingerprint, pinned.pinned_at)
    assert len(pickle.dumps(found)) < HEAD_BYTES


@pytest.mark.parametrize("shards", ["1", "null", "[1]", '[{"digest": "a"}]', '["a"]', "{}"])
def test_a_damaged_document_has_no_head(shards: str) -> None:
    text = f'{{"day": "d", "finished_at": "2024-03-04T00:00:00Z", "fingerprint": "f", "shards": {shards}}}'
    with pytest.raises(ValidationError, match="shard"):
        PublishedHead.model_validate_json(text)
