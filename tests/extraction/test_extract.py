"""What extraction stores: training's own clips and evaluation's own views, refusals, damage, parts."""

import csv
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

import evl.extraction.estimate
import evl.extraction.extract
import evl.extraction.work
from evl.backbones import create_backbone
from evl.config import replace
from evl.data.dataset import EvaluationViews, Files, TrainingClips
from evl.data.manifests.manifest import write_manifest
from evl.data.splits import find_splits
from evl.errors import ConfigError, EVLError, RunError, StoreError
from evl.extraction.estimate import estimate
from evl.extraction.extract import extract
from evl.extraction.work import plan_extraction
from evl.models.crossframe import neighbor_maps, packed_maps
from evl.runtime.distributed import World
from evl.runtime.files import remove_abandoned, write_atomically
from evl.store import FeatureStore, StoreOptions
from evl.types import Sample
from evl.video.augment import TrainingTransform
from evl.video.transforms import normalize
from tests.extraction.test_extract_killed import files_of
from tests.helpers import assert_close, numbered_frames, write_video

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("form", ["tokens", "maps"])
def test_clips_are_those_of_training_and_views_those_of_evaluation(tiny_config, tmp_path, form):
    config = replace(
        tiny_config, training={"seed": 7}, augment={"erasing": 0.5, "rand_augment": "rand-m7-n4-mstd0.5-inc1"},
        evaluation={"num_clips": 2, "num_crops": 3},
    )  # fmt: skip
    extract(config, tmp_path / "store", StoreOptions(form=form, dtype="float32", clips_per_video=3))
    store = FeatureStore(tmp_path / "store")
    found = find_splits(config)
    assert {name: split.samples for name, split in store.splits.items()} == found.splits
    backbone = create_backbone(config.backbone, config.model.taps)
    pre, names = backbone.preprocessing, found.class_names
    generator = np.random.default_rng()
    dataset = TrainingClips(
        Files(found.splits["train"]), [0] * len(found.splits["train"]), config.clip,
        TrainingTransform(config.augment, pre, names), seed=7,
    )  # fmt: skip
    for _ in range(4):
        video, epoch = int(generator.integers(len(dataset))), int(generator.integers(3))
        pixels = dataset[(epoch, video)].pixels[None]
        pixels = normalize(pixels, pre.mean, pre.std) if pixels.dtype == torch.uint8 else pixels
        same(store.splits["train"].read([(video, epoch)]), backbone, pixels, form)
    samples = found.splits["val"]
    views = EvaluationViews(Files(samples), [0] * len(samples), config.clip, pre, num_clips=2, num_crops=3)
    for video in range(len(samples)):
        same(store.splits["val"].read([(video, view) for view in range(6)]), backbone, views[video].pixels, form)


def same(stored, backbone, clips, form):
    maps, features = backbone.token_maps(clips)
    assert set(stored.tokens) == (set(maps) if form == "tokens" else set(backbone.taps))
    for block, packed in stored.tokens.items():
        assert_close(packed.unpack(), maps[block])
    assert set(stored.maps) == (set(backbone.taps) if form == "maps" else set())
    for tap, one in zip(backbone.taps, features, strict=True):
        if form == "maps":
            whole = packed_maps(neighbor_maps(one.query, one.key, backbone.spec.grid, torch.float32), torch.float32)
            assert_close(stored.maps[tap].unpack(), whole)


def test_the_test_split_is_stored_and_missing_videos_are_told(tiny_config, tmp_path, videos):
    samples = [Sample(str(path), path.parent.name) for path in sorted(videos.rglob("*.mp4"))]
    gone = Sample(str(tmp_path / "gone.mp4"), "dark")
    splits = ["train", "val", "test"] * 4 + ["test"]
    write_manifest(tmp_path / "list.csv", [*samples, gone], splits)
    config = replace(tiny_config, data={"path": str(tmp_path / "list.csv")})
    result = extract(config, tmp_path / "store")
    store = FeatureStore(tmp_path / "store")
    assert {name: len(split) for name, split in store.splits.items()} == {"train": 4, "val": 4, "test": 4}
    assert store.splits["test"].num_clips(0) == 2
    assert store.splits["test"].samples == tuple(samples[2::3])
    assert result.missing == (gone,)
    assert (tmp_path / "store/missing.csv").read_text().splitlines()[1].endswith("gone.mp4,dark,test")


