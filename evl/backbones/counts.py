"""Multiply-adds of a backbone, counted from its sizes; one is what docs/method.md's table calls a FLOP."""

from __future__ import annotations

from torch import nn

from evl.types import BackboneSpec


def frame_macs(vit: nn.Module, spec: BackboneSpec) -> int:
    """Of one frame: every linear layer on every token, the patch embedding, scores and sums of attention.

    A machine's peak counts each as two operations. Norms, activations, rotary embedding and the pooling behind the
    last block are left out. ``vit`` may be on the meta device.
    """
    num_patches = spec.grid[0] * spec.grid[1]
    total = num_patches * 3 * spec.patch_size[0] * spec.patch_size[1] * spec.width
    for block in vit.blocks:
        weights = sum(module.weight.numel() for module in block.modules() if isinstance(module, nn.Linear))
        total += spec.num_tokens * weights + 2 * spec.num_tokens**2 * spec.num_heads * spec.head_width
    return total
