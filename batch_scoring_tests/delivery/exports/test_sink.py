"""The protocol of sinks."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from batch_scoring.delivery.exports.files import FileSink
from batch_scoring.delivery.exports.sink import Marker, Outcome, Replaces, Sink, Version
from batch_scoring_tests.deliveries import delivery_of


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

    def refused(shown: str, of: str, instead_of: Marker | None = None) -> Outcome | None:
        delivery = delivery_of(pa.table({"id": [1]}), "2024-01-01", replaces=replaces, of=of, instead_of=instead_of)
        return replace(delivery, version=version).refused(replace(marker, of=shown))

    marker = Marker(Version(2, 2), 3, "run", datetime.now(UTC), "decisions")
    stays = replaces == "nothing"
    assert refused("decisions", "predictions", marker) == ("kept" if stays else None)
    assert refused("decisions", "decisions", marker) == ("kept" if stays else None), "it was about to be replaced"
    later = replace(marker, exported_at=marker.exported_at + timedelta(seconds=1))
    for found in (None, later):
        assert refused("decisions", "predictions", found) == ("kept" if stays else "superseded"), "it came meanwhile"
    compared = refused("predictions", "predictions")
    assert refused("", "predictions") == refused("predictions", "") == compared, "a marker from before"
    assert (compared is None) == (
        (version > (2, 2) and replaces != "nothing") or (version == (2, 2) and replaces == "same")
    )
