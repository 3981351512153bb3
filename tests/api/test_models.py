"""A model at work: predict, embed, read_views, evaluate, and clips for other loops."""

import csv

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import evl
from evl.data.dataset import TrainingClips
from evl.data.splits import find_splits, make_files
from evl.errors import ConfigError, DataError, RunError, SaveError, VideoError
from evl.inference import views_for
from evl.inference.embedding import embed as embed_views
from evl.runtime.out_folder import LOCK, hold_lock
from evl.types import Prediction, Sample
from evl.video.augment import TrainingTransform
from evl.video.transforms import normalize


@pytest.fixture(scope="module")
def model(finished_run):
    return evl.load(finished_run)


@pytest.fixture(scope="module")
def files(videos):
    return sorted(videos.rglob("[01]*.mp4"))


def test_predict_one_or_several(model, files, videos):
    one = model.predict(files[0])
    assert isinstance(one, Prediction)
    wanted = evl.predict(model, files).predictions
    alone = evl.predict(model, files[0]).predictions[0]
    assert (one.path, one.scores) == (str(files[0]), alone.scores)
    best = int(np.argmax(one.scores))
    assert (one.class_name, one.score) == (model.class_names[best], one.scores[best])
    assert one.class_name == files[0].parent.name
    assert one.top(2) == sorted(zip(model.class_names, one.scores, strict=True), key=lambda pair: -pair[1])
    assert one.top(1) == [(one.class_name, one.score)]
    several = model.predict(files)
    assert isinstance(several, list)
    assert [one.scores for one in several] == [one.scores for one in wanted]
    assert [one.path for one in model.predict([files[1]])] == [str(files[1])]
    assert len(model.predict(videos / "dark")) == 6  # a folder holds several, be it one


def test_the_folder_of_a_run_predicts_and_is_exported(model, finished_run, files, tmp_path):
    found, wanted = evl.predict(finished_run, files, device="cpu"), evl.predict(model, files)
    assert found.predictions == wanted.predictions
    assert found.protocol == wanted.protocol == model.card.protocol(len(files), precision="fp32")
    assert evl.predict(finished_run, files[0], num_frames=5).protocol.startswith("5x")
    with pytest.raises(ConfigError, match="`num_frames` go with the folder of a run"):
        evl.predict(model, files, num_frames=5)
    assert evl.export(finished_run, tmp_path / "model", with_backbone=True) is None
    assert evl.predict(tmp_path / "model", files).predictions == wanted.predictions
    with pytest.raises(SaveError, match="is there already"):
        evl.export(model, tmp_path / "model")


