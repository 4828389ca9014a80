"""A bundle that is not what it says is refused, with what and where; one that is scores as when it was written."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from batch_scoring.config.loader import PROJECT
from batch_scoring.errors import BundleError
from batch_scoring.inference.bundle import (
    MANIFEST,
    build_network,
    golden_deviation,
    load_bundle,
    prove,
    read_bundle,
    write_bundle,
)
from batch_scoring.inference.scorer import Scorer
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring_tests import tiny as helper
from batch_scoring_tests.broken_bundles import FAULTS, PROOF, change_golden, change_manifest, golden_output
from batch_scoring_tests.tiny import TinyProject, reference_rows


class Delivery:
    """A bundle as delivered, and the network class that it is for."""

    def __init__(self, folder: Path, network: Callable[..., torch.nn.Module]) -> None:
        self.folder, self.network = folder, network

    @property
    def place(self) -> str:
        return str(self.folder)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    return TinyProject(tmp_path_factory.mktemp("project"))


@pytest.fixture
def delivery(project: TinyProject, tmp_path: Path) -> Iterator[Delivery]:
    folder = tmp_path / "delivered"
    shutil.copytree(project.pipeline.bundle.uri, folder)
    yield Delivery(folder, project.pipeline.load("network:Net"))


def test_a_sound_bundle_loads_and_gives_its_golden_outputs(delivery: Delivery) -> None:
    model = load_bundle(open_folder(delivery.place), delivery.network)
    bundle = read_bundle(open_folder(delivery.place))
    assert model.manifest.version == "v1"
    assert model.sha256 == hashlib.sha256((delivery.folder / "bundle.json").read_bytes()).hexdigest()
    golden = bundle.golden
    inputs = golden.select(["x", "y", "n"]).to_pandas().to_numpy(np.float32), golden["c"].to_pylist()
    codes = [[{"red": 1, "green": 2, "blue": 3}.get(word, 0)] for word in inputs[1]]
    with torch.inference_mode():
        own = model.network(torch.from_numpy(inputs[0]), torch.tensor(codes))
    assert np.array_equal(own[:, 1].numpy(), golden["output_1"].to_numpy()), "the network's own, in eager torch"
    outputs = Scorer(model, device="cpu").outputs(golden)
    assert np.abs(outputs[:, 1] - golden["output_1"].to_numpy()).max() < 1e-6
    assert bundle.golden.num_rows == 64


def test_the_reference_holds_features_and_predictions(delivery: Delivery) -> None:
    reference = read_bundle(open_folder(delivery.place)).reference
    assert {"id", "x", "y", "n", "c", "prediction", "prob_class_0", "prob_class_1"} <= set(reference.column_names)


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_bundle_is_refused_with_what_and_where(delivery: Delivery, name: str) -> None:
    FAULTS[name].spoil(delivery.folder)
    with pytest.raises(BundleError) as raised:
        prove(read_bundle(open_folder(delivery.place)), delivery.network)
    message = str(raised.value)
    assert delivery.place in message
    for words in FAULTS[name].says:
        assert words in message
    assert "\n\n" not in message and len(message) < 1000, "one paragraph"
    assert not (delivery.folder.parent / PROOF).exists(), "code of the bundle has run"


def test_a_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"/nothing: there is no bundle\.json; expected a bundle folder"):
        read_bundle(open_folder(str(tmp_path / "nothing")))


def test_a_bundle_once_read_no_longer_depends_on_its_folder(delivery: Delivery) -> None:
    bundle = read_bundle(open_folder(delivery.place))
    shutil.rmtree(delivery.folder)
    assert golden_deviation(bundle, build_network(bundle, delivery.network)).is_accepted


def test_a_bundle_may_state_a_wider_tolerance(delivery: Delivery) -> None:
    change_golden(delivery.folder, lambda table: golden_output(table, lambda values: values + np.float32(0.01)))
    change_manifest(delivery.folder, lambda manifest: {**manifest, "golden_tolerance": 0.02})
    assert load_bundle(open_folder(delivery.place), delivery.network).manifest.version == "v1"


def test_whatever_the_class_raises_for_its_arguments_names_bundle_and_arguments(delivery: Delivery) -> None:
    def network(**arguments: object) -> torch.nn.Module:
        return {}[str(arguments["outputs"])]

    with pytest.raises(BundleError, match=r"delivered: network\(.*'outputs': 2.*failed: "):
        build_network(read_bundle(open_folder(delivery.place)), network)


class Plain(torch.nn.Module):
    """Adds up its numbers."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor([factor]))

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        return numeric.nan_to_num(0.0).sum(dim=1, keepdim=True) * self.factor


