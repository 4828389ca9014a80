"""What counts as a pipeline's code: whatever its schema and its network run, and nothing else."""

import shutil
import sys
from pathlib import Path

import pytest

from batch_scoring.config import code_digest
from batch_scoring.config.loader import PIPELINES, load_pipelines
from batch_scoring_tests.tiny import SCHEMA, TinyProject

PACKAGE = "batch_scoring.pipelines.mine"


class Package:
    """Files of a pipeline's package, and what its schema.py amounts to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write(
            {
                "mine/__init__.py": '"""Mine."""\n',
                "mine/helper.py": "LEAST = 1\n",
                "mine/deep/__init__.py": "",
                "mine/deep/bounds.py": "MOST = 2\n",
                "mine/unrelated.py": "",
                "other/__init__.py": "",
                "other/shared.py": "A = 1\n",
                "common.py": "B = 1\n",
            }
        )

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            file = self.root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    def source(self) -> bytes:
        return code_digest.source(self.root / "mine", PACKAGE, "schema")

    def counts(self, name: str) -> bool:
        """Whether a change in that file changes what is seen."""
        before, file = self.source(), self.root / name
        text = file.read_text()
        file.write_text(f"{text}\nCHANGED = 1\n")
        try:
            return self.source() != before
        finally:
            file.write_text(text)


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return Package(tmp_path / "pipelines")


HELPER, BOUNDS = "mine/helper.py", "mine/deep/bounds.py"
FORMS = [
    (f"import {PACKAGE}.helper", HELPER),
    (f"import os, {PACKAGE}.helper as h", HELPER),
    (f"from {PACKAGE}.helper import LEAST", HELPER),
    (f"from {PACKAGE} import helper", HELPER),
    (f"from {PACKAGE} import helper as h, deep", HELPER),
    ("from .helper import LEAST", HELPER),
    ("from .helper import *", HELPER),
    ("from . import helper", HELPER),
    ("from ..mine import helper", HELPER),
    ("from .deep.bounds import MOST", BOUNDS),
    ("from .deep import bounds", BOUNDS),
    (f"import {PACKAGE}.deep.bounds", BOUNDS),
    ("from .deep import bounds", "mine/deep/__init__.py"),
    ("from .deep.bounds import MOST", "mine/deep/__init__.py"),
    ("import pandera", "mine/__init__.py"),
    ("def late():\n    from .helper import LEAST", HELPER),
    ("class Rows:\n    from .helper import LEAST", HELPER),
    ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .helper import LEAST", HELPER),
    ("try:\n    import fast\nexcept ImportError:\n    from . import helper", HELPER),
    (f"import importlib\nh = importlib.import_module('{PACKAGE}.helper')", HELPER),
    ("from importlib import import_module\nh = import_module('.helper', __package__)", HELPER),
    (f"h = __import__('{PACKAGE}.helper')", HELPER),
    ("from ..other.shared import A", "other/shared.py"),
    ("from batch_scoring.pipelines import common", "common.py"),
]


@pytest.mark.parametrize(("code", "file"), FORMS)
def test_every_form_of_an_import_counts(package: Package, code: str, file: str) -> None:
    package.write({"mine/schema.py": f"{code}\n"})
    assert package.counts(file)
    assert package.counts("mine/schema.py")
    assert not package.counts("mine/unrelated.py")


def test_imports_are_followed_at_any_depth_and_in_circles(package: Package) -> None:
    package.write(
        {
            "mine/schema.py": "from . import helper",
            "mine/helper.py": "from .deep import bounds",
            "mine/deep/bounds.py": "from ..second import X\nfrom .. import schema",
            "mine/second.py": "from . import helper",
        }
    )
    assert all(package.counts(file) for file in (HELPER, BOUNDS, "mine/second.py"))
    package.write({"mine/__init__.py": "from .unrelated import *"})
    assert package.counts("mine/unrelated.py")


@pytest.mark.parametrize(
    "code",
    [
        "import torch.nn\nfrom os import path\nimport helper\nfrom helper import LEAST",
        "from ....far import away\nfrom . import nothing_there",
        f"text = 'import {PACKAGE}.helper'  # import {PACKAGE}.helper",
        "import importlib\nname = 'helper'\nimportlib.import_module(f'.{name}', __package__)",
        "",
    ],
)
def test_a_module_that_imports_nothing_of_its_own_is_its_bytes(package: Package, code: str) -> None:
    package.write({"mine/schema.py": code})
    assert package.source() == code.encode()


def test_the_examples_digests_are_of_their_files_bytes_as_ever() -> None:
    for folder in (PIPELINES / "customer_churn", PIPELINES / "flight_delay", PIPELINES / "support_tickets"):
        for module in ("schema", "network"):
            found = code_digest.source(folder, f"batch_scoring.pipelines.{folder.name}", module)
            assert found == (folder / f"{module}.py").read_bytes()


def test_code_that_is_no_python_counts_by_its_bytes(package: Package) -> None:
    package.write({"mine/schema.py": "from . import helper", "mine/helper.py": "x = ("})
    assert package.counts(HELPER)


def test_modules_cannot_be_mistaken_for_one_another(package: Package) -> None:
    package.write({"mine/schema.py": "from . import helper, second", "mine/helper.py": "A = 1\n", "mine/second.py": ""})
    before = package.source()
    package.write({"mine/helper.py": "", "mine/second.py": "A = 1\n"})
    assert package.source() != before


def test_a_bound_that_moves_in_a_helper_makes_the_day_stale(tiny: TinyProject) -> None:
    tiny.write_code(
        SCHEMA.replace("import pandera", "from .limits import LEAST\nimport pandera").replace("=-1000", "=LEAST")
    )
    helper = f"batch_scoring.pipelines.{tiny.name}.limits"
    (tiny.folder / "limits.py").write_text("LEAST = -1000\n")
    tiny.land("2024-03-04", tiny.rows(40))
    assert tiny.run().success
    assert len(tiny.read()) == 40
    code, features = tiny.pipeline.scoring_code, tiny.pipeline.features_code
    (tiny.folder / "limits.py").write_text("LEAST = 0\n")
    sys.modules.pop(helper)
    sys.modules.pop(f"batch_scoring.pipelines.{tiny.name}.schema")
    assert tiny.pipeline.features_code != features
    assert tiny.pipeline.scoring_code == code
    assert tiny.run().success
    below = {row["id"] for row in tiny.rows(40).to_pylist() if row["x"] < 0}
    assert below == {key for key, _, rule, _ in tiny.quarantined() if rule == "greater_than_or_equal_to(0)"}
    assert len(tiny.read()) == 40 - len(below)


def test_a_pipeline_whose_folder_moves_keeps_its_digests(tmp_path: Path) -> None:
    shutil.copytree(PIPELINES, tmp_path / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    digests = [
        [(pipeline.features_code, pipeline.scoring_code) for pipeline in load_pipelines(folder)]
        for folder in (PIPELINES, tmp_path / "pipelines")
    ]
    assert digests[0] == digests[1]
