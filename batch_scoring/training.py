"""Public door of training scripts: the rows and tensors that a network is trained on, and the bundle of the result.

    data = Training("loans", "loans.csv", held_out=8)
    network = data.network(hidden=64)
    ...                                    # network(**data.tensors), or for tensors, rows in data.batches(256)
    data.write("data/loans/models/v1", network, classes=["repays", "defaults"])

Rows are validated, transformed and encoded by the code that scores a day, so training and scoring cannot differ. The
transform's state, vocabularies and tokenizer are learned here, once, from the training rows alone.
"""

import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter, ValidationError

from batch_scoring.config.loader import declared_pipeline
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import CalibrationError, UnsoundError
from batch_scoring.inference.acceptance.expected import columns_of, keys_of
from batch_scoring.inference.bundle import GOLDEN_ROWS, read_bundle, write_bundle
from batch_scoring.inference.heads.head import Head
from batch_scoring.inference.heads.task import Task, TaskName, from_name
from batch_scoring.inference.heads.tolerance import Tolerance
from batch_scoring.inference.inputs.fitted import Fitted
from batch_scoring.inference.inputs.texts import joined
from batch_scoring.ingest import samples
from batch_scoring.ingest.samples import DAY, Sample, SampleRows
from batch_scoring.learning import tokenizer as learned_tokenizer
from batch_scoring.learning.examples import Examples
from batch_scoring.learning.golden_choice import varied
from batch_scoring.learning.splits import held_out_rows, is_by_day, only, spread
from batch_scoring.learning.state import POSITIONAL, LearnedState, side_by_side
from batch_scoring.monitoring.drift.calibration import calibrate
from batch_scoring.storage.folders.addresses import open_folder

if TYPE_CHECKING:
    import pandas as pd
    import torch

Values: TypeAlias = Union[np.ndarray, "torch.Tensor", Sequence[float]]
"""Numbers of each row, in the order of `rows`."""

REFERENCE_ROWS = 50_000
"""Rows of the sample that a bundle keeps for drift, spread over its days."""

_ARGUMENTS = "batch_scoring_arguments"
"""Attribute of a network with what it was built with; copies of the network keep it."""

_log = logging.getLogger(__name__)


