"""The section `compute`: what the assets' pods get."""

from typing import Any

import pytest
from pydantic import ValidationError

from batch_scoring.config.compute_spec import Compute, Pod, Toleration
from batch_scoring.config.section import Section


def test_an_asset_without_settings_has_those_of_default() -> None:
    compute = Compute.model_validate({"default": {"cpu": 3, "memory": "5Gi"}, "predictions": {"gpu": 1, "cpu": 8}})
    assert (compute.of("model").cpu, compute.of("model").memory) == (3, "5Gi")
    assert (compute.of("predictions").cpu, compute.of("predictions").memory) == (8, "5Gi")
    assert Compute().of("predictions").memory == "4Gi" != Compute().of("model").memory


@pytest.mark.parametrize(
    ("section", "settings", "message"),
    [
        (Pod, {"memory": "lots"}, "not an amount of memory; expected for example 512Mi or 8Gi"),
        (Pod, {"memory": "1Gi", "shared_memory": "1Gi"}, "shared_memory is part of memory; expected less than 1Gi"),
        (Pod, {"memory": "1G", "shared_memory": "1Gi"}, "shared_memory is part of memory"),
        (Toleration, {"key": "a", "operator": "Equal"}, "value goes with operator: Equal, and only with it"),
        (Toleration, {"key": "a", "value": "b"}, "value goes with operator: Equal, and only with it"),
        (Compute, {"default": {"memory": "1Gi"}, "drift": {"shared_memory": "2Gi"}}, "shared_memory is part of memory"),
    ],
)
def test_what_does_not_fit_is_refused(section: type[Section], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        section.model_validate(settings)
