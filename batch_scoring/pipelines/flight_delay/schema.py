"""The contract on a day's flights: which rows the model may see.

The bounds are physical or geographical, wide enough for every honest row of 2013, storm days included. A row
outside them is quarantined with the rule's name; a missing value is honest wherever `nullable` stands (a
plane that is not in the registry, a silent weather station, a destination without a flight in the last week).
"""

from pandera.pandas import DataFrameModel, Field

NEW_YORK = ["EWR", "JFK", "LGA"]


class Flights(DataFrameModel):
    """One row a scheduled departure; what is known of it at 03:00 New York time of its day."""

    flight_id: str = Field(
        str_matches=r"^\d{4}-\d{2}-\d{2}_[A-Z0-9]{2}_\d{1,4}_[A-Z]{3}$",
        description="date_carrier_flight_origin",
    )
    carrier: str = Field(str_matches=r"^[A-Z0-9]{2}$", description="IATA code of the airline")
    origin: str = Field(isin=NEW_YORK, description="airport of departure")
    dest: str = Field(str_matches=r"^[A-Z]{3}$", notin=NEW_YORK, description="airport of arrival")
    weekday: str = Field(isin=["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], description="day of the departure")

    dep_sin: float = Field(ge=-1, le=1, description="scheduled departure, New York time, as an angle: one turn a day")
    dep_cos: float = Field(ge=-1, le=1)
    arr_sin: float = Field(ge=-1, le=1, description="scheduled arrival, the destination's time, as an angle")
    arr_cos: float = Field(ge=-1, le=1)
    block_minutes: float = Field(ge=20, le=900, nullable=True, description="scheduled minutes from gate to gate")
    distance: int = Field(ge=50, le=6000, description="miles")
    origin_hour_departures: int = Field(ge=1, le=120, description="departures scheduled at the origin in the same hour")

    plane_age: float = Field(ge=0, le=80, nullable=True, description="years since the plane was built")
    seats: float = Field(ge=1, le=900, nullable=True, description="seats of the plane")

    w3_temp: float = Field(
        ge=-40, le=130, nullable=True, description="weather at the origin at 03:00: degrees Fahrenheit"
    )
    w3_dewp: float = Field(ge=-60, le=100, nullable=True, description="dew point, degrees Fahrenheit")
    w3_humid: float = Field(ge=0, le=100, nullable=True, description="relative humidity, percent")
    w3_wind_dir: float = Field(ge=0, le=360, nullable=True, description="where the wind comes from, degrees")
    w3_wind_speed: float = Field(
        ge=0, le=150, nullable=True, description="miles an hour; a category 4 hurricane has 130"
    )
    w3_precip: float = Field(ge=0, le=10, nullable=True, description="inches in the hour")
    w3_pressure: float = Field(ge=900, le=1100, nullable=True, description="at sea level, hectopascal")
    w3_visib: float = Field(ge=0, le=100, nullable=True, description="miles")

    late_1d_carrier: float = Field(
        ge=0, le=1, nullable=True, description="share of late or cancelled flights yesterday"
    )
    late_1d_origin: float = Field(ge=0, le=1, nullable=True)
    late_1d_dest: float = Field(ge=0, le=1, nullable=True)
    late_1d_carrier_origin: float = Field(ge=0, le=1, nullable=True)
    late_7d_carrier: float = Field(ge=0, le=1, nullable=True, description="the same over the last 7 days")
    late_7d_origin: float = Field(ge=0, le=1, nullable=True)
    late_7d_dest: float = Field(ge=0, le=1, nullable=True)
    late_7d_carrier_origin: float = Field(ge=0, le=1, nullable=True)
