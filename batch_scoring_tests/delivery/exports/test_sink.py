"""The protocol of sinks."""

import random

from batch_scoring.delivery.exports.files import FileSink
from batch_scoring.delivery.exports.sink import Sink, Version


def test_versions_are_ordered_by_their_table_and_then_by_their_transaction() -> None:
    expected = [Version(1, 1), Version(1, 2), Version(1, 10), Version(2, 1), Version(10, 1)]
    shuffled = random.Random(0).sample(expected, len(expected))
    assert sorted(shuffled) == expected


def test_an_address_tells_no_password() -> None:
    sinks: list[Sink] = [FileSink("/lists/calls_{day}.csv")]
    assert [sink.address for sink in sinks] == ["/lists/calls_{day}.csv"]
