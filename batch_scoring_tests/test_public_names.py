"""What other projects may rely on: pinned here, so that a change is meant."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import batch_scoring
from batch_scoring.config.loader import PROJECT

NAMES = ["Scorer", "Training", "load_bundle", "open_folder", "read_day", "write_bundle"]


def printed(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_public_names_are_these_and_each_is_there() -> None:
    assert batch_scoring.__all__ == NAMES
    assert {*NAMES} <= {*dir(batch_scoring)}
    assert all(callable(getattr(batch_scoring, name)) for name in NAMES)
    assert printed("from batch_scoring import *; print(Scorer.__name__, read_day.__name__)") == "Scorer read_day"


def test_a_name_that_is_none_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'batch_scoring' has no attribute 'score_everything'"):
        _ = batch_scoring.score_everything  # type: ignore[attr-defined]


def test_the_package_itself_imports_nothing_of_it() -> None:
    program = "import sys, batch_scoring; print(*sorted(m for m in sys.modules if m.startswith('batch_scoring')))"
    assert printed(program) == "batch_scoring batch_scoring.deprecated_imports"
    heavy = "import sys; from batch_scoring import read_day, open_folder; print({'torch', 'dagster'} & {*sys.modules})"
    assert printed(heavy) == "set()"


LAYERS = """
import {first}
import torch
torch.set_num_threads(1)
torch.manual_seed(0)
for inputs, outputs in ((25, 2), (26, 3), (27, 5), (33, 9), (64, 64)):
    layer, rows = torch.nn.Linear(inputs, outputs), torch.randn(128, inputs)
    expected = layer(rows)
    print(all(torch.equal(layer(rows.roll(by, 0)).roll(-by, 0), expected) for by in range(1, 64)))
"""


def test_a_linear_layer_gives_a_row_the_same_bits_at_every_position() -> None:
    assert printed(LAYERS.format(first="batch_scoring")).split() == ["True"] * 5
    assert "MKL_CBWR" not in os.environ or os.environ["MKL_CBWR"] == "AUTO,STRICT"


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(batch_scoring.__file__).parent / "py.typed").is_file()
    assert '"batch_scoring" = ["py.typed"]' in (PROJECT / "pyproject.toml").read_text()
