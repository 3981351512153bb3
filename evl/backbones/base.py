"""The contract of a frozen backbone."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from evl.errors import BackboneError
from evl.types import BackboneSpec, LayerFeatures, Preprocessing


class FrozenBackbone(nn.Module, ABC):
    """An image encoder that never learns: clips (B,T,C,H,W) -> LayerFeatures of its last ``num_taps`` blocks.

    It refuses training mode and gradients, and runs without autograd. Subclasses say in ``tap`` what one batch of
    frames gives. ``spec`` and ``preprocessing`` describe it; ``weights_hash`` names its weights.
    """

    def __init__(self, spec: BackboneSpec, preprocessing: Preprocessing, num_taps: int):
        super().__init__()
        if not 1 <= num_taps <= spec.depth:
            raise BackboneError(
                f"{spec.name} has {spec.depth} blocks, but {num_taps} were asked for; set model.num_layers"
            )
        self.spec = spec
        self.preprocessing = preprocessing
        self.num_taps = num_taps
        self._hash: str | None = None
        self.register_load_state_dict_post_hook(_forget_hash)

    def forward(self, clips: Tensor) -> list[LayerFeatures]:
        """Shallow to deep: tokens (B,T,L,D), query and key (B,T,L,N,K), without gradients."""
        if clips.ndim != 5 or clips.shape[2] != 3 or not clips.is_floating_point():
            raise ValueError(f"clips of shape {tuple(clips.shape)} and {clips.dtype}; expected floats (B,T,3,H,W)")
        b, t, _, *size = clips.shape
        if tuple(size) != self.spec.image_size:
            raise ValueError(f"frames of {size[0]}×{size[1]} came; {self.spec.name} takes {self.spec.image_size}")
        with torch.no_grad():
            features = self.tap(clips.flatten(0, 1))
        return [LayerFeatures(*(part.unflatten(0, (b, t)) for part in one)) for one in features]

    @abstractmethod
    def tap(self, frames: Tensor) -> list[LayerFeatures]:
        """Frames (F,C,H,W) -> features with tokens (F,L,D), query and key (F,L,N,K)."""

    @property
    def weights_hash(self) -> str:
        """``hash_weights`` of the weights as they were read, before positions are fitted to another image size."""
        if self._hash is None:
            self._hash = hash_weights(self.state_dict())
        return self._hash

    def train(self, mode: bool = True) -> FrozenBackbone:
        """Stays in evaluation mode, whatever a surrounding model is told."""
        return super().train(False)

    def requires_grad_(self, requires_grad: bool = True) -> FrozenBackbone:
        if requires_grad:
            raise BackboneError(f"{self.spec.name} is frozen: its weights take no gradients")
        return super().requires_grad_(False)


def hash_weights(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes of all tensors, in float32."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _forget_hash(backbone: FrozenBackbone, incompatible_keys) -> None:
    backbone._hash = None
