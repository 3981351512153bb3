"""The order of training, and clips that depend on nothing but seed, epoch and sample."""

import copy
from functools import lru_cache

import numpy as np
import pytest
import torch

from evl.collections.check import check_samples
from evl.config import AugmentConfig, ClipConfig, RunConfig, replace
from evl.data.dataset import EvaluationViews, Files, Item, TrainingClips, collate_clips, collate_views
from evl.data.loader import StepSampler, read_batches
from evl.errors import ConfigError
from evl.types import Preprocessing, Sample
from evl.video.augment import TrainingTransform
from tests.helpers import Wanted, number_of, numbered_frames, write_video

PREPROCESSING = Preprocessing((32, 32), (0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_global_batches_do_not_depend_on_how_they_are_cut(world_size, accumulation):
    def batches(step, **cut):
        cut = dict(batch_size=12, first_step=step, last_step=step + 1, seed=5, **cut)
        return [key for batch in StepSampler(7, **cut) for key in batch]

    for step in range(5):
        whole = batches(step)
        parts = [batches(step, accumulation=accumulation, rank=r, world_size=world_size) for r in range(world_size)]
        assert sorted(key for part in parts for key in part) == sorted(whole)
        assert len(whole) == 12
    stream = [key for step in range(7) for key in batches(step)]
    for epoch in range(12):
        assert sorted(index for e, index in stream if e == epoch) == list(range(7))  # each once an epoch
    orders = [[index for e, index in stream if e == epoch] for epoch in range(4)]
    assert len(set(map(tuple, orders))) > 1


@pytest.mark.parametrize("world_size", [1, 2])
def test_each_video_drawn_twice_in_a_batch(world_size):
    def keys_of(step, rank=0, size=1):
        options = dict(batch_size=8, first_step=step, last_step=step + 1, seed=5, repeats=2)
        return [key for batch in StepSampler(7, **options, rank=rank, world_size=size) for key in batch]

    seen = []
    for step in range(7):
        whole = keys_of(step)
        parts = [keys_of(step, rank, world_size) for rank in range(world_size)]
        assert [key for part in parts for key in part] == whole
        assert all(a[1] == b[1] and b[0] == a[0] + 1 for a, b in zip(whole[::2], whole[1::2], strict=True))
        seen += whole
    assert len(set(seen)) == 56  # no draw twice
    for epoch in range(4):  # each video twice an epoch
        assert sorted(index for e, index in seen if e // 2 == epoch) == sorted([*range(7), *range(7)])
    with pytest.raises(ConfigError, match=r"batch_size must be a multiple of repeated_augmentation \(3\)"):
        replace(RunConfig(), training={"repeated_augmentation": 3})


def test_a_flipped_clip_has_the_label_of_the_mirrored_class(tmp_path):
    path = write_video(tmp_path / "one.mp4", numbered_frames(6))
    config = AugmentConfig(None, (1, 1), (1.5, 1.5), flip="pairs")
    transform = TrainingTransform(config, PREPROCESSING, ["to the left", "to the right"])
    dataset = TrainingClips(Files([Sample(str(path))]), [0], ClipConfig(num_frames=2, stride=1), transform, seed=0)
    plain = TrainingTransform(replace_flip(config, 0.0), PREPROCESSING)
    unflipped = TrainingClips(dataset.files, [0], dataset.clip, plain, seed=0)
    labels = set()
    for epoch in range(8):
        item, other = dataset[epoch, 0], unflipped[epoch, 0]
        assert torch.equal(item.pixels, other.pixels.flip(-1) if item.label else other.pixels)
        labels.add(item.label)
    assert labels == {0, 1}


def replace_flip(config, flip):
    return AugmentConfig(config.rand_augment, config.crop_area, config.crop_ratio, flip=flip)


def test_batch_size_must_divide():
    with pytest.raises(ConfigError, match="take a multiple of 8"):
        StepSampler(10, batch_size=12, first_step=0, last_step=1, seed=0, accumulation=2, world_size=4)


@pytest.fixture
def samples(tmp_path):
    for i in range(4):
        write_video(tmp_path / f"{i}.mp4", numbered_frames(30 + i))
    (tmp_path / "bad.mp4").write_bytes(b"nothing" * 100)
    return [Sample(str(tmp_path / f"{name}.mp4"), "x") for name in (0, 1, 2, 3, "bad", "missing")]


@pytest.mark.parametrize("sampling", [pytest.param("dense", marks=pytest.mark.slow), "segment"])
def test_workers_change_nothing(samples, sampling):
    clip = ClipConfig(sampling=sampling, num_frames=4, stride=3)
    transform = TrainingTransform(AugmentConfig(), PREPROCESSING)
    dataset = TrainingClips(Files(samples), [0, 1, 2, 3, 4, 5], clip, transform, seed=3)

    def run(num_workers):
        sampler = StepSampler(6, batch_size=4, first_step=0, last_step=3, seed=1)
        cpu = torch.device("cpu")
        return list(read_batches(dataset, sampler, num_workers=num_workers, device=cpu, collate=collate_clips))

    state = torch.get_rng_state()
    alone, together = run(0), run(2)
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(a.clips, b.clips)
        assert a.indices == b.indices == tuple(a.labels.tolist())
        assert a.damaged == b.damaged
    found = {index: reason for batch in alone for index, reason in batch.damaged.items()}
    assert found[5] == "no such file"
    assert "cannot be decoded" in found[4]
    assert set(found) == {4, 5}


def test_times_cut_clips(samples):
    cut = Sample(samples[0].path, "x", 0.4, 0.8)  # frames 10–19 at 25 a second
    plain = Preprocessing((64, 96), (0,) * 3, (1,) * 3)
    views = EvaluationViews(Files([cut]), [0], ClipConfig(num_frames=4, stride=2), plain, num_clips=2, num_crops=1)[
        0
    ].pixels
    numbers = [[number_of(frame * 255) for frame in view] for view in views]
    assert numbers == [[10, 12, 14, 16], [13, 15, 17, 19]]
    transform = TrainingTransform(AugmentConfig(None, (1, 1), (1.5, 1.5), flip=0), plain)
    dataset = TrainingClips(Files([cut]), [0], ClipConfig(num_frames=3, stride=4), transform, seed=0)
    seen = {number_of(frame) for epoch in range(30) for frame in dataset[epoch, 0].pixels}
    assert seen <= set(range(10, 20))
    assert len(seen) > 5


def test_check_agrees_with_the_loader(samples):
    heard = []
    report = check_samples(samples, progress=heard.append)
    assert len(heard) == 6
    assert [file.sample for file in report.damaged] == samples[4:]
    assert report.classes() == {"x": (4, 2)}
    assert report.duplicates == ()
    copy = samples[0].path.replace("0.mp4", "copy.mp4")
    with open(samples[0].path, "rb") as source, open(copy, "wb") as target:
        target.write(source.read())
    assert check_samples([*samples, Sample(copy, "y")]).duplicates == ((samples[0].path, copy),)


def test_draws_differ_between_epochs_and_samples(samples):
    transform = TrainingTransform(AugmentConfig(), PREPROCESSING)
    dataset = TrainingClips(Files(samples), range(6), ClipConfig(num_frames=4, stride=3), transform, seed=3)
    clips = [dataset[epoch, 0].pixels for epoch in range(4)]
    assert not any(torch.equal(clips[0], other) for other in clips[1:])
    assert torch.equal(dataset[2, 0].pixels, clips[2])
    assert clips[0].dtype == torch.uint8


def test_check_sees_what_is_listed_twice(samples):
    twice = [samples[0], Sample(samples[0].path, "other"), Sample(samples[0].path, "x", 0.0, 0.5)]
    (group,) = check_samples(twice).duplicates
    assert group == (f"{samples[0].path} (x)", f"{samples[0].path} (other)")


def test_videos_of_a_batch_may_differ_in_their_number_of_views():
    shapes = [3, 1, 2]
    items = [Item(i, i, torch.full((v, 2, 3, 4, 4), float(i))) for i, v in enumerate(shapes)]
    batch = collate_views([*items, Item(7, 0, problem="is empty")])
    assert batch.num_views == (3, 1, 2)
    assert batch.indices == (0, 1, 2)
    assert batch.damaged == {7: "is empty"}
    assert [pixels.unique().tolist() for pixels in batch.clips.split(batch.num_views)] == [[0.0], [1.0], [2.0]]
    assert collate_views([Item(7, 0, problem="is empty")]).clips is None


def test_a_file_is_decoded_whole_once(samples, monkeypatch):
    """Verified when it is first met, by any copy that shares its memory; refused again and again if it is bad."""
    from evl.data import dataset as module

    verified = []
    read = module.read_clip
    monkeypatch.setattr(module, "read_clip", lambda path, *a, **o: verified.append(o["verify"]) or read(path, *a, **o))
    dataset = TrainingClips(Files(samples), range(6), ClipConfig(num_frames=2, stride=3), lambda clip, _: clip, seed=0)
    other = copy.copy(dataset)  # as in another worker
    for clips in (dataset, other, dataset):
        assert clips[0, 1].pixels is not None
        assert clips[0, 4].problem
    assert verified == [True, True, False, True, False, True]
    without = TrainingClips(Files(samples, verify=False), range(6), dataset.clip, lambda clip, _: clip, seed=0)
    verified.clear()
    assert torch.equal(without[3, 1].pixels, dataset[3, 1].pixels)
    assert verified == [False, False]


def test_a_file_whose_packets_promise_too_much_is_counted_from_then_on(tmp_path, monkeypatch):
    """By all workers that share what is known: no clip may depend on who has seen a file before."""
    from evl.video.decode import index as video_index

    path = str(write_video(tmp_path / "a.mp4", numbered_frames(30)))
    true = video_index._frame_index.__wrapped__

    @lru_cache
    def one_more(*file):
        index = true(*file)
        ends = (index.pts, 10**6), (index.seek_to, 10**6), (index.is_key, False), (index.is_shown, True)
        more = [np.append(values, last) for values, last in ends]
        return video_index.FrameIndex(*more, index.time_base, index.codec)

    monkeypatch.setattr(video_index, "_frame_index", one_more)
    counts = []
    for _ in range(2):
        Files([Sample(path)]).read(0, Wanted(lambda count: counts.append(count) or [0]), square_pixels=False)
    files = Files([Sample(path)])
    for _ in range(3):
        files.read(0, Wanted(lambda count: counts.append(count) or [0]), square_pixels=False)
    assert counts == [31, 30, 31, 30, 31, 30, 30, 30]  # drawn again when first met, right after that


def test_a_folder_of_frames_is_decoded_whole_once(tmp_path, monkeypatch):
    from PIL import Image

    from evl.video.decode import frame_folder

    for i in range(12):
        Image.new("RGB", (20, 16), (i, i, i)).save(tmp_path / f"{i}.png")
    decoded, decode = [], frame_folder._decode
    monkeypatch.setattr(
        frame_folder, "_decode", lambda path, file, shape: decoded.append(file) or decode(path, file, shape)
    )
    files = Files([Sample(str(tmp_path))])
    for expected in (12 + 2, 2, 2):
        decoded.clear()
        clip = files.read(0, Wanted(lambda count: [3, count - 1]), square_pixels=False)
        assert clip.frames[:, 0, 0, 0].tolist() == [3, 11]
        assert len(decoded) == expected
