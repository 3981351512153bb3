"""Models on disk: whole, the same bit for bit, at other sizes, as a start for training."""

import logging
import shutil
from dataclasses import replace as with_fields

import pytest
import torch
from safetensors.torch import load_file

import evl
from evl.backbones.base import hash_weights
from evl.config import RunConfig, replace
from evl.errors import CheckpointError, ConfigError, EVLError
from evl.models.resize import resized_offsets, resized_time
from evl.saving import build_classifier, read_card, save_model, start_from
from tests.helpers import GOLDEN

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("up", "down", "left")
ARCHIVE = GOLDEN / "openai_clip_tiny.pt"


def make(decoder="evl", names=NAMES, **sections):
    """A small model with random trained weights."""
    torch.manual_seed(0)
    model = {"decoder": decoder, "taps": [2, 4], **sections.pop("model", {})}
    clip = {"num_frames": 3, "stride": 2, **sections.pop("clip", {})}
    config = replace(replace(RunConfig(), model={"mlp_ratio": 1}), model=model, clip=clip, **sections)
    classifier = build_classifier(config, names).eval()
    with torch.no_grad():
        for parameter in classifier.trainable_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return classifier


def clips_for(model, num_frames=None):
    torch.manual_seed(1)
    return torch.randn(2, num_frames or model.card.config.clip.num_frames, 3, *model.card.preprocessing.image_size)


def test_the_same_model_has_the_same_bytes(tmp_path):
    """Metadata of several entries would come in another order in about every second file."""
    model, files = make(), ("model.safetensors", "model.json")
    for number in range(8):
        save_model(model, tmp_path / str(number), scores={"top1": 50.0, "protocol": "p"})
    for file in files:
        assert len({(tmp_path / str(number) / file).read_bytes() for number in range(8)}) == 1


@pytest.mark.parametrize("with_backbone", [False, True])
@pytest.mark.parametrize(
    "backbone",
    [
        {},
        {"image_size": [32, 48]},
        {"name": "openai_clip", "weights": str(ARCHIVE)},
        {"name": "openai_clip", "weights": str(ARCHIVE), "image_size": [48, 32]},
        {"name": "test_vit", "pretrained": False},
        {"name": "test_vit", "pretrained": False, "image_size": 96},
    ],
    ids=str,
)
def test_the_same_logits_bit_for_bit(tmp_path, backbone, with_backbone):
    taps = {"taps": [1, 2]} if backbone.get("name") == "test_vit" else {}
    model = make(backbone=backbone, model=taps)
    clips = clips_for(model)
    save_model(model, tmp_path, with_backbone=with_backbone)
    for _ in range(2):
        loaded = evl.load(tmp_path)
        assert torch.equal(loaded(clips), model(clips))
        assert loaded.class_names == NAMES
        assert loaded.card.with_backbone is with_backbone
        assert with_fields(loaded.card, evl_version="", with_backbone=False, inside_hash=None) == model.card
        assert loaded.backbone.weights_hash == model.backbone.weights_hash
        save_model(loaded, tmp_path, with_backbone=with_backbone)  # again, from what was loaded


def test_with_its_backbone_it_needs_nothing_else(tmp_path):
    shutil.copy(ARCHIVE, tmp_path / "clip.pt")
    model = make(backbone={"name": "openai_clip", "weights": str(tmp_path / "clip.pt")})
    clips = clips_for(model)
    for name, inside in (("with", True), ("without", False)):
        save_model(model, tmp_path / name, with_backbone=inside)
    (tmp_path / "clip.pt").unlink()
    assert torch.equal(evl.load(tmp_path / "with")(clips), model(clips))
    with pytest.raises(CheckpointError, match=r"clip\.pt: no such weights file"):
        evl.load(tmp_path / "without")
    assert torch.equal(evl.load(tmp_path / "without", backbone_weights=ARCHIVE)(clips), model(clips))
    shutil.copy(ARCHIVE, tmp_path / "without" / "clip.pt")  # beside the model it is found
    assert torch.equal(evl.load(tmp_path / "without")(clips), model(clips))


