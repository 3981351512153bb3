"""Released checkpoints: the logits, and twelve training steps, of the original."""

import dataclasses
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import evl
from evl.config import RunConfig, TrainingConfig, replace
from evl.errors import CheckpointError, EVLError
from evl.models.decoder import own_key_to_release, release_key_to_own
from evl.runtime.distributed import World
from evl.saving import build_classifier, kinetics400_class_names, save_model, save_release
from evl.saving.release import release_state
from evl.streams import Batch
from evl.training.learner import Learner, learning_rate
from evl.training.learners import Learners
from tests.helpers import GOLDEN, assert_close

FILES = GOLDEN / "release_checkpoint_tiny.pth", GOLDEN / "openai_clip_tiny.pt"


def learner_of(model, training):
    return Learner("a release", dataclasses.replace(RunConfig(), training=training), model)


def take_step(learner, parts, step):
    """A step on micro-batches (clips, labels); those without labels were damaged. [loss, clips, hits], summed."""
    batches = [
        Batch(learner.model.features(clips) if len(labels) else None, labels, tuple(range(len(labels))), {})
        for clips, labels in parts
    ]
    Learners([learner]).step(step, batches, World(0, 1, torch.device("cpu")))
    return learner.totals


def test_logits_equal_the_release():
    model = evl.load_release(*FILES)
    golden = load_file(GOLDEN / "model_tiny.safetensors")
    clips = golden["video"].transpose(1, 2)
    for _ in range(2):
        assert_close(model(clips), golden["logits"])
    assert_close(model(clips[:1]), golden["logits"][:1])
    assert not model.training


