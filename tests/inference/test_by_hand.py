"""The scores of ``predict``, made by hand as README does it; all that takes samples takes paths as well."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import evl
import evl.inference
from evl.config import RunConfig, replace
from evl.errors import ConfigError, DataError, PathTypeError, VideoError
from evl.inference.embedding import embed
from evl.inference.predictor import predict_videos, views_for
from evl.saving import build_classifier
from evl.types import Sample
from tests.helpers import numbered_frames, write_video

README = Path(__file__).parents[2] / "README.md"
SMALL = dict(backbone={"image_size": 32}, model={"taps": "last 2", "head_dropout": 0.5}, evaluation={"num_clips": 2})
MODELS = {
    "dense": dict(clip={"num_frames": 3, "stride": 2}),
    "segment": dict(clip={"num_frames": 3, "sampling": "segment"}),
    "segments, one clip": dict(clip={"num_frames": 3, "sampling": "segment"}, evaluation={"num_clips": 1}),
    "by time": dict(clip={"num_frames": 3, "frames_per_second": 7.0}),
    "three crops": dict(clip={"num_frames": 2, "stride": 3}, evaluation={"num_clips": 3, "num_crops": 3}),
    "square pixels": dict(clip={"num_frames": 2, "stride": 3}, data={"pixel_aspect": True}),
    "bf16": dict(clip={"num_frames": 2, "stride": 3}, training={"precision": "bf16"}),
    "attentive": dict(clip={"num_frames": 2, "stride": 3}, model={"decoder": "attentive", "taps": "last 2"}),
    "linear": dict(clip={"num_frames": 2, "stride": 3}, model={"decoder": "linear", "taps": "last 1"}),
    "zero-shot": dict(clip={"num_frames": 2}, model={"decoder": "zero_shot", "prompts": ["a {}"], "taps": "last 1"}),
}


def make(name):
    torch.manual_seed(3)
    own = MODELS[name]
    config = RunConfig()
    for sections in (
        (SMALL, own) if own.get("model", {}).get("decoder") is None else ({"backbone": {"image_size": 32}}, own)
    ):
        config = replace(config, **sections)
    return build_classifier(config, ["cat", "dog", "fish"])


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for name, count in (("one", 30), ("two", 41), ("three", 3)):
        write_video(folder / f"{name}.mp4", numbered_frames(count, 40, 80))
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_readme_gives_the_scores_of_predict(name, clips, monkeypatch, one_thread):
    """Also while the model is in training mode, with dropout."""
    model = make(name)
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    lines = [line for line in block.splitlines() if re.match(r"views = |model\.?\w*\(views\)", line)]
    assert len(lines) == 3
    lines[1:] = f"logits = {lines[1]}", f"scores = {lines[2]}"
    monkeypatch.chdir(clips)
    for video in ("one", "two", "three"):
        os.replace(clips / f"{video}.mp4", clips / "clip1.mp4")
        names = {"model": model}
        exec("\n".join(lines), names)
        wanted = model.predict("clip1.mp4").scores
        os.replace(clips / "clip1.mp4", clips / f"{video}.mp4")
        np.testing.assert_allclose(names["scores"].numpy(), wanted, rtol=1e-6)
        assert names["scores"].dtype == torch.float64
        assert len(set(wanted)) > 1
        views = model.card.config.evaluation
        assert len(names["logits"]) == len(names["views"]) == views.num_clips * views.num_crops
        if name != "bf16":  # where all is float32, plain arithmetic gives them too
            by_hand = model.eval()(names["views"]).softmax(-1).mean(0)
            np.testing.assert_allclose(by_hand.detach().numpy(), wanted, rtol=1e-5)
            model.train()


def test_other_views_by_hand(clips):
    model = make("dense")
    for options in (dict(num_clips=4), dict(num_crops=3)):
        views = model.read_views(clips / "one.mp4", **options)
        np.testing.assert_allclose(model.scores(views), model.predict(clips / "one.mp4", **options).scores, rtol=1e-6)
    part = Sample(str(clips / "two.mp4"), None, 0.4, 0.8)
    scores = model.scores(model.read_views(part))
    np.testing.assert_allclose(scores, model.predict(part).scores, rtol=1e-6)
    assert model.predict(part).start_seconds == 0.4
    assert not torch.allclose(scores, model.scores(model.read_views(clips / "two.mp4")), rtol=1e-4)


def test_scores_by_hand_are_refused_as_those_of_predict(clips):
    model = make("dense")
    views = model.read_views(clips / "one.mp4")
    for wrong in (views[0], views[:0], views[None]):
        with pytest.raises(ConfigError, match=r"expected \(V,T,C,H,W\), the views of one video"):
            model.scores(wrong)
    with pytest.raises(DataError, match="not finite"):
        model.scores(views * torch.nan)
    with pytest.raises(VideoError, match="no such file"):
        model.read_views("none.mp4")
    for several in (clips, [clips / "one.mp4"]):
        with pytest.raises(ConfigError, match="expected one video"):
            model.read_views(several)


@pytest.mark.parametrize("kind", [str, os.fsencode, Path, lambda path: Sample(str(path))])
def test_paths_are_taken_wherever_samples_are(kind, clips):
    model, paths = make("dense"), [clips / "two.mp4", clips / "one.mp4"]
    given, samples = [kind(path) for path in paths], [Sample(str(path)) for path in paths]
    vectors = embed(model, views_for(model, samples)).vectors
    scores = [one.scores for one in predict_videos(model, samples).predictions]
    for several, count in ((given, 2), (iter(given), 2), (given[0], 1)):
        several = list(several) if count == 2 else several
        for got in (
            evl.inference.embed(model, several).vectors,
            embed(model, views_for(model, several)).vectors,
            evl.embed(model, several),
            np.atleast_2d(model.embed(several)),
        ):
            np.testing.assert_allclose(got, vectors[:count], rtol=1e-5, atol=1e-5)
        predicted = model.predict(several)
        for got in (
            evl.predict(model, several).predictions,
            evl.inference.predict_videos(model, several).predictions,
            evl.inference.predict_views([model], several, None)[0].predictions,
            predicted if count == 2 else [predicted],
        ):
            np.testing.assert_allclose([one.scores for one in got], scores[:count], rtol=1e-5)
    mixed = [samples[0], given[1]]
    np.testing.assert_allclose([one.scores for one in model.predict(mixed)], scores, rtol=1e-5)
    assert model.read_views(given[0]).equal(model.read_views(samples[0]))


def test_what_is_no_video_is_refused_by_name(clips):
    model = make("dense")
    for use in (lambda v: evl.inference.embed(model, v), lambda v: views_for(model, v), model.predict):
        with pytest.raises(PathTypeError, match="number 1 of the list, got int"):
            use([clips / "one.mp4", 5])
    (reason,) = evl.inference.embed(model, [clips / "one.mp4", "gone.avi"]).damaged.values()
    assert reason == "no such file"
