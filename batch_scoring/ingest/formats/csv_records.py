"""Which bytes of a CSV block are a row, and which rows are written as the dialect says; decided without Arrow's parser.

A row is a line, unless the dialect says that cells hold line breaks. A cell is either quoted as a whole (it begins with
a quote, ends with one, and doubles those within), or a quote in it means nothing: `5" pipe` is text. That is what
Python's csv, pandas, Spark and databases write. Anything else has been cut or swallowed by somebody, and no parser can
know where the cell ends: Arrow goes on to the next quote, however many lines away. So such a row is found here, first.

Few lines have quotes that take thought: numpy passes the others, a block at a time.
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from batch_scoring.config.spec import Csv

_LF, _CR = ord("\n"), ord("\r")


@dataclass(frozen=True)
class Fault:
    """Why a record is not handed to the parser."""

    rule: str
    detail: str


class Dialect:
    """The grammar of a file, as regular expressions that never go back."""

    def __init__(self, csv: Csv) -> None:
        self.newlines = csv.newlines
        self.delimiter, self.quote, self.escape = (
            part.encode() for part in (csv.delimiter, csv.quote_char, csv.escape)
        )
        self.neighbours = np.zeros(256, bool)
        """The bytes that stand before a quote that opens a cell, or behind one that closes it; or it stands twice."""
        self.neighbours[[*self.delimiter, *self.quote, _LF, _CR]] = True
        delimiter, quote, escape = map(re.escape, (self.delimiter, self.quote, self.escape))
        pair = rb"%b." % escape if escape else rb"(?!)"
        rest = rb"[^%b\r\n%b]*+(?:%b[^%b\r\n%b]*+)*+" % (delimiter, escape, pair, delimiter, escape)
        bare, quoted, loose = rest, rb"(?!)", rb"(?!)"
        if quote:
            bare = rb"(?!%b)" % quote + rest
            inside = rb"[^%b%b]*+" % (quote, escape)
            quoted = rb"%b%b(?:(?:%b%b|%b)%b)*+%b" % (quote, inside, quote, quote, pair, inside, quote)
            loose = quoted + rest
            quoted += self._blanks(csv)
        record = rb"(?:%b|%b)(?:%b(?:%b|%b))*+"
        self.cell = re.compile(rb"(?:%b|%b)" % (quoted, bare), re.DOTALL)
        self.record = re.compile(record % (quoted, bare, delimiter, quoted, bare), re.DOTALL)
        self.parsed = re.compile(record % (loose, bare, delimiter, loose, bare), re.DOTALL)
        """A record as Arrow takes it: text behind a closing quote belongs to the cell."""
        special = rb"%b[%b%b%b\r\n]" % (escape, delimiter, quote, escape)
        self._literal = re.compile(rb"(%b)|%b" % (special, escape)) if escape else None

    def _blanks(self, csv: Csv) -> bytes:
        """What may stand behind a closing quote: blanks that are trimmed."""
        blanks = b"".join(blank for blank in (b" ", b"\t") if blank not in (self.delimiter, self.quote, self.escape))
        return rb"[%b]*+" % blanks if csv.trim and blanks else b""

    def is_simple(self, block: bytes) -> bool:
        """Whether every line of a block is plainly a row, or blank: no escapes, and all quotes where they belong."""
        if self.escape and self.escape in block:
            return False
        return not self.quote or self.quote not in block or self._is_tidy(block)

    def _is_tidy(self, block: bytes) -> bool:
        """Whether quotes open and close cells in turn, or stand twice, and none is open where a line ends."""
        data = np.frombuffer(block, np.uint8)
        quotes = np.flatnonzero(data == self.quote[0])
        if len(quotes) % 2:
            return False
        opening, closing = quotes[::2], quotes[1::2]
        before = data[opening - 1]
        after = data[np.minimum(closing + 1, len(data) - 1)]
        before[0] = before[0] if opening[0] else _LF
        after[-1] = after[-1] if closing[-1] + 1 < len(data) else _LF
        if not (self.neighbours[before].all() and self.neighbours[after].all()):
            return False
        is_end = data == _LF
        if b"\r" in block:
            is_end |= data == _CR
        return not (np.searchsorted(quotes, np.flatnonzero(is_end)) % 2).any()

    def literal(self, record: bytes) -> bytes:
        r"""A record whose escapes stand before delimiters, quotes and escapes alone: another one means itself.

        Spark writes `C:\new` as it is, databases `\N` for no value; Arrow would drop each backslash.
        """
        if self._literal is None:
            return record
        itself = self.escape * 2
        return self._literal.sub(lambda found: found[1] or itself, record)


@dataclass
class Records:
    """The records of a block, in their order; blank lines are none."""

    block: bytes
    starts: np.ndarray
    """int64: where each begins."""
    ends: np.ndarray
    """int64: where each ends, its line's end included."""
    lines: np.ndarray
    """int64: the line of the block, from 0, in which each begins."""
    line_count: int
    """Lines of the block, of those records alone that are whole."""
    faults: dict[int, Fault] = field(default_factory=dict)
    """By position."""
    rewritten: dict[int, bytes] = field(default_factory=dict)
    """By position, of records that the parser is to see in another form."""
    open_at: int | None = None
    """Where a record begins that the block does not end."""

    def __len__(self) -> int:
        """Records, those with a fault included."""
        return len(self.starts)

    def text(self, position: int) -> bytes:
        """A record as it stands in the file, without its line's end."""
        return self.block[self.starts[position] : self.ends[position]].rstrip(b"\r\n")

    def sound(self) -> tuple[np.ndarray, bytes]:
        """The positions of the records without a fault, and their bytes for the parser."""
        kept = np.ones(len(self), bool)
        kept[list(self.faults)] = False
        return np.flatnonzero(kept), b"".join(self._runs(kept))

    def _runs(self, kept: np.ndarray) -> Iterator[bytes]:
        """The bytes of the kept records, neighbours at once."""
        breaks = np.flatnonzero(self.starts[1:] != self.ends[:-1]) + 1  # blank lines
        changes = np.flatnonzero(kept[1:] != kept[:-1]) + 1
        alone = np.array(sorted({at for row in self.rewritten for at in (row, row + 1)}), np.int64)
        cuts = np.unique(np.concatenate([[0], breaks, changes, alone, [len(self)]])).astype(np.int64)
        for first, stop in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
            if kept[first]:
                found = self.rewritten.get(first)
                yield found if found is not None else self.block[self.starts[first] : self.ends[stop - 1]]