def test_longer_runs_of_frames_know_where_the_video_ends(tiny_config, tmp_path):
    """Frames behind the end are counted, for every length of video, with and without a repeated last frame."""
    folder = tmp_path / "videos"
    for label in "ab":
        (folder / label).mkdir(parents=True)
        for count in (1, 4, 9, 15):
            write_video(folder / label / f"{count}.mp4", numbered_frames(count, 32, 48))
    for past_end in ("last_sampled_frame", "last_video_frame"):
        config = replace(tiny_config, data={"path": str(folder), "val_path": str(folder)})
        config = replace(config, clip={"past_end": past_end})
        out = tmp_path / past_end
        extract(config, out, StoreOptions(frames=7, clips_per_video=2))
        store = FeatureStore(out)
        for split, frames in (("train", 7), ("val", 3)):
            stored = store.splits[split]
            for video, sample in enumerate(stored.samples):
                count = int(sample.path.rsplit("/", 1)[1][:-4])
                for clip in range(stored.num_clips(video)):
                    valid = stored.num_valid(video, clip)
                    tokens = stored.read([(video, clip)]).tokens[store.description.taps[-1]].unpack()
                    assert tokens.shape[1] == frames
                    if count == 1:
                        assert valid == 1
                    if count >= 2 * frames:  # the stride is 2
                        assert valid == frames
                    inside = [i for i in range(1, frames) if not torch.equal(tokens[0, i], tokens[0, i - 1])]
                    if past_end == "last_sampled_frame" and split == "train":
                        assert inside == list(range(1, valid)), (count, clip)
                    assert len(inside) in (valid - 1, valid)  # the last frame of all may be another one


def test_frames_that_cannot_be(tiny_config, tmp_path):
    with pytest.raises(ConfigError, match="shorter than a clip"):
        extract(tiny_config, tmp_path / "store", StoreOptions(frames=2))
    segment = replace(tiny_config, clip={"sampling": "segment"})
    with pytest.raises(ConfigError, match="multiple of the clip"):
        extract(segment, tmp_path / "store", StoreOptions(frames=7))
    with pytest.raises(ConfigError, match="part 3/2"):
        extract(tiny_config, tmp_path / "store", part=(3, 2))
    assert not (tmp_path / "store").exists()
    extract(segment, tmp_path / "store", StoreOptions(frames=6))
    assert FeatureStore(tmp_path / "store").splits["train"].num_valid(0, 0) == 6


def test_what_is_there_is_not_touched(tiny_config, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="is no store of features; choose another `out`"):
        extract(tiny_config, tmp_path / "mine")
    with pytest.raises(StoreError, match="is no store of features"):
        extract(tiny_config, tmp_path / "mine/notes.txt")
    out = tmp_path / "store"
    extract(tiny_config, out)
    before = files_of(out)
    changed = {
        "options.dtype is int8 now and float16 in the store": (tiny_config, StoreOptions(dtype="int8")),
        "clip.stride is 1 now and 2 in the store": (replace(tiny_config, clip={"stride": 1}), None),
        "taps": (replace(tiny_config, model={"taps": "last 1"}), None),
        "training.seed is 5 now and 0 in the store": (replace(tiny_config, training={"seed": 5}), None),
        "backbone_hash": (replace(tiny_config, backbone={"pretrained": False}), None),
    }
    for sentence, (config, options) in changed.items():
        with pytest.raises(StoreError, match=sentence):
            extract(config, out, options)
    again = extract(replace(tiny_config, data={"max_damaged_share": 0.7}), out)
    assert (again.num_clips, again.is_complete) == (0, True)
    assert files_of(out) == before


