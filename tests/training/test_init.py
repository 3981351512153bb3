"""Trainings that start from a saved model."""

import shutil

import pytest

import evl
from evl.config import replace
from evl.errors import CheckpointError
from evl.saving import save_model
from evl.training import run as training_run
from evl.training import train
from evl.training.run_folder import RunFolder
from tests.helpers import run_command
from tests.saving.test_saved import ARCHIVE, make

pytestmark = pytest.mark.usefixtures("one_thread")


def starting(config, model, **sections):
    """The config with backbone, decoder and clip of a saved model, and one step that changes next to nothing."""
    card = evl.load(model).card
    clip = {"num_frames": card.config.clip.num_frames, "stride": card.config.clip.stride}
    settings = {"init": str(model), "steps": 1, "lr": 1e-9, "eval_every": 0}
    encoder = card.config.backbone
    backbone = {"name": encoder.name, "weights": encoder.weights, "image_size": encoder.image_size}
    own = {"taps": card.config.model.taps, "mlp_ratio": card.config.model.mlp_ratio}
    config = replace(config, training=settings, clip=clip, backbone=backbone, model=own)
    return replace(config, **sections)


def distance(one, other):
    pairs = zip(one.decoder.parameters(), other.decoder.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def test_stopped_before_its_first_checkpoint_it_starts_there_again(tiny_config, tmp_path, monkeypatch):
    save_model(make(names=("bright", "dark")), tmp_path / "model")
    config = starting(tiny_config, tmp_path / "model")
    straight = train(config, tmp_path / "straight").model
    assert distance(straight, evl.load(tmp_path / "model")) < 1e-6

    def killed(*arguments, **options):
        raise SystemExit("killed")

    monkeypatch.setattr(training_run, "fit", killed)
    monkeypatch.setattr(RunFolder, "remove_if_unused", lambda self: None)  # nobody cleans up behind a real death
    with pytest.raises(SystemExit):
        train(config, tmp_path / "killed")
    monkeypatch.undo()
    shutil.copytree(tmp_path / "killed", tmp_path / "lost")
    resumed = train(None, tmp_path / "killed", resume=True).model
    assert distance(resumed, straight) == 0
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(CheckpointError, match="no saved model here"):  # rather than from random weights
        train(None, tmp_path / "lost", resume=True)
    train(None, tmp_path / "killed", resume=True)  # which has its own checkpoint


@pytest.mark.parametrize("inside", [True, False])
def test_the_backbone_comes_out_of_the_model_or_lies_beside_it(tiny_config, tmp_path, videos, capsys, inside):
    shutil.copy(ARCHIVE, tmp_path / "clip.pt")
    model = make(names=("bright", "dark"), backbone={"name": "openai_clip", "weights": str(tmp_path / "clip.pt")})
    model.save_pretrained(tmp_path / "model", with_backbone=inside)
    if inside:
        (tmp_path / "clip.pt").unlink()
    else:
        shutil.move(tmp_path / "clip.pt", tmp_path / "model" / "clip.pt")
    options = ["--data", videos, "--init", tmp_path / "model", "--out", tmp_path / "run", "--set", "training.steps=1"]
    options += ["training.lr=1e-9", "training.eval_every=0", "training.batch_size=4", "data.num_workers=0"]
    code, _, err = run_command(capsys, "train", *options)
    assert code == 0, err
    trained = evl.load(tmp_path / "run")
    assert distance(trained, model) < 1e-6
    assert trained.card.with_backbone is inside  # as it came
    larger = [*options[:5], tmp_path / "larger", *options[6:], "backbone.image_size=48", "clip.num_frames=5"]
    code, _, err = run_command(capsys, "train", *larger)
    assert code == 0, err
    assert evl.load(tmp_path / "larger").card.preprocessing.image_size == (48, 48)


def test_defaults_and_what_they_mean_are_the_same_form(tiny_config, tmp_path):
    save_model(make("attentive", names=("bright", "dark"), model={"taps": "last 1"}), tmp_path / "model")
    config = starting(tiny_config, tmp_path / "model")
    config = replace(config, model={"decoder": "attentive", "probe_blocks": 4, "probe_positions": True, "num_heads": 2})
    train(replace(config, model={"taps": [5]}), tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"model\.probe_blocks is 4 there and 1 here"):
        train(replace(config, model={"probe_blocks": 1}), tmp_path / "other")


def test_another_backbone_is_no_start(tiny_config, tmp_path):
    save_model(make(names=("bright", "dark")), tmp_path / "model")
    config = starting(tiny_config, tmp_path / "model", backbone={"name": "openai_clip", "weights": str(ARCHIVE)})
    with pytest.raises(CheckpointError, match="stands on another backbone"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
