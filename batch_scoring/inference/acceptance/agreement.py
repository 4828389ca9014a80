"""Agreement of two computations of the same outputs: each value within its own bound."""

from dataclasses import dataclass

import numpy as np

from batch_scoring.inference.heads.tolerance import Tolerance

WIDEST = 0.05
"""Upper limit of a tolerance, as a share of the output's range over the golden rows. A tolerance is for rounding; the
weights of another training move outputs by more than a twentieth of their range."""


@dataclass(frozen=True)
class Deviation:
    """The value furthest beyond its bound, or nearest to it."""

    row: int
    output: int
    found: float
    expected: float
    bound: float

    @property
    def size(self) -> float:
        """Absolute difference."""
        both_nan = np.isnan(self.found) and np.isnan(self.expected)
        return 0.0 if both_nan or self.found == self.expected else abs(self.found - self.expected)

    @property
    def is_accepted(self) -> bool:
        """Whether the values agree; NaN agrees only with NaN."""
        return self.size <= self.bound


def bounds(expected: np.ndarray, tolerance: Tolerance) -> np.ndarray:
    """How far each of float[rows, outputs] may differ; see `Tolerance`."""
    sizes = np.abs(expected, dtype=np.float64)
    present = np.where(np.isfinite(sizes) & (sizes > 0), sizes, np.nan)
    typical = [np.median(column[~np.isnan(column)]) if (~np.isnan(column)).any() else 0.0 for column in present.T]
    relative: np.ndarray = tolerance.relative * np.maximum(np.nan_to_num(sizes), typical)
    return tolerance.absolute + relative


def ratios(found: np.ndarray, expected: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Each difference as a multiple of its bound; 0 where both are NaN or both the same infinity."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        differences = np.abs(found.astype(np.float64) - expected.astype(np.float64))
        shares = np.where(differences == 0, 0.0, differences / limits)
    shares[np.isnan(shares)] = np.inf
    shares[(found == expected) | (np.isnan(found) & np.isnan(expected))] = 0.0
    return shares


def worst(found: np.ndarray, expected: np.ndarray, tolerance: Tolerance) -> Deviation:
    """The worst deviation of float[rows, outputs], of at least one row."""
    limits = bounds(expected, tolerance)
    row, output = np.unravel_index(np.argmax(ratios(found, expected, limits)), expected.shape)
    place = int(row), int(output)
    return Deviation(*place, float(found[place]), float(expected[place]), float(limits[place]))


def is_no_check(expected: np.ndarray, tolerance: Tolerance) -> bool:
    """Whether the tolerance would accept the outputs of other weights: more than `WIDEST` for every value."""
    ranges = expected.max(axis=0) - expected.min(axis=0)
    return bool((ranges > 0).any() and (bounds(expected, tolerance) > ranges * WIDEST).all())


def usual(tolerance: Tolerance, expected: np.ndarray) -> Tolerance:
    """A head's tolerance, without its absolute part where that would accept any outputs."""
    if is_no_check(expected, tolerance):
        return Tolerance(relative=tolerance.relative)
    return tolerance