def test_a_list_of_one_video_is_a_list(model, files, tmp_path):
    with (tmp_path / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path",), (str(files[0]),)])
    (one,) = model.predict(tmp_path / "list.csv")
    assert one.path == str(files[0])


def test_what_cannot_be_read_is_an_error_not_a_gap(model, files, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"bad\.mp4: "):
        model.predict(tmp_path / "bad.mp4")
    with pytest.raises(VideoError, match=r"bad\.mp4: .*1 other video cannot be used\); evl\.predict\(model, paths\)"):
        model.predict([files[0], tmp_path / "bad.mp4", tmp_path / "none.mp4"])
    with pytest.raises(VideoError, match=r"bad\.mp4: "):
        model.embed([files[0], tmp_path / "bad.mp4"])
    with pytest.raises(DataError, match=r"1 video cannot be used, such as .*bad\.mp4"):
        evl.embed(model, [files[0], tmp_path / "bad.mp4"])
    found = evl.embed_videos(model, [tmp_path / "bad.mp4", files[0]])
    assert [one.path for one in found.samples] == [str(files[0])]
    assert list(found.damaged) == [str(tmp_path / "bad.mp4")]


def test_names_of_classes_come_with_the_order_of_scores():
    unnamed = Prediction("x", (0.25, 0.25, 0.5))
    assert unnamed.best(3) == [2, 0, 1]
    assert unnamed.top(2) == [("2", 0.5), ("0", 0.25)]
    named = Prediction("x", (0.25, 0.25, 0.5), class_names=("a", "b", "c"))
    assert (named.class_name, named.score, named.top(2)) == ("c", 0.5, [("c", 0.5), ("a", 0.25)])


def test_views_are_those_of_predict(model, files):
    views = model.read_views(files[0])
    assert views.shape == (2, 3, 3, 32, 32)
    with torch.no_grad():
        scores = model(views).double().softmax(-1).mean(0)
    assert np.allclose(scores, model.predict(files[0]).scores, atol=1e-6)
    assert model.read_views(files[0], num_clips=1, num_crops=3).shape[0] == 3


def test_embed_model_run_and_bare_encoder(model, finished_run, files):
    samples = [Sample(str(file)) for file in files]
    wanted = embed_views(model, views_for(model, samples)).vectors
    assert np.array_equal(evl.embed(model, files), wanted)
    assert np.array_equal(evl.embed(finished_run, samples), wanted)
    assert np.array_equal(model.embed(files), wanted)
    assert np.allclose(model.embed(files[0]), wanted[0], atol=1e-5)
    assert model.embed(files[0]).shape == (wanted.shape[1],)
    bare = evl.embed("evl_clip_tiny", files)
    made = evl.create_backbone("evl_clip_tiny", 4)
    assert bare.dtype == np.float32
    assert bare.shape == (4, made.spec.width)
    assert np.array_equal(evl.embed(made, files), bare)
    by_hand = [one.tokens[:, :, made.spec.num_prefix_tokens :].mean((0, 1, 2)) for one in _last(made, files)]
    assert np.allclose(bare, torch.stack(by_hand), atol=1e-5)
    assert np.array_equal(evl.embed("evl_clip_tiny", files[0]), evl.embed("evl_clip_tiny", [files[0]]))
    with pytest.raises(ConfigError, match="no query that learned"):
        evl.embed("evl_clip_tiny", files, pool="query")


def _last(backbone, files):
    pixels = backbone.preprocessing
    how = dict(num_frames=8, sampling="segment", num_clips=1, num_crops=1, antialias=True, pixel_aspect=True)
    for file in files:
        clip = evl.read_views(
            file, size=pixels.image_size, mean=pixels.mean, std=pixels.std, interpolation=pixels.interpolation, **how
        )
        with torch.no_grad():
            yield backbone(clip)[-1]


def test_evaluate_takes_many_kinds_of_data(model, finished_run, videos):
    manifest = evl.read_manifest(videos)
    wanted = evl.evaluate(model, manifest.samples)
    assert (manifest.class_names, list(manifest.splits)) == (("bright", "dark"), ["all"])
    for given in (videos, str(videos), manifest, iter(manifest.samples)):
        found = evl.evaluate(model, given)
        assert found.predictions == wanted.predictions
        assert found.top1 == wanted.metrics.top1
    assert found.predictions[0].class_name in found.class_names


def test_evaluate_a_run_by_its_own_videos(finished_run, tmp_path):
    own = evl.read_manifest(finished_run / "val.csv").samples
    found = evl.evaluate(finished_run, out=tmp_path / "out")
    assert evl.evaluate(evl.load(finished_run)).predictions == found.predictions
    assert [one.path for one in found.predictions] == [one.path for one in own]
    assert evl.read_predictions(tmp_path / "out").predictions[0].class_name == found.predictions[0].class_name
    reports = []
    evl.evaluate(finished_run, num_frames=2, split="train", num_clips=1, progress=reports.append)
    assert (reports[-1].phase, reports[-1].step, reports[-1].steps) == ("evaluating", 8, 8)


def test_one_evaluation_writes_to_a_folder_at_a_time(model, finished_run, videos, tmp_path):
    refused = []

    def beside(report):
        with pytest.raises(RunError, match="has been writing here") as error:
            evl.evaluate(finished_run, videos, num_workers=0, out=tmp_path / "out", progress=False)
        refused.append(str(error.value))

    evl.evaluate(model, videos, num_workers=0, out=tmp_path / "out", progress=beside)
    assert refused
    assert not list((tmp_path / "out").glob(".*"))
    with hold_lock(tmp_path / "out" / LOCK, tmp_path / "out"):  # of a run
        beside(None)
    with pytest.raises(DataError):
        evl.evaluate(model, tmp_path, out=tmp_path / "new/out", progress=False)
    assert not (tmp_path / "new").exists()


def test_evaluate_says_what_is_wrong(model, finished_run, videos, caplog):
    with pytest.raises(ConfigError, match=r"this model is of no run, .* give `data`"):
        evl.evaluate(evl.create_model("evl_clip_tiny", model.class_names))
    wrong = {"num_crops": 2, "num_clips": 0, "batch_size": 0, "precision": "half"}
    for name, value in wrong.items():
        with pytest.raises(ConfigError, match=rf"{name}: Input should be .*\(got {value!r}\)"):
            evl.evaluate(model, videos, num_workers=0, **{name: value})
    for given in (model, finished_run):
        with pytest.raises(ConfigError, match=r"there is no argument 'num_clip'; did you mean num_clips"):
            evl.evaluate(given, videos, num_clip=3)
    with pytest.raises(ConfigError, match=r"evaluation.metrics=os:nothing: "):
        evl.evaluate(model, videos, metrics="os:nothing")
    with pytest.raises(DataError, match="no split 'test', only all"):
        evl.evaluate(model, videos, split="test")
    with pytest.raises(DataError, match="no such manifest or folder"):
        evl.evaluate(model, "videos/")
    with pytest.raises(ConfigError, match="`num_frames` go with the folder of a run"):
        evl.evaluate(model, videos, num_frames=3)
    for given in (model, finished_run):
        caplog.clear()
        evl.evaluate(given, videos, num_clips=1)
        assert "8 of these 12 videos were trained on" in caplog.text


def test_clips_are_those_of_training(videos, tiny_config):
    clips = evl.ClipDataset(videos, "evl_clip_tiny", config=tiny_config)
    found = find_splits(tiny_config)
    assert clips.samples == found.splits["train"]
    assert clips.class_names == ("bright", "dark")
    assert len(clips) == len(clips.labels) == 8
    transform = TrainingTransform(tiny_config.augment, clips.preprocessing, clips.class_names)
    own = TrainingClips(
        make_files(clips.samples, tiny_config), clips.labels, tiny_config.clip, transform, 0, square_pixels=True
    )
    for epoch in (0, 3):
        clips.set_epoch(epoch)
        clip, label = clips[5]
        pixels = normalize(own[epoch, 5].pixels, clips.preprocessing.mean, clips.preprocessing.std)
        assert clip.shape == (3, 3, 32, 32)
        assert torch.equal(clip, pixels)
        assert clips.class_names[label] == clips.samples[5].label
    assert torch.equal(clips[-3][0], clip)
    assert len(list(clips)) == 8


def test_clips_of_a_model_have_its_pixels_and_names(model, videos):
    clips = evl.ClipDataset(videos, model, split="val")
    assert len(clips) == 2  # a fifth of each class
    clip, label = clips[0]
    assert torch.equal(clip, model.read_views(clips.samples[0].path, num_clips=1)[0])
    assert model.class_names[label] == clips.samples[0].label
    batch, labels = next(iter(DataLoader(clips, batch_size=2)))
    assert (batch.shape, labels.dtype) == ((2, 3, 3, 32, 32), torch.int64)
    samples = evl.ClipDataset([Sample(clips.samples[0].path, "dark")], model, split="test")
    assert samples.labels == (1,)
    with pytest.raises(DataError, match="'grey', which the model does not know"):
        evl.ClipDataset([Sample("a.mp4", "grey")], model)
    with pytest.raises(ConfigError, match="a model's encoder and pixels are its own"):
        evl.ClipDataset(videos, model, image_size=48)


def test_clips_of_an_encoder_that_was_made(videos, tmp_path):
    made = evl.create_backbone("evl_clip_tiny", 1)
    clips = evl.ClipDataset(videos, made, num_frames=2, stride=1, rand_augment=None)
    assert clips[0][0].shape == (2, 3, *made.spec.image_size)
    with pytest.raises(ConfigError, match="made already"):
        evl.ClipDataset(videos, made, image_size=48)
    with pytest.raises(DataError, match="has no videos of a split 'test', only of: train, val"):
        evl.ClipDataset(videos, made, split="test")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a/1.mp4").write_bytes(b"no video")
    (tmp_path / "b/1.mp4").write_bytes(b"no video")
    broken = evl.ClipDataset([Sample(str(tmp_path / "a/1.mp4"), "a"), Sample(str(tmp_path / "b/1.mp4"), "b")], made)
    with pytest.raises(VideoError, match=r"a/1\.mp4: "):
        broken[0]
    with pytest.raises(IndexError):
        broken[2]


def test_a_model_for_a_loop_of_ones_own(videos, tmp_path, caplog):
    """Untrained, of torch's seed, its encoder frozen; with clips of its own kind, saved and loaded."""
    how = dict(num_frames=3, stride=2, image_size=32, model={"decoder": "attentive"}, probe_blocks=1, head_dropout=0.0)
    torch.manual_seed(3)
    model = evl.create_model("evl_clip_tiny", ["bright", "dark"], **how)
    torch.manual_seed(3)
    same = evl.create_model(None, ["bright", "dark"], settings=["backbone.image_size=32"], **how)
    assert all(map(torch.equal, model.trainable_state().values(), same.trainable_state().values()))
    caplog.clear()
    data = evl.ClipDataset(videos, model, split="train")
    assert not caplog.records  # its encoder was named, and warned of, before
    clips, labels = next(iter(DataLoader(data, batch_size=2)))
    model.train()
    torch.nn.functional.cross_entropy(model(clips), labels).backward()
    assert not model.backbone.training
    assert {name.split(".")[0] for name, one in model.named_parameters() if one.grad is not None} == {"decoder", "head"}
    model.save_pretrained(tmp_path / "model")
    again = evl.load(tmp_path / "model")
    assert torch.equal(again(clips), model.eval()(clips))
    assert again.predict(next(videos.rglob("*.mp4"))).class_name in data.class_names == model.class_names
    with pytest.raises(ConfigError, match="no settings of training"):
        evl.create_model("evl_clip_tiny", ["a", "b"], steps=3)
    with pytest.raises(ConfigError, match="class_names 'ab': expected a list"):
        evl.create_model("evl_clip_tiny", "ab")
    with pytest.raises(ConfigError, match="at least two"):
        evl.create_model("evl_clip_tiny", ["a"])
