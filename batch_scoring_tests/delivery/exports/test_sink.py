"""The protocol of sinks."""

import random
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from batch_scoring.delivery.exports.files import FileSink
from batch_scoring.delivery.exports.sink import Delivery, Marker, Outcome, Replaces, Sink, Version


def test_versions_are_ordered_by_their_table_and_then_by_their_transaction() -> None:
    expected = [Version(1, 1), Version(1, 2), Version(1, 10), Version(2, 1), Version(10, 1)]
    shuffled = random.Random(0).sample(expected, len(expected))
    assert sorted(shuffled) == expected


def test_an_address_tells_no_password() -> None:
    sinks: list[Sink] = [FileSink("/lists/calls_{day}.csv")]
    assert [sink.address for sink in sinks] == ["/lists/calls_{day}.csv"]


@pytest.mark.parametrize("replaces", ["nothing", "older", "same"])
@pytest.mark.parametrize("version", [Version(1, 1), Version(2, 2), Version(3, 1)])
def test_versions_of_two_steps_are_not_compared(replaces: Replaces, version: Version) -> None:
    """Each step has a table of its own: an export that changed from one to the other would stand still for ever."""

    def refused(shown: str, of: str) -> Outcome | None:
        marker = Marker(Version(2, 2), 3, "run", datetime.now(UTC), shown)
        schema = pa.schema([("id", pa.int64())])
        delivery = Delivery("p", "e", "2024-01-01", version, "run", schema, lambda: iter(()), replaces, of)
        return delivery.refused(marker)

    assert refused("decisions", "predictions") is None
    compared = refused("predictions", "predictions")
    assert refused("", "predictions") == refused("predictions", "") == compared, "a marker from before"
    assert (compared is None) == (
        (version > (2, 2) and replaces != "nothing") or (version == (2, 2) and replaces == "same")
    )
