"""A decoder of your own, in one file: gated pooling over time.

Every frame becomes the mean of its patch tokens; frames are then weighed against each other by a small network, and
the tapped blocks' results are added. Train it without changing anything in evl (PYTHONPATH names this file's folder):

    export PYTHONPATH=examples
    evl train --data DATA --out RUN --set model.decoder=new_decoder:GatedPool "model.options={hidden: 64}"
    evl predict RUN VIDEO

docs/adding-a-decoder.md says what evl asks of a decoder.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from evl.types import BackboneSpec, LayerFeatures


class GatedPool(nn.Module):
    """Features of M tapped blocks -> one vector per clip, (B,D).

    Args:
        spec: of the encoder: ``width`` D, ``grid`` (h, w), ``num_prefix_tokens``, …
        num_frames: T of a clip.
        num_layers: M, the number of tapped blocks.
        hidden: width of the network that weighs frames; ``model.options={hidden: 64}`` sets it.
    """

    def __init__(self, spec: BackboneSpec, *, num_frames: int, num_layers: int, hidden: int = 32):
        super().__init__()
        self.width = spec.width
        self.num_prefix_tokens = spec.num_prefix_tokens
        self.norms = nn.ModuleList(nn.LayerNorm(spec.width) for _ in range(num_layers))
        self.gates = nn.ModuleList(
            nn.Sequential(nn.Linear(spec.width, hidden), nn.Tanh(), nn.Linear(hidden, 1)) for _ in range(num_layers)
        )
        self.time = nn.Parameter(torch.zeros(num_frames, spec.width))

    def forward(self, features: Sequence[LayerFeatures]) -> Tensor:
        clip = 0
        for one, norm, gate in zip(features, self.norms, self.gates, strict=True):
            frames = norm(one.tokens[:, :, self.num_prefix_tokens :].mean(2)) + self.time  # (B,T,D)
            clip = clip + (gate(frames).softmax(1) * frames).sum(1)
        return clip