def written(project: TinyProject, folder: Path, network: torch.nn.Module, rows: int = 64) -> str:
    return write_bundle(
        folder,
        network=network,
        arguments={},
        name="tiny",
        version="v1",
        task="regression",
        numeric=["x", "y"],
        categorical={},
        classes=[],
        training={},
        metrics={},
        golden=project.rows(rows),
        reference=project.rows(10),
    )


def test_a_bundle_has_64_golden_rows(project: TinyProject, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="63 golden rows; expected 64"):
        written(project, tmp_path / "new", Plain(), rows=63)
    assert not (tmp_path / "new").exists()


def test_a_network_that_its_arguments_do_not_rebuild_is_not_delivered(project: TinyProject, tmp_path: Path) -> None:
    network = Plain()
    network.doubled = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(BundleError, match="has doubled, which"):
        written(project, tmp_path / "new", network)


def test_a_network_whose_golden_outputs_are_not_finite_is_not_delivered(project: TinyProject, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="all finite"):
        written(project, tmp_path / "new", Plain(3e38))


def test_a_bundle_that_does_not_prove_itself_is_not_written(project: TinyProject, tmp_path: Path) -> None:
    network_class = project.pipeline.load("network:Net")
    network = network_class(numeric=3, words=3, outputs=2)
    with pytest.raises(BundleError, match="Net expects"):
        write_bundle(
            tmp_path / "b",
            network=network,
            arguments={"numeric": 4, "words": 3, "outputs": 2},
            name="n",
            version="v",
            task="classification",
            numeric=["x", "y", "n"],
            categorical={"c": ["red"]},
            classes=["0", "1"],
            training={},
            metrics={},
            golden=project.rows(64),
            reference=project.rows(64),
        )
    assert not (tmp_path / "b").exists()


def test_bundles_written_before_are_what_they_were() -> None:
    """Their identity, by which days are current, is that of the bytes; calibrated again they are of the new format."""
    for pipeline, version in (("customer_churn", "v1"), ("flight_delay", "v1"), ("flight_delay", "v2")):
        folder = PROJECT / "data" / pipeline / "models" / version
        bundle = read_bundle(open_folder(str(folder)))
        assert bundle.profile is not None and bundle.manifest.golden_tolerance == 1e-5
        assert bundle.sha256 == hashlib.sha256((folder / "bundle.json").read_bytes()).hexdigest()
        again = bundle.with_profile(bundle.profile, version)
        assert (bundle.manifest.format, again.manifest.format) == (1, 2)
        assert again.manifest.model_copy(update={"format": 1}) == bundle.manifest
        assert {**again.content, MANIFEST: b""} == {**bundle.content, MANIFEST: b""}


def test_a_short_process_that_loads_a_bundle_ends_well_and_does_without_torchs_compiler() -> None:
    """Arrow's I/O threads must hold none of Python's bytes when it ends: they abort the process then."""
    script = (
        "import os, sys, pandas, torch\n"
        "from batch_scoring.inference.bundle import load_bundle\n"
        "from batch_scoring.pipelines.flight_delay.network import DelayNet\n"
        "from batch_scoring.storage.folders.addresses import open_folder\n"
        "for _ in range(5):\n"  # each ends as any process does; what all import is imported once
        "    if not os.fork():\n"
        f"        load_bundle(open_folder({str(PROJECT / 'data/flight_delay/models/v1')!r}), DelayNet)\n"
        "        sys.exit('torch._dynamo' in sys.modules)\n"  # a second of CPU time
        "    assert not (status := os.wait()[1]), status\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_bundle_that_tests_have_under_another_name_is_the_one_that_is_written(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = [tiny.deliver("v7", seed=3), tiny.deliver("v8", seed=3, reference=reference_rows())]
    monkeypatch.setattr(helper, "_bundles", {})
    assert named == [tiny.deliver("v7", seed=3), tiny.deliver("v8", seed=3, reference=reference_rows())]
