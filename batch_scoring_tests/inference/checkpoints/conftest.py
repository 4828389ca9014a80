"""An archive that several test modules read."""

import warnings
from pathlib import Path

import pytest
import torch


class Shared(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.second = self.first
        self.register_buffer("halves", torch.arange(6.0).half().view(2, 3).t())
        self.register_buffer("empty", torch.empty(0, 2))
        self.register_buffer("flag", torch.tensor(True))
        self.register_buffer("brain", torch.randn(3).bfloat16())

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.norm(self.second(rows)) * self.halves.sum() * self.brain.sum() + self.flag


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A `.pt2` archive and the state dict in it."""
    network = Shared().eval()
    file = tmp_path_factory.mktemp("pt2") / "w.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about views
        torch.export.save(torch.export.export(network, (torch.zeros(64, 3),)), file)
    return file, dict(network.state_dict())
