"""Tolerances: how far float32 outputs of one network may differ between two machines."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

ROUNDING = 1e-5
"""How far float32 outputs of one network may differ by the order of sums alone: relative, or absolute for a logit."""


class Tolerance(BaseModel):
    """How far an output may differ from the recorded one: `absolute + relative * size`, for each value.

    The size of a value is its own magnitude or the typical one of its output (the median of those that are not 0),
    whichever is larger: sums round relative to their terms, and in some rows they cancel to nearly 0.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    absolute: float = Field(default=0.0, ge=0, description="in the unit of the output; a logit has none")
    relative: float = Field(default=0.0, ge=0, description="share of the value's size")

    @model_validator(mode="after")
    def _accepts_something(self) -> Self:
        if not self.absolute and not self.relative:
            raise ValueError("absolute and relative are both 0; no other machine rounds exactly the same way")
        return self

    def __str__(self) -> str:
        parts = f"{self.absolute:g}" * bool(self.absolute), f"{self.relative:g} of the size" * bool(self.relative)
        return " + ".join(filter(None, parts))

    @property
    def is_wide(self) -> bool:
        """Whether it accepts more than rounding errors."""
        return self.absolute > ROUNDING or self.relative > ROUNDING


OF_LOGITS = Tolerance(absolute=ROUNDING, relative=ROUNDING)
OF_VALUES = Tolerance(absolute=1e-6, relative=ROUNDING)
"""How far outputs may differ between the machine that wrote the bundle and the one that loads it.

Between instruction sets (AVX-512, AVX2, SSE) the examples' outputs differ by 4e-7 of their size, those of regressions
around 12,000 and 1,000,000 by up to 8e-7: `python -m benchmarks.instruction_sets`. A logit, or a value such as a daily
return, may be near 0 in all rows and a sum of terms around 1 all the same: so there is an absolute part. It is left out
of a bundle whose values are so small that it would accept any (`agreement.usual`).
"""
