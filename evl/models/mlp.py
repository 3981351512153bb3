"""The MLP of decoder layers and probes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evl.runtime.cpu import Linear, linear


class QuickGELU(nn.Module):
    """z · sigmoid(1.702 z), CLIP's approximation of GELU."""

    def forward(self, z: Tensor) -> Tensor:
        return z * torch.sigmoid(1.702 * z)


class MLP(nn.Module):
    """Linear → activation → Dropout → Linear, in the dtype of its input."""

    def __init__(self, width: int, hidden_width: int, dropout: float, activation: nn.Module):
        super().__init__()
        self.fc1 = Linear(width, hidden_width)
        self.act = activation
        self.dropout = nn.Dropout(dropout)
        self.fc2 = Linear(hidden_width, width)

    def forward(self, x: Tensor) -> Tensor:
        return linear_like_input(self.fc2, self.dropout(self.act(linear_like_input(self.fc1, x))))


def linear_like_input(module: nn.Linear, x: Tensor) -> Tensor:
    """Applies a linear layer with its weights in the dtype of ``x``."""
    return linear(x, module.weight.to(x.dtype), module.bias.to(x.dtype))
