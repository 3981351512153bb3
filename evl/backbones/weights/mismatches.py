"""What of a file does not fit a model, told in groups."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from evl.backbones.weights.forms import in_groups

BEHIND = ("norm.", "fc_norm.", "head", "attn_pool.", "pre_logits.", "mask_token")  # behind the last block: not read
_READ = ("blocks.", "patch_embed.", "pos_embed", "cls_token", "reg_token", "dist_token", "norm_pre.", "rope.")


def misfits(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], *, strict: bool = True) -> list[str]:
    """Why ``state`` cannot be loaded into a model of tensors ``wanted``, as parts of a sentence; empty if it can.

    What stands behind the last block may be missing. Not ``strict``: only names that the blocks read may not be
    unexpected; others are left out.
    """
    parts = []
    missing = [name for name in wanted if name not in state and not name.startswith(BEHIND)]
    unexpected = [
        name
        for name in state
        if name not in wanted and (name.startswith(_READ) or (strict and not name.startswith(BEHIND)))
    ]
    shared = [name for name in wanted if name in state]
    other = [name for name in shared if wanted[name].shape != state[name].shape]
    odd = [name for name in shared if wanted[name].is_floating_point() and not state[name].is_floating_point()]
    complex_, whole = ([name for name in odd if state[name].is_complex() is kind] for kind in (True, False))
    ours, theirs = _size(wanted), _size(state)
    if theirs[0] and theirs[1] and ours != theirs:
        parts.append(f"the file has {theirs[0]} blocks of width {theirs[1]}, the name has {ours[0]} of {ours[1]}")
    if missing:
        parts.append(f"missing: {in_groups(missing)}")
    if unexpected:
        parts.append(f"unexpected: {in_groups(unexpected)}")
    if other:
        shown = [f"{name} {tuple(wanted[name].shape)} expected, {tuple(state[name].shape)} came" for name in other[:2]]
        more = f", and {len(other) - 2} more" if len(other) > 2 else ""
        parts.append(f"other shapes: {', '.join(shown)}{more}")
    if whole:
        parts.append(f"whole numbers, not weights as they were trained: {in_groups(whole)}")
    if complex_:
        parts.append(f"complex numbers, not weights as they were trained: {in_groups(complex_)}")
    return parts


def _size(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """(number of blocks, width), 0 where it cannot be told."""
    blocks = {name.split(".")[1] for name in state if name.startswith("blocks.")}
    kernel = state.get("patch_embed.proj.weight")
    return len(blocks), len(kernel) if kernel is not None and kernel.ndim else 0
