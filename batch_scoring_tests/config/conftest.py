import copy
from collections.abc import Iterator

import pytest

from batch_scoring_tests.tiny import NETWORK, SCHEMA, TinyProject


@pytest.fixture(scope="module")
def one_tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    return TinyProject(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny(one_tiny: TinyProject) -> Iterator[TinyProject]:
    """One project for all tests of this module, restored after each: tests only read its files."""
    spec = copy.deepcopy(one_tiny.spec)
    yield one_tiny
    one_tiny.spec = spec
    one_tiny.write_spec()
    one_tiny.write_code(SCHEMA, NETWORK)