class Training(Examples):
    """The training rows of a pipeline, and what is learned from them."""

    def __init__(
        self,
        pipeline: str | Pipeline,
        sample: Sample,
        *,
        held_out: int | None = None,
        vocabularies: Mapping[str, Sequence[str]] | None = None,
        tokenizer: str | Path | bytes | None = None,
        longest: int | None = None,
    ) -> None:
        """Read a sample; learn the transform's state, and the vocabularies.

        Args:
            pipeline: its name, or the pipeline.
            sample: a table, a pandas frame, or files of any landing format: the columns of the schema, the label, and
                the day of each row in `dt`, or in the names of the files' folders.
            held_out: hold out every so many-th day of the sample, or row if it has fewer days: nothing is learned from
                those rows, and they are `held_out`.
            vocabularies: words of categorical columns, in place of those of the sample.
            tokenizer: of the text columns, a tokenizer.json or its content; `train_tokenizer` learns one.
            longest: tokens that are kept of a text; as many as 99 % of the texts have, 512 at most, if None.

        Raises:
            SpecError: there is no such pipeline.
            ContractError: the sample lacks a column, or has it with another type.
            UnsoundError: nothing can be learned from it.
        """
        found = declared_pipeline(pipeline) if isinstance(pipeline, str) else pipeline
        state = LearnedState(found, vocabularies)
        everything = state.read(sample)
        _report(everything)
        is_held = held_out_rows(everything, held_out)
        known = only(everything, ~is_held)
        state.learn(known)
        super().__init__(state, state.prepare(known))
        self._every, self._longest = held_out, longest
        self._held_out: Examples | None = None
        if held_out:
            rest = replace(only(everything, is_held), rejected=everything.rejected.slice(0, 0))
            self._held_out = Examples(state, state.prepare(rest))
        if tokenizer is not None:
            content = tokenizer if isinstance(tokenizer, bytes) else Path(tokenizer).read_bytes()
            state.read_texts(content, self.rows, longest)

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline."""
        return self._state.pipeline

    @property
    def held_out(self) -> Examples:
        """Rows that nothing was learned from.

        Raises:
            UnsoundError: none are held out.
        """
        if self._held_out is None:
            raise UnsoundError("no rows are held out; hold out every 8th day with Training(…, held_out=8)")
        return self._held_out

    @property
    def vocabularies(self) -> dict[str, list[str]]:
        """The words of each categorical column; code = position + 1, 0 is unknown or missing."""
        return self._state.vocabularies

    @property
    def fitted(self) -> Fitted:
        """What the transform's `fit` has learned."""
        return self._state.fitted or {}

    @property
    def tokenizer(self) -> bytes | None:
        """The content of tokenizer.json."""
        return self._state.tokenizer

    @property
    def vocabulary_size(self) -> int:
        """Rows that an embedding of `tokens` needs; 0 without a tokenizer."""
        return learned_tokenizer.size_of(self.tokenizer) if self.tokenizer else 0

    def train_tokenizer(self, size: int = 8_000) -> bytes:
        """Learn a tokenizer from the training rows; see `inputs/learned.py`.

        Args:
            size: tokens at most.

        Raises:
            UnsoundError: the pipeline has no text columns, or a tokenizer already.
        """
        columns = self.pipeline.spec.features.text
        if not columns or self.tokenizer:
            what = "has a tokenizer already" if columns else "names no text columns in features.text"
            raise UnsoundError(f"{self.pipeline.name} {what}")
        texts = joined(self.rows, columns).to_pylist()
        self._state.read_texts(learned_tokenizer.train(texts, size), self.rows, self._longest)
        return self.tokenizer or b""

    def encode(self, sample: Sample) -> Examples:
        """Other rows with the same state, vocabularies and tokenizer: nothing is learned from them.

        Raises:
            ContractError: the sample lacks a column, or has it with another type.
            UnsoundError: no row is accepted.
        """
        found = self._state.read(sample)
        _report(found)
        return Examples(self._state, self._state.prepare(found))

    def network(self, **arguments: Any) -> "torch.nn.Module":  # noqa: ANN401  (of the user's class)
        """Build the pipeline's network; `write` knows what it was built with.

        Args:
            arguments: of its class; plain JSON.
        """
        network = self._state.code.network(**arguments)
        vars(network)[_ARGUMENTS] = arguments
        return network

    def write(
        self,
        folder: str | Path,
        network: "torch.nn.Module",
        *,
        classes: Sequence[str] = (),
        task: Head | TaskName | None = None,
        version: str = "",
        arguments: Mapping[str, Any] | None = None,
        expected: "Values | pa.Table | pd.DataFrame | None" = None,
        training: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        golden_tolerance: Tolerance | float | None = None,
    ) -> str:
        """Write the trained network as a bundle, calibrated if the sample has enough days.

        Args:
            folder: the new bundle's; files of the same names are replaced.
            network: trained, on the CPU.
            classes: of a classification, in the order of the network's outputs.
            task: of anything else: a head of `inference/heads/`, or "regression".
            version: stored in every scored row; the folder's name if empty.
            arguments: what the network was built with, if `network()` of this object has not built it.
            expected: what the script itself computes, and the engine has to: outputs or scores of `rows`, in their
                order; or a table with the key (and `dt`), as `write_bundle` takes it. Of a sample of more than
                50,000 rows, those in the reference are compared.
            training: for people, beside the days and the number of rows.
            metrics: measured figures, by name.
            golden_tolerance: see `write_bundle`.

        Returns:
            The bundle's sha256.

        Raises:
            BundleError: the network cannot be scored with, or gives other outputs than expected; nothing is written.
            UnsoundError: the sample is too small, there is no tokenizer for its texts, or what the network was built
                with is not known.
        """
        folder, head = Path(folder), _head(task, classes)
        self._state.texts()
        everything = [self._prepared, *([self._held_out._prepared] if self._held_out else [])]
        raw = pa.concat_tables([side_by_side(each.raw, _day_alone(each.rows)) for each in everything])
        rows = pa.concat_tables([each.rows for each in everything], promote_options="permissive")
        if rows.num_rows < GOLDEN_ROWS:
            raise UnsoundError(f"the sample has {rows.num_rows} accepted rows; expected at least {GOLDEN_ROWS}")
        chosen = spread(rows, REFERENCE_ROWS)
        spec, state = self.pipeline.spec, self._state
        golden = chosen[varied(rows.take(pa.array(chosen)), spec.features.inputs, GOLDEN_ROWS)]
        reference = raw.take(pa.array(chosen))
        write_bundle(
            folder,
            network=network,
            arguments=dict(self._arguments(network) if arguments is None else arguments),
            name=self.pipeline.name,
            version=version or folder.name,
            task=head,
            numeric=list(spec.features.numeric),
            categorical=state.vocabularies,
            training={**self._described(rows), **(training or {})},
            metrics=dict(metrics or {}),
            golden=raw.take(pa.array(golden)).select(self._prepared.raw.column_names),
            reference=reference,
            expected=None if expected is None else self._expected(expected, head, raw, chosen),
            golden_tolerance=golden_tolerance,
            text=state.text,
            tokenizer=state.tokenizer,
            vectors=state.vectors,
            code=state.code,
            fitted=state.fitted,
        )
        return self._calibrated(folder, version or folder.name)

    def _arguments(self, network: "torch.nn.Module") -> Mapping[str, Any]:
        """What the network was built with.

        Raises:
            UnsoundError: nobody knows.
        """
        if _ARGUMENTS in vars(network):
            found: Mapping[str, Any] = vars(network)[_ARGUMENTS]
            return found
        if type(network).__module__.partition(".")[0] == "torch":  # a wrapper, which `write_bundle` refuses
            return {}
        wanted = inspect.signature(type(network)).parameters.values()
        if required := [each.name for each in wanted if each.default is each.empty and each.kind in POSITIONAL]:
            given = ", ".join(f'"{name}": …' for name in required)
            raise UnsoundError(
                f"what the network was built with is not known: build it with data.network({required[0]}=…) in place "
                f"of {type(network).__name__}({required[0]}=…), or give write(…, arguments={{{given}}})"
            )
        return {}

    def _described(self, rows: pa.Table) -> dict[str, Any]:
        """Of the training, for people."""
        days = pc.min_max(rows[DAY]).as_py() if DAY in rows.column_names else {}
        window = {"from": str(days["min"]), "to": str(days["max"])} if days else {}
        unit = "day" if self._every and is_by_day(rows, self._every) else "row"
        return window | {"rows": len(self)} | ({"validation": f"every {self._every}th {unit}"} if self._every else {})

    def _expected(
        self, expected: "Values | pa.Table | pd.DataFrame", head: Head, raw: pa.Table, chosen: np.ndarray
    ) -> pa.Table:
        """What the script computes for rows of the reference, as a table with their keys."""
        keys = [name for name in (self._state.contract.key, DAY) if name in raw.column_names]
        if isinstance(expected, pa.Table) or type(expected).__name__ == "DataFrame":
            table = samples.table_of(expected)
            shared = [name for name in keys if name in table.column_names]
            left_out = np.delete(np.arange(raw.num_rows), chosen)
            return _without(table, raw.take(pa.array(left_out)), shared) if len(left_out) and shared else table
        values = _array(cast("Values", expected))
        if len(values) != len(self):
            raise UnsoundError(
                f"expected has {len(values)} rows; data.rows has {len(self)}: give one for each, in order"
            )
        compared = chosen[chosen < len(self)]
        table = raw.select(keys).take(pa.array(compared))
        outputs = [f"output_{index}" for index in range(head.width)]
        for name, column in columns_of(values[compared], head, outputs).items():
            table = table.append_column(name, pa.array(column))
        return table

    def _calibrated(self, folder: Path, version: str) -> str:
        """Learn the reference profile of a bundle, if it has days for one; return its sha256."""
        place = open_folder(str(folder))
        bundle = read_bundle(place)
        try:
            profile = calibrate(bundle, self.pipeline.spec.features.day_grain)
        except CalibrationError as error:
            _log.warning(f"{folder} is written, but not calibrated, so drift is not tested: {error}")
            return bundle.sha256
        bundle = bundle.with_profile(profile, version)
        bundle.write(place)
        return bundle.sha256


