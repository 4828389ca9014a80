"""The contract on a day's loans: the columns that the model needs, their types and their ranges."""

import pandera.pandas as pa


class Loans(pa.DataFrameModel):
    """One open loan on one day."""

    loan_id: str
    amount: float = pa.Field(gt=0, le=1_000_000, description="euros still owed")
    term_months: int = pa.Field(isin=[12, 24, 36, 60], description="months from the first instalment to the last")
    rate: float = pa.Field(ge=0, nullable=True, description="interest in percent a year; null: not recorded")
