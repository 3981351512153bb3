"""Counts the multiply-adds of a backbone from its sizes. The table in docs/method.md calls a multiply-add a FLOP."""

from __future__ import annotations

from torch import nn

from evl.types import BackboneSpec


def frame_macs(vit: nn.Module, spec: BackboneSpec) -> int:
    """Returns the multiply-adds for one frame: linear layers on every token, patch embedding, and attention.

    A machine's peak counts each of them as two operations. Norms, activations, rotary embedding and the pooling after
    the last block are not counted. ``vit`` may be on the meta device.
    """
    num_patches = spec.grid[0] * spec.grid[1]
    total = num_patches * 3 * spec.patch_size[0] * spec.patch_size[1] * spec.width
    for block in vit.blocks:
        weights = sum(module.weight.numel() for module in block.modules() if isinstance(module, nn.Linear))
        total += spec.num_tokens * weights + 2 * spec.num_tokens**2 * spec.num_heads * spec.head_width
    return total
