"""Records of a CSV block: where each one begins and ends, and whether its quoting is valid; without Arrow's parser.

A record is one line, unless the dialect allows line breaks within cells. A cell is either quoted as a whole (it begins
and ends with a quote and doubles those inside), or quotes in it have no special meaning: `5" pipe` is text. Python's
csv, pandas, Spark and databases write this form. Anything else was truncated or corrupted, and no parser can tell where
such a cell ends: Arrow would read on to the next quote, however many lines away. Such records are therefore found here,
before Arrow parses the block.

Few lines need this close a look: numpy clears the others, a whole block at a time.
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
    """Why a record is not passed to the parser."""

    rule: str
    detail: str


class Dialect:
    """The grammar of a CSV dialect, as regular expressions without backtracking."""

    def __init__(self, csv: Csv) -> None:
        self.newlines = csv.newlines
        self.delimiter, self.quote, self.escape = (
            part.encode() for part in (csv.delimiter, csv.quote_char, csv.escape)
        )
        self.neighbours = np.zeros(256, bool)
        """Bytes that may precede an opening or follow a closing quote, among them the quote, which may be doubled."""
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
        """A record as Arrow would parse it: text after a closing quote belongs to the cell."""
        special = rb"%b[%b%b%b\r\n]" % (escape, delimiter, quote, escape)
        self._literal = re.compile(rb"(%b)|%b" % (special, escape)) if escape else None

    def _blanks(self, csv: Csv) -> bytes:
        """Return the pattern for what may follow a closing quote: blanks, if they are trimmed."""
        blanks = b"".join(blank for blank in (b" ", b"\t") if blank not in (self.delimiter, self.quote, self.escape))
        return rb"[%b]*+" % blanks if csv.trim and blanks else b""

    def is_simple(self, block: bytes) -> bool:
        """Whether every line of a block is clearly one record or blank: no escapes, and all quotes in valid places."""
        if self.escape and self.escape in block:
            return False
        return not self.quote or self.quote not in block or self._is_tidy(block)

    def _is_tidy(self, block: bytes) -> bool:
        """Whether quotes alternately open and close cells or are doubled, and none is open at the end of a line."""
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
        r"""Return a record in which every escape that does not precede a delimiter, quote or escape is doubled.

        Such an escape is literal: Spark writes `C:\new` unchanged, databases write `\N` for a missing value. Arrow
        would drop the backslash.
        """
        if self._literal is None:
            return record
        itself = self.escape * 2
        return self._literal.sub(lambda found: found[1] or itself, record)


@dataclass
class Records:
    """The records of a block, in order, without blank lines."""

    block: bytes
    starts: np.ndarray
    """int64: where each record begins."""
    ends: np.ndarray
    """int64: where each record ends, including its line ending."""
    lines: np.ndarray
    """int64: the line of the block, counted from 0, on which each record begins."""
    line_count: int
    """Number of lines in the block that belong to complete records."""
    faults: dict[int, Fault] = field(default_factory=dict)
    """Problems of records that are not parsed, by position."""
    rewritten: dict[int, bytes] = field(default_factory=dict)
    """Replacement text for the parser, by position."""
    open_at: int | None = None
    """Where a record begins that does not end within the block; None if there is none."""

    def __len__(self) -> int:
        """Number of records, including those with a problem."""
        return len(self.starts)

    def text(self, position: int) -> bytes:
        """Return a record as it appears in the file, without its line ending."""
        return self.block[self.starts[position] : self.ends[position]].rstrip(b"\r\n")

    def sound(self) -> tuple[np.ndarray, bytes]:
        """Return the positions of the records without a problem, and their bytes for the parser."""
        kept = np.ones(len(self), bool)
        kept[list(self.faults)] = False
        return np.flatnonzero(kept), b"".join(self._runs(kept))

    def _runs(self, kept: np.ndarray) -> Iterator[bytes]:
        """Yield the bytes of the kept records, adjacent ones together."""
        breaks = np.flatnonzero(self.starts[1:] != self.ends[:-1]) + 1  # blank lines
        changes = np.flatnonzero(kept[1:] != kept[:-1]) + 1
        alone = np.array(sorted({at for row in self.rewritten for at in (row, row + 1)}), np.int64)
        cuts = np.unique(np.concatenate([[0], breaks, changes, alone, [len(self)]])).astype(np.int64)
        for first, stop in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
            if kept[first]:
                found = self.rewritten.get(first)
                yield found if found is not None else self.block[self.starts[first] : self.ends[stop - 1]]


def count_lines(block: bytes) -> int:
    """Count the lines of a block, including an unterminated last line."""
    data = np.frombuffer(block, np.uint8)
    count = int(np.count_nonzero(data == _LF))
    if b"\r" in block:
        returns = data == _CR
        count += int(np.count_nonzero(returns)) - int(np.count_nonzero(returns[:-1] & (data[1:] == _LF)))
    return count + (not block.endswith((b"\n", b"\r")))


def records(block: bytes, dialect: Dialect, *, is_last: bool) -> Records:
    """Find the records of a block and their problems."""
    starts, ends = _lines(block)
    if dialect.is_simple(block):
        return _without_blank_lines(Records(block, starts, ends, np.arange(len(starts)), len(starts)))
    doubtful = _lines_to_check(block, starts, ends, dialect)
    if dialect.newlines:
        found = _multi_line_records(block, starts, ends, doubtful, dialect, is_last=is_last)
    else:
        found = _single_line_records(block, starts, ends, doubtful, dialect)
    return _without_blank_lines(found)


def _lines(block: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return where each line begins, and where the next line begins."""
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


