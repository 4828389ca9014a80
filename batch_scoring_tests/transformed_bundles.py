"""Bundles of a small network whose inputs a transform makes, for one table."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from batch_scoring.errors import BundleError
from batch_scoring.inference.bundle import write_bundle
from batch_scoring.inference.network.code import ModelCode


def rows(count: int = 96, start: int = 0) -> pa.Table:
    """Return rows with a key, a day, numbers (some missing), a time, a word and a text."""
    random = np.random.default_rng(11 + start)
    n = np.arange(start, start + count)
    return pa.table(
        {
            "id": [f"k{number}" for number in n],
            "amount": np.round(random.gamma(2, 500, count), 2),
            "income": pa.array(np.round(random.gamma(3, 900, count), 2), mask=n % 9 == 4),
            "visits": pa.array(random.integers(0, 9, count), mask=n % 8 == 3),
            "opened": pa.array(1_700_000_000_000_000 + n * 3_600_000_000 * 7, pa.timestamp("us", "UTC")),
            "opened_text": [f"2024-{1 + k % 12:02}-{1 + k % 28:02}" for k in n],
            "word": pa.array(random.choice(["red", "green", "blue"], count), mask=n % 10 == 7),
            "dt": pa.array([19_700 + int(k) % 28 for k in n], pa.date32()),
        }
    )


class Net(nn.Module):
    """A classification of two classes by any number of numeric inputs."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, 2)

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        return self.layer(numeric.nan_to_num(0.0).clamp(-1e6, 1e6) / 1000)


def write(
    folder: Path,
    transform: Callable[..., object],
    *,
    fitted: Mapping[str, Any] | None = None,
    numeric: list[str] | None = None,
    **changes: Any,  # noqa: ANN401
) -> str:
    """Write the bundle of a model whose only input is `made`, unless overridden."""
    torch.manual_seed(5)
    numeric = numeric or ["made"]
    table = rows()
    options: dict[str, Any] = {
        "network": Net(len(numeric)).eval(),
        "arguments": {"inputs": len(numeric)},
        "name": "n",
        "version": "v1",
        "task": "classification",
        "classes": ["no", "yes"],
        "numeric": numeric,
        "categorical": {},
        "training": {},
        "metrics": {},
        "golden": table.slice(0, 64).drop_columns("dt"),
        "reference": table,
        "code": ModelCode(Net, transform),
        "fitted": fitted,
    }
    return write_bundle(folder, **(options | changes))


def refusal(folder: Path, transform: Callable[..., object], **changes: Any) -> str:  # noqa: ANN401
    """Return the one line with which the bundle of a transform is refused."""
    try:
        write(folder / "bundle", transform, **changes)
    except BundleError as error:
        assert not (folder / "bundle").exists()
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 800
        return str(error).partition(": ")[2]
    raise AssertionError("nothing was refused")
