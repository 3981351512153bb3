"""The side network's settings: what is refused, and what the defaults are."""

import pytest

from evl.config import ModelConfig, RunConfig, replace
from evl.errors import ConfigError
from evl.models.registry import architecture_of, build_decoder, taps_of
from evl.models.side_norm import make_norm
from tests.models.test_side import B16, SIZES, make


class TestSettings:
    def test_the_default_is_side_unless_only_evl_has_a_setting(self):
        assert ModelConfig().decoder == RunConfig().model.decoder == "side"
        only_evl = {"cross_frame": False}
        for config in (
            ModelConfig(**only_evl), replace(RunConfig(), model=only_evl).model,
            replace(RunConfig(), model={"taps": "last 2", **only_evl}).model,
            RunConfig.from_dict({"model": only_evl}).model,
            replace(replace(RunConfig(), model={"taps": "last 2"}), model=only_evl).model,
        ):  # fmt: skip
            assert (config.decoder, config.head_dropout) == ("evl", 0.5)
        with pytest.raises(ConfigError, match="cross_frame is the EVL decoder's"):
            replace(replace(RunConfig(), model={"side_width": 32}), model=only_evl)

    def test_taps(self):
        side = {"model": {"decoder": "side"}}
        config = replace(RunConfig(), **side).model
        assert (config.taps, config.head_dropout, taps_of(config)) == ("all", 0.0, "start and all")
        assert replace(RunConfig(), model={"decoder": "side", "taps": "last 3"}).model.taps == "last 3"
        assert taps_of(ModelConfig(decoder="side", taps=(4, 6))) == (3, 4, 6)
        assert taps_of(ModelConfig(decoder="side", taps=(0, 4, 6))) == (0, 4, 6)
        back = replace(replace(RunConfig(), **side), model={"decoder": "evl"}).model
        assert back == ModelConfig("evl")
        chosen = replace(RunConfig(), model={"taps": "last 2", "head_dropout": 0.1})
        assert replace(chosen, **side).model.taps == "last 2"
        assert replace(chosen, **side).model.head_dropout == 0.1

    @pytest.mark.parametrize(
        ("model", "sentence"),
        [
            (
                {"decoder": "evl", "taps": [0, 3]},
                "taps has 0, which is what enters block 1; the EVL decoder reads the output of blocks",
            ),
            ({"decoder": "side", "taps": [0]}, "taps has no block, only 0"),
            ({"decoder": "side", "causal": True, "side_norm": "clip"}, "causal needs a norm that reads no frame ahead"),
            ({"decoder": "evl", "causal": True}, "causal is the side network's; set decoder=side with it"),
            ({"decoder": "side", "temporal_conv": False}, "temporal_conv is the EVL decoder's"),
            ({"decoder": "side", "side_norm": "group"}, "side_norm"),
        ],
    )
    def test_what_cannot_be(self, model, sentence):
        with pytest.raises(ConfigError) as caught:
            replace(RunConfig(), model=model)
        assert sentence in str(caught.value)

    def test_sizes(self):
        config = ModelConfig(decoder="side")
        assert architecture_of(config, B16) == architecture_of(replace_side(side_width=320), B16)
        assert build_decoder(config, B16, 3, 8).width == 320
        with pytest.raises(ConfigError, match=r"side_width 200: above 128, take a multiple of 64, such as 192"):
            build_decoder(replace_side(side_width=200), B16, 3, 8)
        with pytest.raises(ValueError, match="0 layers: a side network needs a start and at least one tapped block"):
            build_decoder(config, B16, 1, 8)

    def test_wrong_features_are_refused(self):
        decoder, features = make(SIZES[0])
        with pytest.raises(ValueError, match=r"2 token maps were given, but .* a start and 2 tapped blocks"):
            decoder(features[1:])
        with pytest.raises(ValueError, match="11 tokens per frame, but a grid"):
            decoder([one._replace(tokens=one.tokens[:, :, :11]) for one in features])
        with pytest.raises(ValueError, match="norm 'group': expected batch, layer"):
            make_norm("group", 4)


def replace_side(**model):
    return ModelConfig(decoder="side", **model)
