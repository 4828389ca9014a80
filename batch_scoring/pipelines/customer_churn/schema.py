"""The contract on the customer table: its columns, their types and their ranges, row by row.

Nothing here looks at more than one row; equal ids are the framework's business.
"""

import pandera.pandas as pa


class Customers(pa.DataFrameModel):
    """One customer on one day."""

    id: str
    age: int = pa.Field(ge=18, le=120, description="years")
    income: float = pa.Field(ge=0, description="a year, before tax")
    tenure_days: int = pa.Field(ge=0, description="days since the first contract")
    num_purchases: int = pa.Field(ge=0, description="since the first contract")
    avg_transaction_value: float = pa.Field(ge=0, nullable=True, description="null: no purchase yet, or not known")
    days_since_last_purchase: int = pa.Field(ge=0, nullable=True, description="null: no purchase yet")
