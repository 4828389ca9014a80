"""The bytes of a CSV file, uncompressed and in blocks that end where lines end."""

import gzip
import io
import random
import re
from typing import BinaryIO, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from batch_scoring.config.spec import Csv
from batch_scoring.errors import UnreadableFileError
from batch_scoring.ingest import landing_files
from batch_scoring.ingest.formats import csv_rows
from batch_scoring.ingest.formats.csv_records import count_lines
from batch_scoring.ingest.formats.text_stream import Blocks, Text
from batch_scoring.storage.folders.local import LocalFolder
from batch_scoring_tests.landed import land, read

QUICK = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


class Grudging(io.RawIOBase):
    """Gives fewer bytes than it is asked for, as a store may."""

    def __init__(self, content: bytes, seed: int) -> None:
        self._content, self._dice = io.BytesIO(content), random.Random(seed)

    def read(self, size: int = -1) -> bytes:
        return self._content.read(self._dice.randint(1, size))


@given(text=st.text(st.sampled_from("ab\n\r"), max_size=80), size=st.integers(1, 30), seed=st.integers(0, 99))
@settings(QUICK, max_examples=300)
@example(text="\raa\ra", size=4, seed=43)
def test_blocks_are_all_of_the_bytes_and_end_where_lines_end(text: str, size: int, seed: int) -> None:
    content = text.encode()
    blocks = Blocks(Text(cast("BinaryIO", Grudging(content, seed)), compressed=False), size, "")
    taken = []
    try:
        while block := blocks.take():
            taken.append(block)
    except UnreadableFileError:
        assert max(map(len, re.findall("[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+$", text))) + 1 > size  # a \n may follow a \r
        return
    blocks.verify()
    assert b"".join(taken) == content
    assert sum(map(count_lines, taken)) == len(re.findall("[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+$", text))


def test_a_last_row_without_end_may_begin_in_the_first_block(
    folder: LocalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first block is looked at for the header; what is read after it may end no line."""
    monkeypatch.setattr(csv_rows, "BLOCK", 64)
    file = land(folder, b"id,x\n" + b"1,2\n" * 14 + b"3," + b"4" * 20)
    assert read(folder, file)[15] == {"id": b"3", "x": b"4" * 20}


@given(text=st.text(st.sampled_from("ab\n\r"), max_size=80), size=st.integers(1, 30), seed=st.integers(0, 99))
@QUICK
def test_a_carriage_return_may_be_ordinary_text(text: str, size: int, seed: int) -> None:
    content = text.encode()
    blocks = Blocks(Text(cast("BinaryIO", Grudging(content, seed)), compressed=False), size, "", line_feeds_only=True)
    taken = []
    try:
        while block := blocks.take():
            taken.append(block)
    except UnreadableFileError:
        assert max(map(len, content.split(b"\n"))) + 1 > size
        return
    blocks.verify()
    assert b"".join(taken) == content and all(block.endswith(b"\n") for block in taken[:-1])


@pytest.mark.parametrize("newlines", [False, True])
def test_a_row_longer_than_a_block_is_refused_with_the_limit(folder: LocalFolder, newlines: bool) -> None:
    long = b'id,x\n1,"' + (b"y\n" if newlines else b"yy") * 12_000_000
    with pytest.raises(UnreadableFileError, match="a row is longer than 8 MiB: a quote may be left open"):
        landing_files.inspect(folder, land(folder, long), Csv(newlines=newlines))


def test_a_gzip_file_of_several_members_is_read_to_its_end(folder: LocalFolder) -> None:
    content = gzip.compress(b"id\n1\n") + gzip.compress(b"2\n")
    assert list(read(folder, land(folder, content, "a.csv.gz")).values()) == [{"id": b"1"}, {"id": b"2"}]


def test_a_gzip_file_larger_than_a_block_is_read_to_its_end(folder: LocalFolder) -> None:
    content = b"id\n" + b"%d\n" * 2_000_000 % tuple(range(2_000_000))
    file = land(folder, gzip.compress(content, 1), "a.csv.gz")
    assert len(content) > csv_rows.BLOCK
    assert landing_files.inspect(folder, file, Csv()).rows == 2_000_000
