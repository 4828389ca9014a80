"""Check that what a transform gives for a row depends on that row alone, and is the same in every process.

The golden rows pass through the function again, in other orders and batches, alone and twice, and every bit, type and
column is compared; so do the same rows with a missing value where the reference has some. A rank, a mean, codes of the
values that happen to be there, a missing value filled from the row before, a type that follows the values, a random
number and a counter show in one of these. That takes 0.1 s for a function on Arrow and 0.5 s for one on pandas, when a
bundle is written or delivered.

What another process or another day alone would show (Python's `hash` of a text, the clock) shows when a bundle is
written in a process of that kind (`other_process.py`); and, of functions that cannot run there, in the engineered
values of the golden rows, which the bundle holds and every load compares.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.config.validation.spec_validation import RESERVED
from batch_scoring.errors import ContractError, ScoringError, UnsoundError
from batch_scoring.inference.acceptance import agreement
from batch_scoring.inference.acceptance.functions import other_process
from batch_scoring.inference.acceptance.functions.two_threads import interrupted
from batch_scoring.inference.heads.tolerance import Tolerance
from batch_scoring.inference.inputs.fitted import Fitted
from batch_scoring.inference.inputs.transform import NAME, Transform, plain, whole
from batch_scoring.inference.manifest import LoadedModel, MakesFeatures, Manifest
from batch_scoring.inference.network.code import ModelCode

PREFIX = "engineered."
"""Of the engineered columns' names in `golden.parquet`."""

DAY = ("dt",)
"""A column of the reference that rows to be scored do not have."""

ROUNDINGS = {"double": 1e-9, "float": 1e-5, "halffloat": 1e-2}
"""How far engineered floats may differ on another CPU, relative to their size, by their type."""

OTHER_VALUES = (
    "the function or its modules have changed since the bundle was written (undo the change, or write a new bundle), "
    "it reads the clock, or it takes Python's hash() of a text, which is another one in every process"
)
"""Why golden rows may have other engineered values, and what to do."""

_AGAIN = (
    "it is random, counts its calls or reads the clock. Learn such values in fit, or have them as a column of the rows"
)
_OTHERS = (
    "it looks at other rows, as a mean, a rank, bins or codes of the values that happen to be there, a shift, a "
    "running sum, a gap filled from the row before and sorting do. Compute such figures in fit, from the training rows "
    "(and leave matrix products to the network: they round by the number of rows)"
)
_PROCESS = "it takes Python's hash() of a text, which is another one in every process; hashlib gives the same"
_THREADS = (
    "it keeps values in its module, or in what fit has learned, while it computes others, and several threads call it "
    "at once. Make arrays and frames anew in each call"
)
_CLOCK = "it reads the clock, so that a day has other scores whenever it is run again. Have the time as a column"


@dataclass(frozen=True)
class Trial:
    """The golden rows in another order or batch."""

    what: str
    order: np.ndarray
    """Their positions."""
    cause: str = _OTHERS
    """What a function does whose values differ."""


@dataclass(frozen=True)
class Engineered:
    """The rows of a new bundle with their engineered features."""

    golden: pa.Table
    reference: pa.Table
    features: pa.Schema
    """The engineered ones."""

    @property
    def types(self) -> dict[str, str]:
        """Arrow type of each, as the manifest has it."""
        return {field.name: str(field.type) for field in self.features}


def engineer(code: ModelCode, state: Fitted, golden: pa.Table, reference: pa.Table) -> Engineered:
    """Make the engineered features of a new bundle's rows, and check the function that does.

    Raises:
        UnsoundError: it raises for a row, does not return columns, depends on other rows than the one it is for, or a
            row breaks a rule of features.engineered.
    """
    if code.transform is None:
        return Engineered(golden, reference, pa.schema([]))
    try:
        raw = golden.drop_columns([name for name in DAY if name in golden.column_names])
        transform = Transform.learn(code.transform, state, raw, code.rules)
        made = transform.applied(golden)
    except (ScoringError, ContractError) as error:
        raise UnsoundError(f"golden: {error}") from error
    known = {*reference.column_names, *RESERVED}
    if taken := [name for name in transform.gives.names if name in known]:
        raise UnsoundError(f"{NAME} returned {', '.join(taken)}, a column of the rows or of our tables; rename it")
    try:
        with_features = transform.applied(reference)
    except (ScoringError, ContractError) as error:
        raise UnsoundError(f"reference: {error}") from error
    check_rows_are_independent(transform, golden, reference)
    check_two_threads(transform, golden)
    check_other_process(transform, golden)
    return Engineered(made, with_features, transform.gives)


