"""Queries and keys made of stored token maps against those the live encoder's blocks use."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import evl
from evl.backbones.projections import Projections, projections_of
from evl.backbones.timm_vit import TimmBackbone
from evl.errors import BackboneError, StoreError
from evl.runtime.checksums import checksum
from evl.types import Preprocessing
from tests.backbones.families import FAMILIES, randomised, tiny
from tests.helpers import assert_close

pytestmark = pytest.mark.usefixtures("one_thread")


def backbone_of(model, name, grid=(3, 5), taps=(1, 3)):
    size = tuple(n * model.patch_embed.patch_size[0] for n in grid)
    model.set_input_size(img_size=size)
    return TimmBackbone(model, name, Preprocessing(size, (0.5,) * 3, (0.5,) * 3), taps)


def clips_for(backbone, b=2, t=3):
    return torch.randn(b, t, 3, *backbone.spec.image_size)


def written(projections, path):
    path.write_bytes(projections.to_bytes())
    return path


@pytest.mark.parametrize("row", FAMILIES)
def test_equal_what_the_live_blocks_hand_to_attention(row, tmp_path):
    torch.manual_seed(list(FAMILIES).index(row))
    backbone = backbone_of(tiny(row), row)
    live = projections_of(backbone)
    path = written(live, tmp_path / "projections.safetensors")
    assert live.to_bytes() == path.read_bytes()
    read = Projections.load(path, backbone.spec)
    assert read.blocks == (1, 3)
    prefix = backbone.spec.num_prefix_tokens
    for clips in (clips_for(backbone), clips_for(backbone, 1, 1)):
        maps, features = backbone.token_maps(clips)
        assert list(maps) == [0, 1, 2, 3]
        for block, one in zip((1, 3), features, strict=True):
            inputs = maps[block - 1].flatten(0, 1)
            for projections in (live, read):
                for got, wanted in zip(projections.queries_keys(block, inputs), one[1:], strict=True):
                    assert_close(got, wanted.flatten(0, 1), relative=1e-5)
                patches = projections.queries_keys(block, inputs[:, prefix:], patches_only=True)
                for got, wanted in zip(patches, one[1:], strict=True):
                    assert_close(got, wanted.flatten(0, 1)[:, prefix:], relative=1e-5)


@pytest.mark.parametrize("taps", [(3,), (1,), (1, 3), (2, 3), (1, 2, 3)])
def test_token_maps_are_inputs_and_outputs_of_tapped_blocks(taps):
    torch.manual_seed(0)
    model = tiny("CLIP, QuickGELU")
    backbone = backbone_of(model, "CLIP", taps=taps)
    seen = {}
    for number, block in enumerate(model.blocks, 1):
        block.register_forward_pre_hook(lambda module, args, number=number: seen.update({number - 1: args[0]}))
    clips = clips_for(backbone)
    wanted = backbone(clips)
    inputs = dict(seen)
    for backbone.frames_at_once in (None, 4, 1):
        maps, features = backbone.token_maps(clips)
        assert list(maps) == sorted({*taps, *(tap - 1 for tap in taps)})
        for one, right in zip(features, wanted, strict=True):
            for part, right_part in zip(one, right, strict=True):
                assert_close(part, right_part)
        for tap, one in zip(taps, features, strict=True):
            assert maps[tap] is one.tokens
            assert_close(maps[tap - 1], inputs[tap - 1].unflatten(0, (2, 3)))
    with torch.autocast("cpu", torch.bfloat16):
        maps, _ = backbone.token_maps(clips)
    assert {value.dtype for value in maps.values()} == {torch.bfloat16}


def test_angles_stay_in_float32():
    torch.manual_seed(0)
    backbone = backbone_of(tiny("DINOv3, no bias"), "DINOv3", (20, 20))
    projections = projections_of(backbone)
    maps, features = backbone.token_maps(clips_for(backbone, 1, 1))
    narrow = projections.to(torch.bfloat16)
    assert narrow.parts["3"].rotation.dtype == torch.float32
    assert narrow.parts["3"].weight.dtype == torch.bfloat16
    query, key = narrow.queries_keys(3, maps[2][0].bfloat16())
    for got, wanted in zip((query, key), features[1][1:], strict=True):
        assert got.dtype == torch.bfloat16
        assert (got.float() - wanted[0]).norm() < 0.01 * wanted.norm()


def test_a_part_of_the_blocks():
    backbone = backbone_of(tiny("MAE"), "MAE", taps=(1, 2, 3))
    whole = projections_of(backbone)
    part = whole.of((1, 3))
    assert part.blocks == (1, 3)
    inputs = torch.randn(2, 16, 48)
    assert torch.equal(part.queries_keys(3, inputs)[0], whole.queries_keys(3, inputs)[0])
    assert not any(parameter.requires_grad for parameter in part.parameters())


def test_blocks_that_cannot_be_taken_apart_are_refused():
    class OtherNorm(nn.LayerNorm):
        def forward(self, x):
            return super().forward(x) + 1

    class OtherBlock(evl.backbones.projections.Block):
        pass

    sizes = dict(img_size=16, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0)
    for other, said in (({"norm_layer": OtherNorm}, "OtherNorm"), ({"block_fn": OtherBlock}, "OtherBlock")):
        backbone = TimmBackbone(VisionTransformer(**sizes, **other), "mine", Preprocessing((16, 16), (0,), (1,)), 1)
        with pytest.raises(BackboneError, match=rf"mine.*{said}.*`form=maps`"):
            projections_of(backbone)


def test_other_files_are_refused(tmp_path):
    torch.manual_seed(0)
    backbone = backbone_of(randomised(tiny("DINOv3, q and v bias")), "mine", (2, 2))
    spec = backbone.spec
    good = written(projections_of(backbone), tmp_path / "good")
    tensors = load_file(good)
    with evl.backbones.projections.safe_open(good, "pt") as file:
        forms = json.loads(file.metadata()["evl"])["blocks"]
    Projections.load(good, spec)

    def refused(said, forms=forms, other={}, **changed):  # noqa: B006
        changed = {name.replace("__", "."): value for name, value in changed.items()}
        kept = {name: value for name, value in {**tensors, **changed}.items() if value is not None}
        told = {"blocks": forms, "checksums": {name: checksum(value) for name, value in kept.items()}} | other
        save_file(kept, tmp_path / "bad", {"evl": forms if isinstance(forms, str) else json.dumps(told)})
        with pytest.raises(StoreError, match=said):
            Projections.load(tmp_path / "bad", spec)

    weight = tensors["1.weight"]
    refused("block 1 has 'weight' of shape", **{"1__weight": weight[:-1]})
    refused("block 1 has 'weight' of shape", **{"1__weight": weight.half()})
    refused("block 1 has numbers in weight that are not finite", **{"1__weight": weight * torch.inf})
    refused("block 1 lacks weight", **{"1__weight": None})
    refused("block 3 lacks rotation", **{"3__rotation": None})
    refused("block 3 has 'value' of shape", **{"3__value": weight.clone()})
    refused("not a file of projections", "{}}")
    refused("not a file of projections", {"1": {**forms["1"], "rotation": "backwards"}})
    refused("not a file of projections", {"1": {**forms["1"], "code": "import os"}})
    refused("has 6 heads", {"1": {**forms["1"], "num_heads": 6}})
    refused("leaves 0 tokens unrotated", {"1": {**forms["1"], "num_unrotated": 0}})
    refused(r"of blocks \[\]", {})
    refused("block 9 lacks", {"9": forms["1"]})
    sums = {name: checksum(value) for name, value in tensors.items()}
    for wrong in (sums | {"3.weight": sums["3.weight"] ^ 1}, {k: v for k, v in sums.items() if k != "3.weight"}):
        refused("3.weight is damaged: .*delete it, and evl extract makes it again", other={"checksums": wrong})
    refused("not a file of projections", other={"checksums": None})
    whole = good.read_bytes()
    good.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # a bit of some number
    with pytest.raises(StoreError, match="is damaged: its bytes are not those of its checksum"):
        Projections.load(good, spec)
    good.write_bytes(whole[:-5])
    for path in (good, tmp_path / "missing"):
        with pytest.raises(StoreError, match="not a file of projections"):
            Projections.load(path, spec)
