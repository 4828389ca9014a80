"""Outputs agree within an absolute and a relative bound, each value for itself; too wide a bound is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from batch_scoring.errors import BundleError
from batch_scoring.inference.acceptance import agreement
from batch_scoring.inference.heads.tolerance import Tolerance
from batch_scoring_tests.broken_bundles import change_golden, change_manifest, golden_output
from batch_scoring_tests.networks import Base, loaded, made, refusal, write

REGRESSION: dict[str, Any] = {"task": "regression", "classes": []}


class Large(Base):
    """A regression around a value."""

    outputs = 1

    def __init__(self, mean: float, spread: float) -> None:
        super().__init__()
        self.mean, self.spread = mean, spread

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        return self.mean + self.spread * super().forward(numeric, categorical)


def delivered(folder: Path, mean: float, spread: float, **changes: Any) -> nn.Module:  # noqa: ANN401
    arguments = {"mean": mean, "spread": spread}
    network = made(Large, **arguments)
    write(folder, network, arguments=arguments, **REGRESSION, **changes)
    return network


@pytest.mark.parametrize(
    ("mean", "spread"), [(12_000, 3_000), (-12_000, 3_000), (1e6, 2e5), (1e9, 1e8), (0, 1), (0, 1e-6)]
)
def test_the_last_bits_of_another_processor_are_accepted_whatever_the_size(
    tmp_path: Path, mean: float, spread: float
) -> None:
    network = delivered(tmp_path, mean, spread)

    def last_bits(values: np.ndarray) -> np.ndarray:
        return values + 4 * np.spacing(np.abs(values).max())

    change_golden(tmp_path, lambda table: golden_output(table, last_bits))
    loaded(tmp_path, network)
    change_golden(tmp_path, lambda table: golden_output(table, lambda values: values * 1.001))
    with pytest.raises(BundleError, match=r"the golden rows differ by .*, expected at most"):
        loaded(tmp_path, network)


def test_rows_near_zero_are_as_large_as_their_output_is(tmp_path: Path) -> None:
    """They come out there by cancellation: their sums round like those of the other rows."""
    expected = np.array([[12_000.0], [11_000.0], [0.5], [0.0]])
    found = expected + 0.001
    assert agreement.worst(found, expected, Tolerance(relative=1e-6)).is_accepted
    assert not agreement.worst(found, expected[[2, 3]].repeat(2, 0), Tolerance(relative=1e-6)).is_accepted


def test_each_output_has_its_own_size() -> None:
    expected = np.array([[1e6, 1.0], [2e6, 2.0]])
    accepted = agreement.worst(expected + np.array([5.0, 0]), expected, Tolerance(relative=1e-5))
    assert accepted.is_accepted and accepted.output == 0
    refused = agreement.worst(expected + np.array([0, 5.0]), expected, Tolerance(relative=1e-5))
    assert (refused.is_accepted, refused.output, refused.size) == (False, 1, 5.0)


@pytest.mark.parametrize(
    ("found", "expected", "agrees"),
    [(np.nan, np.nan, True), (np.inf, np.inf, True), (np.inf, -np.inf, False), (np.nan, 1, False), (1, np.nan, False)],
)
def test_what_is_not_finite_agrees_with_itself_alone(found: float, expected: float, agrees: bool) -> None:
    for beside in ([], [[0.0]]):
        ours, theirs = np.array([[found], *beside]), np.array([[expected], *beside])
        assert agreement.worst(ours, theirs, Tolerance(absolute=1.0)).is_accepted == agrees


def test_a_bundle_may_state_its_own_tolerance(tmp_path: Path) -> None:
    network = delivered(tmp_path, 0, 1, golden_tolerance=Tolerance(absolute=0.01, relative=0.001))
    change_golden(tmp_path, lambda table: golden_output(table, lambda values: values + np.float32(0.009)))
    assert loaded(tmp_path, network).manifest.tolerance == Tolerance(absolute=0.01, relative=0.001)
    change_golden(tmp_path, lambda table: golden_output(table, lambda values: values + np.float32(0.009)))
    with pytest.raises(BundleError, match="the golden rows differ by"):
        loaded(tmp_path, network)


@pytest.mark.parametrize("tolerance", [1e30, 0.2, Tolerance(relative=1.0), Tolerance(relative=3e4)])
def test_a_tolerance_that_other_weights_would_meet_is_refused(tmp_path: Path, tolerance: float | Tolerance) -> None:
    said = refusal(tmp_path, made(Base), golden_tolerance=tolerance)
    assert "does not check golden outputs from -" in said and "expected less than 5% of their range" in said


def test_a_network_that_gives_one_output_needs_no_range(tmp_path: Path) -> None:
    class Constant(Base):
        def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(numeric), 2)

    write(tmp_path, made(Constant))
    change_manifest(tmp_path, lambda m: m)
    loaded(tmp_path, made(Constant))


class Returns(Large):
    """Small values that large terms add up to: their rounding is that of the terms."""

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        return super().forward(numeric, categorical) - self.mean


def test_small_values_of_large_terms_are_bounded_absolutely(tmp_path: Path) -> None:
    network = made(Returns, mean=1.0, spread=0.001)
    write(tmp_path, network, arguments={"mean": 1.0, "spread": 0.001}, **REGRESSION)
    change_golden(tmp_path, lambda table: golden_output(table, lambda values: values + np.float32(1.2e-7)))
    assert loaded(tmp_path, network).manifest.tolerance == Tolerance(absolute=1e-6, relative=1e-5)
    change_golden(tmp_path, lambda table: golden_output(table, lambda values: values * 1.01))
    with pytest.raises(BundleError, match="the golden rows differ by"):
        loaded(tmp_path, network)


def test_smaller_values_are_bounded_by_their_size_alone(tmp_path: Path) -> None:
    network = delivered(tmp_path, 0, 1e-6)
    assert loaded(tmp_path, network).manifest.tolerance == Tolerance(relative=1e-5)
