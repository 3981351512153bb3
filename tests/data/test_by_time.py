"""Clips by time (clip.frames_per_second) on every road from a file to a model: the same moments at any frame rate."""

import numpy as np
import pytest
import torch
from PIL import Image

import evl
from evl.collections.copy_video import CopySettings, prepare_video
from evl.config import ClipConfig, RunConfig, replace
from evl.data.dataset import EvaluationViews, Files, TrainingClips
from evl.data.index_file import IndexFile, write_index
from evl.data.splits import find_splits
from evl.errors import ConfigError, StoreError
from evl.evaluation import evaluate_views, load_for_store, views_of_store
from evl.extraction.extract import extract
from evl.extraction.verify import verify_store
from evl.saving import build_classifier, save_model
from evl.store import FeatureStore, StoreOptions
from evl.store.compatibility import differences
from evl.training import train
from evl.types import Preprocessing, Sample
from evl.video.decode.index import frame_index
from tests.helpers import number_of, numbered_frames, run_command, write_video
from tests.store.helpers import describe

RAW = Preprocessing((64, 96), (0.0,) * 3, (1 / 255,) * 3)  # pixels as they are
VIEWS = dict(num_crops=1, size=RAW.image_size, mean=RAW.mean, std=RAW.std)


def shown(views):
    """(V,T,3,H,W) -> the numbers that its frames show."""
    return [[number_of(frame) for frame in view] for view in views]


