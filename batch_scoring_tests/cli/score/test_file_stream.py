"""The end of the stream: the quarantine's file."""

import pytest

from batch_scoring.cli.score.file_stream import QuarantineFile
from batch_scoring.errors import RowsLostError
from batch_scoring.ingest.formats.rows import BrokenRow
from batch_scoring.ingest.quarantine import Waiting, from_broken
from batch_scoring_tests.tiny import long_rows


def test_rejected_rows_that_are_long_are_written_before_they_are_many() -> None:
    written: list[int] = []
    rejections = QuarantineFile(lambda: lambda batch: written.append(len(batch)), "id")
    rejections.add(long_rows())
    rejections.finish()
    assert sum(written) == 3_000 and len(written) > 1


def test_a_file_is_begun_with_the_first_rejected_row() -> None:
    begun: list[str] = []
    rejections = QuarantineFile(lambda: lambda _: begun.append("it"), "id")
    rejections.finish()
    assert begun == []
    rejections.add(iter([from_broken(BrokenRow(1, "", "x"), "a.csv")]))
    rejections.finish()
    assert begun == ["it"]


def test_a_rejected_row_that_does_not_reach_the_file_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Waiting.take
    monkeypatch.setattr(Waiting, "take", lambda self: whole(self)[1:])
    rejections = QuarantineFile(lambda: lambda _: None, "id")
    rejections.add(from_broken(BrokenRow(number, "", "x"), "a.csv") for number in range(3))
    with pytest.raises(RowsLostError, match="the quarantine: 3 rows were counted and 2 were written"):
        rejections.finish()
