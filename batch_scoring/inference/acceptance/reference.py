"""Check that the reference of a bundle, and the profile learned from it, belong to its model."""

from collections import Counter

import numpy as np
import pyarrow as pa

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.acceptance.vocabularies import check_words
from batch_scoring.inference.inputs.vectors import is_list
from batch_scoring.inference.manifest import Manifest
from batch_scoring.inference.reference_profile import ReferenceProfile


def check_reference(manifest: Manifest, rows: pa.Table) -> None:
    """Check features, vocabularies and scores of the reference's rows.

    Raises:
        UnsoundError: there are no rows, a column is missing or of another type, hardly a word is known, or a
            score is invalid.
    """
    check_features(manifest, rows)
    head = manifest.task
    plain = [field.name for field in head.fields if not pa.types.is_nested(field.type)]
    wanted = dict.fromkeys((*plain[:1], *head.score_columns))
    if absent := [name for name in wanted if name not in rows.column_names]:
        raise UnsoundError(f"it has no column {', '.join(absent)}; expected the model's scores beside the features")
    for name in wanted:
        check_numbers(name, rows[name].type)
        values = rows[name].cast(pa.float64()).to_numpy()
        bad = ~np.isfinite(values)
        if name in head.probabilities:
            bad |= (values < 0) | (values > 1)
        if bad.any():
            raise UnsoundError(f"{int(bad.sum())} of {len(values)} values of {name} are not scores")


def check_features(manifest: Manifest, rows: pa.Table) -> None:
    """Check the features alone, before there are scores; of texts, only that they are none, or described.

    Raises:
        UnsoundError: there are no rows, a column is missing or of another type, or hardly a word is known.
    """
    if not rows.num_rows:
        raise UnsoundError("it has no rows; expected a sample of the training window")
    check_names(rows)
    numeric = manifest.numeric if _has_texts(manifest, rows) else manifest.compared_numeric
    if absent := [name for name in (*numeric, *manifest.categorical) if name not in rows.column_names]:
        raise UnsoundError(f"it has no column {', '.join(absent)}, which the model needs")
    for name in numeric:
        check_numbers(name, rows[name].type)
    check_words(manifest, rows)


def _has_texts(manifest: Manifest, rows: pa.Table) -> bool:
    """Whether there are texts and vectors themselves, as in a training sample, and not what describes them."""
    return bool(manifest.described) and set(manifest.described) <= set(rows.column_names)


def check_texts(manifest: Manifest, rows: pa.Table) -> None:
    """Check the types of text columns and of vectors.

    Raises:
        UnsoundError: one is missing, or is not text, or holds no lists.
    """
    for name in manifest.text.columns if manifest.text else ():
        if name not in rows.column_names:
            raise UnsoundError(f"it has no column {name}, a text that the model needs")
        kind = rows[name].type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)):
            raise UnsoundError(f"column {name} is {kind}; expected text")
    for name in manifest.vectors:
        if name not in rows.column_names:
            raise UnsoundError(f"it has no column {name}, a vector that the model needs")
        if not is_list(rows[name].type):
            raise UnsoundError(f"column {name} is {rows[name].type}; expected lists of numbers")


def check_profile(manifest: Manifest, profile: ReferenceProfile) -> None:
    """Check a reference profile's columns against the model's.

    Raises:
        UnsoundError: it has other features or other scores.
    """
    for kind, names in (("numeric", manifest.compared_numeric), ("categorical", tuple(manifest.categorical))):
        known = {name for name, column in profile.columns.items() if column.kind == kind}
        if other := sorted(known - set(names)):
            raise UnsoundError(f"it has thresholds of {', '.join(other)}, not a {kind} feature of the model")
    if other := sorted(set(profile.everyday) - set(manifest.categorical)):
        raise UnsoundError(f"it has everyday values of {', '.join(other)}, not a categorical feature of the model")
    if other := sorted(set(profile.scores) - set(manifest.task.score_columns)):
        scores = ", ".join(manifest.task.score_columns)
        raise UnsoundError(f"it has thresholds of {', '.join(other)}; the model's scores are {scores}")


def check_names(rows: pa.Table) -> None:
    """Check that column names are unique.

    Raises:
        UnsoundError: they are not.
    """
    if twice := [name for name, count in Counter(rows.column_names).items() if count > 1]:
        raise UnsoundError(f"it has two columns {', '.join(twice)}")


def check_numbers(name: str, kind: pa.DataType) -> None:
    """Check that a column is numeric.

    Raises:
        UnsoundError: it is not.
    """
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise UnsoundError(f"column {name} is {kind}; expected numbers")