def _report(found: SampleRows) -> None:
    """Say in one line how many rows the schema rejects, and why.

    Raises:
        UnsoundError: it accepts none.
    """
    accepted, rejected = found.accepted.num_rows, found.rejected
    names = pc.binary_join_element_wise(rejected["column"], rejected["rule"], " ")
    counts = sorted(names.value_counts().to_pylist(), key=lambda each: (-each["counts"], each["values"]))
    said = ", ".join(f"{each['counts']:,} {each['values'].strip()}" for each in counts[:5])
    if not accepted:
        raise UnsoundError(f"the sample has no row that the schema accepts; of {rejected.num_rows:,}: {said or 'none'}")
    if DAY not in found.others.column_names and "key_is_unique" in rejected["rule"].to_pylist():
        said += f"; with the day of each row in {DAY}, a key may occur once a day"
    if rejected.num_rows:
        rows = accepted + rejected.num_rows
        _log.warning(f"{rejected.num_rows:,} of {rows:,} rows are rejected, as in scoring: {said} (see data.rejected)")


def _head(task: Head | TaskName | None, classes: Sequence[str]) -> Head:
    """The head that `write` is told.

    Raises:
        UnsoundError: it is told none, or two, or an impossible one.
    """
    if isinstance(task, Head):
        if classes:
            raise UnsoundError("classes and task are given; the head itself has its classes")
        return task
    if task is None and not classes:
        raise UnsoundError('neither classes nor task is given; expected classes=[…], task="regression" or a head')
    try:
        found: Head = TypeAdapter(Task).validate_python(from_name(task or "classification", classes))
        return found
    except ValidationError as error:
        raise UnsoundError("; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())) from error


def _day_alone(rows: pa.Table) -> pa.Table:
    return rows.select([DAY] if DAY in rows.column_names else [])


def _without(table: pa.Table, others: pa.Table, keys: Sequence[str]) -> pa.Table:
    """The rows of a table whose keys are none of the others'."""
    left_out = set(keys_of(others, keys))
    return table.filter(pa.array([key not in left_out for key in keys_of(table, keys)], pa.bool_()))


def _array(values: Values) -> np.ndarray:
    """Numbers of each row as float64."""
    detached = values.detach().cpu() if hasattr(values, "detach") else values
    return np.asarray(detached, np.float64)
