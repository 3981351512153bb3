"""What cannot be a backbone is told by name: which kind it is, and what to use instead."""

import socket

import pytest
import timm
import torch
from timm.models.beit import Beit

from evl.backbones import create_backbone, list_backbones
from evl.backbones.refusals import _KINDS, _MODULES, refuse_by_name, refuse_unsupported
from evl.errors import BackboneError

KINDS = {
    "resnet50": "convolutional network",
    "convnext_base.fb_in22k": "convolutional network",
    "efficientnet_b0": "convolutional network",
    "mixer_b16_224": "without attention",
    "mambaout_tiny": "without attention",
    "swin_base_patch4_window7_224": "windowed",
    "swinv2_tiny_window8_256": "windowed",
    "samvit_base_patch16": "windowed",
    "sam2_hiera_tiny": "windowed",
    "maxvit_tiny_tf_224": "windowed",
    "hiera_base_224": "hierarchical",
    "mvitv2_base": "hierarchical",
    "pvt_v2_b0": "hierarchical",
    "vit_base_r50_s16_224.orig_in21k": "hybrid",
    "vit_base_mci_224": "hybrid",
    "vitamin_base_224": "hybrid",
    "beit_base_patch16_224": "relative position bias",
    "beitv2_base_patch16_224": "relative position bias",
    "vit_relpos_base_patch16_224": "relative position bias",
    "xcit_small_12_p8_224": "across channels",
    "cait_s24_224": "talking heads",
    "tnt_s_patch16_224": "is not one softmax",
    "naflexvit_base_patch16_siglip": "NaFlex",
    "qwen3_vit_88m": "image tower of a language model",
    "vit_base_patch16_xp_224": "ParallelScalingBlock: .*together",
    "vit_small_patch16_18x2_224": "ParallelThingsBlock: .*several attentions",
    "vit_dwee_patch16_reg1_gap_256": "DiffAttention: .*two queries",
    "vit_dpwee_patch16_reg1_gap_256": "DiffParallelScalingBlock: .*two queries",
}


@pytest.mark.parametrize("name", KINDS)
def test_refused_by_name_with_the_reason_and_an_alternative(name, monkeypatch):
    def no_network(*args, **kwargs):
        raise AssertionError("refused only after asking a network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    with pytest.raises(BackboneError, match=f"^{name} cannot be a backbone; it.*{KINDS[name]}.*Use a plain") as caught:
        create_backbone(name, 4)
    assert "\n" not in str(caught.value)


def test_every_alternative_is_one_that_works():
    for _, instead in _KINDS.values():
        if "_" in instead:
            assert instead in [one.name for one in list_backbones(instead)]
        else:
            assert len(list_backbones(instead)) > 10


def test_a_module_is_of_one_kind_and_no_supported_one_is_ruled_out():
    modules = [module for modules in _MODULES.values() for module in modules.split()]
    assert len(modules) == len(set(modules))
    assert not {"vision_transformer", "eva", "deit"} & set(modules)
    assert _MODULES.keys() <= _KINDS.keys()


def test_a_model_that_is_given_is_refused_too():
    with torch.device("meta"):
        beit = Beit(img_size=32, patch_size=16, embed_dim=32, depth=1, num_heads=2)
    with pytest.raises(BackboneError, match="mine cannot be a backbone; it adds a relative position bias"):
        refuse_unsupported(beit, "mine")
    with pytest.raises(BackboneError, match="it is a Linear, not one of timm's plain vision transformers"):
        refuse_unsupported(torch.nn.Linear(2, 2), "mine")


def test_windows_inside_a_supported_class_are_refused():
    """Someone's own variant: a plain model in which one block attends by another module."""
    from timm.layers import Attention

    class WindowedAttention(Attention):
        pass

    vit = timm.create_model("test_vit")
    vit.blocks[1].attn = WindowedAttention(64, 2)
    with pytest.raises(BackboneError, match="built of WindowedAttention"):
        refuse_unsupported(vit, "mine")


def test_supported_names_pass():
    for name in ("vit_base_patch16_224", "eva02_base_patch14_224", "deit3_base_patch16_224", "no_such_name"):
        refuse_by_name(name)
