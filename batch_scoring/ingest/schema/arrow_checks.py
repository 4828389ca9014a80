"""Schema checks that Arrow can decide for a whole batch: either all rows pass, or pandera decides row by row.

Supported are pandera's own comparisons with a number, for integers and float64, and `isin`, `notin` and `str_matches`
for text. For these, Arrow's result "every row passes" provably agrees with pandera's: it depends only on the smallest
and the largest value, on the distinct values, or on a regular expression for which RE2, Arrow's engine, matches no more
than Python.
"""

import operator
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    import pandera.pandas

Answer = Callable[[pa.Array], bool]
"""Whether every value of a column passes; nulls always do."""

_EXACT = 2**53
"""Integers below this are exact as floats: pandas compares a column with missing values as floats."""

_SHARED_PATTERN = re.compile(
    r"""(?: [^\\\[\](){}*+?|^$.]              # a literal character
          | \\ [dws\\.\-/+*?()\[\]{}|^$]       # in RE2 these classes are ASCII only; or an escaped symbol
          | \[ (?!\^) (?: [^\\\[\]] | \\ [dws\\.\-/] )+ \]
          | \( (?!\?) | [)|.^$*+?]               # $ is the very end in RE2; in Python also before a final newline
          | \{ \d+ (?: , \d* )? \}
        )*""",
    re.VERBOSE,
)
"""Regular expressions that match in Python whenever they match in RE2: no flags, lookarounds or negated classes."""

_COMPARISONS: dict[str, tuple[tuple[str, int, Callable[[Any, Any], bool]], ...]] = {
    "greater_than": (("min_value", 0, operator.gt),),
    "greater_than_or_equal_to": (("min_value", 0, operator.ge),),
    "less_than": (("max_value", 1, operator.lt),),
    "less_than_or_equal_to": (("max_value", 1, operator.le),),
}


def answers(checks: "Iterable[pandera.pandas.Check]", kind: pa.DataType) -> list[Answer] | None:
    """Return functions that decide all checks of a column; None if Arrow cannot."""
    found = [_answer(check, kind) for check in checks]
    return None if None in found else [answer for answer in found if answer]


def _answer(check: "pandera.pandas.Check", kind: pa.DataType) -> Answer | None:
    if not check.ignore_na or check.element_wise or not _is_built_in(check):
        return None
    says = check.statistics or {}
    if pa.types.is_string(kind):
        return _answer_on_text(check.name or "", says)
    if not (pa.types.is_integer(kind) or pa.types.is_float64(kind)):
        return None
    if check.name == "in_range":
        low = "greater_than_or_equal_to" if says.get("include_min") else "greater_than"
        high = "less_than_or_equal_to" if says.get("include_max") else "less_than"
        sides = _COMPARISONS[low] + _COMPARISONS[high]
    else:
        sides = _COMPARISONS.get(check.name or "", ())
    bounds: list[tuple[Any, int, Callable[[Any, Any], bool]]] = [(says.get(name), *rest) for name, *rest in sides]  # type: ignore[misc]
    if not bounds or not all(type(bound) in (int, float) and abs(bound) < _EXACT for bound, _, _ in bounds):
        return None

    def compared(values: pa.Array) -> bool:
        ends = list(pc.min_max(values).as_py().values())
        return ends[0] is None or all(compare(ends[end], bound) for bound, end, compare in bounds)

    return compared


def _answer_on_text(name: str, says: dict[str, Any]) -> Answer | None:
    if name == "str_matches":
        pattern = says.get("pattern")
        if not isinstance(pattern, str) or not _SHARED_PATTERN.fullmatch(pattern):
            return None
        start = f"^(?:{pattern})"
        try:
            pc.match_substring_regex(pa.array([""]), start)
        except pa.ArrowInvalid:  # RE2 does not support it
            return None
        return lambda values: pc.all(pc.match_substring_regex(values, start)).as_py() is not False
    listed = says.get({"isin": "allowed_values", "notin": "forbidden_values"}.get(name, ""))
    if listed is None or not all(isinstance(value, str) for value in listed):
        return None
    words = pa.array(sorted(set(listed)), pa.string())

    def among(values: pa.Array) -> pa.Array:
        return pc.is_in(values.drop_null(), value_set=words)

    if name == "isin":
        return lambda values: pc.all(among(values)).as_py() is not False
    return lambda values: pc.any(among(values)).as_py() is not True


def _is_built_in(check: "pandera.pandas.Check") -> bool:
    """Whether the function is pandera's own, as the check's name says: users may choose both freely."""
    from pandera.api.function_dispatch import Dispatcher

    return isinstance(check._check_fn, Dispatcher) and check._check_fn.__name__ == check.name
