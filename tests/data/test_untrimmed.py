"""Clips of the time between labeled segments, and segments whose ends move."""

import numpy as np
import pytest

from evl.config import ClipConfig, DataConfig, RunConfig, replace
from evl.data.dataset import Files, TrainingClips
from evl.data.splits import find_splits
from evl.data.untrimmed import Extent, extent_reader, jittered, with_background
from evl.errors import DataError
from evl.types import BACKGROUND, Sample
from evl.video.decode.index import frame_index
from evl.video.decode.reader import find_part
from tests.helpers import number_of, numbered_frames, write_video

CLIP = ClipConfig(num_frames=4, stride=5)  # 0.64 s at 25 frames per second


def backgrounds(splits, split="train"):
    return [one for one in splits[split] if one.label == BACKGROUND]


def made(rows, *, share=1.0, margin=0.5, clip=CLIP, seconds=20.0, **more):
    splits = {"train": rows, **more}
    data = DataConfig(background=share, background_margin=margin)
    return with_background(splits, data, clip, lambda path: None if seconds is None else Extent(seconds, 25.0))


def plain_is_free(sample, rows, margin, seconds):
    """Moment by moment: whether a stretch is inside the file and away from all segments of it."""
    for time in np.arange(sample.start_seconds, sample.end_seconds, 0.01):
        if not 0 <= time <= seconds + 1e-6:
            return False
        for row in rows:
            start = -np.inf if row.start_seconds is None else row.start_seconds - margin
            end = np.inf if row.end_seconds is None else row.end_seconds + margin
            if row.path == sample.path and start + 1e-6 < time < end - 1e-6:
                return False
    return sample.start_seconds >= 0 and sample.end_seconds <= seconds + 1e-6


@pytest.mark.parametrize("seed", range(8))
def test_background_is_free_of_segments_and_as_much_as_asked(seed):
    generator = np.random.default_rng(seed)
    rows = []
    for path in ("/v/a.mp4", "/v/b.mp4", "/v/c.mp4"):
        time = generator.uniform(0, 3)
        while time < 17:
            end = time + generator.uniform(0.2, 3)
            rows.append(Sample(path, generator.choice(["run", "jump"]), float(time), float(end)))
            time = end + generator.uniform(-0.2, 4)  # some overlap
    share, margin = float(generator.choice([0.5, 1.0, 3.0])), float(generator.choice([0.0, 0.3]))
    found = backgrounds(made(rows, share=share, margin=margin))
    assert len(found) == round(share * len(rows))
    assert all(plain_is_free(one, rows, margin, 20.0) for one in found)
    assert len({one.name for one in found}) == len(found)


def test_longer_gaps_have_more_and_a_clip_fits_where_it_can():
    rows = [Sample("/v/a.mp4", "run", 2.0, 4.0), Sample("/v/a.mp4", "run", 6.0, 7.0), Sample("/v/b.mp4", "run", 19, 20)]
    found = backgrounds(made(rows, share=4))
    lengths = {"a, before": 1.5, "a, between": 1.0, "a, after": 12.5, "b": 18.5}
    counts = [sum(one.path.endswith("a.mp4") and one.start_seconds < 2 for one in found),
              sum(4 < one.start_seconds < 6 for one in found if one.path.endswith("a.mp4")),
              sum(one.start_seconds >= 7 for one in found if one.path.endswith("a.mp4")),
              sum(one.path.endswith("b.mp4") for one in found)]  # fmt: skip
    assert counts == [1, 0, 4, 7]
    np.testing.assert_allclose(counts, 12 * np.array([*lengths.values()]) / sum(lengths.values()), atol=0.6)
    assert min(one.end_seconds - one.start_seconds for one in found) >= 0.64
    short = backgrounds(made(rows[:2], share=3, seconds=7.0, margin=0.9))  # the gap between has only 0.2 s
    assert {round(one.end_seconds - one.start_seconds, 3) for one in short} <= {0.64, 0.2}
    spread = backgrounds(made(rows, clip=ClipConfig(sampling="segment", num_frames=4)))
    assert {round(one.end_seconds - one.start_seconds, 3) for one in spread} == {4.0}  # a window of the timeline


def test_files_that_cannot_be_read_have_background_between_their_segments_only():
    rows = [Sample("/v/a.mp4", "run", 2.0, 4.0), Sample("/v/a.mp4", "run", 6.0, 7.0)]
    assert max(one.end_seconds for one in backgrounds(made(rows, share=5, seconds=None))) <= 5.5
    open_end = [Sample("/v/a.mp4", "run", 2.0, None)]
    assert max(one.end_seconds for one in backgrounds(made(open_end, share=5, seconds=None))) <= 1.5


