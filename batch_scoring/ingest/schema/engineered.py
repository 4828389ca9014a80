"""Rules about engineered features: the spec's pandera model of them, applied row by row as the schema's rules are.

What makes the features knows nothing of this module, and this one nothing of models: `daily/model_code.py` joins them.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import ContractError
from batch_scoring.ingest.schema import casting
from batch_scoring.ingest.schema.compiled import Column, CompiledSchema
from batch_scoring.ingest.schema.contract import Rejections


class EngineeredRules:
    """A pipeline's model of its engineered features, compiled to validate record batches."""

    def __init__(self, pipeline: Pipeline, reference: str) -> None:
        """Load the model and reject settings that cannot be decided for one row alone; `reference`: module:class.

        Raises:
            ContractError: names the check or column and what is accepted.
        """
        self._name = f"{reference} of {pipeline.name}"
        self._compiled = CompiledSchema(pipeline.load(reference), f"{pipeline.name}: {reference}")

    def rejected(self, rows: pa.RecordBatch) -> Rejections:
        """The rows that break a rule, with the first one that each breaks.

        Raises:
            ContractError: a column is missing or of another kind than declared.
        """
        columns = self._compiled.columns
        if missing := [name for name in columns if name not in rows.schema.names]:
            raise ContractError(
                f"features.transform returned no column {', '.join(missing)}, which {self._name} requires; it returned "
                f"{', '.join(rows.schema.names)}: return it, or leave it out of the model"
            )
        found = Rejections(rows.num_rows)
        typed = {name: self._typed(rows.column(name), column, found) for name, column in columns.items()}
        positions = found.others
        table = pa.RecordBatch.from_pydict(typed).take(pa.array(positions))
        for name, rule, broken in self._compiled.broken(table):
            found.add("rule", rule, name, positions[broken], table.column(name), broken)
        return found

    def _typed(self, values: pa.Array, column: Column, rejected: Rejections) -> pa.Array:
        if not casting.fits(values.type, column.type, coerce=column.coerce):
            raise ContractError(
                f"features.transform returned {column.name} as {values.type}, {self._name} expects {column.type}; give "
                "the column that type, or change the model"
            )
        typed, wrong, cells = casting.cast(values, column.type, coerce=column.coerce)
        rejected.add("schema", f"is_{column.type}", column.name, wrong, cells)
        if not column.nullable:
            missing = np.flatnonzero(typed.is_null().to_numpy(zero_copy_only=False))
            rejected.add("rule", "not_nullable", column.name, missing, typed)
        if pa.types.is_floating(typed.type):
            finite = pc.fill_null(pc.is_finite(typed), True).to_numpy(zero_copy_only=False)
            rejected.add("rule", "is_finite", column.name, np.flatnonzero(~finite), typed)
        return typed