@pytest.fixture
def damaged(tiny_config, tmp_path, videos):
    """A config of videos of which one training and one validation video are broken."""
    folder = tmp_path / "videos"
    samples = [Sample(str(path), path.parent.name) for path in sorted(videos.rglob("*.mp4"))]
    folder.mkdir()
    for name in ("broken, 1.mp4", "broken 2.mp4"):
        (folder / name).write_bytes(b"broken" * 1000)
    samples += [Sample(str(folder / "broken, 1.mp4"), "dark"), Sample(str(folder / "broken 2.mp4"), "bright")]
    write_manifest(folder / "list.csv", samples, ["train"] * 8 + ["val"] * 4 + ["train", "val"])
    return replace(tiny_config, data={"path": str(folder / "list.csv"), "max_damaged_share": 0.2})


def test_damaged_videos_are_listed(damaged, tmp_path):
    result = extract(damaged, tmp_path / "store", StoreOptions(clips_per_video=2))
    assert result.num_clips == 8 * 2 + 4 * 2
    assert result.num_damaged == 2
    with open(tmp_path / "store/damaged.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["path"].rsplit("/", 1)[1], row["split"]) for row in rows] == [
        ("broken, 1.mp4", "train"), ("broken 2.mp4", "val"),
    ]  # fmt: skip
    assert all("cannot be decoded" in row["reason"] for row in rows)
    store = FeatureStore(tmp_path / "store")
    assert store.splits["train"].damaged == {8: rows[0]["reason"]}
    assert (store.splits["train"].num_clips(8), store.splits["train"].num_clips(7)) == (0, 2)


def test_too_many_damaged_videos_stop_it_and_a_higher_limit_goes_on(damaged, tmp_path, monkeypatch):
    monkeypatch.setattr(evl.extraction.work, "clips_per_shard", lambda size, options: 2)
    strict = replace(damaged, data={"max_damaged_share": 0.05})
    with pytest.raises(RunError, match=r"1 of 9 training videos are damaged .* data.max_damaged_share"):
        extract(strict, tmp_path / "store")
    shards = len(list((tmp_path / "store/shards").iterdir()))
    assert shards == 4
    result = extract(damaged, tmp_path / "store")
    assert result.num_clips == 4 * 2
    extract(damaged, tmp_path / "other")
    assert {**files_of(tmp_path / "other"), "store.json": 0} == {**files_of(tmp_path / "store"), "store.json": 0}


def test_too_many_in_all_parts_together_leave_it_unfinished(damaged, tmp_path, monkeypatch):
    """Each part may meet fewer than are too many."""
    samples = find_splits(damaged).splits["train"]
    second = tmp_path / "videos/broken 3.mp4"
    second.write_bytes(b"broken" * 1000)
    rows = [*samples[:4], Sample(str(second), "dark"), *samples[4:], *find_splits(damaged).splits["val"]]
    write_manifest(tmp_path / "videos/list.csv", rows, ["train"] * 10 + ["val"] * 5)
    monkeypatch.setattr(evl.extraction.work, "clips_per_shard", lambda size, options: 5)
    config = replace(damaged, data={"max_damaged_share": 0.1})
    assert not extract(config, tmp_path / "store", part=(1, 2)).is_complete
    with pytest.raises(RunError, match="2 of 10 training videos are damaged"):
        extract(config, tmp_path / "store", part=(2, 2))
    assert not (tmp_path / "store/index.parquet").exists()
    assert extract(damaged, tmp_path / "store").is_complete


def test_parts_in_any_order_make_the_same_store(damaged, tmp_path, monkeypatch):
    monkeypatch.setattr(evl.extraction.work, "clips_per_shard", lambda size, options: 4)
    options = StoreOptions(clips_per_video=3, dtype="float8")
    seen = []
    extract(damaged, tmp_path / "one", options, progress=seen.append)
    assert [report.step for report in seen] == sorted(report.step for report in seen)
    assert (seen[-1].step, seen[-1].note) == (seen[-1].steps, "damaged 2")
    for number in (2, 3, 1):
        part = extract(damaged, tmp_path / "three", options, part=(number, 3))
        assert part.is_complete == (number == 1)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "three")


