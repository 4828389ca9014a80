"""The base class of a spec's sections, and the types of their fields."""

import re
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Status = Literal["running", "stopped"]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


def _reachable(location: str) -> str:
    if "://" in location and not re.match(r"s3://[^/]", location):
        raise ValueError("unsupported storage; expected a path or s3://bucket/prefix")
    if not location.startswith("/") and (".." in location.split("/") or "\\" in location):
        raise ValueError("leaves the data root; expected a path below it, an absolute path or s3://bucket/prefix")
    return location


Location = Annotated[str, AfterValidator(_reachable)]
Reference = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*:[A-Za-z_]\w*$")]


def time_zone(name: str) -> str:
    """The name of a time zone, if there is such a zone.

    Raises:
        ValueError: it does not.
    """
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("not an IANA time zone; expected a name such as UTC or America/New_York") from None
    return name


class Section(BaseModel):
    """A section of the spec: immutable, without unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)
