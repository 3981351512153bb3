"""Changes a model to take images or patches of another size, with positions resampled as its family does it."""

from __future__ import annotations

from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import nn

from evl.errors import BackboneError


def fit_to_size(
    vit: nn.Module, name: str, image_size: int | tuple[int, int] | None, patch_size: int | None = None
) -> None:
    """Changes ``vit`` in place to take images of ``image_size`` ((H, W), the side of a square, or None: unchanged).

    Absolute positions are interpolated: bicubic and antialiased, but bilinear for FlexiViT and C-RADIO, which were
    trained so. Prefix tokens keep their positions. Rotary tables are computed anew for the grid. With ``patch_size``
    the kernels of the patch embedding are resampled too, as FlexiViT does it. Raises BackboneError if patches do not
    tile the image; it names the nearest sizes that they do tile.
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
    # set_input_size is bicubic for every family; the options below are those of timm's own loading
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
    """Returns the options that timm's loader uses for families whose interpolation differs; None for all others."""
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
