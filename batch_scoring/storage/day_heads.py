"""The heads of a day's documents: what says how the day stands, without its shards and files.

A document grows with its day, to a megabyte for a thousand shards. Who looks at many days, again and again, keeps
their heads.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from pydantic import model_validator

from batch_scoring.storage.shards import digest
from batch_scoring.storage.state import Document

HEAD_BYTES = 1024
"""Size of a head in memory, about."""


class InputHead(Document):
    """The head of a day's pinned input."""

    day: str
    fingerprint: str
    pinned_at: datetime


class PublishedHead(Document):
    """The head of what a step published for a day."""

    day: str
    finished_at: datetime
    fingerprint: str
    followed_by: tuple[str, ...] = ()
    identity: str
    """Digest of its shards' digests, by which decisions name the predictions that they were made from."""
    source: str | None
    """What all of its shards were made from: of decisions, the identity of predictions. Empty if that differs, None
    without any shard."""

    def is_of(self, other: "PublishedHead") -> bool:
        """Whether these decisions were made from those predictions."""
        return self.source in (None, other.identity)

    @model_validator(mode="before")
    @classmethod
    def _without_shards(cls, content: Any) -> Any:  # noqa: ANN401  (whatever JSON holds)
        if not isinstance(content, Mapping) or not isinstance(content.get("shards"), list):
            raise ValueError("there is no list of shards")
        try:
            identity = identity_of(shard["digest"] for shard in content["shards"])
            sources = {shard["source"] for shard in content["shards"]}
        except (TypeError, KeyError) as error:
            raise ValueError("a shard has no digest or no source") from error
        one = next(iter(sources), None)
        return {**content, "identity": identity, "source": "" if len(sources) > 1 else one}


def identity_of(digests: Iterable[str]) -> str:
    """Digest that identifies what a step published, by the digests of its shards."""
    return digest(*digests)
