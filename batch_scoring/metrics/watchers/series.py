"""Series of samples as `promtool test rules` writes them."""

from collections.abc import Iterator, Sequence
from itertools import pairwise


def notation(samples: Sequence[int | None]) -> str:
    """Samples at even intervals; None where a scrape found none.

    `7+2x3` stands for 7 9 11 13, `_x3` for three intervals without a sample. Where a series ends, Prometheus marks it
    as stale: the value before does not count any longer.
    """
    return " ".join(_parts(samples))


def _parts(samples: Sequence[int | None]) -> Iterator[str]:
    at = 0
    while at < len(samples):
        count = _run(samples[at:])
        first = samples[at]
        if first is not None:
            step = (samples[at + 1] or 0) - first if count > 1 else 0
            yield f"{first}{step:+d}x{count - 1}"
        elif at == 0:
            yield f"_x{count}"
        else:
            yield "stale" if count == 1 else f"stale _x{count - 1}"
        at += count


def _run(samples: Sequence[int | None]) -> int:
    """How many of the first samples are absent, or lie on one line."""
    if samples[0] is None:
        return next((at for at, sample in enumerate(samples) if sample is not None), len(samples))
    step: int | None = None
    for at, (before, sample) in enumerate(pairwise(samples), 1):
        if before is None or sample is None or step not in (None, sample - before):
            return at
        step = sample - before
    return len(samples)