def count_lines(block: bytes) -> int:
    """The lines of a block, also one that nothing ends."""
    data = np.frombuffer(block, np.uint8)
    count = int(np.count_nonzero(data == _LF))
    if b"\r" in block:
        returns = data == _CR
        count += int(np.count_nonzero(returns)) - int(np.count_nonzero(returns[:-1] & (data[1:] == _LF)))
    return count + (not block.endswith((b"\n", b"\r")))


def records(block: bytes, dialect: Dialect, *, is_last: bool) -> Records:
    """Find the records of a block and what is wrong with them."""
    starts, ends = _lines(block)
    if dialect.is_simple(block):
        return _without_blanks(Records(block, starts, ends, np.arange(len(starts)), len(starts)))
    doubtful = _doubtful(block, starts, ends, dialect)
    if dialect.newlines:
        found = _spanning(block, starts, ends, doubtful, dialect, is_last=is_last)
    else:
        found = _by_line(block, starts, ends, doubtful, dialect)
    return _without_blanks(found)


def _lines(block: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Where each line begins and where the next one does."""
    data = np.frombuffer(block, np.uint8)
    last = np.flatnonzero(data == _LF)
    if b"\r" in block:
        returns = np.flatnonzero(data == _CR)
        alone = returns[np.append(data, 0)[returns + 1] != _LF]
        last = np.sort(np.concatenate([last, alone]))
    ends = last + 1
    if not len(ends) or ends[-1] != len(block):
        ends = np.append(ends, len(block))
    return np.concatenate([[0], ends[:-1]]), ends


def _doubtful(block: bytes, starts: np.ndarray, ends: np.ndarray, dialect: Dialect) -> np.ndarray:
    """The lines whose quotes are not plainly those around cells and doubled ones within, or that have an escape."""
    data = np.frombuffer(block, np.uint8)
    doubtful = np.zeros(len(starts), bool)
    if dialect.quote:
        quotes = np.flatnonzero(data == dialect.quote[0])
        first = np.searchsorted(quotes, starts)
        counts = np.diff(np.append(first, len(quotes)))
        is_closing = (np.arange(len(quotes)) - np.repeat(first, counts)) % 2 == 1
        padded = np.concatenate([[_LF], data, [_LF]]).astype(np.uint8)
        doubtful |= counts % 2 == 1
        wrong = quotes[~dialect.neighbours[padded[quotes + 2 * is_closing]]]
        doubtful[np.searchsorted(ends, wrong, side="right")] = True
    if dialect.escape:
        doubtful[np.searchsorted(ends, np.flatnonzero(data == dialect.escape[0]), side="right")] = True
    return np.flatnonzero(doubtful)


def _by_line(block: bytes, starts: np.ndarray, ends: np.ndarray, doubtful: np.ndarray, dialect: Dialect) -> Records:
    found = Records(block, starts, ends, np.arange(len(starts)), len(starts))
    for line, start, end in zip(doubtful.tolist(), starts[doubtful].tolist(), ends[doubtful].tolist(), strict=True):
        stop = _content(block, end)
        if dialect.record.fullmatch(block, start, stop):
            if dialect.escape:
                _rewrite(found, line, block[start:end], dialect)
        else:
            parsed = dialect.parsed.match(block, start, stop)
            is_closed = parsed is not None and parsed.end() == stop
            found.faults[line] = (_behind if is_closed else _unclosed)(block[start:stop], dialect)
    return found


def _spanning(
    block: bytes, starts: np.ndarray, ends: np.ndarray, doubtful: np.ndarray, dialect: Dialect, *, is_last: bool
) -> Records:
    """Records over as many lines as it takes to close their quotes."""
    is_first = np.ones(len(starts), bool)
    wrong: dict[int, Fault] = {}
    rewritten: dict[int, bytes] = {}
    open_at = None
    done = 0
    for line in doubtful.tolist():
        if line < done:
            continue
        start = int(starts[line])
        parsed = dialect.parsed.match(block, start)
        stop = parsed.end() if parsed else start
        if not parsed or (not is_last if stop == len(block) else block[stop] not in (_LF, _CR)):
            open_at = start
            starts, ends, is_first = starts[:line], ends[:line], is_first[:line]
            break
        done = int(np.searchsorted(starts, stop, side="right"))
        is_first[line + 1 : done] = False
        if done > line + 1 and _swallows(block, start, stop, dialect):
            wrong[line] = _swallowing(done - line)
        elif not dialect.record.fullmatch(block, start, stop):
            wrong[line] = _behind(block[start:stop], dialect)
        elif dialect.escape:
            rewritten[line] = block[start : ends[done - 1]]
    lines = np.flatnonzero(is_first)
    found = Records(block, starts[lines], np.append(starts[lines[1:]], ends[-1:])[: len(lines)], lines, len(starts))
    found.open_at = open_at
    for line, fault in wrong.items():
        found.faults[int(np.searchsorted(lines, line))] = fault
    for line, record in rewritten.items():
        _rewrite(found, int(np.searchsorted(lines, line)), record, dialect)
    return found


def _without_blanks(found: Records) -> Records:
    """Blank lines are no rows: the parser passes over them."""
    kept = found.ends > found.starts
    data = np.frombuffer(found.block, np.uint8)
    kept[kept] = ~np.isin(data[found.starts[kept]], (_LF, _CR))
    if kept.all():
        return found
    places = np.cumsum(kept) - 1
    return replace(
        found,
        starts=found.starts[kept],
        ends=found.ends[kept],
        lines=found.lines[kept],
        faults={int(places[at]): fault for at, fault in found.faults.items()},
        rewritten={int(places[at]): record for at, record in found.rewritten.items()},
    )


def _rewrite(found: Records, position: int, record: bytes, dialect: Dialect) -> None:
    literal = dialect.literal(record)
    if literal != record:
        found.rewritten[position] = literal


def _content(block: bytes, end: int) -> int:
    """Where a line ends, less what ends it."""
    last = block[end - 1]
    if last == _CR:
        return end - 1
    if last == _LF:
        return end - 2 if end > 1 and block[end - 2] == _CR else end - 1
    return end


def _swallows(block: bytes, start: int, stop: int, dialect: Dialect) -> bool:
    """Whether a quoted cell has both line breaks and delimiters: it may be whole rows."""
    while start <= stop:
        cell = dialect.cell.match(block, start, stop)
        if cell is None:
            return False
        text = cell[0]
        if text.startswith(dialect.quote) and dialect.delimiter in text and (b"\n" in text or b"\r" in text):
            return True
        start = cell.end() + 1
    return False


def _unclosed(text: bytes, dialect: Dialect) -> Fault:
    if dialect.escape and (len(text) - len(text.rstrip(dialect.escape))) % 2:
        return _fault(
            "cells_end_on_their_line",
            "an escape takes the line's end into a cell; if cells hold line breaks, set input.csv.newlines: true",
        )
    breaks = "if cells hold line breaks, set input.csv.newlines: true"
    return _fault("quotes_are_closed", f"a quote is not closed on its line; {_advice(text, dialect)}; {breaks}")


def _behind(text: bytes, dialect: Dialect) -> Fault:
    return _fault("quotes_end_cells", f"there is text behind a closing quote; {_advice(text, dialect)}")


def _swallowing(lines: int) -> Fault:
    return _fault(
        "quotes_are_closed",
        f"a quoted cell has line breaks and delimiters, over {lines} lines: it may be rows that a stray quote has "
        "swallowed; write quotes within cells twice",
    )


@functools.lru_cache(maxsize=256)
def _fault(rule: str, detail: str) -> Fault:
    """A fault that thousands of rows may have in common."""
    return Fault(rule, detail)


def _advice(text: bytes, dialect: Dialect) -> str:
    if not dialect.escape and b"\\" + dialect.quote in text:
        quote = dialect.quote.decode()
        return f'it has \\{quote}: if that is a quote within a cell, set input.csv.escape: "\\\\"'
    return "write quotes within cells twice; if cells are never quoted, set input.csv.quote: none"
