r"""Untrusted text made safe to print: in terminals, logs, messages and commands to be copied.

A customer's cell, or the name of a column or file, may contain terminal control sequences (ESC, carriage returns) or
bidi overrides, which reorder a line. Such characters are escaped as in JSON: `\u001b`. Line feeds and tabs stay; in a
cell or a name, `one_line` escapes them too.
"""

import contextlib
import io
import re
import shlex
import unicodedata
from collections.abc import Iterable, Iterator
from typing import TextIO, cast

_OBEYED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories: control, format, surrogate, line and paragraph separators."""
_PLAIN = re.compile(r"[ -~\n\t]*")
_OURS = "\n\t"


def printable(text: str) -> str:
    """The text with control and format characters escaped."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(_shown(character) if _is_obeyed(character) else character for character in text)


def one_line(text: str) -> str:
    """A cell or a name with line breaks and tabs escaped too, so that it stays on one line of a message."""
    return printable(text).replace("\n", r"\u000a").replace("\t", r"\u0009")


def some(names: Iterable[str], joint: str = ", ") -> str:
    """The first five of some names, and how many more there are."""
    names = list(names)
    shown = joint.join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def without_class(message: str) -> str:
    """The message of an exception as Dagster stores it, without the path of a class of this package before it."""
    return re.sub(r"^batch_scoring(\.\w+)+: ", "", message)


def shell_word(text: str) -> str:
    """The text quoted for a shell (bash, zsh), in a command that is printed to be copied; always one line."""
    if text.isprintable():
        return shlex.quote(text)
    escaped = "".join(
        character if character.isprintable() and character not in "'\\" else _octal(character) for character in text
    )
    return f"$'{escaped}'"


def clean(error: BaseException | None) -> None:
    """Make the texts of an exception and of its causes printable, in place."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        error.args = tuple(printable(part) if isinstance(part, str) else part for part in error.args)
        if isinstance(described := getattr(error, "description", None), str):  # Dagster's Failure
            error.description = printable(described)  # type: ignore[attr-defined]
        error = error.__cause__ or error.__context__


@contextlib.contextmanager
def cleaned() -> Iterator[None]:
    """Make the texts of an exception that leaves the block printable, whoever prints it."""
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
    """A stream that writes to another one, with text made printable; the meaning of JSON is unchanged."""
    return cast(TextIO, _Guarded(stream))


def unguarded(stream: TextIO) -> TextIO:
    """The stream behind a guarded one, for our own control characters."""
    return stream.unguarded if isinstance(stream, _Guarded) else stream


def _is_obeyed(character: str) -> bool:
    return character not in _OURS and unicodedata.category(character) in _OBEYED


def _shown(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def _octal(character: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))
