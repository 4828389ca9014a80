"""The forward pass alone, by backend: why the engine packs the network's layers, and does no more.

    python -m benchmarks.forward --model narrow --rounds 5

One thread, matrices in memory, the engine's own batch size; CPU seconds per million rows, the backends taking turns.
`once` is the cost for a process before its first row. Outputs are compared with those of eager. The backends:

eager       the network as the pipeline's module defines it.
packed      its linear layers with weights in oneDNN's own layout: `packed_linear.py`, as in the engine. It uses the
            operators of torch.compile; the public interfaces to oneDNN, `torch.utils.mkldnn.to_mkldnn` and
            `torch.jit.optimize_for_inference`, were no faster than eager.
compiled    torch.compile with frozen weights; needs a C++ compiler at run time.
exported    torch.export and AOTInductor: a shared library, which would have to be part of the model's file. Needs the
            compiler at build time, and is specific to one kind of processor.
onnx        ONNX Runtime on the exported graph.
bfloat16    the network with half the bits.
"""

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from batch_scoring.inference.network.packed_linear import packed
from batch_scoring.inference.scorer import keep_freed_memory
from benchmarks import networks, side_by_side, workload

Forward = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
ROWS = {"narrow": (500_000, 8_192), "wide": (60_000, 1_024), "transformer": (50_000, 1_024)}
"""Rows per round, and per batch, as in the engine."""


def main() -> None:
    """Run the command: measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description="Time forward passes by backend.")
    parser.add_argument("--model", choices=networks.MODELS, default="narrow")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    keep_freed_memory()
    rows, size = ROWS[arguments.model]
    batches = list(zip(*(matrix.split(size) for matrix in _inputs(rows // size * size)), strict=True))
    first = batches[0]
    backends: dict[str, Forward] = {}
    once: dict[str, float] = {}
    outputs: dict[str, list[torch.Tensor]] = {}
    with tempfile.TemporaryDirectory(prefix="batch_scoring_bench_") as folder, torch.no_grad():
        networks.write(Path(folder), arguments.model)
        for name, build in BACKENDS.items():
            begin = time.perf_counter()
            try:
                backends[name] = build(networks.load_plain(Path(folder), arguments.model), first, Path(folder))
                backends[name](*first)
            except Exception as error:
                print(f"{name}: not available: {type(error).__name__}: {str(error).splitlines()[0]}")
                backends.pop(name, None)
            once[name] = time.perf_counter() - begin
        seconds: dict[str, list[float]] = {name: [] for name in backends}
        for _ in range(arguments.rounds):
            for name, forward in backends.items():
                begin = time.process_time()
                outputs[name] = [forward(*batch) for batch in batches]
                seconds[name].append((time.process_time() - begin) / len(batches) / size * 1e6)
        print(f"\n{arguments.model}, batches of {size}, {arguments.rounds} rounds\n")
        found = {name: torch.cat(parts).float() for name, parts in outputs.items()}
        lines = [_line(name, seconds, once[name], found[name], found["eager"]) for name in backends]
    header = [
        "",
        "CPU s per million rows",
        "relative to eager",
        "once, s",
        "max difference of a logit",
        "flips per million rows",
    ]
    print(side_by_side.table(header, lines))
    print(f"\n{side_by_side.machine()}")


def _line(
    name: str, seconds: dict[str, list[float]], once: float, found: torch.Tensor, expected: torch.Tensor
) -> list[str]:
    ratios = [mine / eager for mine, eager in zip(seconds[name], seconds["eager"], strict=True)]
    flips = (found.argmax(dim=1) != expected.argmax(dim=1)).double().mean() * 1e6
    return [
        name,
        f"{statistics.median(seconds[name]):.3f}",
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        f"{once:.1f}",
        f"{(found - expected).abs().max().item():.1e}",
        f"{flips:.0f}",
    ]


def _inputs(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return float32[rows, numbers] and int64[rows, categories], as the engine passes them."""
    torch.manual_seed(0)
    numeric = torch.tensor(workload.MEANS) + torch.tensor(workload.SCALES) * torch.randn(rows, len(workload.NUMERIC))
    codes = [torch.randint(len(words) + 1, (rows,)) for words in workload.CATEGORICAL.values()]
    return numeric, torch.stack(codes, dim=1)


def _compiled(network: nn.Module, _first: tuple, _folder: Path) -> Forward:
    import torch._inductor.config

    torch._inductor.config.freezing = True
    return torch.compile(network, dynamic=False)


def _exported(network: nn.Module, first: tuple, folder: Path) -> Forward:
    program = torch.export.export(network, first)
    path = torch._inductor.aoti_compile_and_package(
        program, package_path=str(folder / "network.pt2"), inductor_configs={"freezing": True}
    )
    return torch._inductor.aoti_load_package(path)


def _onnx(network: nn.Module, first: tuple, folder: Path) -> Forward:
    import onnxruntime

    names = ["numeric", "categorical"]
    torch.onnx.export(network, first, folder / "network.onnx", input_names=names, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "network.onnx", options, providers=["CPUExecutionProvider"])

    def forward(numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        inputs = dict(zip(names, (numeric.numpy(), categorical.numpy()), strict=True))
        return torch.from_numpy(session.run(None, inputs)[0])

    return forward


def _half(network: nn.Module, _first: tuple, _folder: Path) -> Forward:
    half = network.bfloat16()
    return lambda numeric, categorical: half(numeric.bfloat16(), categorical)


BACKENDS: dict[str, Callable[[nn.Module, tuple, Path], Forward]] = {
    "eager": lambda network, _first, _folder: network,
    "packed": lambda network, _first, _folder: packed(network),
    "compiled": _compiled,
    "exported": _exported,
    "onnx": _onnx,
    "bfloat16": _half,
}

if __name__ == "__main__":
    main()
