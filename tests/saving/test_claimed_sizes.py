"""Sizes that ``model.json`` claims are compared with the files beside it, before anything of that size is made."""

import copy
import json
import random

import pytest
import torch
from safetensors.torch import load_file, save_file

import evl
from evl.backbones.weights import files
from evl.backbones.weights.files import MOST_TENSORS, read_weights
from evl.errors import BackboneError, CheckpointError, ConfigError
from evl.saving import save_model
from tests.mutations import at_most_one_sentence, bounded, change, torn
from tests.saving.test_saved import make

pytestmark = pytest.mark.usefixtures("one_thread")
MILLION = [f"class {i}" for i in range(1_000_000)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_model(make(model={"taps": [2]}), folder)
    return json.loads((folder / "model.json").read_text()), load_file(folder / "model.safetensors")


def write(folder, card, tensors):
    (folder / "model.json").write_text(json.dumps(card))
    save_file(tensors, folder / "model.safetensors")
    return folder


def with_value(card, place, value):
    """A copy of the card with ``config.evaluation.num_clips`` (say) changed."""
    card = json.loads(json.dumps(card))
    *before, last = place.split(".")
    part = card
    for name in before:
        part = part[name]
    part[last] = value
    return card


@pytest.fixture
def nothing_built(monkeypatch):
    """Fails the test if a backbone or a classifier is made."""

    def refuse(*args, **options):
        raise AssertionError("built before it was compared")

    monkeypatch.setattr("evl.saving.folder.create_backbone", refuse)
    monkeypatch.setattr("evl.saving.classifier.build_classifier", refuse)


CLAIMS = {
    "a billion clips": ("config.evaluation.num_clips", 10**9, "num_clips: .*less than or equal to 1000"),
    "a batch of a billion": ("config.evaluation.batch_size", 10**9, "batch_size: .*less than or equal to"),
    "images of 16384": ("config.backbone.image_size", 16384, "image_size.*less than or equal to 4096"),
    "images of 4096": ("config.backbone.image_size", 4096, r"image_size 4096, but preprocessing .* \(64, 64\)"),
    "images of 64×72": ("config.backbone.image_size", [64, 72], r"image_size \(64, 72\), but preprocessing"),
    "patches of a billion": ("config.backbone.patch_size", 10**9, "patch_size: .*less than or equal to"),
    "a billion queries": ("config.model.num_queries", 10**9, "num_queries: .*less than or equal to"),
    "a billion heads": ("config.model.num_heads", 10**9, "num_heads: .*less than or equal to"),
    "a very wide layer": ("config.model.mlp_ratio", 1e300, "mlp_ratio: .*less than or equal to"),
    "wide attention": ("config.model.qkv_width", 10**9, "qkv_width: .*less than or equal to"),
    "a billion frames": ("config.clip.num_frames", 10**9, "num_frames: .*less than or equal to"),
    "strides of 10**30": ("config.clip.stride", 10**30, "stride"),
    "a billion workers": ("config.data.num_workers", 10**9, "num_workers: .*less than or equal to 1024"),
    "a million classes": (
        "class_names",
        MILLION,
        r"linear.weight has the shape \(3, 128\), but .* 1000000 class names",
    ),
    "two classes": ("class_names", ["a", "b"], r"head.linear.weight has the shape \(3, 128\), but .* 2 class names"),
    "four classes": ("class_names", [*"abcd"], r"head.linear.weight has the shape \(3, 128\), but .* 4 class names"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_that_does_not_fit(tmp_path, model, nothing_built, claim):
    (card, tensors), (place, value, sentence) = model, CLAIMS[claim]
    folder = write(tmp_path, with_value(card, place, value), tensors)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        evl.load(folder)
    assert len(str(caught.value)) < 500


def test_blocks_of_a_probe(tmp_path, model, nothing_built):
    card, tensors = model
    card = with_value(with_value(card, "config.model.decoder", "attentive"), "config.model.probe_blocks", 10**9)
    with pytest.raises(CheckpointError, match=r"probe_blocks: .*less than or equal to"):
        evl.load(write(tmp_path, card, tensors))


@pytest.mark.parametrize("decoder", [{"decoder": "zero_shot"}, {"zero_shot_start": True}])
def test_classes_of_a_zero_shot_model(tmp_path, model, nothing_built, decoder):
    card, tensors = model
    for name, value in decoder.items():
        card = with_value(card, f"config.model.{name}", value)
    name = "decoder.text" if "decoder" in decoder else "zero_shot.text"
    with pytest.raises(CheckpointError, match=rf"no class vectors \({name}\)"):
        evl.load(write(tmp_path, card, tensors))
    with pytest.raises(CheckpointError, match=rf"{name} has the shape \(2, 8\), but .* 3 class names"):
        evl.load(write(tmp_path, card, {**tensors, name: torch.zeros(2, 8)}))


@pytest.mark.parametrize("name", ["head.linear.weight", "head.linear.bias"])
def test_a_head_of_another_shape(tmp_path, model, nothing_built, name):
    card, tensors = model
    for value in (torch.zeros(()), torch.zeros(0), torch.zeros(4, *tensors[name].shape[1:])):
        with pytest.raises(CheckpointError, match=f"{name} has the shape .* but model.json has 3 class names"):
            evl.load(write(tmp_path, card, {**tensors, name: value}))


def test_a_head_is_missing(tmp_path, model, nothing_built):
    card, tensors = model
    rest = {name: value for name, value in tensors.items() if not name.startswith("head.")}
    with pytest.raises(CheckpointError, match=r"head\.linear\.weight is missing"):
        evl.load(write(tmp_path, card, rest))


@pytest.mark.parametrize("part", ["decoder", "backbone", "head", "other"])
def test_many_empty_tensors(tmp_path, model, nothing_built, monkeypatch, part):
    card, tensors = model
    monkeypatch.setattr(files, "MOST_TENSORS", 500)
    empty = {f"{part}.x{i}": torch.zeros(0) for i in range(501)}
    folder = write(tmp_path, card, {**tensors, **empty})
    with pytest.raises(CheckpointError, match=r"tensors; a model has at most 500"):
        evl.load(folder)
    with pytest.raises(BackboneError, match=r"tensors; a model has at most 500"):
        read_weights(folder / "model.safetensors")
    torch.save(empty, tmp_path / "weights.pt")
    with pytest.raises(BackboneError, match=r"501 tensors; a model has at most 500"):
        read_weights(tmp_path / "weights.pt")


def test_names_of_unknown_tensors_do_not_fill_the_screen(tmp_path, model):
    card, tensors = model
    for part in ("decoder", "backbone", "head"):
        empty = {f"{part}.x{i}": torch.zeros(0) for i in range(3000)}
        with pytest.raises(CheckpointError, match="fit") as caught:
            evl.load(write(tmp_path, card, {**tensors, **empty}))
        assert len(str(caught.value)) < 2000
    with pytest.raises(CheckpointError, match="blocks") as caught:
        evl.load(write(tmp_path, with_value(card, "config.model.taps", list(range(1, 10_000))), tensors))
    assert len(str(caught.value)) < 500


def test_more_clips_than_anyone_judges_by(tmp_path, model):
    """The same bound for what a person asks for."""
    loaded = evl.load(write(tmp_path, *model))
    for count, bound in ((10**9, "less than or equal to 1000"), (-1, "greater than 0")):
        with pytest.raises(ConfigError, match=rf"evaluation\.num_clips: .*{bound}"):
            loaded.predict(tmp_path / "a.mp4", num_clips=count)


def test_real_models_have_fewer_tensors():
    """The largest encoder that timm lists here, with room to spare."""
    import timm

    with torch.device("meta"):
        giant = timm.create_model("eva_giant_patch14_224.clip_ft_in1k")
    assert 5 * len(giant.state_dict()) < MOST_TENSORS


def answers(folder):
    """Loads a model and asks it, within bounds: a sentence, or scores."""
    loaded = None
    with bounded():
        with at_most_one_sentence(CheckpointError, BackboneError):
            loaded = evl.load(folder)
        if loaded is not None:
            clip, size = loaded.card.config.clip, loaded.card.preprocessing.image_size
            with torch.no_grad():
                assert loaded(torch.zeros(1, clip.num_frames, 3, *size)).shape == (1, 3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(300))
def test_any_change_of_the_card(tmp_path, model, seed):
    card, tensors = copy.deepcopy(model)
    change(card, random.Random(seed))
    answers(write(tmp_path, card, tensors))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(300))
def test_any_bytes_of_the_two_files(tmp_path, model, seed):
    folder, rng = write(tmp_path, *model), random.Random(seed)
    name = rng.choice(["model.json", "model.safetensors"])
    content = (folder / name).read_bytes()
    if name == "model.json" or rng.random() < 0.5:
        (folder / name).write_bytes(torn(content, rng))
    else:  # its header, which says what the numbers are
        size = 8 + int.from_bytes(content[:8], "little")
        (folder / name).write_bytes(torn(content[:size], rng) + content[size:])
    answers(folder)
