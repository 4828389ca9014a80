"""A model's code is what the spec names; a network's class alone stands for a model that needs no more."""

import sys

import pytest

from batch_scoring.errors import CodeError
from batch_scoring.inference.bundle import load_bundle
from batch_scoring.inference.network.code import ModelCode
from batch_scoring_tests.tiny import TinyProject


def test_the_code_of_a_pipeline_is_what_its_spec_names(tiny: TinyProject) -> None:
    code = ModelCode.of(tiny.pipeline)
    assert code.network is tiny.pipeline.load("network:Net")
    assert isinstance(load_bundle(tiny.pipeline.bundle, code).network, code.network)


def test_the_class_of_a_network_is_code_enough(tiny: TinyProject) -> None:
    network = tiny.pipeline.load("network:Net")
    assert ModelCode.given(network) == ModelCode.of(tiny.pipeline)
    assert ModelCode.given(ModelCode(network)) == ModelCode(network)


def test_code_that_cannot_be_imported_is_named(tiny: TinyProject) -> None:
    pipeline = tiny.pipeline
    tiny.write_code(network="import nothing_of_this_name")
    with pytest.raises(CodeError, match=r"network:Net cannot be loaded .*'nothing_of_this_name'"):
        ModelCode.of(pipeline)


def test_two_functions_share_one_fit(tiny: TinyProject) -> None:
    """The other one would never be called, and its function would get a state without its values."""
    for module in ("features", "pictures"):
        (tiny.folder / f"{module}.py").write_text("def fit(rows): ...\ndef make(rows, fitted): ...\n")
    tiny.spec["features"] |= {"transform": "features:make", "encode": "pictures:make"}
    tiny.write_spec()
    with pytest.raises(CodeError, match=r"features and pictures both define fit"):
        ModelCode.of(tiny.pipeline)
    tiny.write_spec()
    (tiny.folder / "pictures.py").write_text("from .features import fit\ndef make(rows, fitted): ...\n")
    sys.modules.pop(f"batch_scoring.pipelines.{tiny.name}.pictures", None)
    code = ModelCode.of(tiny.pipeline)
    assert code.fit is not None and code.fit.__module__.endswith(".features")