def test_a_shard_that_was_lost_is_made_again(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(evl.extraction.work, "clips_per_shard", lambda size, options: 4)
    extract(tiny_config, tmp_path / "store")
    before = files_of(tmp_path / "store")
    (tmp_path / "store/shards/00001.safetensors").unlink()
    assert extract(tiny_config, tmp_path / "store").num_clips == 4
    assert files_of(tmp_path / "store") == before


def test_what_was_made_of_all_shards_is_made_again_with_one_of_them(damaged, tmp_path, videos, monkeypatch):
    """Mended videos are in the store, and no index or list says otherwise, killed in between or not."""
    monkeypatch.setattr(evl.extraction.work, "clips_per_shard", lambda size, options: 12)
    out = tmp_path / "store"
    extract(damaged, out)
    assert sorted(path.name for path in out.glob("shards/*")) == ["00000.safetensors", "00001.safetensors"]
    for name in ("broken, 1.mp4", "broken 2.mp4"):
        shutil.copy(next(videos.rglob("*.mp4")), tmp_path / "videos" / name)
    for number, left in ((0, {"broken 2.mp4"}), (1, set())):
        (out / f"shards/0000{number}.safetensors").unlink()
        with monkeypatch.context() as patch:
            patch.setattr(evl.extraction.extract, "finish", interrupted)  # all shards are there, and no more
            with pytest.raises(KeyboardInterrupt):
                extract(damaged, out)
        assert not (out / "index.parquet").exists()
        result = extract(damaged, out)
        assert {path.rsplit("/", 1)[1] for group in result.damaged.values() for path in group} == left
        assert (out / "damaged.csv").exists() == bool(left)
        store = FeatureStore(out)
        assert [len(split.damaged) for split in store.splits.values()] == [0, len(left)]
        for split in store.splits.values():
            split.read([(video, 0) for video in range(len(split)) if split.num_clips(video)])
    extract(damaged, tmp_path / "whole")
    assert files_of(out) == files_of(tmp_path / "whole")


def interrupted(*_):
    raise KeyboardInterrupt


def test_damaged_files_are_counted_not_the_videos_cut_out_of_them(tiny_config, tmp_path, videos, monkeypatch):
    """1 of 9 files, 3 of 11 videos: as live training counts, at once and of all shards."""
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"broken" * 1000)
    good = [Sample(str(path), path.parent.name) for path in sorted(videos.rglob("*.mp4"))]
    cut = [Sample(str(broken), "dark", float(i), i + 1.0) for i in range(3)]
    write_manifest(tmp_path / "list.csv", [*cut, *good], ["train"] * 11 + ["val"] * 4)
    config = replace(tiny_config, data={"path": str(tmp_path / "list.csv"), "max_damaged_share": 0.12})
    result = extract(config, tmp_path / "store")
    assert (result.num_damaged, result.is_complete) == (3, True)
    strict = replace(config, data={"max_damaged_share": 0.11})
    with pytest.raises(RunError, match="1 of 9 training videos are damaged"):
        extract(strict, tmp_path / "other")
    (tmp_path / "store/index.parquet").unlink()
    with pytest.raises(RunError, match="1 of 9 training videos are damaged"):
        extract(strict, tmp_path / "store")


def test_clips_of_all_processes_are_told(tiny_config, tmp_path, monkeypatch):
    """As torchrun's first process tells them, after the second has done its part."""
    monkeypatch.setattr(evl.extraction.work, "clips_per_shard", lambda size, options: 4)
    second = extract(tiny_config, tmp_path / "store", part=(2, 2)).num_clips
    assert 0 < second < 16

    class Two(World):
        def gather(self, value):
            return [value, second if isinstance(value, int) else value]

        def barrier(self):
            pass

    monkeypatch.setattr(evl.extraction.extract, "join_world", lambda device: nullcontext(Two(0, 2, CPU)))
    result = extract(tiny_config, tmp_path / "store")
    assert (result.num_clips, result.is_complete) == (8 + 4 * 2, True)


