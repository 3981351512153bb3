"""Frames or patches of another size than the weights' own: positions fitted to the new grid, as the family does."""

from __future__ import annotations

from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import nn

from evl.errors import BackboneError


def fit_to_size(
    vit: nn.Module, name: str, image_size: int | tuple[int, int] | None, patch_size: int | None = None
) -> None:
    """Makes ``vit`` take images of ``image_size`` ((H, W), or the side of a square; None: as it is), in place.

    Absolute positions are interpolated (bicubic, antialiased; FlexiViT and C-RADIO bilinear, as they were trained),
    prefix tokens keep theirs, rotary tables are made anew for the grid. ``patch_size``: kernels of patches, too, are
    resampled, as FlexiViT is. BackboneError if patches do not tile the image, with the nearest sizes that they do.
    """
    if image_size is None:
        image_size = tuple(vit.patch_embed.img_size)
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    old_patch, old_grid = tuple(vit.patch_embed.patch_size), vit.patch_embed.grid_size
    patch = old_patch if patch_size is None else (patch_size, patch_size)
    if height % patch[0] or width % patch[1]:
        raise BackboneError(
            f"{name} cannot take images of {height}×{width}: patches are {patch[0]}×{patch[1]}; "
            f"{_nearest((height, width), patch)}"
        )
    table, kernels = vit.pos_embed, vit.patch_embed.proj.weight
    vit.set_input_size(img_size=(height, width), patch_size=patch if patch != old_patch else None)
    options = _interpolation(name)
    if options is None:
        return
    # set_input_size is bicubic for all; timm's loading knows these families' own way
    if table is not None and old_grid != vit.patch_embed.grid_size:
        prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
        grid = {"new_size": vit.patch_embed.grid_size, "old_size": old_grid, "num_prefix_tokens": prefix}
        vit.pos_embed = nn.Parameter(
            resample_abs_pos_embed(table.detach(), **grid, **options), requires_grad=table.requires_grad
        )
    if patch != old_patch:
        vit.patch_embed.proj.weight = nn.Parameter(
            resample_patch_embed(kernels.detach(), list(patch), **options), requires_grad=kernels.requires_grad
        )


def _interpolation(name: str) -> dict | None:
    """Where a family's positions are not interpolated like all others': as timm's loader has it."""
    if "flexivit" in name:
        return {"interpolation": "bilinear", "antialias": False}
    if "_radio_" in name:
        aligned = "base_patch16_radio_v3" in name or "huge_patch16_radio_v3" in name
        return {"interpolation": "bilinear", "antialias": False, "align_corners": aligned}
    return None


def _nearest(size: tuple[int, int], patch: tuple[int, int]) -> str:
    below = tuple(max(s // p, 1) * p for s, p in zip(size, patch, strict=True))
    above = tuple(-(-s // p) * p for s, p in zip(size, patch, strict=True))
    if below == above:
        return f"the nearest is {below[0]}×{below[1]}"
    return f"the nearest are {below[0]}×{below[1]} and {above[0]}×{above[1]}"
