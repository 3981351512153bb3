"""What a store is, in words: to and from JSON, its fingerprint, its bytes, and which runs can use it."""

import json
from dataclasses import replace

import pytest

from evl.config import RunConfig
from evl.config import replace as changed
from evl.errors import ConfigError, StoreError
from evl.store.compatibility import conflicts, differences
from evl.store.description import (
    StoreDescription,
    StoreOptions,
    bytes_per_clip,
    hash_videos,
)
from evl.store.packing import pack_maps, pack_tokens
from evl.types import BackboneSpec, Sample
from tests.store.helpers import describe, features_of

B16 = BackboneSpec("b16", 768, 12, 12, 64, (14, 14), 1, (224, 224), (16, 16))
LAST = (9, 10, 11, 12)


def test_json_and_back():
    description = describe(dtype="int8", frames=9, splits={"test": 2, "train": 1})
    again = StoreDescription.from_json(description.to_json())
    assert again == description
    assert again.to_json() == description.to_json()
    assert again.fingerprint_hash == description.fingerprint_hash


def with_backbone(description, **fields):
    return replace(description, config=changed(description.config, backbone=fields))


def test_the_fingerprint_is_of_what_decides_a_feature():
    description = describe(dtype="int8")
    hashes = {description.fingerprint_hash}
    deciding = [
        dict(backbone_hash="1" * 64),
        dict(precision="bf16"),
        dict(videos_hash="2" * 64),
        dict(preprocessing=replace(description.preprocessing, antialias=False)),
        dict(options=replace(description.options, scale="token")),
    ]
    deciding += [
        dict(config=changed(description.config, **{section: field}))
        for section, field in (
            ("model", {"taps": (1, 5)}), ("training", {"seed": 8}), ("clip", {"stride": 3}),
            ("augment", {"erasing": 0.1}), ("evaluation", {"num_crops": 3}), ("data", {"decoder": "torchcodec"}),
        )
    ]  # fmt: skip
    for values in deciding:
        other = replace(description, **values)
        hashes.add(other.fingerprint_hash)
        assert conflicts(description, other)
    assert len(hashes) == 1 + len(deciding)
    other = changed(description.config, data={"num_workers": 3, "path": "elsewhere"}, evaluation={"batch_size": 1})
    same = replace(description, config=other, evl_version="9")
    assert same.fingerprint_hash == description.fingerprint_hash
    assert not conflicts(description, same)
    here, there = (with_backbone(same, weights=f"{folder}/b16.pt") for folder in "ab")
    assert here.fingerprint_hash == there.fingerprint_hash != same.fingerprint_hash
    larger = replace(description, clips_per_shard=5)
    assert larger.fingerprint_hash == description.fingerprint_hash
    assert conflicts(description, larger) == ["clips_per_shard is 5 now and 4 in the store"]


@pytest.mark.parametrize("scale", ["channel", "token"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "float8"])
@pytest.mark.parametrize("form", ["tokens", "maps"])
def test_bytes_are_those_of_the_tensors(form, dtype, scale):
    description = describe(form=form, dtype=dtype, scale=scale)
    tokens, maps = features_of(description, "train", 0, 0)
    packed = [pack_tokens(x[None], dtype, scale) for x in tokens.values()]
    packed += [pack_maps(x[None], dtype) for x in maps.values()]
    expected = sum(one.num_bytes for one in packed)
    assert bytes_per_clip(description.spec, description.taps, description.options, 4) == expected


def test_bytes_of_vit_b16():
    assert bytes_per_clip(B16, LAST, StoreOptions(dtype="float16"), 8) == 5 * 8 * 197 * 768 * 2 == 12_103_680
    assert bytes_per_clip(B16, LAST, StoreOptions(dtype="int8"), 8) == 5 * (8 * 197 * 768 + 768 * 4) == 6_067_200
    assert bytes_per_clip(B16, (3, 6), StoreOptions(dtype="float32"), 1) == 4 * 197 * 768 * 4  # blocks 2, 3, 5, 6


