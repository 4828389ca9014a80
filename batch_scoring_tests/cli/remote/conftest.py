"""One deployment and one server that is none, for all tests of the folder."""

from collections.abc import Iterator

import pytest

from batch_scoring_tests.remote_deployment import Stranger, There


@pytest.fixture(scope="package")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[There]:
    """One deployment for all tests of this folder."""
    place = There(tmp_path_factory.mktemp("remote"))
    try:
        with place.proxy:
            place.start()
            yield place
    finally:
        place.deployment.stop()


@pytest.fixture(scope="package")
def stranger() -> Iterator[Stranger]:
    """On plain HTTP."""
    place = Stranger()
    yield place
    place.stop()
