"""Differences between the outputs of a network on processors with other instruction sets, for choosing tolerances.

    python -m benchmarks.instruction_sets

The golden rows of both examples, and of regressions whose values are around 12,000 and 1,000,000, in processes that are
limited to fewer instructions than the processor has. Each process computes them in eager torch and by the engine.
"""

import argparse
import io
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from batch_scoring.config.loader import PROJECT
from batch_scoring.inference.acceptance import agreement, eager
from batch_scoring.inference.bundle import GOLDEN_ROWS, build_network, read_bundle
from batch_scoring.inference.manifest import LoadedModel, Manifest
from batch_scoring.inference.scorer import Scorer
from batch_scoring.pipelines.customer_churn.network import ChurnNet
from batch_scoring.pipelines.flight_delay.network import DelayNet
from batch_scoring.storage.folders.addresses import open_folder

LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
"""Variables for torch's own kernels, for oneDNN and for MKL."""
SETS = {
    "AVX-512": ("avx512", "AVX512_CORE_AMX", "AVX512"),
    "AVX2": ("avx2", "AVX2", "AVX2"),
    "SSE": ("default", "SSE41", "SSE4_2"),
}
EXAMPLES = {"customer_churn v1": ChurnNet, "flight_delay v1": DelayNet, "flight_delay v2": DelayNet}
WIDTHS = {"regression, 64-64": (64, 64), "regression, 512-512-512": (512, 512, 512)}
SIZES = {"12,000": (12_000, 3_000), "1,000,000": (1_000_000, 250_000), "1,000,000 ± 100": (1_000_000, 100)}
"""Mean and standard deviation of the values."""
FEATURES = 12


class Regression(nn.Module):
    """A perceptron whose last layer gives values of a chosen size."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = FEATURES
        for width in widths:
            layers += [nn.Linear(before, width), nn.ReLU()]
            before = width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(before, 1)

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        """float32[rows, 1]."""
        return self.head(self.layers(numeric))


def models() -> dict[str, tuple[LoadedModel, pa.Table]]:
    """Return every network with the rows on which it is run."""
    found = {}
    for name, network in EXAMPLES.items():
        pipeline, version = name.split()
        bundle = read_bundle(open_folder(str(PROJECT / "data" / pipeline / "models" / version)))
        found[name] = build_network(bundle, network), bundle.golden
    rows = np.random.default_rng(1).normal(size=(GOLDEN_ROWS, FEATURES)).astype(np.float32)
    table = pa.table({f"x{index}": column for index, column in enumerate(rows.T)})
    for shape, widths in WIDTHS.items():
        for size, (mean, deviation) in SIZES.items():
            torch.manual_seed(0)
            network = Regression(widths).eval().requires_grad_(False)
            values = network(torch.from_numpy(rows), torch.empty(GOLDEN_ROWS, 0)).double()
            factor = deviation / values.std()
            network.head.weight.mul_(factor)
            network.head.bias.copy_((network.head.bias - values.mean()) * factor + mean)
            manifest = Manifest(
                name="r",
                version="v",
                task="regression",
                arguments={},
                numeric=tuple(table.column_names),
                categorical={},
                classes=(),
                training={},
                metrics={},
                files={},
            )
            found[f"{shape}, {size}"] = LoadedModel(manifest, "", network), table
    return found


def outputs() -> dict[str, np.ndarray]:
    """Return what this process computes, by network and method."""
    found = {}
    for name, (model, rows) in models().items():
        found[f"{name}/eager"] = eager.outputs(model, rows)
        found[f"{name}/engine"] = Scorer(model, device="cpu").outputs(rows)
    return found


def main() -> None:
    """Print the table; in a child process, the outputs themselves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    if parser.parse_args().child:
        np.savez(sys.stdout.buffer, **outputs())
        return
    seen = {name: _child(limits) for name, limits in SETS.items()}
    print("| network | size | largest difference | relative to size | of the tolerance |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, (model, _) in models().items():
        ways = [found[f"{name}/{way}"].astype(np.float64) for found in seen.values() for way in ("eager", "engine")]
        sizes = agreement.bounds(ways[0], agreement.Tolerance(relative=1))
        apart = np.max([np.abs(one - other) for one in ways for other in ways], axis=0)
        limits = agreement.bounds(ways[0], model.manifest.task.tolerance)
        print(
            f"| {name} | {np.median(sizes):.3g} | {apart.max():.1e} | {(apart / sizes).max():.1e} | "
            f"{(apart / limits).max():.0%} |"
        )


def _child(limits: tuple[str, ...]) -> dict[str, np.ndarray]:
    environment = os.environ | dict(zip(LIMITS, limits, strict=True))
    command = [sys.executable, "-m", "benchmarks.instruction_sets", "--child"]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    return dict(np.load(io.BytesIO(done.stdout)))


if __name__ == "__main__":
    main()