def columns_of(manifest: Manifest, golden: pa.Schema) -> tuple[pa.Schema, pa.Schema]:
    """The raw columns that a bundle's transform gets, and the engineered ones, by its golden rows.

    Raises:
        UnsoundError: the golden rows have other engineered columns than the manifest.
    """
    made = [field.with_name(field.name.removeprefix(PREFIX)) for field in golden if field.name.startswith(PREFIX)]
    if (found := {field.name: str(field.type) for field in made}) != manifest.engineered:
        raise UnsoundError(f"it has the engineered features {found}, and the manifest says {manifest.engineered}")
    ours = {*DAY, *manifest.output_columns, *(PREFIX + name for name in manifest.engineered)}
    return plain(pa.schema([field for field in golden if field.name not in ours])), pa.schema(made)


def check_rows_are_independent(transform: MakesFeatures, golden: pa.Table, reference: pa.Table) -> None:
    """Check the function on the golden rows in several orders and batches, bit by bit.

    Raises:
        UnsoundError: what it gives for a row depends on other rows, or differs a second time.
    """
    rows = _with_gaps(transform, golden, reference)
    expected = _run(transform, rows, "taken together")
    for trial in _trials(rows.num_rows):
        found = _run(transform, rows.take(pa.array(trial.order)), trial.what)
        if found.schema.names != expected.schema.names:
            raise UnsoundError(
                f"{NAME} returned the columns {', '.join(found.schema.names)} for golden rows {trial.what}, and "
                f"{', '.join(expected.schema.names)} before: it makes columns of the values that happen to be there. "
                "Name all columns"
            )
        for name in expected.schema.names:
            _check_column(name, expected.column(name).take(pa.array(trial.order)), found.column(name), trial, golden)


def check_two_threads(transform: Transform, golden: pa.Table) -> None:
    """Check the function on the golden rows while another thread calls it for others.

    Raises:
        UnsoundError: it gives other values then.
    """
    rows = whole(golden.select(transform.reads.names)).cast(transform.reads)
    trial = Trial("while another thread calls it", np.arange(rows.num_rows), _THREADS)
    others = rows.take(pa.array(trial.order[::-1].copy()))
    expected = _run(transform, rows, "taken together")
    found = interrupted(
        transform.function, lambda: _run(transform, rows, trial.what), lambda: _run(transform, others, trial.what)
    )
    for name in expected.schema.names:
        _check_column(name, expected.column(name), found.column(name), trial, golden)


def check_other_process(transform: Transform, golden: pa.Table) -> None:
    """Check the function on the golden rows in another process, with another seed of `hash` and the clock set ahead.

    Raises:
        UnsoundError: it gives other values there.
    """
    rows = whole(golden.select(transform.reads.names)).cast(transform.reads)
    found = other_process.run(transform, rows)
    expected = _run(transform, rows, "taken together")
    for table, where, cause in (
        (found.seeded, "in another process", _PROCESS),
        (found.ahead, f"with the clock {other_process.AHEAD.days} days ahead", _CLOCK),
    ):
        if table is None or table.schema.names != expected.schema.names:
            continue
        for name in expected.schema.names:
            here, there = expected.column(name), table[name].combine_chunks()
            if (row := _first_difference(here, there)) is not None:
                raise UnsoundError(
                    f"{NAME} gives other values {where}: {name} is {there[row].as_py()!r} in golden row {row}, where "
                    f"it was {here[row].as_py()!r}: {cause}"
                )


def with_values(golden: pa.Table, engineered: pa.Schema) -> pa.Table:
    """The golden rows as a bundle stores them, with the engineered columns under names of their own."""
    return golden.rename_columns([PREFIX + name if name in engineered.names else name for name in golden.column_names])


def check_values(transform: MakesFeatures, golden: pa.Table) -> None:
    """Compare engineered values of the golden rows with those in the bundle.

    Raises:
        UnsoundError: they differ: floats by more than rounding, others at all.
    """
    made = _applied(transform, golden)
    for field in transform.gives:
        expected, found = (whole(golden.select([PREFIX + field.name])).column(0), made[field.name].combine_chunks())
        if (row := _first_deviation(expected, found)) is not None:
            raise UnsoundError(
                f"{NAME} gives other values than when the bundle was written: {field.name} is {found[row].as_py()!r} "
                f"in golden row {row}, where it was {expected[row].as_py()!r}: {OTHER_VALUES}"
            )


def with_engineered(model: LoadedModel, golden: pa.Table) -> pa.Table:
    """The golden rows with the engineered features, if the model has any.

    Raises:
        UnsoundError: a row has none.
    """
    return _applied(model.transform, golden) if model.transform else golden


def _applied(transform: MakesFeatures, golden: pa.Table) -> pa.Table:
    try:
        return transform.applied(golden)
    except (ScoringError, ContractError) as error:
        raise UnsoundError(f"the golden rows: {error}") from error