def test_only_what_nobody_writes_is_removed(tmp_path):
    """What a killed process left goes, what this one is writing stays, and so does what is not ours."""
    for name in (".a.safetensors.0123abcd.tmp", ".mine.tmp", "mine"):
        (tmp_path / name).write_bytes(b"x")
    with write_atomically(tmp_path / "file") as file:
        file.write(b"whole")
        file.flush()
        code = f"from evl.runtime.files import remove_abandoned; remove_abandoned({str(tmp_path)!r})"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(evl.__file__).parent.parent)
        remove_abandoned(tmp_path)
    remove_abandoned(tmp_path / "nowhere")
    assert {path.name for path in tmp_path.iterdir()} == {".mine.tmp", "mine", "file"}
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_the_estimate_counts_bytes_exactly_and_a_small_disk_is_refused(tiny_config, tmp_path, monkeypatch):
    for options in (StoreOptions(dtype="int8", clips_per_video=2), StoreOptions(form="maps", scale="token")):
        out = tmp_path / options.form
        work = plan_extraction(tiny_config, out, options, device=CPU)
        found = estimate(work)
        assert not out.exists()
        assert found.fits
        assert found.seconds > 0
        result = extract(tiny_config, out, options)
        assert found.num_clips == found.clips_to_do == result.num_clips
        store = FeatureStore(out)
        size = sum(split.read([(video, clip) for video in range(len(split)) for clip in range(split.num_clips(video))])
                   .num_bytes for split in store.splits.values())  # fmt: skip
        assert found.num_bytes == found.bytes_to_write == size
        done = estimate(work)
        assert (done.num_bytes, done.bytes_to_write, done.clips_to_do, done.seconds) == (size, 0, 0, 0.0)
    disk = namedtuple("usage", "total used free")(10**9, 10**9 - 1000, 1000)
    monkeypatch.setattr(evl.extraction.estimate.shutil, "disk_usage", lambda path: disk)
    with pytest.raises(RunError, match=r"0.00 GB are to be written, 0.00 GB are free"):
        extract(tiny_config, tmp_path / "full")
    assert not (tmp_path / "full").exists()
    assert extract(tiny_config, tmp_path / "full", yes=True).is_complete
    assert extract(tiny_config, tmp_path / "full").is_complete  # nothing is to be written


def test_errors_are_for_people(tiny_config, tmp_path):
    for change in ({"data": {"path": None}}, {"data": {"path": str(tmp_path / "no")}},
                   {"backbone": {"name": "nothing"}}, {"model": {"taps": (3, 40)}}):  # fmt: skip
        with pytest.raises(EVLError):
            extract(replace(tiny_config, **change), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_two_processes_do_not_make_the_same_part(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(evl.extraction.work, "clips_per_shard", lambda size, options: 4)
    refused = []

    def beside(report):
        for part in ((1, 2), (1, 1), (2, 3)):
            with pytest.raises(RunError, match=f"store: process {os.getpid()} on .* since .*; to share the work, "):
                extract(tiny_config, tmp_path / "store", part=part)
            refused.append(part)
        with pytest.raises(KeyboardInterrupt):  # the other part may
            extract(tiny_config, tmp_path / "store", part=(2, 2), progress=lambda report: signal.raise_signal(2))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(tiny_config, tmp_path / "store", part=(1, 2), progress=beside)
    assert len(refused) == 3
    assert not list((tmp_path / "store").glob(".*"))
    (tmp_path / "store/.part-1-of-7.evl.lock").touch()  # of a dead process
    assert extract(tiny_config, tmp_path / "store").is_complete
    assert not list((tmp_path / "store").glob(".*"))