@pytest.mark.parametrize("accumulation", [1, 3])
def test_training_equals_the_release(accumulation):
    with safe_open(GOLDEN / "train_tiny.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["config"])
    golden = load_file(GOLDEN / "train_tiny.safetensors")
    model = evl.load_release(*FILES).train()
    config = TrainingConfig(
        steps=facts["steps"],
        batch_size=facts["batch"],
        lr=facts["lr"],
        precision="fp32",
        weight_decay=facts["weight_decay"],
        warmup_steps=0,
        clip_grad_norm=None,
        accumulation=accumulation,
    )
    learner = learner_of(model, config)
    for step in range(facts["steps"]):
        assert learning_rate(step, config) == pytest.approx(golden["lrs"][step].item(), rel=1e-9)
        clips, labels = golden["video"][step].float().transpose(1, 2), golden["labels"][step]
        parts = list(zip(clips.chunk(accumulation), labels.chunk(accumulation), strict=True))
        total, count, _ = take_step(learner, parts, step)
        assert count == 3
        assert (total / count).item() == pytest.approx(golden["losses"][step].item(), rel=1e-5)
    own = model.trainable_state()
    names = {"proj.0": "head.norm", "proj.2": "head.linear"}
    compared = 0
    for key, expected in golden.items():
        if key.startswith("final.decoder."):
            name = "decoder." + release_key_to_own(key.removeprefix("final.decoder."))
        elif key.startswith("final."):
            place, part = key.removeprefix("final.").rsplit(".", 1)
            name = f"{names[place]}.{part}"
        else:
            continue
        assert_close(own[name].reshape(expected.shape), expected, relative=1e-4)  # Adam divides by small numbers
        compared += 1
    assert compared == 9


def test_damaged_clips_leave_the_mean_of_the_others():
    golden = load_file(GOLDEN / "train_tiny.safetensors")
    clips, labels = golden["video"][0].float().transpose(1, 2), golden["labels"][0]
    results = []
    for batch_size, parts in ((2, [(clips[:2], labels[:2])]), (3, [(clips[:2], labels[:2]), (clips[:1], labels[:0])])):
        model = evl.load_release(*FILES).train()
        config = TrainingConfig(steps=2, batch_size=batch_size, precision="fp32", clip_grad_norm=1.0, lr=1.0)
        # plain descent: Adam would blow rounding up where a gradient is zero by symmetry
        learner = learner_of(model, config)
        learner.optimizer = torch.optim.SGD(model.trainable_parameters(), lr=1.0)
        results.append((take_step(learner, parts, 0), model.trainable_state()))
    assert_close(results[0][0], results[1][0])
    for name, value in results[0][1].items():
        assert_close(results[1][1][name], value, relative=1e-5)


def test_what_does_not_fit_is_told(tmp_path):
    with pytest.raises(EVLError, match="no such file"):
        evl.load_release(tmp_path / "none.pth", FILES[1])
    torch.save({"weights": 1}, tmp_path / "other.pth")
    with pytest.raises(EVLError, match="no 'model' in it"):
        evl.load_release(tmp_path / "other.pth", FILES[1])
    with pytest.raises(EVLError, match="no such weights file"):
        evl.load_release(FILES[0], tmp_path / "none.pt")
    with pytest.raises(EVLError, match="not an OpenAI CLIP"):
        evl.load_release(FILES[0], FILES[0])
    narrow = evl.create_backbone("evl_clip_tiny", 2)
    narrow.spec = narrow.spec.__class__(**{**narrow.spec.__dict__, "width": 64})
    with pytest.raises(EVLError, match="for a backbone of width 128"):
        evl.load_release(FILES[0], narrow)


def test_parts_that_are_missing_are_named(tmp_path):
    whole = torch.load(FILES[0], weights_only=True)
    for key in ("decoder.cls_token", "decoder.decoder_layers.0.attn.q_proj.weight", "proj.0.weight", "proj.2.bias"):
        model = {k: v for k, v in whole["model"].items() if k != f"module.{key}"}
        torch.save({"model": model}, tmp_path / "cut.pth")
        with pytest.raises(EVLError, match="not a"):
            evl.load_release(tmp_path / "cut.pth", FILES[1])
    for key, value in (
        ("proj.2.bias", torch.zeros(3)),
        ("decoder.cls_token", torch.zeros(5)),
        ("more", torch.zeros(1)),
    ):
        torch.save({"model": {**whole["model"], f"module.{key}": value}}, tmp_path / "odd.pth")
        with pytest.raises(EVLError):
            evl.load_release(tmp_path / "odd.pth", FILES[1])
    with pytest.raises(EVLError, match="cannot be read"):
        evl.load_release(tmp_path, FILES[1])
    with pytest.raises(EVLError, match="2 decoder layers, but 3 blocks are tapped"):
        evl.load_release(FILES[0], evl.create_backbone("evl_clip_tiny", 3))


def test_a_backbone_without_its_archive_is_taken_at_its_word(tmp_path):
    from evl.backbones.weights.files import read_weights

    torch.save(read_weights(FILES[1])[0], tmp_path / "state.pt")
    save_model(evl.load_release(FILES[0], tmp_path / "state.pt"), tmp_path / "run")
    clips = torch.randn(2, 4, 3, 32, 32)
    assert torch.equal(evl.load(tmp_path / "run")(clips), evl.load_release(*FILES)(clips))


def test_a_released_model_lives_on(tmp_path):
    """Saved, loaded and asked like any other."""
    model = evl.load_release(*FILES, class_names=[f"class {y}" for y in range(7)])
    save_model(model, tmp_path / "run")
    again = evl.load(tmp_path / "run")
    clips = torch.randn(2, 4, 3, 32, 32)
    assert torch.equal(model(clips), again(clips))
    assert again.card.protocol(5).startswith("4x16 frames, 3x1 views, 32px (bilinear), openai_clip (")
    (prediction,) = evl.predict(again, GOLDEN / "videos/h264_landscape.mp4").predictions
    assert sum(prediction.scores) == pytest.approx(1)
    with pytest.raises(EVLError, match="7 classes, but 2 names"):
        evl.load_release(*FILES, class_names=["a", "b"])


def test_out_again_key_for_key(tmp_path):
    """Imported, made a run, exported: the same names in the same order, and the same tensors."""
    save_model(evl.load_release(*FILES), tmp_path / "run")
    save_release(evl.load(tmp_path / "run"), tmp_path / "out.pth")
    theirs, ours = (torch.load(path, weights_only=True) for path in (FILES[0], tmp_path / "out.pth"))
    assert list(ours) == list(theirs)
    assert list(ours["model"]) == list(theirs["model"])
    for name, value in theirs["model"].items():
        assert ours["model"][name].dtype == value.dtype
        assert torch.equal(ours["model"][name], value)
    # a training that has not begun, of as many parameters
    assert ours["optimizer"] == theirs["optimizer"]
    assert ours["lr_sched"] == {**theirs["lr_sched"], "T_max": 50_000}
    assert (ours["loss_scaler"], ours["next_step"]) == (theirs["loss_scaler"], theirs["next_step"])


@pytest.mark.parametrize("case", ["all", "conv_only", "cross_only", "pos_only", "none"])
def test_every_form_of_decoder_goes_out(case):
    """Keys of decoders with some of the temporal parts, as the original named them."""
    golden = load_file(GOLDEN / f"decoder_{case}.safetensors")
    state = {key.removeprefix("param."): value for key, value in golden.items() if key.startswith("param.")}
    assert {own_key_to_release(release_key_to_own(key)) for key in state} == set(state)
    for key in state:
        assert own_key_to_release(release_key_to_own(key)) == key


def test_what_the_release_has_no_form_for():
    def model(**settings):
        return build_classifier(
            replace(RunConfig(), model={"decoder": "evl", "taps": "last 2", **settings}), ("a", "b")
        )

    save = release_state
    assert len(save(model())) == 49 + 2
    for settings, reason in (
        ({"taps": [1, 3]}, r"reads blocks \[1, 3\], not the last 2 of 5"),
        ({"num_queries": 2}, "2 query tokens"),
        ({"num_heads": 4}, "heads are 32 wide"),
        ({"decoder": "linear"}, "its decoder is a MeanPool"),
    ):
        with pytest.raises(CheckpointError, match=reason):
            save(model(**settings))


def test_without_positions_the_frames_must_be_told(tmp_path):
    whole = torch.load(FILES[0], weights_only=True)
    whole["model"] = {k: v for k, v in whole["model"].items() if "temporal_pos_embed" not in k}
    torch.save(whole, tmp_path / "no_positions.pth")
    assert evl.load_release(tmp_path / "no_positions.pth", FILES[1]).card is None
    model = evl.load_release(tmp_path / "no_positions.pth", FILES[1], num_frames=5, stride=3)
    assert (model.card.config.clip.num_frames, model.card.config.clip.stride) == (5, 3)
    save_model(model, tmp_path / "run")
    clips = torch.randn(1, 5, 3, 32, 32)
    assert torch.equal(evl.load(tmp_path / "run")(clips), model(clips))
    with pytest.raises(CheckpointError, match="is for 4 frames, not 5"):
        evl.load_release(*FILES, num_frames=5)


def test_kinetics_400_names():
    names = kinetics400_class_names()
    assert len(names) == len(set(names)) == 400
    assert (names[0], names[1], names[399]) == ("abseiling", "air drumming", "zumba")
    assert list(names) == sorted(names)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("proj.2.weight", torch.zeros(7)),
        ("proj.2.weight", None),
        ("decoder.decoder_layers.0.mlp.fc1.weight", torch.zeros(5)),
        ("decoder.decoder_layers.0.attn.q_proj.weight", torch.zeros(())),
        ("decoder.decoder_layers.0.attn.q_proj.weight", torch.zeros(96, 128)),
        ("decoder.temporal_pos_embed.0", torch.zeros(())),
        ("decoder.temporal_pos_embed.0", torch.zeros(0, 128)),
    ],
)
def test_tensors_of_odd_shapes_are_told(tmp_path, key, value):
    whole = torch.load(FILES[0], weights_only=True)
    torch.save({"model": {**whole["model"], f"module.{key}": value}}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"odd\.pth"):
        evl.load_release(tmp_path / "odd.pth", FILES[1])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_frames": 0}, "num_frames 0: expected at least 1"),
        ({"stride": 0}, "stride 0: expected at least 1"),
        ({"class_names": ["a"] * 7}, "'a' was given twice"),
    ],
)
def test_what_cannot_be_meant(options, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        evl.load_release(*FILES, **options)