def _with_gaps(transform: MakesFeatures, golden: pa.Table, reference: pa.Table) -> pa.RecordBatch:
    """The golden rows, and the same with a missing value in a column where the reference has some.

    Rows with gaps for which the function raises are left out: such rows are quarantined.
    """
    rows = whole(golden.select(transform.reads.names)).cast(transform.reads)
    tables = (reference, golden)  # the reference has no texts that are tokens
    found = {name for table in tables for name in table.column_names if table[name].null_count}
    names = [name for name in transform.reads.names if name in found]
    columns = dict(zip(rows.schema.names, rows.columns, strict=True))
    for index, name in enumerate(names):
        missing = pa.array(np.arange(rows.num_rows) % len(names) == index)
        columns[name] = pc.if_else(missing, pa.scalar(None, columns[name].type), columns[name])
    if not names:
        return rows
    gaps = pa.RecordBatch.from_arrays(list(columns.values()), schema=rows.schema)
    try:
        _, raising = transform.run(gaps, typed=False)
    except ScoringError:  # its types or rows follow the gaps: the comparison says so
        raising = []
    sound = np.delete(np.arange(gaps.num_rows), [row.position for row in raising])
    return pa.concat_batches([rows, gaps.take(pa.array(sound))])


def _has_gaps(reference: pa.Table, name: str) -> bool:
    """Whether a column of the reference has missing values; of a text or a vector it has only a description."""
    return name in reference.column_names and bool(reference[name].null_count)


def _run(transform: MakesFeatures, rows: pa.RecordBatch, what: str) -> pa.RecordBatch:
    """The engineered columns in the types in which they come out."""
    try:
        made, raising = transform.run(rows, typed=False)
    except ScoringError as error:
        raise UnsoundError(f"{error} (golden rows {what})") from error
    if raising:
        raise UnsoundError(
            f"{NAME} raises for golden row {raising[0].position} {what}, and not among the others: {raising[0].detail}"
        )
    return made


def _trials(rows: int) -> Iterator[Trial]:
    every = np.arange(rows)
    yield Trial("taken a second time", every, _AGAIN)
    yield Trial("taken in halves", every[: rows // 2])
    yield Trial("taken in halves", every[rows // 2 :])
    yield Trial("taken twice each", np.repeat(every, 2))
    for row in every:
        yield Trial("taken alone", every[row : row + 1])
    yield Trial("taken in the reverse order", every[::-1].copy())
    yield Trial("taken in another order", np.random.default_rng(0).permutation(rows))


def _check_column(name: str, expected: pa.Array, found: pa.Array, trial: Trial, golden: pa.Table) -> None:
    if found.type != expected.type and found.null_count < len(found) > expected.null_count:
        raise UnsoundError(
            f"{NAME} returned {name} as {found.type} for golden rows {trial.what}, and as {expected.type} before: its "
            "type follows the values that happen to be there, missing ones for example. Give the column one type "
            f"(pandas: .astype('float64'), Arrow: .cast(pa.{_alias(expected.type)}()))"
        )
    place = _first_difference(expected, found)
    if place is None:
        return
    row = int(trial.order[place])
    which = f"golden row {row}" if row < golden.num_rows else "a golden row with a missing value"
    raise UnsoundError(
        f"{NAME} gives other values for the same row: {name} is {found[place].as_py()!r} in {which} "
        f"{trial.what}, where it was {expected[place].as_py()!r}: {trial.cause}"
    )


def _bits(column: pa.Array) -> list[Any]:
    """Cells that are equal only if all their bits are."""
    return [_exact(cell) for cell in column.to_pylist()]


def _exact(cell: object) -> object:
    if isinstance(cell, float):
        return cell.hex()
    return [_exact(inner) for inner in cell] if isinstance(cell, list) else cell


def _first_difference(expected: pa.Array, found: pa.Array) -> int | None:
    """The first row in which two columns differ in any bit."""
    both = zip(_bits(expected), _bits(found), strict=True)
    return next((row for row, (before, now) in enumerate(both) if before != now), None)


def _alias(kind: pa.DataType) -> str:
    return {"double": "float64", "float": "float32", "bool": "bool_"}.get(str(kind), str(kind))


def _first_deviation(expected: pa.Array, found: pa.Array) -> int | None:
    """The first row in which two columns differ."""
    rounding = ROUNDINGS.get(str(expected.type))
    if rounding is None:
        return _first_difference(expected, found)
    before, now = (column.cast(pa.float64()).to_numpy(zero_copy_only=False)[:, None] for column in (expected, found))
    limits = agreement.bounds(before, Tolerance(relative=rounding))
    beyond = np.flatnonzero(agreement.ratios(now, before, limits) > 1)
    return int(beyond[0]) if len(beyond) else None
