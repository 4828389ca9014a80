"""The network: the mean of a text's token embeddings beside a few columns, and one hidden layer."""

from collections.abc import Sequence

import torch
from torch import nn


class TicketNet(nn.Module):
    """Logits of the topics, each row for itself."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self, tokens: int, numeric: int, categories: Sequence[int], topics: int, width: int, hidden: int
    ) -> None:
        """Build the layers; the weights are random until trained or loaded.

        Args:
            tokens: size of the tokenizer's vocabulary, of which token 0 is padding.
            numeric: columns of the numeric matrix.
            categories: size of each categorical column's vocabulary, without the unknown value.
            topics: classes.
            width: of a token's embedding.
            hidden: width of the hidden layer.
        """
        super().__init__()
        self.register_buffer("mean", torch.zeros(numeric))
        self.register_buffer("scale", torch.ones(numeric))
        self.words = nn.Embedding(tokens, width, padding_idx=0)
        self.categories = nn.ModuleList(nn.Embedding(size + 1, 2) for size in categories)  # row 0: unknown
        self.layers = nn.Sequential(
            nn.Linear(width + 2 * numeric + 2 * len(categories), hidden),
            nn.ReLU(),
            nn.Linear(hidden, topics),
        )

    def normalise(self, numeric: torch.Tensor) -> None:
        """Learn mean and spread of the numeric columns from the training rows."""
        values = self._logarithms(numeric)
        self.mean.copy_(values.nanmean(dim=0))
        self.scale.copy_((values - self.mean).square().nanmean(dim=0).sqrt())

    def forward(self, tokens: torch.Tensor, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        """Score a batch.

        Args:
            tokens: int64[rows, width]; 0 is padding, and every row has at least one other token.
            numeric: float32[rows, n], counts and days; NaN is a missing value.
            categorical: int64[rows, c]; 0 is an unknown value.

        Returns:
            float32[rows, topics].
        """
        text = self.words(tokens).sum(dim=1) / (tokens != 0).sum(dim=1, keepdim=True)
        missing = torch.isnan(numeric)
        # Bounded, so that no value can run away with the sum.
        values = ((self._logarithms(numeric) - self.mean) / self.scale).clamp(-3, 3).masked_fill(missing, 0)
        named = [embedding(categorical[:, column]) for column, embedding in enumerate(self.categories)]
        return self.layers(torch.cat([text, values, missing.to(values.dtype), *named], dim=1))

    @staticmethod
    def _logarithms(numeric: torch.Tensor) -> torch.Tensor:
        """Logarithms of counts and days, of which a few are large."""
        return numeric.clamp(min=0).log1p()
