"""Names in a manifest: short, printable, and each of them once."""

from collections import Counter
from typing import Annotated

from pydantic import AfterValidator, Field


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """Check that no name occurs twice."""
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{', '.join(map(repr, twice[:5]))} occurs twice; expected every name once")
    return names


def _printable(name: str) -> str:
    """Check for characters that move a terminal's cursor, or that a database rejects."""
    if not name.isprintable():
        raise ValueError(f"{name[:80]!r} has characters that cannot be printed; expected a name such as 'v1'")
    return name


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
Names = Annotated[tuple[str, ...], AfterValidator(_distinct)]