def test_whole_files_and_files_in_two_splits():
    rows = [Sample("/v/a.mp4", "run", 2.0, 4.0), Sample("/v/whole.mp4", "run"), Sample("/v/c.mp4", BACKGROUND, 0, 5)]
    val = [Sample("/v/a.mp4", "jump", 10.0, 12.0), Sample("/v/d.mp4", "jump", 1.0, 2.0)]
    splits = made(rows, val=val, share=4)
    assert {one.path for one in backgrounds(splits)} == {"/v/a.mp4", "/v/c.mp4"}
    assert len(backgrounds(splits)) == 8 + 1  # a row of the list, and four for each of two segments
    assert all(plain_is_free(one, [*rows, *val], 0.5, 20) for one in backgrounds(splits) if one not in rows)
    assert {one.path for one in backgrounds(splits, "val")} == {"/v/d.mp4"}


def test_lists_without_time_between_segments_are_refused():
    with pytest.raises(DataError, match="no row of the list"):
        made([Sample("/v/a.mp4", "run")])
    with pytest.raises(DataError, match="background_margin"):
        made([Sample("/v/a.mp4", "run", 0.3, 19.8)])


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two films of 100 numbered frames at 25 per second, with two segments each."""
    folder = tmp_path_factory.mktemp("untrimmed")
    rows = ["path,label,start_seconds,end_seconds,split"]
    for name, split in (("a", "train"), ("b", "val")):
        write_video(folder / f"{name}.mp4", numbered_frames(100, 48, 64))
        rows += [f"{name}.mp4,run,0.4,1.2,{split}", f"{name}.mp4,jump,2,3.2,{split}"]
    (folder / "segments.csv").write_text("\n".join(rows) + "\n")
    return folder


def config_of(folder, **data):
    config = replace(RunConfig(), data={"path": str(folder / "segments.csv"), "num_workers": 0, **data})
    return replace(config, clip={"num_frames": 4, "stride": 2}, augment={"rand_augment": None, "flip": 0.0})


def test_splits_of_a_config(folder):
    plain = find_splits(config_of(folder))
    assert plain.class_names == ("jump", "run")
    found = find_splits(config_of(folder, background=2, background_margin=0.1))
    assert found.class_names == ("jump", "run", BACKGROUND)
    assert found.splits["train"][:2] == plain.splits["train"]
    assert [len(found.splits[split]) for split in ("train", "val")] == [2 + 4, 2 + 4]
    assert max(one.end_seconds for one in found.splits["train"]) == pytest.approx(4.0)
    assert extent_reader(DataConfig())(str(folder / "a.mp4")) == pytest.approx((4.0, 25.0))
    assert extent_reader(DataConfig())(str(folder / "no.mp4")) is None


def numbers(item):
    return [number_of(frame) for frame in item.pixels]


def test_jitter_moves_the_ends_and_the_clips_with_them(folder):
    sample = Sample(str(folder / "a.mp4"), "jump", 2.0, 3.2)
    clip = ClipConfig(num_frames=2, stride=1)
    options = dict(transform=lambda frames, _: frames, seed=5)
    plain = TrainingClips(Files([sample]), [0], clip, **options)
    moved = TrainingClips(Files([sample]), [0], clip, jitter_seconds=0.5, **options)
    inside = [numbers(plain[(epoch, 0)])[0] for epoch in range(60)]
    outside = [numbers(moved[(epoch, 0)])[0] for epoch in range(60)]
    assert min(inside) >= 50
    assert max(inside) < 80
    assert min(outside) < 48
    assert max(outside) > 81
    assert min(outside) >= 37
    assert max(outside) <= 91
    again = TrainingClips(Files([sample]), [0], clip, jitter_seconds=0.5, **options)
    assert outside[7] == numbers(again[(7, 0)])[0]
    for epoch in range(60):  # frames of exactly the part that was drawn
        start, end = jittered(sample, 0.5, (5, epoch, 0))
        first, count = find_part(sample.path, frame_index(sample.path), start, end)
        assert first <= outside[epoch] <= first + count - 2


def test_what_does_not_jitter():
    assert jittered(Sample("a", "run", 2.0, 3.0), 0.0, (0, 1)) == (2.0, 3.0)
    assert jittered(Sample("a", "run"), 1.0, (0, 1)) == (None, None)
    assert jittered(Sample("a", BACKGROUND, 2.0, 3.0), 1.0, (0, 1)) == (2.0, 3.0)
    for seed in range(50):
        start, end = jittered(Sample("a", "run", 2.0, 2.2), 1.0, (0, seed))
        assert start <= 2.0
        assert end >= 2.2  # too short to lose frames
        start, end = jittered(Sample("a", "run", 0.1, 2.1), 5.0, (0, seed))
        assert 0 <= start <= 0.6
        assert end >= 1.6
        assert jittered(Sample("a", "run", 1.0, None), 1.0, (0, seed))[1] is None
