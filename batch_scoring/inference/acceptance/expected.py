"""Comparison of a bundle's outputs with those of the training code.

A bundle can be consistent and still not be the model: category codes with another offset, features in another order, a
missing scaler. Only the code that trained the network knows its outputs.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.acceptance import agreement
from batch_scoring.inference.heads.head import Head
from batch_scoring.inference.heads.tolerance import Tolerance
from batch_scoring.inference.manifest import Manifest

TOLERANCE = Tolerance(absolute=1e-4, relative=1e-4)
"""How far they may differ, unless the golden rows may differ more: they can come from a GPU, another batch size or a
file with four decimals; another coding of the rows changes far more."""

NAMED = 5
"""Rows and keys that a message names."""


_CAUSES = """\
The training code and the bundle's network compute different outputs. Check
  - the order of the features;
  - scaling and missing values: all that the training code does to them must happen in the network's forward, once;
  - the codes of the categories: 1 for the first word of the vocabulary, 0 for an unknown one;
  - whether the training code called eval() before it computed its outputs."""


@dataclass(frozen=True)
class Expected:
    """Expected outputs or scores of some rows of a bundle."""

    keys: list[str]
    """Columns that identify a row: the key, and `dt` if present."""
    columns: list[str]
    """The compared columns: of the network's outputs (`output_0` …) or of the scores (`prob_class_0` …)."""
    rows: pa.Table
    positions: np.ndarray
    """Positions of the rows among those of the bundle."""

    def check(self, found: dict[str, np.ndarray], tolerance: Tolerance) -> None:
        """Compare them with the scorer's outputs.

        Args:
            found: the scorer's values for all rows of the bundle, by column.
            tolerance: of the golden rows.

        Raises:
            UnsoundError: a value differs; names the first rows.
        """
        theirs = np.column_stack([self.rows[name].to_numpy().astype(np.float64) for name in self.columns])
        ours = np.column_stack([found[name][self.positions] for name in self.columns])
        # four decimals say nothing about small scores
        usual = Tolerance(relative=TOLERANCE.relative) if agreement.is_no_check(theirs, TOLERANCE) else TOLERANCE
        limits = np.maximum(agreement.bounds(theirs, usual), agreement.bounds(theirs, tolerance))
        wrong = np.flatnonzero((agreement.ratios(ours, theirs, limits) > 1).any(axis=1))
        if not len(wrong):
            return
        rows = [f"  {self._row(int(row), ours[row], theirs[row])}" for row in wrong[:NAMED]]
        rows += [f"  and {len(wrong) - NAMED} more"] if wrong[NAMED:].size else []
        raise UnsoundError("\n".join([f"{len(wrong)} of {len(theirs)} rows are not as expected:", *rows, _CAUSES]))

    def _row(self, row: int, ours: np.ndarray, theirs: np.ndarray) -> str:
        key = " ".join(f"{name} {self.rows[name][row].as_py()!s}" for name in self.keys)
        values = (
            f"{name} is {found:.6g}, expected {value:.6g}"
            for name, found, value in zip(self.columns, ours, theirs, strict=True)
        )
        return f"{key}: {', '.join(values)}"


def match(expected: pa.Table, manifest: Manifest, reference: pa.Table, golden: pa.Table) -> Expected:
    """Find the rows for which outputs are given.

    Args:
        expected: the key, `dt` if a key occurs on several days, and either outputs of the network, named as in
            `golden.parquet` (`output_0` …), or scores, named as in the predictions (`prob_class_0` …, or `prediction`
            of a regression); of two classes the probability of one is enough. In any order.
        manifest: of the bundle.
        reference: the rows of the bundle, before `golden`.
        golden: searched for keys that the reference lacks.

    Raises:
        UnsoundError: columns or keys do not fit, or a value is not a finite number.
    """
    columns = _compared(expected, manifest)
    keys = _keys(expected, manifest, reference)
    if not expected.num_rows:
        raise UnsoundError("has no rows; expected the outputs of some rows of the reference")
    for name in columns:
        kind = expected.schema.field(name).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise UnsoundError(f"column {name} is {kind}; expected numbers")
        bad = expected.num_rows - (pc.sum(pc.is_finite(expected[name])).as_py() or 0)
        if bad:
            raise UnsoundError(f"{bad} of {expected.num_rows} values of {name} are null, NaN or infinite")
    return Expected(keys, columns, expected, _positions(expected, keys, reference, golden))


