"""Zero-shot classification: compares images with the names of classes, by a CLIP-like encoder without training."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from evl.types import LayerFeatures


class ZeroShot(nn.Module):
    """Features, of which the last are those of the encoder's last block -> logits (B,Y). All of it is frozen.

        v = norm(Σ_t embedding(tokens_t)),   logits = scale · v · text + bias

    ``embedding``: tokens (F,L,D) -> unit vectors (F,E). ``text`` (Y,E): a unit vector per class. ``logit_scale`` and
    ``logit_bias``: scalars from the training of the encoder.
    """

    def __init__(self, embedding: nn.Module, text: Tensor, logit_scale: Tensor, logit_bias: Tensor):
        super().__init__()
        self.embedding = embedding
        self.register_buffer("text", text)
        self.register_buffer("logit_scale", logit_scale)
        self.register_buffer("logit_bias", logit_bias)
        self.requires_grad_(False)
        self.train(False)

    def forward(self, features: Sequence[LayerFeatures]) -> Tensor:
        return self.logit_scale * self.embed(features) @ self.text.T + self.logit_bias

    def embed(self, features: Sequence[LayerFeatures]) -> Tensor:
        """Returns the mean of the frames' unit embeddings, normalized again: (B,E)."""
        tokens = features[-1].tokens
        frames = self.embedding(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])  # (B,T,E)
        return F.normalize(frames.mean(1), dim=-1)

    def train(self, mode: bool = True) -> ZeroShot:
        """Stays in evaluation mode, like the encoder."""
        return super().train(False)

    def requires_grad_(self, requires_grad: bool = True) -> ZeroShot:
        """Stays without gradients."""
        return super().requires_grad_(False)
