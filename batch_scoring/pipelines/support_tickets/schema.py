"""The contract on a day's tickets: columns, types and ranges, row by row."""

from pandera.pandas import DataFrameModel, Field


class Tickets(DataFrameModel):
    """One ticket, as it stood when it came in."""

    ticket_id: str = Field(str_matches=r"^\d{6}-\d{5,}$", description="day and number within the day")
    channel: str = Field(isin=["email", "app", "chat"], description="where the customer wrote it")
    tier: str = Field(isin=["basic", "plus", "gold"], description="the customer's, on that day")
    earlier_tickets: int = Field(ge=0, le=10_000, description="of the customer, in the last year")
    days_since_order: float = Field(ge=0, nullable=True, description="null: never ordered")
    subject: str = Field(nullable=True, description="null: a chat has none")
    body: str = Field(description="as written, in whatever language; may be empty")
