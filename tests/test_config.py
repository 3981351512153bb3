"""Configs: there and back, checked, with sentences for mistakes."""

import dataclasses

import pytest

from evl.config import ModelConfig, RunConfig, replace
from evl.errors import ConfigError
from evl.recipes import RECIPES


@pytest.mark.parametrize("name", [None, *RECIPES])
def test_there_and_back(name, tmp_path):
    config = RECIPES[name]() if name else RunConfig()
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert RunConfig.from_yaml(tmp_path / "config.yaml") == config
    assert config.with_settings([]) == config


def test_settings():
    config = RunConfig().with_settings(
        ["training.lr=1e-4", "augment.rand_augment=null", "backbone.image_size=[32, 48]", "augment.flip=auto"]
    )
    assert config.training.lr == 1e-4
    assert config.augment.rand_augment is None
    assert config.backbone.image_size == (32, 48)
    assert RunConfig().training.lr == 1e-3  # unchanged
    assert replace(config, training={"steps": 5}).training.steps == 5


def test_taps():
    assert RunConfig().model.taps == "all"
    assert RunConfig().with_settings(["model.decoder=evl"]).model.taps == "last 4"
    assert RunConfig().with_settings(["model.taps=[3, 6]"]).model.taps == (3, 6)
    assert RunConfig().with_settings(["model.taps=last 2"]).model.taps == "last 2"
    with pytest.raises(ConfigError, match=r"no setting 'model\.num_layers'"):
        RunConfig().with_settings(["model.num_layers=2"])


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("training.stepz=3", "no setting 'training.stepz'; did you mean steps?"),
        ("trainig.steps=3", "no section 'trainig'; did you mean training?"),
        ("training.steps", "expected section.field=value"),
        ("lr=5", "did you mean training.lr?"),
        ("batch_size=5", "did you mean training.batch_size or evaluation.batch_size?"),
        ("stepz=5", "did you mean training.steps?"),
        ("model.lr=5", "no setting 'model.lr'; did you mean training.lr?"),
        ("training.steps=abc", "training.steps: Input should be a valid integer"),
        ("training.steps=0", "greater than 0"),
        ("model.decoder=conv", "'evl', 'linear'"),
        ("model.taps=[3, 2]", "numbers that rise"),
        ("model.taps=[]", "numbers that rise"),
        ("model.taps=[-1, 1]", "greater than or equal to 0"),
        ("model.taps=last", "should match pattern"),
        ("model.taps=last 0", "should match pattern"),
        ("model.probe_blocks=1", "probe_blocks is the attentive probe's; set decoder=attentive with it"),
        ("model.probe_positions=false", "probe_positions is the attentive probe's"),
        ("augment.crop_area=[0.5, 0.1]", "crop_area must be"),
        ("training.label_smoothing=1", "less than 1"),
        ("training.lr=[1", "not readable"),
        ("evaluation.num_crops=2", "1 or 3"),
    ],
)
def test_mistakes(setting, sentence):
    with pytest.raises(ConfigError) as caught:
        RunConfig().with_settings([setting])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_attentive_probes_settings():
    attentive = RunConfig().with_settings(["model.decoder=attentive", "model.probe_blocks=1"])
    assert attentive.model.probe_blocks == 1
    for setting, sentence in (
        ("model.probe_blocks=0", "greater than 0"),
        ("model.num_queries=2", "has one query"),
        ("model.qkv_width=32", "unset qkv_width"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            attentive.with_settings([setting])
    assert attentive.with_settings(["model.decoder=linear"]).model.probe_blocks is None
    outside = replace(attentive, model={"decoder": "a:B", "options": {"c": 1}})
    assert outside.model.probe_blocks is None
    assert outside.with_settings(["model.decoder=evl"]) == replace(RunConfig(), model={"decoder": "evl"})
    # every recipe's baselines are one setting away
    for recipe in RECIPES.values():
        for decoder in ("linear", "attentive"):
            assert replace(recipe(), model={"decoder": decoder}).model.decoder == decoder


def test_warm_up_is_shorter_than_training():
    with pytest.raises(ConfigError, match=r"warmup_steps \(9\) must be below steps \(9\)"):
        RunConfig().with_settings(["training.steps=9", "training.warmup_steps=9"])


def test_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match="no such configuration"):
        RunConfig.from_yaml(tmp_path / "none.yaml")
    for text, sentence in (
        ("a: [", "not readable as YAML"),
        ("- 1", "expected sections"),
        ("foo: {}", "no setting 'foo'"),
    ):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(ConfigError, match=sentence):
            RunConfig.from_yaml(tmp_path / "c.yaml")


def test_a_setting_of_another_decoder_is_refused_where_a_config_is_made():
    """Also one that equals the default; not where all are given, as in a copy."""
    with pytest.raises(ValueError, match="cross_frame is the EVL decoder's"):
        ModelConfig(decoder="linear", cross_frame=True)
    with pytest.raises(ValueError, match="num_queries is the EVL decoder's"):
        ModelConfig("linear", num_queries=1)
    assert dataclasses.replace(ModelConfig(), decoder="linear").decoder == "linear"


ODD_YAML = {
    "deep list": "a: " + "[" * 20_000,
    "deep list, closed": "a: " + "[" * 2000 + "]" * 2000,
    "deep mapping": "{a: " * 20_000,
    "deep blocks": "".join(" " * i + "a:\n" for i in range(1000)),
    "a bomb of aliases": "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in ("ab", "bc", "cd", "de")),
    "itself": "a: &a [*a]",
    "no date": "training: {lr: 2024-99-99}",
    "a long number": f"training: {{steps: {'9' * 5000}}}",
    "no float": "training: {lr: !!float abc}",
    "no integer": "training: {steps: !!int ''}",
    "no truth": "training: {compile: !!bool maybe}",
    "no bytes": "training: {lr: !!binary a}",
    "no time": "training: {lr: !!timestamp yesterday}",
    "code": "training: !!python/object/apply:os.system ['true']",
    "a zero byte": "a: \0",
    "a list as a name": "? [a]\n: b",
    "numbers as names": "1: 2",
    "a number as a name": "training: {1: 2}",
    "a section of nothing": "training:",
    "a section of a list": "training: [1]",
    "a long text": f"training: {{lr: {'x' * 100_000}}}",
}


@pytest.mark.parametrize("kind", ODD_YAML)
def test_yaml_that_is_no_config(tmp_path, kind):
    """From a file, and as a setting: one sentence, not longer than a screen."""
    (tmp_path / "c.yaml").write_text(ODD_YAML[kind])
    for read in (
        lambda: RunConfig.from_yaml(tmp_path / "c.yaml"),
        lambda: RunConfig().with_settings([f"training.lr={ODD_YAML[kind]}"]),
    ):
        with pytest.raises(ConfigError) as caught:
            read()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1000


def test_bytes_that_are_not_utf8(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"training: {lr: \xff}")
    with pytest.raises(ConfigError, match="not readable as YAML: 'utf-8' codec can't decode byte 0xff"):
        RunConfig.from_yaml(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    "setting",
    [
        "data.num_workers=1000000000", "evaluation.num_clips=1000000000", "evaluation.batch_size=1000000000",
        "training.batch_size=1000000000", "training.accumulation=1000000000", "clip.stride=1000000000",
        "clip.num_frames=1000000000", "backbone.image_size=16384", "backbone.image_size=[16384, 32]",
        "backbone.patch_size=1000000000", "model.num_queries=1000000000", "model.num_heads=1000000000",
        "model.qkv_width=1000000000", "model.mlp_ratio=1.0e+30",
    ],
)  # fmt: skip
def test_numbers_that_ask_for_endless_work(setting):
    with pytest.raises(ConfigError, match="less than or equal to"):
        RunConfig().with_settings([setting])