@pytest.mark.parametrize(
    "options",
    [
        {"form": "pixels"}, {"dtype": "int4"}, {"scale": "row"}, {"clips_per_video": 0}, {"frames": 0},
        {"frames": 5000}, {"shard_megabytes": 1.5}, {"clips_per_video": True}, {"form": ["tokens"]},
    ],
)  # fmt: skip
def test_options_that_cannot_be(options):
    with pytest.raises(ConfigError, match=f"{next(iter(options))} .*of a store is"):
        StoreOptions(**options)


def test_videos_are_told_apart():
    one, two = Sample("a.mp4", "x"), Sample("b.mp4", "x", 0.0, 1.5)
    lists = [
        {"train": [one]}, {"train": [two]}, {"val": [one]}, {"train": [one, two]}, {"train": [two, one]},
        {"train": [replace(one, label="y")]}, {"train": [replace(two, end_seconds=2.0)]}, {},
        {"train": [replace(one, path="\udce9")]},
    ]  # fmt: skip
    assert len({hash_videos(splits) for splits in lists}) == len(lists)
    assert hash_videos({"val": [two], "train": [one]}) == hash_videos({"train": (one,), "val": (two,)})


def test_a_store_fits_its_own_run():
    description = describe()
    config = description.config
    assert differences(description, config) == []
    assert describe(taps="last 2").taps == (5, 6)
    claimed = changed(config, model={"decoder": "evil:Mod"}, training={"init": "elsewhere", "steps": 3})
    assert replace(description, config=claimed) == description  # what a store does not decide is not taken from it
    assert differences(describe(taps="last 2"), describe(taps=(5, 6)).config) == []
    assert conflicts(describe(taps="last 2"), describe(taps=(5, 6))) == []


@pytest.mark.parametrize(
    ("section", "field", "value", "expected"),
    [
        ("backbone", "name", "vit_b", "backbone.name is vit_b in the run and some_vit in the store"),
        ("backbone", "weights", "/a/w.pt", "backbone.weights is w.pt in the run and not set in the store"),
        ("backbone", "image_size", 64, "backbone.image_size is (64, 64) in the run and not set in the store"),
        ("clip", "num_frames", 16, "clip.num_frames is 16 in the run and 4 in the store"),
        ("clip", "stride", 2, "clip.stride is 2 in the run and 16 in the store"),
        ("clip", "interpolation", "bilinear", "clip.interpolation is bilinear in the run and auto in the store"),
        ("clip", "antialias", False, "clip.antialias is False in the run and True in the store"),
        ("augment", "flip", 0.5, "augment.flip is 0.5 in the run and auto in the store"),
        ("evaluation", "num_clips", 1, "evaluation.num_clips is 1 in the run and 2 in the store"),
        ("model", "taps", [1, 3, 4], "the run reads block 1, 4, which are not in the store (it has 2, 3, 5)"),
        ("model", "taps", "last 4", "the run reads block 4, 6, which are not in the store (it has 2, 3, 5)"),
        ("model", "taps", "last 9", "some_vit has 6 blocks, but the last 9 were asked for; set model.taps"),
    ],
)
def test_a_run_that_does_not_fit_is_told_why(section, field, value, expected):
    description = describe()
    config = changed(description.config, **{section: {field: value}})
    assert differences(description, config) == [expected]


def test_a_run_may_differ_in_what_does_not_touch_features():
    description = describe()
    config = changed(
        description.config,
        training={"seed": 3, "lr": 1.0, "precision": "bf16"},
        evaluation={"batch_size": 1},
        data={"path": "elsewhere", "val_fraction": 0.5},
        clip={"interpolation": "bicubic"},  # what auto stands for here
        model={"taps": [3, 5], "cross_frame": False},
    )
    assert differences(description, config) == []
    probe = changed(config, model={"decoder": "linear", "taps": [1, 5]})  # which reads the deepest alone
    assert differences(description, probe) == []
    assert differences(description, changed(probe, model={"taps": "last 1"}))
    same_file = with_backbone(description, weights="a/w.pt")
    assert differences(same_file, changed(config, backbone={"weights": "b/w.pt"})) == []
    square = with_backbone(description, image_size=32)
    assert differences(square, changed(config, backbone={"image_size": [32, 32]})) == []


def test_every_difference_is_told():
    assert len(differences(describe(), RunConfig())) == 5  # name, num_frames, num_clips, pixel_aspect, taps


