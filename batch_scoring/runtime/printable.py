r"""Other people's text where people read it: terminals, logs, messages, commands to be copied.

A customer's cell, a column's or a file's name may hold what a terminal obeys (ESC sequences, carriage returns) and
what turns the order of a line round (bidi overrides). It is replaced by what it is, as JSON spells it: `\u001b`. Line
feeds and tabs stay; within a cell or a name, `one_line` replaces them too.
"""

import contextlib
import io
import re
import shlex
import unicodedata
from collections.abc import Iterator
from typing import TextIO, cast

_OBEYED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories: control, format, surrogate, separators of lines and paragraphs."""
_PLAIN = re.compile(r"[ -~\n\t]*")
_OURS = "\n\t"


def printable(text: str) -> str:
    """The text, with what a terminal obeys made visible."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(_shown(character) if _is_obeyed(character) else character for character in text)


def one_line(text: str) -> str:
    """A cell or a name: its line breaks and tabs are made visible too, so that it stays one of a message."""
    return printable(text).replace("\n", r"\u000a").replace("\t", r"\u0009")


def shell_word(text: str) -> str:
    """A word for a command that is printed to be copied into a shell (bash, zsh), on one line whatever it holds."""
    if text.isprintable():
        return shlex.quote(text)
    escaped = "".join(
        character if character.isprintable() and character not in "'\\" else _octal(character) for character in text
    )
    return f"$'{escaped}'"


def clean(error: BaseException | None) -> None:
    """Make the texts of an exception, and of those that it comes from, printable where they stand."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        error.args = tuple(printable(part) if isinstance(part, str) else part for part in error.args)
        if isinstance(described := getattr(error, "description", None), str):  # Dagster's Failure
            error.description = printable(described)  # type: ignore[attr-defined]
        error = error.__cause__ or error.__context__


@contextlib.contextmanager
def cleaned() -> Iterator[None]:
    """An exception leaves the block with printable texts: who prints it is not ours."""
    try:
        yield
    except Exception as error:
        clean(error)
        raise


class _Guarded(io.TextIOBase):
    def __init__(self, stream: TextIO) -> None:
        self.unguarded = stream

    def write(self, text: str) -> int:
        self.unguarded.write(printable(text))
        return len(text)

    def flush(self) -> None:
        self.unguarded.flush()

    def isatty(self) -> bool:
        return self.unguarded.isatty()


def guarded(stream: TextIO) -> TextIO:
    """A stream that writes printable text to another one; JSON stays the same JSON."""
    return cast(TextIO, _Guarded(stream))


def unguarded(stream: TextIO) -> TextIO:
    """What is behind a guarded stream, for our own control characters."""
    return stream.unguarded if isinstance(stream, _Guarded) else stream


def _is_obeyed(character: str) -> bool:
    return character not in _OURS and unicodedata.category(character) in _OBEYED


def _shown(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def _octal(character: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))
