"""The network, as the training code and the scoring pipeline both import it."""

import torch


class LoanNet(torch.nn.Module):
    """A perceptron with one hidden layer; scaling and missing values are part of it.

    Args:
        input_dim: numeric features.
        hidden_dim: width of the hidden layer.
        output_dim: classes.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(input_dim))
        self.register_buffer("std", torch.ones(input_dim))
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(input_dim, hidden_dim), torch.nn.ReLU(), torch.nn.Linear(hidden_dim, output_dim)
        )

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        """One logit per class.

        Args:
            numeric: float32[rows, input_dim], NaN where a value is missing.
            categorical: int64[rows, 0]; this model has no categorical features.

        Returns:
            float32[rows, output_dim].
        """
        return self.layers(((numeric - self.mean) / self.std).nan_to_num(0.0))