def _lines_to_check(block: bytes, starts: np.ndarray, ends: np.ndarray, dialect: Dialect) -> np.ndarray:
    """Return the lines that need a closer look: they have an escape, or quotes in unexpected places."""
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


def _single_line_records(
    block: bytes, starts: np.ndarray, ends: np.ndarray, doubtful: np.ndarray, dialect: Dialect
) -> Records:
    found = Records(block, starts, ends, np.arange(len(starts)), len(starts))
    for line, start, end in zip(doubtful.tolist(), starts[doubtful].tolist(), ends[doubtful].tolist(), strict=True):
        stop = _content(block, end)
        if dialect.record.fullmatch(block, start, stop):
            if dialect.escape:
                _rewrite(found, line, block[start:end], dialect)
        else:
            parsed = dialect.parsed.match(block, start, stop)
            is_closed = parsed is not None and parsed.end() == stop
            found.faults[line] = (_text_after_quote if is_closed else _unclosed_quote)(block[start:stop], dialect)
    return found


def _multi_line_records(
    block: bytes, starts: np.ndarray, ends: np.ndarray, doubtful: np.ndarray, dialect: Dialect, *, is_last: bool
) -> Records:
    """Find records that may span several lines, up to the end of an open quote."""
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
        if done > line + 1 and _may_contain_rows(block, start, stop, dialect):
            wrong[line] = _swallowed_rows(done - line)
        elif not dialect.record.fullmatch(block, start, stop):
            wrong[line] = _text_after_quote(block[start:stop], dialect)
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


def _without_blank_lines(found: Records) -> Records:
    """Drop blank lines, which the parser skips too."""
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
    """Return where the content of a line ends, before its line ending."""
    last = block[end - 1]
    if last == _CR:
        return end - 1
    if last == _LF:
        return end - 2 if end > 1 and block[end - 2] == _CR else end - 1
    return end


def _may_contain_rows(block: bytes, start: int, stop: int, dialect: Dialect) -> bool:
    """Whether a quoted cell contains both line breaks and delimiters, and so may contain whole rows."""
    while start <= stop:
        cell = dialect.cell.match(block, start, stop)
        if cell is None:
            return False
        text = cell[0]
        if text.startswith(dialect.quote) and dialect.delimiter in text and (b"\n" in text or b"\r" in text):
            return True
        start = cell.end() + 1
    return False


def _unclosed_quote(text: bytes, dialect: Dialect) -> Fault:
    if dialect.escape and (len(text) - len(text.rstrip(dialect.escape))) % 2:
        return _fault(
            "cells_end_on_their_line",
            "an escape pulls the line break into a cell; if cells contain line breaks, set input.csv.newlines: true",
        )
    breaks = "if cells contain line breaks, set input.csv.newlines: true"
    return _fault("quotes_are_closed", f"a quote is not closed on its line; {_advice(text, dialect)}; {breaks}")


def _text_after_quote(text: bytes, dialect: Dialect) -> Fault:
    return _fault("quotes_end_cells", f"there is text after a closing quote; {_advice(text, dialect)}")


def _swallowed_rows(lines: int) -> Fault:
    return _fault(
        "quotes_are_closed",
        f"a quoted cell has line breaks and delimiters, over {lines} lines: a stray quote may have swallowed rows; "
        "double quotes within cells",
    )


@functools.lru_cache(maxsize=256)
def _fault(rule: str, detail: str) -> Fault:
    """Return a problem; cached, because thousands of rows may share one."""
    return Fault(rule, detail)


def _advice(text: bytes, dialect: Dialect) -> str:
    if not dialect.escape and b"\\" + dialect.quote in text:
        quote = dialect.quote.decode()
        return f'the line contains \\{quote}: if that is a quote within a cell, set input.csv.escape: "\\\\"'
    return "double quotes within cells; if cells are never quoted, set input.csv.quote: none"
