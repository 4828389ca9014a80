"""Small networks for one table, with their bundles: supported and unsupported ones."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from batch_scoring.errors import BundleError
from batch_scoring.inference.bundle import prove, read_bundle, write_bundle
from batch_scoring.inference.manifest import LoadedModel
from batch_scoring.storage.folders.addresses import open_folder

NUMERIC, WORDS, WIDTH = 4, ("red", "green", "blue"), 8


def table(rows: int = 96, start: int = 0) -> pa.Table:
    """Return rows with a key, a day, numbers with gaps, and a word that is sometimes unknown."""
    random = np.random.default_rng(7 + start)
    columns: dict[str, Any] = {"id": [f"k{number}" for number in range(start, start + rows)]}
    columns["dt"] = [date(2024, 1, 1 + number % 28) for number in range(rows)]
    for index in range(NUMERIC):
        values = random.normal(size=rows)
        columns[f"x{index}"] = pa.array(values, mask=random.random(rows) < 0.1)
    columns["c"] = random.choice([*WORDS, "mauve", None], rows, p=[0.4, 0.3, 0.2, 0.05, 0.05])
    return pa.table(columns)


class Base(nn.Module):
    """A network whose body gets the numbers and an embedded word, float32[rows, WIDTH]."""

    outputs = 2

    def __init__(self) -> None:
        super().__init__()
        self.word = nn.Embedding(len(WORDS) + 1, NUMERIC)
        self.first = nn.Linear(2 * NUMERIC, WIDTH)
        self.head = nn.Linear(WIDTH, self.outputs)

    def inputs(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        return self.first(torch.cat([numeric.nan_to_num(0.0), self.word(categorical[:, 0])], dim=1)).tanh()

    def body(self, values: torch.Tensor) -> torch.Tensor:
        return values

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.inputs(numeric, categorical)))


def made(kind: Callable[..., nn.Module], **arguments: Any) -> nn.Module:  # noqa: ANN401
    """Create a network with the same random weights each time."""
    torch.manual_seed(3)
    return kind(**arguments).eval()


def write(folder: Path, network: nn.Module, **changes: Any) -> str:  # noqa: ANN401
    """Write a network's bundle: a classification of two classes, unless overridden by `changes`."""
    rows = table()
    options: dict[str, Any] = {
        "arguments": {},
        "name": "n",
        "version": "v1",
        "task": "classification",
        "classes": ["no", "yes"],
        "numeric": [f"x{index}" for index in range(NUMERIC)],
        "categorical": {"c": list(WORDS)},
        "training": {},
        "metrics": {},
        "golden": rows.slice(0, 64).drop_columns("dt"),
        "reference": rows,
    }
    return write_bundle(folder, network=network, **(options | changes))


def refusal(folder: Path, network: nn.Module, **changes: Any) -> str:  # noqa: ANN401
    """Return the error message of `write`; nothing may have been written."""
    try:
        write(folder / "bundle", network, **changes)
    except BundleError as error:
        assert not (folder / "bundle").exists()
        lines = str(error).splitlines()
        assert len(str(error)) < 1000 and (not lines[1:] or lines[0].endswith(" rows are not as expected:"))
        return str(error)
    raise AssertionError("nothing was rejected")


def loaded(folder: Path, network: nn.Module) -> LoadedModel:
    """Write a network's bundle and load its model."""
    return prove(read_bundle(open_folder(str(folder))), type(network))


def own_outputs(network: nn.Module, rows: pa.Table) -> np.ndarray:
    """Return the network's outputs from torch alone, with rows encoded one by one."""
    numeric = [[np.nan if row[f"x{i}"] is None else row[f"x{i}"] for i in range(NUMERIC)] for row in rows.to_pylist()]
    codes = [[WORDS.index(word) + 1 if word in WORDS else 0] for word in rows["c"].to_pylist()]
    with torch.inference_mode():
        return network(torch.tensor(numeric, dtype=torch.float32), torch.tensor(codes)).numpy()
