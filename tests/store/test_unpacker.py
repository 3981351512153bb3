"""Stored clips become the features that the encoder gives, and classifiers on them the same classifiers."""

import pytest
import torch

import evl
from evl.backbones import create_backbone
from evl.backbones.projections import Projections, projections_of
from evl.backbones.timm_vit import TimmBackbone
from evl.config import RunConfig, replace
from evl.errors import CheckpointError, ConfigError, StoreError
from evl.models import crossframe
from evl.models.crossframe import neighbor_maps, packed_maps
from evl.saving import build_classifier, save_model
from evl.saving.build import taps_of
from evl.store import StoredClips, StoreDescription, StoreOptions
from evl.store.packing import pack_maps, pack_tokens
from evl.store.unpacker import Unpacker, encoder_of
from evl.types import Preprocessing
from tests.backbones.families import tiny
from tests.helpers import assert_close

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = replace(RunConfig(), clip={"num_frames": 3}, model={"decoder": "evl", "taps": "last 2"})


def described(backbone, config=CONFIG, **options):
    return StoreDescription(
        config=replace(config, model={"taps": backbone.taps}),
        backbone_hash=backbone.weights_hash,
        spec=backbone.spec,
        preprocessing=backbone.preprocessing,
        options=StoreOptions(**options),
        precision="fp32",
        class_names=("a", "b", "c"),
        splits={"train": 1, "val": 1},
        videos_hash="0" * 64,
        clips_per_shard=1,
        origin=backbone.origin,
    )


def stored(backbone, clips, form="tokens", dtype="float32", scale="channel"):
    """What extraction writes and reading gives, without a disk between."""
    tokens, features = backbone.token_maps(clips)
    if form == "tokens":
        return StoredClips({block: pack_tokens(x, dtype, scale) for block, x in tokens.items()}, {})
    maps = (packed_maps(neighbor_maps(x.query, x.key, backbone.spec.grid, torch.float32), torch.float32)
            for x in features)  # fmt: skip
    return StoredClips(
        {block: pack_tokens(tokens[block], dtype, scale) for block in backbone.taps},
        {block: pack_maps(x, dtype) for block, x in zip(backbone.taps, maps, strict=True)},
    )


def in_place_of(backbone, form="tokens", taps=None, config=CONFIG, **options):
    projections = projections_of(backbone) if form == "tokens" else None
    return Unpacker(described(backbone, config, form=form), projections, taps, **options)


def wanted(backbone, clips):
    """(tokens, maps) of each tapped block, live."""
    return [(x.tokens, neighbor_maps(x.query, x.key, backbone.spec.grid, x.tokens.dtype)) for x in backbone(clips)]


def assert_same(got, expected, relative=1e-5):
    assert len(got) == len(expected)
    for one, (tokens, maps) in zip(got, expected, strict=True):
        assert_close(one.tokens, tokens, relative=relative)
        for skewed, right in zip(one.maps, maps, strict=True):
            assert_close(skewed, right, relative=relative)


@pytest.mark.parametrize("form", ["tokens", "maps"])
@pytest.mark.parametrize("row", ["CLIP, QuickGELU", "DINOv3, q and v bias", "RoPE-ViT, mixed", "ViT, norm after"])
def test_says_what_the_live_backbone_says(row, form, monkeypatch):
    torch.manual_seed(len(row))
    model = tiny(row)
    size = tuple(n * model.patch_embed.patch_size[0] for n in (3, 7))
    model.set_input_size(img_size=size)
    backbone = TimmBackbone(model, row, Preprocessing(size, (0.5,) * 3, (0.5,) * 3), (1, 3))
    for b, t in ((3, 4), (1, 1)):
        clips = torch.randn(b, t, 3, *size)
        right = wanted(backbone, clips)
        for taps in (None, (3,)):
            stands = in_place_of(backbone, form, taps)
            for _ in range(2):  # large scores go another way
                assert_same(stands(stored(backbone, clips, form)), right if taps is None else right[1:])
                monkeypatch.setitem(crossframe.SCORES_BYTES, "cpu", 1)
            monkeypatch.undo()
            stands = in_place_of(backbone, form, taps, needs_maps=False)
            without = stands(stored(backbone, clips, form))
            assert all(one.maps == () for one in without)
            assert_same([one._replace(maps=right[-1][1]) for one in without[-1:]], right[-1:])


@pytest.mark.parametrize("form", ["tokens", "maps"])
@pytest.mark.parametrize(
    ("dtype", "scale", "relative"),
    [("float16", "channel", 1e-3), ("bfloat16", "channel", 8e-3), ("int8", "channel", 0.01), ("int8", "token", 0.02)],
)
def test_narrow_stores_are_near(form, dtype, scale, relative):
    torch.manual_seed(0)
    backbone = create_backbone("evl_clip_tiny", 2)
    clips = torch.randn(2, 3, 3, *backbone.spec.image_size)
    got = in_place_of(backbone, form)(stored(backbone, clips, form, dtype, scale))
    for one, (tokens, maps) in zip(got, wanted(backbone, clips), strict=True):
        assert one.tokens.dtype == torch.float32
        for part, right in zip((one.tokens, *one.maps), (tokens, *maps), strict=True):
            assert (part - right).norm() < relative * right.norm()


