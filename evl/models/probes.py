"""Baselines on the same features: what a decoder must beat to be worth its parameters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from evl.types import LayerFeatures


class MeanPool(nn.Module):
    """The mean of all patch tokens of the deepest block, over space and time: (B,T,L,D) -> (B,D).

    With the classifier's head on top this is a mean-pooled linear probe. It has no parameters.
    """

    def __init__(self, width: int, num_prefix_tokens: int):
        super().__init__()
        self.width = width
        self.num_prefix_tokens = num_prefix_tokens

    def forward(self, features: Sequence[LayerFeatures]) -> Tensor:
        tokens = features[-1].tokens[:, :, self.num_prefix_tokens :]
        return tokens.mean(dim=(1, 2), dtype=torch.promote_types(tokens.dtype, torch.float32))
