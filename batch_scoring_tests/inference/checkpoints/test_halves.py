"""Halves become the same numbers in float32, where the network has float32."""

import torch

from batch_scoring.inference.checkpoints.halves import widened


def test_every_half_is_widened_exactly() -> None:
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.uint16)
    for dtype, name in ((torch.float16, "float16"), (torch.bfloat16, "bfloat16")):
        halves = bits.view(dtype)
        found, stored = widened({"w": halves}, {"w": torch.empty(2**16)})
        assert stored == name and found["w"].dtype is torch.float32
        assert found["w"].to(dtype).view(torch.int16).equal(halves.view(torch.int16)) or found["w"].isnan().any()
        assert found["w"].double().nan_to_num(1.5, 2e40, -2e40).equal(halves.double().nan_to_num(1.5, 2e40, -2e40))


def test_other_types_stay_as_they_are() -> None:
    own = {"half": torch.empty(1).half(), "count": torch.empty(1).long(), "double": torch.empty(1)}
    given = {"half": torch.ones(1).half(), "count": torch.ones(1).long(), "double": torch.ones(1).double()}
    found, stored = widened(given, own)
    assert found == given and stored == "", "a double is not narrowed: that would change the number"
    found, stored = widened({**given, "extra": torch.ones(1).half()}, own)
    assert found["extra"].dtype is torch.float16 and stored == ""


def test_both_types_are_recorded() -> None:
    own = {"a": torch.empty(1), "b": torch.empty(1)}
    assert widened({"a": torch.ones(1).half(), "b": torch.ones(1).bfloat16()}, own)[1] == "bfloat16, float16"
