"""Training that starts at zero-shot: what the first step scores, what is learned, stored, resumed and loaded."""

import sys

import pytest
import torch
from safetensors.torch import load_file

import evl
from evl.config import BackboneConfig, ModelConfig, replace
from evl.errors import ConfigError
from evl.saving import build_classifier
from evl.training import train
from tests import towers
from tests.conftest import TINY
from tests.helpers import assert_close

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def config(videos, tmp_path_factory):
    file = towers.write(towers.make(towers.PLAIN), tmp_path_factory.mktemp("clip"))
    settings = {**TINY, "data": {**TINY["data"], "path": str(videos)}, "training": {**TINY["training"], "steps": 4}}
    settings["backbone"] = {"name": "evltest_clip_32", "weights": str(file)}
    settings["model"] = {**TINY["model"], "zero_shot_start": True}
    return replace(evl.RunConfig(), **settings)


@pytest.mark.parametrize("decoder", ["evl", "linear", "attentive"])
def test_the_first_step_scores_what_zero_shot_scores(config, decoder):
    model = build_classifier(replace(config, model={"decoder": decoder}), ("bright", "dark"))
    clips = torch.randn(2, 3, 3, 32, 32)
    wanted = evl.zero_shot(config.backbone, ("bright", "dark"))(clips)
    assert torch.equal(model.eval()(clips), wanted)
    assert torch.equal(model.train()(clips), wanted)  # whatever dropout does
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} <= {"decoder", "head"}


def test_the_seed_gives_the_decoder_it_gives_without(config):
    torch.manual_seed(3)
    with_text = build_classifier(config, ("bright", "dark"))
    torch.manual_seed(3)
    without = build_classifier(replace(config, model={"zero_shot_start": False}), ("bright", "dark"))
    wanted = without.decoder.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in with_text.decoder.state_dict().items())


def test_a_run_from_end_to_end(config, tmp_path, monkeypatch):
    """Trained, stopped and resumed, saved, and loaded where there is no open_clip."""
    whole = train(config, tmp_path / "whole")
    names = ("bright", "dark")
    untrained = build_classifier(config, names)

    class Enough(Exception):
        pass

    def stop(progress):
        if (progress.phase, progress.step) == ("training", 3):  # after a checkpoint at 2
            raise Enough

    with pytest.raises(Enough):
        train(config, tmp_path / "parts", progress=stop)
    train(None, tmp_path / "parts", resume=True)
    stored, parts = (load_file(tmp_path / run / "model.safetensors") for run in ("whole", "parts"))
    assert stored.keys() == parts.keys()
    assert all(torch.equal(stored[name], parts[name]) for name in stored)
    assert stored["zero_shot.text"].shape == (2, 48)
    start = untrained.trainable_state()
    for name, value in stored.items():
        if name.startswith("zero_shot."):
            assert torch.equal(value, start[name]), name
    assert stored["head.linear.weight"].abs().max() > 0
    monkeypatch.setitem(sys.modules, "open_clip", None)
    clips = torch.randn(2, 3, 3, 32, 32)
    loaded = evl.load(tmp_path / "whole")
    assert torch.equal(loaded(clips), whole.model(clips))
    features = loaded.features(clips)
    assert_close(loaded(clips), loaded.zero_shot(features) + loaded.head(loaded.decoder(features)))
    assert not torch.equal(loaded(clips), untrained.eval()(clips))


def test_narrow_features_still_meet_exact_text(config):
    """Under autocast the backbone is narrow; the rest is not."""
    model = build_classifier(config, ("bright", "dark")).eval()
    clips = torch.randn(1, 3, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = model(clips)
    assert narrow.dtype == torch.float32
    assert_close(narrow, model(clips), relative=0.1)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({"decoder": "zero_shot", "zero_shot_start": False}, "nothing to train"),
        ({"decoder": "zero_shot"}, "not for zero_shot itself"),
        ({"taps": [1, 2]}, r"reads the last block of evltest_clip_32 \(3\), but the deepest in model.taps is 2"),
        ({"prompts": ["a video"]}, "must have {}"),
        ({"prompts": []}, "must have {}"),
    ],
)
def test_what_cannot_be(config, tmp_path, model, sentence):
    with pytest.raises(ConfigError, match=sentence):
        train(replace(config, model=model), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_prompts_are_part_of_the_model(config, tmp_path):
    prompts = ("{}, seen from above",)
    one = build_classifier(replace(config, model={"prompts": prompts}), ("bright", "dark"))
    other = evl.zero_shot(BackboneConfig(**vars(config.backbone)), ("bright", "dark"), prompts=prompts)
    assert torch.equal(one.zero_shot.text, other.decoder.text)
    assert not torch.equal(one.zero_shot.text, build_classifier(config, ("bright", "dark")).zero_shot.text)
    assert one.card.config.model.prompts == prompts
    assert ModelConfig().prompts != prompts