@pytest.fixture(scope="module")
def rates(tmp_path_factory):
    """Two seconds at each rate; the number of a frame is its time in units of 1/60 s."""
    folder = tmp_path_factory.mktemp("rates")
    for rate in (15, 30, 60):
        write_video(folder / f"{rate}.mp4", numbered_frames(121)[:: 60 // rate], rate=rate)
    return folder


def test_views_show_the_same_moments_at_any_rate(rates):
    wanted = [[0, 12, 24, 36], [40, 52, 64, 76], [84, 96, 108, 120]]  # five a second; the middle start is 42, or near
    for rate, start in ((15, 40), (30, 42), (60, 42)):
        views = evl.read_views(rates / f"{rate}.mp4", num_frames=4, frames_per_second=5, num_clips=3, **VIEWS)
        here = [wanted[0], [start + 12 * t for t in range(4)], wanted[2]]
        assert shown(views) == here
    by_stride = evl.read_views(rates / "60.mp4", num_frames=4, stride=12, num_clips=3, **VIEWS)
    assert shown(by_stride) == here
    # a stride that is only there does not matter
    both = evl.read_views(rates / "60.mp4", num_frames=4, stride=1, frames_per_second=5, num_clips=3, **VIEWS)
    assert torch.equal(both, by_stride)


def test_uneven_times_are_the_files_own(tmp_path):
    times = [0, 40, 80, 1080, 1120, 2400, 2440, 2480]  # ms
    for ending in ("mkv", "mp4"):
        path = write_video(tmp_path / f"uneven.{ending}", numbered_frames(len(times)), times=times)
        views = evl.read_views(path, num_frames=6, frames_per_second=2.5, num_clips=1, **VIEWS)
        # of 2.48 s a clip of 2 s leaves 0.48 s; its middle, 0.24 s, falls into the long third picture
        assert shown(views) == [[2, 2, 2, 4, 4, 4]]


def test_parts_by_seconds_and_folders_of_frames(tmp_path, rates):
    part = dict(start_seconds=0.5, end_seconds=1.5, num_frames=4, frames_per_second=4, num_clips=1)
    assert shown(evl.read_views(rates / "60.mp4", **part, **VIEWS)) == [[37, 52, 67, 82]]  # of 30 … 89
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, picture in enumerate(numbered_frames(30)):  # 25 a second by convention
        Image.fromarray(picture).save(folder / f"{i}.png")
    options = dict(num_frames=4, frames_per_second=5, num_clips=2, **VIEWS)
    assert shown(evl.read_views(folder, **options)) == [[0, 5, 10, 15], [14, 19, 24, 29]]
    part = dict(start_seconds=0.2, end_seconds=0.6)
    assert shown(evl.read_views(folder, **options, **part)) == [[5, 10, 14, 14]] * 2  # shorter than a clip


def test_training_clips_are_the_same_from_an_index_and_from_thinned_copies(rates, tmp_path):
    """``evl prepare --every 2``: by time nothing has to be divided."""
    source, copy = str(rates / "60.mp4"), str(tmp_path / "copy.mp4")
    prepare_video(source, copy, CopySettings(every=2, quality=1))
    clip = ClipConfig(num_frames=4, frames_per_second=7.5)
    write_index(tmp_path / "index", [(source, frame_index(source), _stamp(source))])
    known = IndexFile(tmp_path / "index")

    def draws(files):
        dataset = TrainingClips(files, [0], clip, lambda frames, generator: frames, seed=3)
        return [[number_of(frame) for frame in dataset[(epoch, 0)].pixels] for epoch in range(12)]

    clips = draws(Files([Sample(source)]))
    assert clips == draws(Files([Sample(source)], index_file=known, verify=False))
    assert all(np.diff(one).tolist() == [8, 8, 8] for one in clips)
    assert len({one[0] for one in clips}) > 6
    thinned = draws(Files([Sample(copy)]))
    assert all(np.diff(one).tolist() == [8, 8, 8] for one in thinned)
    assert np.abs(np.array(clips) - thinned).max() <= 1


def _stamp(path):
    from os import stat

    return stat(path).st_size, stat(path).st_mtime_ns


@pytest.mark.parametrize("past_end", ["last_sampled_frame", "last_video_frame"])
def test_short_videos_repeat_as_past_end_says(tmp_path, past_end):
    path = str(write_video(tmp_path / "short.mp4", numbered_frames(9)))
    for rate, inside in ((10, [0, 2, 5, 7]), (5, [0, 5])):  # 320 ms; 100 ms fall midway between two frames
        clip = ClipConfig(num_frames=4, frames_per_second=rate, past_end=past_end)
        dataset = TrainingClips(Files([Sample(path)]), [0], clip, lambda frames, generator: frames, seed=0)
        last = {"last_sampled_frame": inside[-1], "last_video_frame": 8}[past_end]
        wanted = inside + [last] * (4 - len(inside))
        assert [number_of(frame) for frame in dataset[(0, 0)].pixels] == wanted


def test_a_video_that_must_be_counted_after_all(tmp_path, monkeypatch):
    """Where packets promise other frames, times come from decoding, too."""
    from evl.video.decode import reader

    path = str(write_video(tmp_path / "video.mp4", numbered_frames(50)))
    views = dict(num_frames=3, frames_per_second=5, num_clips=1, **VIEWS)
    before = evl.read_views(path, **views)
    promised = frame_index(path)

    def mistrusted(*given):
        if not given[1].is_counted:
            raise reader.WrongIndexError
        return real(*given)

    real = reader._read
    monkeypatch.setattr(reader, "_read", mistrusted)
    assert not promised.is_counted
    assert torch.equal(evl.read_views(path, **views), before)


@pytest.fixture(scope="module")
def mixed_rates(tmp_path_factory):
    """A class turns bright, another dark, in videos of 15 and of 60 frames a second."""
    folder = tmp_path_factory.mktemp("mixed")
    for name, ramp in (("dark", -1), ("light", 1)):
        (folder / name).mkdir()
        for i in range(6):
            rate = (15, 60)[i % 2]
            times = np.arange(2 * rate) / rate
            values = 120 + i + ramp * 50 * times
            frames = np.broadcast_to(values[:, None, None, None], (len(times), 48, 48, 3)).astype(np.uint8)
            write_video(folder / name / f"{i}.mp4", frames, rate=rate)
    return folder


@pytest.fixture(scope="module")
def config(mixed_rates):
    from tests.conftest import TINY

    config = replace(RunConfig(), **{**TINY, "data": {**TINY["data"], "path": str(mixed_rates)}})
    return replace(config, clip={"num_frames": 3, "frames_per_second": 4}, training={"steps": 3, "eval_every": 0})


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "by time"
    return folder, train(config, folder)


def test_a_run_by_time_is_saved_loaded_and_judged_by_time(run, config, mixed_rates, capsys):
    folder, result = run
    assert "3 frames, 4 a second, " in result.evaluation.protocol
    model = evl.load(folder)
    assert model.card.config.clip == config.clip
    path = str(mixed_rates / "light" / "1.mp4")
    pre = model.card.preprocessing
    views = evl.read_views(
        path, num_frames=3, frames_per_second=4, num_clips=2, num_crops=1, size=pre.image_size, mean=pre.mean,
        std=pre.std, interpolation=pre.interpolation, antialias=pre.antialias,
    )  # fmt: skip
    files = EvaluationViews(Files([Sample(path)]), None, model.card.config.clip, pre, num_clips=2, num_crops=1)
    assert torch.equal(files[0].pixels, views)
    code, out, _ = run_command(capsys, "evaluate", folder, "--data", mixed_rates, "--workers", "0", "--json")
    assert code == 0
    assert "3 frames, 4 a second, " in out
    code, out, err = run_command(capsys, "predict", folder, path, "--frames-per-second", "8", "--json")
    assert code == 0
    assert "8 a second, not 4 a second" in " ".join(err.split())


def test_a_saved_model_takes_a_stride_in_its_place_or_another_rate(run):
    folder, _ = run
    other = evl.load(folder, stride=3)
    assert (other.card.config.clip.stride, other.card.config.clip.frames_per_second) == (3, None)
    assert other.card.used_otherwise == ("stride 3, not 4 a second",)
    assert evl.load(folder, frames_per_second=12.5).card.config.clip.frames_per_second == 12.5
    with pytest.raises(ConfigError, match="not both"):
        evl.load(folder, stride=3, frames_per_second=4)
    with pytest.raises(ConfigError, match="frames_per_second"):
        evl.load(folder, frames_per_second=-1)


def test_a_store_by_time_is_the_live_run(run, config, tmp_path):
    folder, live = run
    options = StoreOptions(dtype="float32", clips_per_video=3)
    extract(config, tmp_path / "store", options)
    store = FeatureStore(tmp_path / "store")
    assert all(one.is_equal for one in verify_store(tmp_path / "store", sample=4, seed=0).clips)
    stored = load_for_store(folder, store)
    (judged,) = evaluate_views([stored], views_of_store(stored, store))
    assert [p.path for p in judged.predictions] == [p.path for p in live.evaluation.predictions]
    for got, wanted in zip(judged.predictions, live.evaluation.predictions, strict=True):
        assert got.scores == pytest.approx(wanted.scores, abs=1e-5)
    on_store = replace(config, data={"path": None, "features": str(tmp_path / "store")})
    again = train(on_store, tmp_path / "from store")
    for got, wanted in zip(again.evaluation.predictions, live.evaluation.predictions, strict=True):
        assert got.scores == pytest.approx(wanted.scores, abs=1e-4)
    with pytest.raises(StoreError, match=r"clip\.frames_per_second is not set in the run and 4\.0 in the store"):
        train(replace(on_store, clip={"frames_per_second": None}), tmp_path / "refused")


def test_frames_inside_a_short_video_are_counted_by_time(config, tmp_path):
    """Longer runs of frames draw their clips from what lies inside the video."""
    long = replace(config, clip={"num_frames": 2, "frames_per_second": 2})
    extract(long, tmp_path / "store", StoreOptions(dtype="float32", frames=8))
    store = FeatureStore(tmp_path / "store")
    # two seconds, less a frame: moments 0, 0.5, 1 and 1.5 s
    assert {store.splits["train"].num_valid(video, 0) for video in range(len(store.splits["train"]))} == {4}
    assert {store.splits["val"].num_valid(0, clip) for clip in range(2)} == {2}
    assert len(find_splits(long).splits["train"]) == len(store.splits["train"])


def test_a_stride_does_not_matter_where_both_are_by_time():
    clip = ClipConfig(num_frames=4, stride=16, frames_per_second=5)
    description = describe(clip=clip)
    settings = RunConfig(clip=ClipConfig(num_frames=4, stride=3, frames_per_second=5))
    assert not any("clip." in reason for reason in differences(description, settings))
    settings = RunConfig(clip=ClipConfig(num_frames=4, stride=3))
    assert any("clip.frames_per_second is not set" in reason for reason in differences(description, settings))


def test_what_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="not both"):
        RunConfig().with_settings(["clip.stride=4", "clip.frames_per_second=5"])
    with pytest.raises(ConfigError, match="not both"):
        replace(RunConfig(), clip={"stride": 4, "frames_per_second": 5})
    with pytest.raises(ConfigError, match="sampling=dense"):
        RunConfig().with_settings(["clip.sampling=segment", "clip.frames_per_second=5"])
    for wrong in ("0", "-1", "many", ".nan", ".inf", "1e9"):
        with pytest.raises(ConfigError, match=r"clip\.frames_per_second"):
            RunConfig().with_settings([f"clip.frames_per_second={wrong}"])
    # a recipe's stride gives way, and a saved config has both
    config = evl_recipe().with_settings(["clip.frames_per_second=5"])
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert RunConfig.from_yaml(tmp_path / "config.yaml") == config
    assert config.with_settings(["clip.frames_per_second=null", "clip.stride=4"]).clip.stride == 4
    path = write_video(tmp_path / "video.mp4", numbered_frames(5))
    with pytest.raises(ValueError, match="needs a stride"):
        evl.read_views(path, num_frames=4, num_clips=1, **VIEWS)
    with pytest.raises(ValueError, match="sampling='dense'"):
        evl.read_views(path, num_frames=4, frames_per_second=5, sampling="segment", num_clips=1, **VIEWS)


def evl_recipe():
    from evl.recipes import get_recipe

    return get_recipe("k400_vitb16_32x8")


def test_the_page_of_a_model_says_it(tmp_path):
    model = build_classifier(replace(RunConfig(), clip={"num_frames": 2, "frames_per_second": 12.5}), ("a", "b"))
    save_model(model, tmp_path)
    model.save_pretrained(tmp_path / "out")
    assert "clips of 2 frames (12.5 a second)" in " ".join((tmp_path / "out" / "README.md").read_text().split())