def columns_of(values: np.ndarray, head: Head, outputs: Sequence[str]) -> dict[str, np.ndarray]:
    """The values that training code computes for each row, by the names of the columns that they are compared with.

    Args:
        values: [rows, k] or [rows]: outputs of the network; or scores, which are recognised as such where they are
            probabilities of a network that gives logits. Of two classes, that of the second alone is enough.
        head: of the model.
        outputs: names of the network's outputs.

    Raises:
        UnsoundError: there are neither as many columns as outputs nor as scores.
    """
    table = values.reshape(len(values), -1)
    named: list[Sequence[str]] = [outputs]
    if head.gives != "values" and _are_probabilities(table, exclusive=head.is_exclusive):
        scores = head.expected_columns
        named = [scores, *([scores[1:]] if head.is_exclusive and len(scores) == 2 else []), outputs]
    for names in named:
        if len(names) == table.shape[1]:
            if names is outputs and len(named) > 1 and head.is_exclusive and head.gives == "logits" and len(names) > 1:
                raise UnsoundError(
                    "expected are probabilities of all classes, of which the model writes the likeliest alone; give "
                    f"the network's logits, or a table with the key and {', '.join(head.expected_columns)}"
                )
            return dict(zip(names, table.T, strict=True))
    raise UnsoundError(
        f"expected has the shape {values.shape}; the network has {len(outputs)} output{'s'[: len(outputs) != 1]} a row"
        + (f", and the scores are {', '.join(head.expected_columns)}" if head.gives != "values" else "")
    )


def _are_probabilities(values: np.ndarray, *, exclusive: bool) -> bool:
    """Whether values lie between 0 and 1, and those of a row add up to 1 if it is of one class."""
    if not len(values) or not ((values >= 0) & (values <= 1)).all():
        return False
    return not exclusive or values.shape[1] == 1 or bool(np.allclose(values.sum(axis=1), 1, atol=1e-3))


def _compared(expected: pa.Table, manifest: Manifest) -> list[str]:
    outputs, scores = manifest.output_columns, manifest.task.expected_columns
    found = [name for name in (*outputs, *scores) if name in expected.column_names]
    if not found:
        raise UnsoundError(
            f"has the columns {', '.join(expected.column_names)}; expected the key and the network's outputs "
            f"({', '.join(outputs)}) or the scores ({', '.join(scores)})"
        )
    return found


def _keys(expected: pa.Table, manifest: Manifest, reference: pa.Table) -> list[str]:
    """The key, which both tables have beside features and outputs, and the day where it is given."""
    known = {"dt", *manifest.features, *manifest.output_columns, *manifest.task.columns}
    keys = [name for name in expected.column_names if name in reference.column_names and name not in known]
    if len(keys) != 1:
        raise UnsoundError(
            f"has the key columns {', '.join(keys) or 'none'} in common with the reference; expected one (it has "
            f"{', '.join(expected.column_names)}, the reference {', '.join(reference.column_names)})"
        )
    return [*keys, "dt"] if "dt" in expected.column_names and "dt" in reference.column_names else keys


def _positions(expected: pa.Table, keys: list[str], reference: pa.Table, golden: pa.Table) -> np.ndarray:
    """The position of each row among those of the reference, followed by the golden rows."""
    places: dict[tuple[object, ...], int] = {}
    doubled = set()
    for position, key in enumerate(keys_of(reference, keys)):
        if places.setdefault(key, position) != position:
            doubled.add(key)
    if set(keys) <= set(golden.column_names):
        for position, key in enumerate(keys_of(golden, keys), reference.num_rows):
            places.setdefault(key, position)
    wanted = keys_of(expected, keys)
    what = " and ".join(keys)
    if any(None in key for key in wanted):
        raise UnsoundError(f"has rows without {what}")
    _ensure_none([key for key, count in Counter(wanted).items() if count > 1], f"has rows of one {what} twice")
    _ensure_none(
        [key for key in wanted if key not in places], f"has rows whose {what} is in neither reference nor golden"
    )
    _ensure_none(
        [key for key in wanted if key in doubled],
        f"has rows whose {what} occurs in several rows of the reference" + ("" if keys[1:] else "; give dt too"),
    )
    return np.array([places[key] for key in wanted])


def keys_of(rows: pa.Table, keys: Sequence[str]) -> list[tuple[object, ...]]:
    """The keys of rows; days as dates, whatever their type."""
    columns = []
    for name in keys:
        column = rows[name]
        if name == "dt":
            try:
                column = column.cast(pa.date32())
            except pa.ArrowException as error:
                raise UnsoundError(f"column dt is {column.type}; expected dates") from error
        columns.append(column.to_pylist())
    return list(zip(*columns, strict=True))


def _ensure_none(keys: list[tuple[object, ...]], why: str) -> None:
    if keys:
        shown = ", ".join(" ".join(map(repr, map(str, key))) for key in keys[:NAMED])
        raise UnsoundError(f"{why}: {shown}" + (f" and {len(keys) - NAMED} more" if keys[NAMED:] else ""))
