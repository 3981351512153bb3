"""Lists which tensors of a file do not fit a model, in groups."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from evl.backbones.weights.layouts import in_groups

_UNREAD = ("norm.", "fc_norm.", "head", "attn_pool.", "pre_logits.", "mask_token")  # after the last block
_READ = ("blocks.", "patch_embed.", "pos_embed", "cls_token", "reg_token", "dist_token", "norm_pre.", "rope.")


def misfits(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], *, strict: bool = True) -> list[str]:
    """Returns why ``state`` does not fit a model with tensors ``wanted``, as parts of a sentence; [] if it fits.

    Tensors after the last block may be missing. If not ``strict``, unexpected tensors are reported only if their names
    are like those that the blocks read.
    """
    parts = []
    missing = [name for name in wanted if name not in state and not name.startswith(_UNREAD)]
    unexpected = [
        name
        for name in state
        if name not in wanted and (name.startswith(_READ) or (strict and not name.startswith(_UNREAD)))
    ]
    shared = [name for name in wanted if name in state]
    other = [name for name in shared if wanted[name].shape != state[name].shape]
    odd = [name for name in shared if wanted[name].is_floating_point() and not state[name].is_floating_point()]
    complex_, whole = ([name for name in odd if state[name].is_complex() is kind] for kind in (True, False))
    ours, theirs = _size(wanted), _size(state)
    if theirs[0] and theirs[1] and ours != theirs:
        parts.append(f"the file has {theirs[0]} blocks of width {theirs[1]}, the model {ours[0]} of width {ours[1]}")
    if missing:
        parts.append(f"missing: {in_groups(missing)}")
    if unexpected:
        parts.append(f"unexpected: {in_groups(unexpected)}")
    if other:
        shown = [f"{name} {tuple(wanted[name].shape)} expected, {tuple(state[name].shape)} came" for name in other[:2]]
        more = f", and {len(other) - 2} more" if len(other) > 2 else ""
        parts.append(f"other shapes: {', '.join(shown)}{more}")
    if whole:
        parts.append(f"integers, which cannot be trained weights: {in_groups(whole)}")
    if complex_:
        parts.append(f"complex numbers, which cannot be trained weights: {in_groups(complex_)}")
    return parts


def _size(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Returns (number of blocks, width); 0 stands for an unknown number."""
    blocks = {name.split(".")[1] for name in state if name.startswith("blocks.")}
    kernel = state.get("patch_embed.proj.weight")
    return len(blocks), len(kernel) if kernel is not None and kernel.ndim else 0
