"""Made untrimmed videos: motions at known times, nothing between them."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

import evl
from evl.datasets.drawing import load_objects
from evl.datasets.motions import RATE
from evl.datasets.untrimmed import EVENTS, MANIFEST, NUM_EVENTS, draw_video, make_untrimmed, segments_of, shots_of
from evl.errors import ConfigError
from evl.video.decode.reader import read_clip
from tests.helpers import Wanted


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder, heard = tmp_path_factory.mktemp("untrimmed"), []
    make_untrimmed(folder, {"train": 1, "test": 1}, seed=2, workers=0, progress=lambda *counts: heard.append(counts))
    assert heard == [(1, 2), (2, 2)]
    return folder


def test_a_manifest_of_segments(made):
    manifest = evl.read_manifest(made / MANIFEST)
    assert set(manifest.splits) == {"train", "test"}
    rows = [(one.label, one.start_seconds, one.end_seconds) for one in manifest.splits["test"]]
    assert rows == segments_of("test", 0, 2)
    assert {label for label, _, _ in rows} <= set(EVENTS)
    path = manifest.splits["test"][0].path
    total = sum(shot.scene.num_frames for shot in shots_of("test", 0, 2))
    index = read_clip(path, Wanted(lambda count: [0])).index
    assert index.num_frames == total
    assert rows[-1][2] < total / RATE
    assert all(start >= before + 1 for (_, _, before), (_, start, _) in pairwise(rows))


def test_videos_depend_on_seed_and_split_only(made, tmp_path):
    make_untrimmed(tmp_path, {"test": 1}, seed=2, workers=0)
    name = "videos/test/000000.mp4"
    assert (tmp_path / name).read_bytes() == (made / name).read_bytes()
    assert segments_of("test", 0, 3) != segments_of("test", 0, 2)
    assert segments_of("val", 0, 2) != segments_of("test", 0, 2)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_nothing_changes_outside_of_the_segments(split):
    """By the tracks of all objects; what moves besides is the camera."""
    names = {thing.name for thing in load_objects(split)}
    for index in range(3):
        for shot in shots_of(split, index):
            assert {thing.name for thing in shot.objects} <= names
            values = np.stack([getattr(track, name) for track in shot.scene.tracks
                               for name in ("x", "y", "size", "angle", "opacity")])  # fmt: skip
            changes = np.abs(np.diff(values, axis=1))
            if shot.label is None:
                assert changes.max() == 0
                continue
            assert 7 <= shot.start < shot.end <= shot.scene.num_frames - 8
            inside = changes[:, shot.start - 1 : shot.end - 1].sum(1)
            outside = changes.sum(1) - inside
            assert inside.max() > 0
            assert outside.sum() <= 0.1 * inside.sum()
            steps = np.flatnonzero(changes.max(0) > 0) + 1
            assert steps.min() - shot.start <= 0
            assert shot.start - steps.min() <= 8
            assert steps.max() < shot.scene.num_frames - 7


def test_events_are_about_as_frequent_as_each_other():
    counts = Counter(label for index in range(16) for label, _, _ in segments_of("train", index))
    assert set(counts) == set(EVENTS)
    assert max(counts.values()) - min(counts.values()) <= 5
    numbers = [len(segments_of("train", index)) for index in range(16)]
    assert NUM_EVENTS[0] <= min(numbers) < max(numbers) <= NUM_EVENTS[1]


def test_an_object_appears_when_the_list_says_so():
    """In the pixels: far more changes within an event than just before it, once camera and light are quiet."""
    label, start, end = next(row for row in segments_of("train", 4) if row[0].startswith("something"))
    frames, _ = draw_video("train", 4)
    first, last = round(start * RATE), round(end * RATE)
    assert (
        abs(frames[first - 4].astype(float) - frames[first - 2]).mean()
        < abs(frames[first - 2].astype(float) - frames[last + 1]).mean()
    )
    assert label in EVENTS
    assert len(frames) == sum(shot.scene.num_frames for shot in shots_of("train", 4))


def test_wrong_counts():
    with pytest.raises(ConfigError, match="expected some of train, val, test"):
        make_untrimmed("x", {"tests": 1})
