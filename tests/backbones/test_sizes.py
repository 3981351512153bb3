"""Image sizes other than the weights' own: positions as the family itself makes them at that size."""

import pytest
import timm
import torch
import torch.nn.functional as F

from evl.backbones import create_backbone
from evl.config import BackboneConfig
from evl.errors import BackboneError
from tests.backbones.families import FAMILIES, randomised, registered, saved
from tests.helpers import assert_close

pytestmark = pytest.mark.usefixtures("one_thread")


def sizes_of(patch):
    """Square: 336, 384, 448, 512 px, or the next multiple of the patch below. Then two that are not square."""
    square = [(size // patch * patch,) * 2 for size in (336, 384, 448, 512)]
    return square, [(12 * patch, 21 * patch), (20 * patch, 9 * patch)]


def resampled(row, table, prefix, old, new):
    """Bicubic and antialiased but for two families, prefix tokens left alone: (1, prefix + h·w, D)."""
    how = {"mode": "bicubic", "antialias": True}
    if row in ("FlexiViT", "C-RADIO"):
        how = {"mode": "bilinear", "align_corners": row == "C-RADIO"}
    kept, grid = table[:, :prefix], table[:, prefix:].unflatten(1, old).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, new, **how)
    return torch.cat([kept, grid.permute(0, 2, 3, 1).flatten(1, 2)], 1)


def rotary_table(vit):
    """What the blocks get at the model's own grid."""
    return None if getattr(vit, "rope", None) is None else vit.rope.get_embed(shape=vit.patch_embed.grid_size)


@pytest.mark.parametrize("row", FAMILIES)
def test_positions_at_other_sizes_are_the_familys_own(row, tmp_path):
    torch.manual_seed(list(FAMILIES).index(row))
    name = registered(row, depth=1)
    native = randomised(timm.create_model(name, num_classes=0))
    weights = saved(native, tmp_path / "weights.safetensors")
    patch, grid = native.patch_embed.patch_size[0], native.patch_embed.grid_size
    assert grid[0] * patch == timm.get_pretrained_cfg(FAMILIES[row][0]).input_size[1]  # the family's own size
    square, oblong = sizes_of(patch)
    for size in (*square, *oblong):
        backbone = create_backbone(BackboneConfig(name, weights=str(weights), image_size=size), 1)
        assert backbone.spec.image_size == backbone.preprocessing.image_size == size
        # timm's own way: made at this size, the weights fitted by the family's converter while they are loaded
        overlay = {"state_dict": native.state_dict()}
        own = timm.create_model(
            name, pretrained=True, num_classes=0, img_size=size, pretrained_cfg_overlay=overlay
        ).eval()
        if native.pos_embed is not None:
            prefix = 0 if native.no_embed_class else native.num_prefix_tokens
            expected = resampled(row, native.pos_embed, prefix, grid, backbone.spec.grid)
            assert_close(backbone.vit.pos_embed, expected)
            assert_close(own.pos_embed, expected)
        table = rotary_table(own)
        assert (native.pos_embed is None) <= (table is not None)  # positions of one kind or both
        if table is not None:
            assert_close(rotary_table(backbone.vit), table)
            if hasattr(own.rope, "feat_shape"):  # and what is kept from call to call
                assert backbone.vit.rope.feat_shape == own.rope.feat_shape
        if size in oblong:
            clips = torch.randn(1, 1, 3, *size)
            seen = []
            own.blocks[0].register_forward_hook(lambda module, args, output, seen=seen: seen.append(output))
            with torch.no_grad():
                own.forward_features(clips[0])
            assert_close(backbone(clips)[0].tokens[0], seen[0])


def test_a_size_that_patches_do_not_tile_is_refused_with_the_nearest_that_do():
    name = registered("DINOv2", depth=1)
    with pytest.raises(BackboneError, match="384×384: patches are 14×14; the nearest are 378×378 and 392×392"):
        create_backbone(BackboneConfig(name, pretrained=False, image_size=384), 1)
    with pytest.raises(BackboneError, match=r"8×224.* nearest is 14×224"):
        create_backbone(BackboneConfig(name, pretrained=False, image_size=(8, 224)), 1)


@pytest.mark.parametrize(("patch", "size"), [(30, None), (8, (48, 80)), (24, 96)])
def test_flexivit_takes_patches_of_any_size(patch, size, tmp_path):
    torch.manual_seed(patch)
    name = registered("FlexiViT", depth=1)
    native = randomised(timm.create_model(name, num_classes=0))
    config = BackboneConfig(
        name, weights=str(saved(native, tmp_path / "w.safetensors")), image_size=size, patch_size=patch
    )
    backbone = create_backbone(config, 1)
    height, width = backbone.spec.image_size
    assert (height, width) == {None: (240, 240), 96: (96, 96)}.get(size, size)
    assert backbone.spec.patch_size == (patch, patch)
    assert backbone.spec.grid == (height // patch, width // patch)
    own = timm.create_model(
        name, pretrained=True, num_classes=0, img_size=(height, width), patch_size=patch,
        pretrained_cfg_overlay={"state_dict": native.state_dict()},
    ).eval()  # fmt: skip
    for mine, theirs in zip(backbone.vit.parameters(), own.parameters(), strict=True):
        assert_close(mine, theirs)
    clips = torch.randn(1, 1, 3, height, width)
    assert_close(backbone(clips)[0].tokens[0], own.blocks[0](own.norm_pre(own._pos_embed(own.patch_embed(clips[0])))))


def test_patches_of_other_families_have_one_size():
    for name in ("vit_small_patch16_224", "evl_clip_tiny", "openai_clip"):
        with pytest.raises(BackboneError, match=f"{name} has patches of one size; leave backbone.patch_size unset"):
            create_backbone(BackboneConfig(name, pretrained=False, patch_size=8), 1)
    with pytest.raises(BackboneError, match="240×240: patches are 7×7; the nearest are 238×238 and 245×245"):
        create_backbone(BackboneConfig(registered("FlexiViT", depth=1), pretrained=False, patch_size=7), 1)
