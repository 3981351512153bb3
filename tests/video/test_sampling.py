"""Frame indices: against the release's, and the properties of training clips."""

import json

import numpy as np
import pytest

from evl.video.sampling import (
    clip_indices,
    clip_starts,
    random_clip_indices,
    random_segment_indices,
    segment_indices,
)
from tests.helpers import GOLDEN


def test_evaluation_indices_equal_the_release():
    cases = json.loads((GOLDEN / "temporal_views.json").read_text())
    assert len(cases) > 50
    for case in cases:
        size = dict(num_frames=case["num_frames"], stride=case["stride"], num_clips=case["views"])
        assert clip_indices(case["frames_in_video"], **size) == case["indices"]
        assert clip_starts(case["frames_in_video"], **size) == [clip[0] for clip in case["indices"]]


def test_segments_take_the_middle():
    assert segment_indices(80, num_frames=8) == [[5, 15, 25, 35, 45, 55, 65, 75]]
    assert segment_indices(3, num_frames=4) == [[0, 1, 1, 2]]
    assert segment_indices(1, num_frames=3) == [[0, 0, 0]]
    assert segment_indices(80, num_frames=4, num_clips=2) == [[5, 25, 45, 65], [15, 35, 55, 75]]


@pytest.mark.parametrize("num_video_frames", [1, 2, 7, 29, 30, 200])
def test_training_clips_stay_inside_and_reach_everything(num_video_frames):
    generator = np.random.default_rng(num_video_frames)
    seen = set()
    for _ in range(4000):
        clip = random_clip_indices(
            num_video_frames, num_frames=5, stride=7, past_end="last_sampled_frame", generator=generator
        )
        seen.add(clip[0])
        steps = np.diff(clip)
        assert clip[-1] < num_video_frames
        assert set(steps) <= {0, 7}
        assert all(np.diff(steps) <= 0)  # once it repeats, it goes on repeating
    assert seen == set(range(max(1, num_video_frames - 28)))


def test_past_the_end_by_name():
    options = dict(num_frames=4, stride=4, generator=np.random.default_rng(0))
    assert random_clip_indices(7, past_end="last_sampled_frame", **options) == [0, 4, 4, 4]
    assert random_clip_indices(7, past_end="last_video_frame", **options) == [0, 4, 6, 6]
    with pytest.raises(ValueError, match="expected 'last_sampled_frame'"):
        random_clip_indices(7, past_end="loop", **options)


@pytest.mark.parametrize("num_video_frames", [1, 3, 8, 21, 100])
def test_random_segments(num_video_frames):
    generator = np.random.default_rng(0)
    draws = np.array([random_segment_indices(num_video_frames, num_frames=8, generator=generator) for _ in range(2000)])
    edges = [num_video_frames * t // 8 for t in range(9)]
    for t in range(8):
        assert set(draws[:, t]) == set(range(edges[t], max(edges[t + 1], edges[t] + 1)))


def test_nonsense_is_told():
    with pytest.raises(ValueError, match="num_video_frames is 0"):
        clip_indices(0, num_frames=8, stride=16, num_clips=3)
    with pytest.raises(ValueError, match="stride is 0"):
        clip_indices(10, num_frames=8, stride=0, num_clips=3)