def test_half_precision_weights_are_stored_in_half_the_bytes(tmp_path):
    model = make(backbone={"name": "openai_clip", "weights": str(ARCHIVE)})
    save_model(model, tmp_path, with_backbone=True)
    state = load_file(tmp_path / "model.safetensors")
    kinds = {value.dtype for name, value in state.items() if name.startswith("backbone.")}
    assert kinds == {torch.float16}  # as the archive has them
    own = model.backbone.state_dict()
    assert all(torch.equal(state[f"backbone.{name}"].float(), value) for name, value in own.items())
    embedded = make()
    save_model(embedded, tmp_path, with_backbone=True)  # which has weights that are not half's
    state = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(state[f"backbone.{k}"].float(), v) for k, v in embedded.backbone.state_dict().items())


@pytest.mark.parametrize("with_backbone", [False, True])
def test_another_size_on_purpose(tmp_path, caplog, with_backbone):
    model = make(backbone={"name": "openai_clip", "weights": str(ARCHIVE)})  # 32 px, a grid of 4×4
    model.card = with_fields(model.card, scores={"top1": 50.0})
    save_model(model, tmp_path, with_backbone=with_backbone)
    caplog.clear()  # of what is said of the archive
    with caplog.at_level(logging.WARNING, "evl"):
        larger = evl.load(tmp_path, num_frames=5, stride=1, image_size=(48, 64))
    assert len(caplog.messages) == 1
    for part in ("clips of 5 frames, not 3", "stride 1, not 2", "images of 48×64 pixels, not 32×32", "interpolated"):
        assert part in caplog.messages[0]
    assert (larger.card.config.clip.num_frames, larger.card.config.clip.stride) == (5, 1)
    assert larger.card.preprocessing.image_size == larger.backbone.preprocessing.image_size == (48, 64)
    assert larger.card.scores is None  # they were measured on another one
    old, new = model.trainable_state(), larger.trainable_state()
    changed = {name for name in old if old[name].shape != new[name].shape}
    assert len(changed) == 6  # two layers
    for name in old:
        expected = old[name]
        if name.endswith("position"):
            expected = resized_time(expected, 5)
        elif name in changed:
            expected = resized_offsets(expected, (4, 4), (6, 8))
        assert torch.equal(new[name], expected)
    clips = clips_for(larger)
    save_model(larger, tmp_path / "larger", with_backbone=with_backbone)
    caplog.clear()
    again = evl.load(tmp_path / "larger")
    assert torch.equal(again(clips), larger(clips))
    assert not caplog.messages  # it is what it is now
    assert again.backbone.weights_hash == model.backbone.weights_hash


def test_resized_backbone_is_the_one_that_is_made_at_that_size(tmp_path):
    """Interpolated from the weights' own size, not from the one it was trained on."""
    model = make(backbone={"name": "openai_clip", "weights": str(ARCHIVE), "image_size": 48})
    save_model(model, tmp_path)
    loaded = evl.load(tmp_path, image_size=64)
    direct = make(backbone={"name": "openai_clip", "weights": str(ARCHIVE), "image_size": 64})
    expected, got = direct.backbone.state_dict(), loaded.backbone.state_dict()
    assert all(torch.equal(got[name], value) for name, value in expected.items())


def test_sizes_as_trained_change_nothing(tmp_path, caplog):
    model = make()
    save_model(model, tmp_path)
    same = evl.load(tmp_path, num_frames=3, stride=2, image_size=64)
    assert torch.equal(same(clips_for(model)), model(clips_for(model)))
    assert not caplog.messages


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"image_size": 30}, "patches are 8×8"),
        ({"num_frames": 0}, "num_frames: Input should be greater than 0"),
        ({"image_size": (0, 8)}, "greater than 0"),
    ],
)
def test_sizes_that_cannot_be(tmp_path, sizes, sentence):
    save_model(make(), tmp_path)
    with pytest.raises(EVLError, match=sentence):
        evl.load(tmp_path, **sizes)


