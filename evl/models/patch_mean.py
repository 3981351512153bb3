"""The read-out that is a mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PatchMean(nn.Module):
    """The mean over frames and patches, in float32 or double: (B,T,P,d) -> (B,d). ``evl.explain`` hooks it."""

    def forward(self, s: Tensor) -> Tensor:
        return s.mean((1, 2), dtype=torch.promote_types(s.dtype, torch.float32))
