"""The network: a small MLP over normalised numbers, flags of what is missing, and one embedding a category.

What it needs to score stands in its arguments, weights and buffers. How it is trained stands in `train.py`.
"""

from collections.abc import Sequence

import torch
from torch import nn


class DelayNet(nn.Module):
    """Logits of on time and late, each row for itself."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self, numeric: int, categories: Sequence[int], embeddings: Sequence[int], hidden: Sequence[int]
    ) -> None:
        """Build the layers; the weights are random until trained or loaded.

        Args:
            numeric: columns of the numeric matrix.
            categories: size of each categorical column's vocabulary, without the unknown value.
            embeddings: width of each categorical column's embedding.
            hidden: widths of the hidden layers.

        Raises:
            ValueError: `categories` and `embeddings` differ in length.
        """
        super().__init__()
        if len(categories) != len(embeddings):
            raise ValueError(
                f"{len(categories)} categories and {len(embeddings)} embeddings; expected one width a column"
            )
        self.register_buffer("mean", torch.zeros(numeric))
        self.register_buffer("scale", torch.ones(numeric))
        # Row 0 of each is the unknown value.
        self.embeddings = nn.ModuleList(
            nn.Embedding(size + 1, width) for size, width in zip(categories, embeddings, strict=True)
        )
        layers: list[nn.Module] = []
        width = 2 * numeric + sum(embeddings)
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU()]
            width = size
        self.layers = nn.Sequential(*layers, nn.Linear(width, 2))

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        """Score a batch.

        Args:
            numeric: float32[rows, n]; NaN is a missing value.
            categorical: int64[rows, c]; 0 is an unknown value.

        Returns:
            float32[rows, 2]: logits of on time and late.
        """
        missing = torch.isnan(numeric)
        # Bounded, so that a value far outside the training window cannot run away with the sum.
        values = ((numeric - self.mean) / self.scale).clamp(-5, 5).masked_fill(missing, 0)
        embedded = [embedding(categorical[:, column]) for column, embedding in enumerate(self.embeddings)]
        return self.layers(torch.cat([values, missing.to(values.dtype), *embedded], dim=1))
