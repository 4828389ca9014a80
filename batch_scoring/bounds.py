"""Checks of a schema that Arrow answers for a whole batch at once: all rows pass, or pandera says which do not.

Only pandera's own comparisons with a number, on whole numbers and float64, and its `isin` on text. There the answer
"every row passes" is provably pandera's: it hangs on the smallest and the largest value, or on the distinct ones.
"""

import operator
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    import pandera.pandas

Answer = Callable[[pa.Array], bool]
"""Whether every value of a column passes; the nulls do."""

_EXACT = 2**53
"""Whole numbers below this are floats too: pandas compares a column with missing values as floats."""

_COMPARISONS: dict[str, tuple[tuple[str, int, Callable[[Any, Any], bool]], ...]] = {
    "greater_than": (("min_value", 0, operator.gt),),
    "greater_than_or_equal_to": (("min_value", 0, operator.ge),),
    "less_than": (("max_value", 1, operator.lt),),
    "less_than_or_equal_to": (("max_value", 1, operator.le),),
}


def answers(checks: "Iterable[pandera.pandas.Check]", kind: pa.DataType) -> list[Answer] | None:
    """What answers all checks of a column; None if Arrow cannot."""
    found = [_answer(check, kind) for check in checks]
    return None if None in found else [answer for answer in found if answer]


def _answer(check: "pandera.pandas.Check", kind: pa.DataType) -> Answer | None:
    if not check.ignore_na or check.element_wise or not _is_pandera_s_own(check):
        return None
    says = check.statistics or {}
    if pa.types.is_string(kind):
        allowed = says.get("allowed_values") if check.name == "isin" else None
        if allowed is None or not all(isinstance(value, str) for value in allowed):
            return None
        words = pa.array(sorted(set(allowed)), pa.string())
        return lambda values: bool(
            pc.all(pc.is_in(pc.unique(values.drop_null()), value_set=words)).as_py() is not False
        )
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


def _is_pandera_s_own(check: "pandera.pandas.Check") -> bool:
    """Whether the function is pandera's, and the one that the check is called after: both are free to choose."""
    from pandera.api.function_dispatch import Dispatcher

    return isinstance(check._check_fn, Dispatcher) and check._check_fn.__name__ == check.name