def test_a_training_starts_from_a_saved_model(tmp_path, caplog):
    model = make()
    save_model(model, tmp_path)
    same = make()
    with torch.no_grad():
        for parameter in same.trainable_parameters():
            parameter.zero_()
    start_from(same, tmp_path)
    assert all(torch.equal(value, model.trainable_state()[name]) for name, value in same.trainable_state().items())

    other = make(names=("a", "b"), clip={"num_frames": 6}, backbone={"image_size": 32}, model={"mlp_dropout": 0.25})
    head = {name: value.clone() for name, value in other.head.state_dict().items()}
    with caplog.at_level(logging.INFO, "evl"):
        start_from(other, tmp_path)
    assert "clips of 6 frames, not 3" in caplog.text
    assert "other classes: the classifier starts anew" in caplog.text
    assert all(torch.equal(value, head[name]) for name, value in other.head.state_dict().items())
    position = "layers.0.temporal.position"
    expected = resized_time(model.decoder.state_dict()[position], 6)
    assert torch.equal(other.decoder.state_dict()[position], expected)

    with pytest.raises(CheckpointError, match=r"model\.mlp_ratio is 1\.0 there and 2.0 here"):
        start_from(make(model={"mlp_ratio": 2}), tmp_path)
    with pytest.raises(CheckpointError, match=r"model\.taps is \(2, 4\) there and \(4, 5\) here"):
        start_from(make(model={"taps": "last 2"}), tmp_path)
    start_from(make(model={"num_heads": 2, "qkv_width": 128}), tmp_path)  # said, or left to the backbone
    with pytest.raises(CheckpointError, match="stands on another backbone, evl_clip_tiny"):
        start_from(make(backbone={"name": "openai_clip", "weights": str(ARCHIVE)}), tmp_path)


def test_probes_read_one_block(tmp_path):
    model = make("linear")
    assert model.backbone.taps == (4,)
    save_model(model, tmp_path)
    assert evl.load(tmp_path).backbone.taps == (4,)
    assert make("linear", model={"taps": [1, 3]}).backbone.taps == (3,)


def test_a_model_without_a_card_is_not_saved(tmp_path):
    model = make()
    model.card = None
    with pytest.raises(CheckpointError, match="no card"):
        save_model(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_scores_stay(tmp_path):
    save_model(make(), tmp_path, scores={"top1": 12.5, "protocol": "one video"})
    save_model(evl.load(tmp_path), tmp_path)
    assert read_card(tmp_path).scores == {"top1": 12.5, "protocol": "one video"}


def test_the_hash_is_of_the_weights_as_they_were_read():
    native, resized = make().backbone, make(backbone={"image_size": 32}).backbone
    assert native.weights_hash == resized.weights_hash == hash_weights(native.state_dict())
    assert hash_weights(resized.state_dict()) != resized.weights_hash
    with pytest.raises(ConfigError):
        replace(RunConfig(), backbone={"image_size": 0})


def test_a_backbone_that_came_inside_stays_inside(tmp_path):
    shutil.copy(ARCHIVE, tmp_path / "clip.pt")
    model = make(backbone={"name": "openai_clip", "weights": str(tmp_path / "clip.pt")})
    model.save_pretrained(tmp_path / "one", with_backbone=True)
    (tmp_path / "clip.pt").unlink()
    evl.load(tmp_path / "one").save_pretrained(tmp_path / "two")
    assert torch.equal(evl.load(tmp_path / "two")(clips_for(model)), model(clips_for(model)))
    assert "are inside" in (tmp_path / "two" / "README.md").read_text()


@pytest.mark.parametrize("with_backbone", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("decoder", ["evl", "linear", "attentive"])
def test_a_model_of_another_type_comes_back_as_one(tmp_path, decoder, dtype, with_backbone):
    model = make(decoder).to(dtype)
    clips = clips_for(model).to(dtype)
    model.save_pretrained(tmp_path, with_backbone=with_backbone)
    loaded = evl.load(tmp_path)
    assert next(loaded.parameters()).dtype == dtype
    assert torch.equal(loaded(clips), model(clips))
    model.head.half()
    with pytest.raises(CheckpointError, match="make them one type"):
        save_model(model, tmp_path)


def test_what_is_used_otherwise_says_so_to_the_next(tmp_path):
    make().save_pretrained(tmp_path / "one")
    evl.load(tmp_path / "one", num_frames=6).save_pretrained(tmp_path / "two")
    evl.load(tmp_path / "two", image_size=32).save_pretrained(tmp_path / "three")
    page = (tmp_path / "three" / "README.md").read_text()
    assert "clips of 6 frames, not 3" in page
    assert "images of 32×32 pixels, not 64×64" in page


def test_a_saved_file_depends_on_its_weights_alone(tmp_path):
    """safetensors writes several entries of metadata in an order that changes from file to file."""
    model = make()
    for number in range(8):
        save_model(model, tmp_path / str(number))
    assert len({(tmp_path / str(number) / "model.safetensors").read_bytes() for number in range(8)}) == 1
