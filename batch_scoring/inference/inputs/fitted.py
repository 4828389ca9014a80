"""What a transform has learned from the training rows, as data: files of the bundle, and never a pickle.

    fitted.json              numbers, texts, lists, mappings
    fitted.safetensors       numpy arrays
    fitted.<name>.parquet    Arrow tables

`fit` returns a dict of such values by name, and `transform` gets an equal one, in training as in scoring.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch_scoring.errors import UnsoundError, is_out_of_memory
from batch_scoring.storage import parquet

Fitted = Mapping[str, Any]
"""JSON values, numpy arrays and Arrow tables, by name."""

VALUES, ARRAYS = "fitted.json", "fitted.safetensors"
_TABLE = re.compile(r"fitted\.([A-Za-z_]\w*)\.parquet", re.ASCII)

_ACCEPTED = "expected numbers, texts, lists and mappings of them, numpy arrays and Arrow tables"
_INSTEAD = {
    "DataFrame": "give pa.Table.from_pandas(frame, preserve_index=False)",
    "Series": "give .to_dict(), .tolist() or .to_numpy()",
    "Tensor": "give .numpy()",
    "set": "give a sorted list",
    "bytes": "give text",
    "date": "give .isoformat()",
    "datetime": "give .isoformat()",
    "Timestamp": "give .isoformat()",
}
"""What to write for values that training code often has, by the name of their class."""


def dump(fitted: object) -> dict[str, bytes]:
    """The files of a fitted state, by name.

    Raises:
        UnsoundError: a value is no data, or is not a number.
    """
    if not isinstance(fitted, Mapping):
        raise UnsoundError(f"fit returned a {type(fitted).__name__}; expected a dict of values by name, {{}} for none")
    values: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    files: dict[str, bytes] = {}
    for name, value in fitted.items():
        if not isinstance(name, str):
            raise UnsoundError(f"the fitted state has a value under {name!r}; expected names that are text")
        if isinstance(value, pa.Table):
            files[f"fitted.{name}.parquet"] = _of_table(name, value)
        elif isinstance(value, np.ndarray):
            arrays[name] = _of_array(name, value)
        else:
            values[name] = _json(name, value)
    if values:
        files[VALUES] = (json.dumps(values, indent=1, allow_nan=False) + "\n").encode()
    if arrays:
        import safetensors.numpy

        files[ARRAYS] = safetensors.numpy.save(arrays)
    return files


def load(files: Mapping[str, bytes]) -> dict[str, Any]:
    """The fitted state in the files of a bundle; other files are left alone.

    Raises:
        UnsoundError: a file is not what its name says.
    """
    found: dict[str, Any] = {}
    for file in sorted(files):
        for name, value in _read(file, files[file]):
            if name in found:
                raise UnsoundError(f"{file}: {name} is in another file as well")
            found[name] = value
    return found


def is_of_fitted(file: str) -> bool:
    """Whether a file of a bundle belongs to its fitted state."""
    return file in (VALUES, ARRAYS) or bool(_TABLE.fullmatch(file))


def _read(file: str, data: bytes) -> Iterator[tuple[str, Any]]:
    """The values of one file."""
    if not is_of_fitted(file):
        return
    try:
        if file == VALUES:
            values = json.loads(data)
            if not isinstance(values, dict):
                raise ValueError("expected an object")
            yield from values.items()
        elif file == ARRAYS:
            import safetensors.numpy

            yield from safetensors.numpy.load(data).items()
        else:
            yield file.removeprefix("fitted.").removesuffix(".parquet"), _table(data)
    except Exception as error:  # each library raises its own
        if is_out_of_memory(error):
            raise
        raise UnsoundError(f"{file} cannot be read: {' '.join(str(error).split())}") from error


def _json(name: str, value: object) -> Any:  # noqa: ANN401  (JSON)
    try:
        return _plain(value, name)
    except RecursionError:
        raise UnsoundError(f"{name} of the fitted state contains itself, or is nested too deeply") from None


def _plain(value: object, where: str) -> Any:  # noqa: ANN401  (JSON)
    """A value as JSON has it; tuples become lists and numpy's numbers Python's.

    Raises:
        UnsoundError: JSON has no such value.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UnsoundError(f"{where} of the fitted state is {value}; expected a finite number")
        return value
    if isinstance(value, list | tuple):
        return [_plain(inner, f"{where}[{index}]") for index, inner in enumerate(value)]
    if isinstance(value, Mapping):
        if wrong := [name for name in value if not isinstance(name, str)]:
            raise UnsoundError(
                f"{where} of the fitted state has the key {wrong[0]!r}; expected text, as JSON has: str({wrong[0]!r}), "
                "or a list of pairs"
            )
        return {name: _plain(inner, f"{where}.{name}") for name, inner in value.items()}
    raise UnsoundError(f"{where} of the fitted state is a {type(value).__name__}, and not data: {_advice(value)}")


def _advice(value: object) -> str:
    """What to write instead of a value that is not data."""
    if isinstance(value, np.ndarray | pa.Table):
        return "an array or table has a name of its own in what fit returns, and is not within another value"
    if callable(value):
        return "a function belongs into the module itself, and what it has learned into the state"
    if isinstance(value, pa.Scalar):
        return "give .as_py()"
    if isinstance(value, pa.Array | pa.ChunkedArray):
        return "give .to_pylist() or .to_numpy()"
    return _INSTEAD.get(type(value).__name__, _ACCEPTED)


def _of_array(name: str, values: np.ndarray) -> np.ndarray:
    """An array as safetensors has it."""
    if values.dtype.kind not in "biuf" or values.dtype.itemsize > 8:
        raise UnsoundError(
            f"{name} of the fitted state is an array of {values.dtype}; expected numbers or booleans (texts: .tolist())"
        )
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise UnsoundError(f"{name} of the fitted state has {int(np.isnan(values).sum())} values that are NaN")
    return values.astype(values.dtype.newbyteorder("="), order="C")


def _of_table(name: str, table: pa.Table) -> bytes:
    """A table as a Parquet file that gives it back."""
    file = f"fitted.{name}.parquet"
    if not _TABLE.fullmatch(file):
        raise UnsoundError(f"the table {name!r} of the fitted state cannot name a file; expected letters, digits and _")
    for column in table.schema.names:
        values = table[column] if table.schema.names.count(column) == 1 else None
        if values is None:
            raise UnsoundError(f"{name} of the fitted state has two columns {column}")
        if pa.types.is_floating(values.type) and pc.any(pc.is_nan(values)).as_py():
            raise UnsoundError(f"{name}.{column} of the fitted state has NaN; a missing value is null")
    plain = table.replace_schema_metadata(None)
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(plain, sink, compression="zstd")
        data = bytes(sink.getvalue())
        is_same = _table(data).equals(plain)
    except pa.ArrowException as error:
        raise UnsoundError(f"{name} of the fitted state cannot be a Parquet file: {error}") from error
    if not is_same:
        raise UnsoundError(f"{name} of the fitted state does not come back from Parquet: {plain.schema.types}")
    return data


def _table(data: bytes) -> pa.Table:
    # read_table would import pandas
    return parquet.open_file(pa.BufferReader(data)).read(use_threads=False).replace_schema_metadata(None)
