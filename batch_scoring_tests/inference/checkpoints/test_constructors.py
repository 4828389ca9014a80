"""What a pickle may call describes tensors of torch's own types, and nothing else."""

import pytest
import torch
import torch.storage
from hypothesis import given
from hypothesis import strategies as st

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.checkpoints.constructors import CONSTRUCTORS, Global, TypedStorage, pairs, storage_type
from batch_scoring.inference.checkpoints.stored import OpaqueObject, Storage, StoredTensor

NUMBERS = Storage(16, lambda: bytes(range(16)))


def test_every_storage_of_torch_has_its_type() -> None:
    for dtype, name in torch.storage._dtype_to_storage_type_map().items():
        assert storage_type(Global("torch", name)) is dtype
    assert storage_type(Global("torch.cuda", "FloatStorage")) is torch.float32
    assert storage_type(Global("torch.storage", "UntypedStorage")) is torch.uint8


@pytest.mark.parametrize("name", [Global("os", "FloatStorage"), Global("torch", "nn"), "FloatStorage", None])
def test_no_other_name_is_a_storage(name: object) -> None:
    with pytest.raises(UnsoundError, match="a storage of the type"):
        storage_type(name)


def test_a_parameter_and_a_tensor_with_attributes_are_tensors() -> None:
    arguments = (TypedStorage(NUMBERS, torch.uint8), 4, (3,), (1,), False, {})
    tensor = CONSTRUCTORS["torch._utils._rebuild_tensor_v2"](*arguments)
    assert isinstance(tensor, StoredTensor) and tensor.read().tolist() == [4, 5, 6]
    assert CONSTRUCTORS["torch._utils._rebuild_parameter"](tensor, True, {}) is tensor
    within = (Global("torch._utils", "_rebuild_tensor_v2"), Global("torch", "Tensor"), arguments, {"note": 1})
    again = CONSTRUCTORS["torch._tensor._rebuild_from_type_v2"](*within)
    assert isinstance(again, StoredTensor) and again.read().tolist() == [4, 5, 6]
    other = (Global("os", "system"), Global("torch", "Tensor"), ("true",), {})
    assert isinstance(CONSTRUCTORS["torch._tensor._rebuild_from_type_v2"](*other), OpaqueObject)


def test_a_tensor_without_a_storage_is_refused() -> None:
    with pytest.raises(UnsoundError, match="a tensor without a storage"):
        CONSTRUCTORS["torch._utils._rebuild_tensor_v2"](NUMBERS, 0, (1,), (1,))


@given(st.dictionaries(st.one_of(st.text(max_size=9), st.integers(-9, 9), st.booleans(), st.none()), st.integers()))
def test_short_texts_and_numbers_are_keys(items: dict[object, int]) -> None:
    assert pairs(items.items()) == items


@pytest.mark.parametrize("key", [(1, 2), "x" * 1001, 2**64, [], {}, OpaqueObject("x")])
def test_what_takes_long_to_hash_is_no_key(key: object) -> None:
    assert pairs([(key, 1), ("a", 2)]) == {"a": 2}


def test_ordered_dicts_of_old_versions_are_lists_of_pairs() -> None:
    made = CONSTRUCTORS["collections.OrderedDict"]
    assert made() == {} and made([["a", 1], ("b", 2), [1], 3, [(1,), 4]]) == {"a": 1, "b": 2}
