"""Encoders from outside of the package: the contract, and plain errors where it is not kept."""

import sys

import pytest
import torch

from evl.backbones import create_backbone
from evl.config import BackboneConfig
from evl.errors import BackboneError

MODULE = """
import torch
from torch import nn
from evl.backbones import FrozenBackbone
from evl.types import BackboneSpec, LayerFeatures, Preprocessing

class Pixels(FrozenBackbone):
    def __init__(self, taps, *, weights=None, pretrained=True, image_size=None, side=16, mean=16):
        spec = BackboneSpec("pixels", 12, 2, 2, 6, (2, 2), 0, (side, side), (8, 8))
        super().__init__(spec, Preprocessing((mean, mean), (0.5,) * 3, (0.5,) * 3), taps)
        self.embed = nn.Conv2d(3, 12, 8, 8)
        with torch.no_grad():
            self.embed.weight.fill_(0.01 if pretrained else 0)
            self.embed.bias.zero_()
    def tap(self, frames, before=None):
        x = self.embed(frames).flatten(2).mT
        heads = x.unflatten(-1, (2, 6))
        return [LayerFeatures(x * tap, heads, heads) for tap in self.taps]

class Lacks(FrozenBackbone):
    def __init__(self, taps, **settings):
        torch.nn.Module.__init__(self)

class Silent(Pixels):
    tap = FrozenBackbone.tap

class Other(Pixels):
    def __init__(self, taps, **settings):
        super().__init__(taps, mean=24, **settings)

class NoWeights(FrozenBackbone):
    def __init__(self, taps, **settings):
        whole = Pixels(taps)
        super().__init__(whole.spec, whole.preprocessing, taps)

class Old(Pixels):
    def __init__(self, taps):
        super().__init__(taps)
"""


@pytest.fixture(scope="module", autouse=True)
def outside(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outside")
    (folder / "my_encoders.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder
    sys.modules.pop("my_encoders", None)


def config_of(name, **settings):
    return BackboneConfig(name=f"my_encoders:{name}", **settings)


def test_features_of_frames():
    backbone = create_backbone(config_of("Pixels"), [1, 2])
    features = backbone(torch.ones(2, 3, 3, 16, 16))
    assert [one.tokens.shape for one in features] == [(2, 3, 4, 12)] * 2
    torch.testing.assert_close(features[1].tokens, 2 * features[0].tokens)
    assert features[0].query.shape == (2, 3, 4, 2, 6)
    backbone.frames_at_once = 2
    torch.testing.assert_close(backbone(torch.ones(2, 3, 3, 16, 16))[1].tokens, features[1].tokens)
    assert not any(parameter.requires_grad for parameter in backbone.train().parameters())
    assert not backbone.training
    assert backbone.origin.source == "my_encoders:Pixels"
    with torch.autocast("cpu", torch.bfloat16):
        assert backbone(torch.ones(1, 1, 3, 16, 16))[0].tokens.dtype == torch.bfloat16


def test_weights_that_were_saved():
    state = create_backbone(config_of("Pixels"), 1).state_dict()
    again = create_backbone(config_of("Pixels"), 1, state={name: value + 1 for name, value in state.items()})
    assert again.weights_hash != create_backbone(config_of("Pixels"), 1).weights_hash
    torch.testing.assert_close(again.embed.bias, torch.ones(12))
    with pytest.raises(BackboneError, match="saved weights do not fit my_encoders:Pixels"):
        create_backbone(config_of("Pixels"), 1, state={"embed.bias": state["embed.bias"]})
    with pytest.raises(BackboneError, match=r"pixels takes images of \(16, 16\) and no other"):
        again.resize(32)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("my_encoders:Pixel", "my_encoders has no Pixel; did you mean Pixels"),
        ("no_such_module:A", "backbone.name=no_such_module:A: Python finds no module no_such_module"),
        ("torch.nn:Linear", "Linear is not a subclass of evl.backbones.base.FrozenBackbone"),
        ("my_encoders:Lacks", "its spec is no BackboneSpec; call super().__init__(spec, preprocessing, taps)"),
        ("my_encoders:Other", "images of (24, 24) and (16, 16)"),
        ("my_encoders:NoWeights", "has no parameters"),
        ("my_encoders:Old", "Old(1, weights=None, pretrained=True, image_size=None) failed: TypeError"),
        ("subprocess:Popen", "subprocess is a module of Python itself"),
    ],
)
def test_what_cannot_be(name, sentence):
    with pytest.raises(BackboneError) as caught:
        create_backbone(BackboneConfig(name=name), 1)
    assert sentence in str(caught.value)
    with pytest.raises(NotImplementedError, match="Silent needs a method tap"):
        create_backbone(config_of("Silent"), 1)(torch.ones(1, 1, 3, 16, 16))
    with pytest.raises(BackboneError, match="patch_size is for FlexiViT"):
        create_backbone(config_of("Pixels", patch_size=8), 1)
    with pytest.raises(BackboneError, match="asked for"):
        create_backbone(config_of("Pixels"), 3)