def lied(change):
    content = json.loads(describe(dtype="int8").to_json())
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c.update(format_version=4), "format version 4, made by a newer evl.*upgrade"),
        (lambda c: c.update(feature_version=10**30), "feature version unknown, made by a newer evl"),
        (lambda c: c.update(feature_version=0), "feature version 0, made by an older evl.*extract again"),
        (lambda c: c.update(format_version="1"), "not the description of a store"),
        (lambda c: c.pop("format_version"), "not the description of a store"),
        (lambda c: c.update(format_version=2), "format version 2, made by an older evl.*extract again"),
        (lambda c: c.pop("config"), "config: .*required"),
        (lambda c: c["config"]["model"].update(taps=[3, 2]), "config.model: taps must be block numbers"),
        (lambda c: c["config"]["model"].update(taps=[]), "config.model: taps must be block numbers"),
        (lambda c: c["config"]["model"].update(taps=[7]), "blocks .7. were asked for; the backbone has blocks 1 to 6"),
        (lambda c: c["config"]["model"].update(taps="last 7"), "the last 7 were asked for"),
        (lambda c: c["config"]["model"].update(taps="all") or c["spec"].update(depth=1 << 20), "more than 9,999"),
        (lambda c: c["config"].update(surprise={}), "config.surprise"),
        (lambda c: c["config"]["data"].update(group_by="(" * 10_000), "group_by must be"),
        (lambda c: c["config"]["data"].update(group_by="(a{99999999999})"), "group_by must be"),
        (lambda c: c.update(surprise=1), "surprise: "),
        (lambda c: c["options"].update(form="pixels"), "options.form"),
        (lambda c: c["options"].update(frames=10**30), "frames of a store is"),
        (lambda c: c["options"].update(frames=2), "a run of frames shorter than a clip"),
        (lambda c: c["spec"].update(width=0), "spec: sizes must be"),
        (lambda c: c["spec"].update(width=10**12), "spec: sizes must be"),
        (lambda c: c["spec"].update(num_prefix_tokens=-1), "spec: sizes must be"),
        (lambda c: c["spec"].update(patch_size=[0, 0]), "spec: sizes must be"),
        (lambda c: c["spec"].update(grid=[2, 4]), "the grid does not fit"),
        (lambda c: c["preprocessing"].update(image_size=[64, 64]), "images of another size"),
        (lambda c: c["preprocessing"].update(std=[1, 0, 1]), "std above 0"),
        (lambda c: c["preprocessing"].update(interpolation="magic"), "must be bilinear or bicubic"),
        (lambda c: c.update(splits={"train": 10**9}), "more than 100,000,000 clips"),
        (lambda c: c.update(splits={"../train": 3}), "splits must be among"),
        (lambda c: c.update(splits={"train": 0}), "splits must be among"),
        (lambda c: c.update(splits={"train": -1}), "splits.train"),
        (lambda c: c.update(clips_per_shard=0), "clips_per_shard"),
        (lambda c: c.update(class_names=["a", "a"]), "a class name is given twice"),
        (lambda c: c["config"]["clip"].update(sampling="segment") or c["options"].update(frames=6), "be a multiple"),
    ],
)  # fmt: skip
def test_descriptions_that_cannot_be(change, reason):
    with pytest.raises(StoreError, match=reason) as caught:
        StoreDescription.from_json(lied(change), "some/store.json")
    assert str(caught.value).startswith("some/store.json")
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("text", ["", "[]", "1", "nonsense", "[" * 100_000, '{"format_version": 3}', "{}", "null",
                                  '{"format_version": 3, "format_version": 3}', '{"format_version": NaN}'])  # fmt: skip
def test_what_is_no_description(text):
    with pytest.raises(StoreError, match=r"store\.json"):
        StoreDescription.from_json(text)


def test_neighbor_maps_need_neighbors():
    clip = replace(describe().config.clip, sampling="segment")
    assert describe(form="maps", clip=clip).num_frames("train") == 4
    with pytest.raises(ValueError, match="neighboring frames"):
        describe(form="maps", clip=clip, frames=8)
    assert describe(form="tokens", clip=clip, frames=8).num_frames("train") == 8
