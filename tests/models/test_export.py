"""torch.export of whole models and of encoders: the exported program gives the model's own numbers."""

import copy
import io
import warnings

import pytest
import torch

import evl
from evl.backbones.timm_vit import TimmBackbone
from evl.config import RunConfig, replace
from evl.saving import build_classifier, save_model
from evl.types import Preprocessing
from tests.backbones.families import FAMILIES, tiny
from tests.helpers import assert_close

pytestmark = pytest.mark.usefixtures("one_thread")
PARTS = ("temporal_conv", "temporal_position", "cross_frame")
DECODERS = {
    **{f"evl without {part}": {part: False} for part in PARTS},
    **{f"evl, {part} alone": {one: one == part for one in PARTS} for part in PARTS},
    "evl": {},
    "evl, no temporal part": dict.fromkeys(PARTS, False),
    "evl, many queries": {"num_queries": 70},  # which project the tokens
    "evl, blocks apart": {"taps": [2, 4]},
    "evl, dropout": {"mlp_dropout": 0.3, "head_dropout": 0.3},
    "attentive": {"decoder": "attentive"},
    "attentive, readout alone": {"decoder": "attentive", "probe_blocks": 1, "probe_positions": False},
    "side": {"decoder": "side", "taps": "all"},
    "side, causal, query": {"decoder": "side", "taps": [0, 2, 4], "causal": True, "side_readout": "query"},
    "linear": {"decoder": "linear", "taps": "last 1"},
    "zero_shot": {"decoder": "zero_shot", "taps": "last 1", "prompts": ["a {}"]},
}


def make(settings):
    torch.manual_seed(3)
    clip = {"num_frames": 3, "stride": 1}
    config = replace(
        RunConfig(), backbone={"image_size": 32}, model={"decoder": "evl", "taps": "last 2", **settings}, clip=clip
    )
    model = build_classifier(config, ["cat", "dog", "fish"])
    with torch.no_grad():  # tables and kernels that start at 0 would export nothing that counts
        for name, parameter in model.named_parameters():
            if ".temporal." in name:
                parameter.normal_(std=0.3)
    return model.eval()


def exported(model, clips, *, strict=False, batch=False):
    shapes = {"clips": {0: torch.export.Dim("batch", min=1, max=64)}} if batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, on its own ways
        return torch.export.export(model, (clips,), strict=strict, dynamic_shapes=shapes)


LATER = [name for name in DECODERS if "evl without" in name or "alone" in name or "dropout" in name]


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.slow if one in LATER else ()) for one in DECODERS]
)
def test_a_fresh_model_is_exported(name, tmp_path):
    """``evl.load`` and then export, before the model was ever called; for any number of clips."""
    save_model(make(DECODERS[name]), tmp_path)
    program = exported(evl.load(tmp_path), torch.randn(2, 3, 3, 32, 32), batch=True).module()
    model = evl.load(tmp_path)
    for count in (1, 2, 5):
        clips = torch.randn(count, 3, 3, 32, 32)
        assert_close(program(clips), model(clips), relative=1e-5)
    assert not torch.allclose(program(clips), program(clips.flip(0)), rtol=1e-3)


@pytest.mark.parametrize(
    "name",
    ["evl", *(pytest.param(name, marks=pytest.mark.slow)
              for name in ("attentive", "side", "side, causal, query", "linear", "zero_shot"))],
)  # fmt: skip
def test_strict_export(name):
    model = make(DECODERS[name])
    program = exported(copy.deepcopy(model), torch.randn(2, 3, 3, 32, 32), strict=True, batch=True).module()
    clips = torch.randn(3, 3, 3, 32, 32)
    assert_close(program(clips), model(clips), relative=1e-5)


@pytest.mark.parametrize(
    "mode",
    [torch.enable_grad, *(pytest.param(m, marks=pytest.mark.slow) for m in (torch.no_grad, torch.inference_mode))],
)
def test_export_in_every_mode_also_of_a_used_model_and_saved(mode):
    """The model goes on as before, gradients included."""
    model, clips = make({}), torch.randn(2, 3, 3, 32, 32)
    wanted = model(clips)
    gradients = torch.autograd.grad(wanted.square().sum(), list(model.trainable_parameters()))
    with mode():
        program, file = exported(model, clips), io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    assert_close(torch.export.load(file).module()(clips), wanted, relative=1e-5)
    again = model(clips)
    assert again.equal(wanted)
    for one, two in zip(
        torch.autograd.grad(again.square().sum(), list(model.trainable_parameters())), gradients, strict=True
    ):
        assert one.equal(two)


def test_an_exported_program_has_only_the_blocks_that_are_read():
    """An encoder that runs to its end would be paid for in each call."""
    deep, shallow = (exported(make({"taps": [1, last]}), torch.randn(2, 3, 3, 32, 32)) for last in (4, 2))
    count = [
        sum("scaled_dot_product_attention" in str(node.target) for node in one.graph.nodes) for one in (deep, shallow)
    ]
    assert count == [4, 2]


def test_gradients_of_a_trained_decoder_do_not_change():
    """By hand outside of an export, by autograd inside: both are those of the plain mathematics."""
    model, clips = make({}), torch.randn(2, 3, 3, 32, 32)
    program = exported(copy.deepcopy(model), clips)
    module = program.module()
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    own = torch.autograd.grad(model(clips).square().sum(), list(model.trainable_parameters()))
    plain = dict(module.named_parameters())
    theirs = torch.autograd.grad(module(clips).square().sum(), [plain[name] for name in names], allow_unused=True)
    compared = 0
    for name, one, two in zip(names, own, theirs, strict=True):
        if "k_proj.bias" not in name:  # zero
            assert_close(two, one, relative=1e-4, floor=1e-6)
            compared += 1
    assert compared > 30


FAST = ("CLIP, QuickGELU", "EVA-02-CLIP", "DINOv3, no bias", "Sapiens2, shared keys")


@pytest.mark.parametrize("row", [pytest.param(row, marks=() if row in FAST else pytest.mark.slow) for row in FAMILIES])
def test_every_family_is_exported(row):
    torch.manual_seed(0)
    model = tiny(row)
    patch = model.patch_embed.patch_size[0]
    size = (2 * patch, 3 * patch)
    model.set_input_size(img_size=size)
    backbone = TimmBackbone(model, row, Preprocessing(size, (0.5,) * 3, (0.5,) * 3), [1, 2])
    program = exported(copy.deepcopy(backbone), torch.randn(2, 2, 3, *size), batch=True).module()
    clips = torch.randn(3, 2, 3, *size)
    for got, wanted in zip(program(clips), backbone(clips), strict=True):
        for part, right in zip(got, wanted, strict=True):
            assert_close(part, right, relative=1e-5)
