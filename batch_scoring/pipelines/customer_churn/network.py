"""The network of the churn model. How it is trained stands in `train.py`."""

import torch
from torch import nn


class ChurnNet(nn.Module):
    """A multi-layer perceptron with two hidden layers; normalisation and imputation are part of it.

    Args:
        input_dim: numeric features.
        hidden_dim: width of both hidden layers.
        output_dim: classes.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(input_dim))
        self.register_buffer("scale", torch.ones(input_dim))
        self.layers = nn.Sequential(
            nn.Linear(input_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, output_dim),
        )

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        """Logits of the classes.

        Args:
            numeric: float32[rows, input_dim]; NaN is a missing value and becomes the training data's mean.
            categorical: int64[rows, 0]; the table has no categorical features.

        Returns:
            float32[rows, output_dim].
        """
        normalised = (numeric - self.mean) / self.scale
        return self.layers(torch.where(normalised.isnan(), 0.0, normalised))
