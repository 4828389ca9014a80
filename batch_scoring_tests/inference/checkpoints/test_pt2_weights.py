"""The weights of a .pt2 archive are read; the pickles beside them are not."""

import contextlib
import io
import json
import zipfile
from pathlib import Path

import pytest
import torch

from batch_scoring_tests.weight_files import (
    SideEffect,
    read_all,
    rewritten,
    same_bits,
)


def test_the_weights_of_a_pt2_archive_are_read(exported: tuple[Path, dict[str, torch.Tensor]]) -> None:
    file, expected = exported
    assert same_bits(read_all(file), {name: value.detach() for name, value in expected.items()})


@pytest.mark.parametrize("record", ["data/sample_inputs/model.pt", "data/constants/model_constants_config.json"])
def test_a_poisoned_pt2_archive_does_not_run(
    tmp_path: Path, exported: tuple[Path, dict[str, torch.Tensor]], record: str
) -> None:
    proof, payload = tmp_path / "it_ran", io.BytesIO()
    torch.save(SideEffect(proof), payload)
    source, expected = exported
    rewritten(source, tmp_path / "w.pt2", {record: payload.getvalue()})
    assert same_bits(read_all(tmp_path / "w.pt2"), {name: value.detach() for name, value in expected.items()})
    assert not proof.exists()
    if "sample_inputs" in record:
        with contextlib.suppress(Exception):  # after the payload has run
            torch.export.load(tmp_path / "w.pt2")
        assert proof.exists(), "this is what was prevented"


def test_pickled_weights_of_a_pt2_archive_are_not_loaded(
    tmp_path: Path, exported: tuple[Path, dict[str, torch.Tensor]]
) -> None:
    proof, payload = tmp_path / "it_ran", io.BytesIO()
    torch.save(SideEffect(proof), payload)
    source, _ = exported
    name = "data/weights/model_weights_config.json"
    with zipfile.ZipFile(source) as archive:
        root = archive.namelist()[0].partition("/")[0]
        config = json.loads(archive.read(f"{root}/{name}"))
    described = config["config"]["norm.weight"]
    described["use_pickle"] = True
    rewritten(
        source,
        tmp_path / "w.pt2",
        {name: json.dumps(config).encode(), f"data/weights/{described['path_name']}": payload.getvalue()},
    )
    assert "norm.weight" not in read_all(tmp_path / "w.pt2")
    assert not proof.exists()
    with contextlib.suppress(Exception):
        torch.export.load(tmp_path / "w.pt2")
    assert proof.exists(), "this is what was prevented"