@pytest.mark.parametrize("form", ["tokens", "maps"])
def test_takes_the_type_of_the_model_and_of_autocast(form):
    torch.manual_seed(0)
    backbone = create_backbone("evl_clip_tiny", 2)
    clips = torch.randn(1, 3, 3, *backbone.spec.image_size)
    features, stands = stored(backbone, clips, form), in_place_of(backbone, form)
    wide = stands(features)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            narrow = stands(features)
        for one, right in zip(narrow, wide, strict=True):
            assert {part.dtype for part in (one.tokens, *one.maps)} == {torch.bfloat16}
            assert (one.tokens.float() - right.tokens).norm() < 0.01 * right.tokens.norm()
            for part, right_part in zip(one.maps, right.maps, strict=True):
                assert (part.float() - right_part).norm() < 0.05 * right_part.norm()
    assert stands(features)[0].tokens.dtype == torch.float32
    double = stands.double()(features, torch.float64)
    assert double[0].tokens.dtype == double[0].maps[0].dtype == torch.float64


@pytest.mark.parametrize("form", ["tokens", "maps"])
@pytest.mark.parametrize(
    "model",
    [
        {},
        {"cross_frame": False},
        {"num_queries": 2},
        {"decoder": "attentive", "probe_blocks": 1},
        {"decoder": "linear"},
    ],
    ids=str,
)
def test_a_classifier_on_it_is_saved_as_one_on_the_encoder(form, model, tmp_path):
    torch.manual_seed(0)
    config = replace(CONFIG, model=model)
    live = create_backbone(config.backbone, CONFIG.model.taps)
    stands = in_place_of(live, form, taps_of(config.model), config)
    stands.needs_maps = model == {} or "num_queries" in model
    classifier = build_classifier(config, ["a", "b", "c"], backbone=stands.encoder)
    classifier.requires_grad_(True)
    clips = torch.randn(2, 3, 3, *live.spec.image_size)
    features = stored(live, clips, form)
    optimizer = torch.optim.AdamW(classifier.trainable_parameters(), lr=1e-3)
    for _ in range(2):
        loss = torch.nn.functional.cross_entropy(classifier.train().classify(stands(features)), torch.tensor([0, 2]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert classifier.backbone is None
    with pytest.raises(ConfigError, match=r"trained on stored features.*evl\.load"):
        classifier(clips)
    with pytest.raises(ConfigError, match=r"trained on stored features.*evl\.load"):
        evl.predict(classifier, "a.mp4")
    save_model(classifier, tmp_path / "run")
    loaded = evl.load(tmp_path / "run")
    assert loaded.backbone.weights_hash == live.weights_hash == classifier.encoder.weights_hash
    live_card = build_classifier(config, ["a", "b", "c"]).card
    for part in ("config", "preprocessing", "origin", "with_backbone"):
        assert getattr(loaded.card, part) == getattr(live_card, part)
    with torch.no_grad():
        assert_close(classifier.eval().classify(stands(features)), loaded(clips), relative=1e-5)
    with pytest.raises(CheckpointError, match="has no encoder to save"):
        save_model(classifier, tmp_path / "whole", with_backbone=True)


def test_what_it_cannot_do_is_refused(tmp_path):
    backbone = create_backbone("evl_clip_tiny", (2, 4))
    with pytest.raises(StoreError, match="asks for block 3 of evl_clip_tiny; the store has 2, 4"):
        encoder_of(described(backbone), (3, 4), needs_maps=True)
    assert encoder_of(described(backbone), (3, 4)).taps == (3, 4)  # the store has what enters block 4
    with pytest.raises(StoreError, match="asks for block 5 of evl_clip_tiny; the store has 1, 2, 3, 4"):
        in_place_of(backbone, taps=(3, 5))
    with pytest.raises(StoreError, match="no projections of block 2"):
        Unpacker(described(backbone), projections_of(create_backbone("evl_clip_tiny", (4,))))
    deepest = encoder_of(described(backbone), (4,))
    for model, said in (
        ({"decoder": "zero_shot"}, "decoder=zero_shot"),
        ({"zero_shot_start": True}, "zero_shot_start"),
    ):
        config = replace(RunConfig(), model={"decoder": "evl", "taps": (4,), **model})
        with pytest.raises(ConfigError, match=rf"{said}.*a store of features does not hold"):
            build_classifier(config, ["a", "b"], backbone=deepest)
    for projections, form in ((None, "tokens"), (projections_of(backbone), "maps")):
        with pytest.raises(ValueError, match="form=tokens"):
            Unpacker(described(backbone, form=form), projections)


def test_of_the_encoder_only_the_projections_are_in_memory():
    backbone = create_backbone("evl_clip_tiny", 2)
    stands = in_place_of(backbone)
    assert isinstance(stands.projections, Projections)
    width = backbone.spec.width
    assert sum(parameter.numel() for parameter in stands.parameters()) == 2 * (
        2 * width * width + 2 * width + 2 * width
    )
    assert not list(in_place_of(backbone, "maps").parameters())
