"""What is read of a store is what was written to it, row by row, block by block, frame by frame."""

import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from evl.config import ClipConfig
from evl.errors import SaveError, StoreError
from evl.store import FeatureStore, StoredClips
from evl.store.description import bytes_per_clip, clips_per_shard, shard_range, shard_ranges
from evl.store.index import write_index
from evl.store.packing import pack_maps, pack_tokens
from evl.store.shards import missing_shards, open_shard
from evl.store.store import drawn_frames
from evl.store.writing import ShardItem, write_description, write_shard
from evl.types import Sample
from tests.store.helpers import CLASSES, describe, features_of, make_store, samples_of, shard_of

KINDS = [("tokens", "float32"), ("tokens", "bfloat16"), ("tokens", "int8"), ("maps", "float16"), ("maps", "float8")]


def assert_same(packed, expected):
    """The very numbers, packed."""
    assert packed.values.dtype == expected.values.dtype
    assert torch.equal(packed.values.contiguous().view(torch.uint8), expected.values.contiguous().view(torch.uint8))
    assert (packed.scale is None) == (expected.scale is None)
    assert packed.scale is None or torch.equal(packed.scale, expected.scale)


def packed_clip(description, split, video, clip, frames=None):
    options = description.options
    tokens, maps = features_of(description, split, video, clip)
    tokens = {block: pack_tokens(x[None], options.dtype, options.scale) for block, x in tokens.items()}
    return tokens, {block: pack_maps(x[None], options.dtype) for block, x in maps.items()}


@pytest.mark.parametrize("scale", ["channel", "token"])
@pytest.mark.parametrize(("form", "dtype"), KINDS)
def test_rows_come_back(tmp_path, form, dtype, scale):
    damaged = {("train", 1): "no picture", ("val", 2): "too short"}
    description = make_store(
        tmp_path, describe(form=form, dtype=dtype, scale=scale, clips_per_video=3), damaged=damaged
    )
    store = FeatureStore(tmp_path)
    assert store.description == description
    assert store.is_complete
    assert store.class_names == CLASSES
    assert list(store.splits) == ["train", "val"]
    for name, split in store.splits.items():
        clips = description.clips_per_video(name)
        assert split.samples == samples_of(name, len(split))
        assert split.labels == tuple(CLASSES.index(sample.label) for sample in split.samples)
        assert split.damaged == {video: reason for (part, video), reason in damaged.items() if part == name}
        pairs = [(v, c) for v in range(len(split)) if v not in split.damaged for c in range(clips)]
        assert [split.num_clips(v) for v in range(len(split))] == [
            0 if v in split.damaged else clips for v in range(len(split))
        ]
        assert all(split.num_valid(v, c) == 4 - v % 2 for v, c in pairs)
        pairs = [pairs[i] for i in torch.randperm(len(pairs))] + pairs[:1]
        for _ in range(2):
            read = split.read(pairs)
            assert len(read) == len(pairs)
            assert read.num_bytes == len(pairs) * bytes_per_clip(
                description.spec, description.taps, description.options, 4
            )
            for row, (video, clip) in enumerate(pairs):
                tokens, maps = packed_clip(description, name, video, clip)
                assert (set(read.tokens), set(read.maps)) == (set(tokens), set(maps))
                for block in tokens:
                    assert_same(read.tokens[block][row : row + 1], tokens[block])
                for block in maps:
                    assert_same(read.maps[block][row : row + 1], maps[block])


def test_a_clip_that_is_not_there_is_a_key_error(tmp_path):
    make_store(tmp_path, damaged={("train", 1): "no picture"})
    split = FeatureStore(tmp_path).splits["train"]
    for pair in ((1, 0), (0, 1), (5, 0), (-1, 0), (0, -1)):
        with pytest.raises(KeyError, match="is not stored"):
            split.read([(0, 0), pair])
        with pytest.raises(KeyError, match="is not stored"):
            split.num_valid(*pair)
    with pytest.raises(ValueError, match="no clips"):
        split.read([])


@pytest.mark.parametrize("form", ["tokens", "maps"])
def test_only_the_blocks_asked_for(tmp_path, form):
    make_store(tmp_path, describe(form=form))  # blocks 2, 3, 5
    split = FeatureStore(tmp_path).splits["train"]
    some, whole = split.read([(2, 0)], blocks=[3, 5]), split.read([(2, 0)])
    assert sorted(some.tokens) == ([2, 3, 4, 5] if form == "tokens" else [3, 5])
    assert sorted(some.maps) == ([] if form == "tokens" else [3, 5])
    for block, packed in some.tokens.items():
        assert_same(packed, whole.tokens[block])
    tokens = split.read([(2, 0)], blocks=[3, 5], needs_maps=False)
    assert (sorted(tokens.tokens), sorted(tokens.maps)) == ([3, 5], [])
    if form == "tokens":  # what enters a tapped block is there, but not its own neighbor maps
        start = split.read([(2, 0)], blocks=[1, 2])
        assert sorted(start.tokens) == [1, 2]
        assert_same(start.tokens[1], whole.tokens[1])
    for blocks in ([0] if form == "tokens" else [4], [], [2, 6]):
        with pytest.raises(KeyError, match="the store has"):
            split.read([(2, 0)], blocks=blocks)


@pytest.mark.parametrize("scale", ["channel", "token"])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("form", ["tokens", "maps"])
def test_frames_of_a_longer_run(tmp_path, form, dtype, scale):
    make_store(tmp_path, describe(form=form, dtype=dtype, scale=scale, frames=7, num_frames=3))
    store = FeatureStore(tmp_path)
    split = store.splits["train"]
    whole = split.read([(4, 0), (0, 0)])
    some = split.read([(4, 0), (0, 0)], frames=[[2, 3, 4], [4, 5, 6]])
    for row, start in ((0, 2), (1, 4)):
        for block, packed in some.tokens.items():
            full = whole.tokens[block].unpack()[row, start : start + 3]
            assert packed.values.shape[1] == 3
            assert torch.equal(packed.unpack()[row], full)
        for block, packed in some.maps.items():
            full = whole.maps[block].unpack()[row, start : start + 3].clone()
            assert full[0, :, :, :, 0].any() or start == 0
            full[0, :, :, :, 0], full[-1, :, :, :, 1] = 0, 0
            assert torch.equal(packed.unpack()[row], full)
    assert next(iter(store.splits["val"].read([(0, 1)]).tokens.values())).values.shape[1] == 3
    apart = [[0, 2, 6], [1, 3, 4]]
    if form == "tokens":
        read = split.read([(4, 0), (0, 0)], frames=apart)
        for block, packed in read.tokens.items():
            for row in range(2):
                assert torch.equal(packed.unpack()[row], whole.tokens[block].unpack()[row, apart[row]])
    else:
        with pytest.raises(ValueError, match="consecutive"):
            split.read([(4, 0), (0, 0)], frames=apart)
    for bad in ([[0, 1, 2]], [[5, 6, 7]] * 2, [[-1, 0, 1]] * 2, [[], []], [[0], [0, 1]], [[10**30]] * 2):
        with pytest.raises(ValueError, match="frames must be"):
            split.read([(4, 0), (0, 0)], frames=bad)


def test_memory_is_its_own_unless_it_is_lent(tmp_path):
    make_store(tmp_path, describe(dtype="int8"))
    split = FeatureStore(tmp_path).splits["train"]
    first, second = split.read([(0, 0), (1, 0)]), split.read([(0, 0), (1, 0)])
    kept = first.tokens[2].unpack()
    for packed in second.tokens.values():
        packed.values.zero_()
    assert torch.equal(first.tokens[2].unpack(), kept)
    assert torch.equal(split.read([(0, 0), (1, 0)]).tokens[2].unpack(), kept)
    again = split.read([(3, 0), (0, 0)], out=first)
    assert again.tokens[2].values.data_ptr() == first.tokens[2].values.data_ptr()
    assert_same(again.tokens[2], split.read([(3, 0), (0, 0)]).tokens[2])
    fewer, more = split.read([(4, 0)], out=first), split.read([(0, 0), (1, 0), (2, 0)], out=first)
    assert fewer.tokens[2].values.data_ptr() == first.tokens[2].values.data_ptr()
    assert more.tokens[2].values.data_ptr() != first.tokens[2].values.data_ptr()
    assert torch.equal(more.tokens[2].unpack()[:2], kept)


def test_clips_are_taken_and_moved_together(tmp_path):
    make_store(tmp_path, describe(form="maps", dtype="int8"))
    clips = FeatureStore(tmp_path).splits["train"].read([(v, 0) for v in range(5)])
    part = clips[1:3].to("cpu")
    assert isinstance(part, StoredClips)
    assert len(part) == 2
    assert_same(part.maps[5], clips.maps[5][1:3])
    assert_same(clips[torch.tensor([4, 0])].tokens[3], clips.tokens[3][torch.tensor([4, 0])])


def test_read_by_workers_and_threads(tmp_path):
    make_store(tmp_path, describe(splits={"train": 9}, clips_per_shard=1))
    store = FeatureStore(tmp_path)
    expected = [store.splits["train"].read([(v, 0)]).tokens[3].values.clone() for v in range(9)]
    copy = pickle.loads(pickle.dumps(store))  # as a DataLoader's worker gets it
    assert torch.equal(copy.splits["train"].read([(4, 0)]).tokens[3].values, expected[4])
    split = pickle.loads(pickle.dumps(store.splits["train"]))
    split._shards.most = 2  # so that shards are let go while others read
    wrong = []

    def reads(seed):
        for video in np.random.default_rng(seed).integers(9, size=100):
            if not torch.equal(split.read([(int(video), 0)]).tokens[3].values, expected[video]):
                wrong.append(video)

    threads = [threading.Thread(target=reads, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(split._shards._open) == 2


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_the_same_bytes_whoever_writes_in_whatever_order(tmp_path):
    description = describe(form="maps", dtype="int8", clips_per_video=2)
    damaged = {("train", 1): "no picture", ("val", 0): "x"}
    make_store(tmp_path / "a", description, damaged=damaged)
    make_store(tmp_path / "b", description, damaged=damaged, backwards=True)
    first = files_of(tmp_path / "a")
    assert sorted(first)[:2] == ["index.parquet", "shards/00000.safetensors"]
    assert first == files_of(tmp_path / "b")
    write_index(tmp_path / "a")
    assert files_of(tmp_path / "a") == first


@pytest.mark.slow
def test_the_same_bytes_with_another_hash_seed(tmp_path):
    make_store(
        tmp_path / "a", describe(form="maps", dtype="int8", clips_per_video=2),
        damaged={("train", 1): "no picture", ("val", 0): "x"},
    )  # fmt: skip
    program = (
        "import sys; from tests.store.helpers import describe, make_store\n"
        "make_store(sys.argv[1], describe(form='maps', dtype='int8', clips_per_video=2),"
        " damaged={('train', 1): 'no picture', ('val', 0): 'x'})"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program, tmp_path / "c"], check=True, cwd=root)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "c")


def test_a_store_is_gone_on_with_only_as_it_was_begun(tmp_path):
    description = describe(dtype="int8")
    write_description(tmp_path, description)
    assert missing_shards(tmp_path, description) == list(range(len(shard_ranges(description))))
    with pytest.raises(StoreError, match="not finished, 0 of 4 shards"):
        FeatureStore(tmp_path)
    assert FeatureStore(tmp_path, unfinished=True).description == description
    assert not FeatureStore(tmp_path, unfinished=True).is_complete
    with pytest.raises(StoreError, match="4 shards are missing, the first is shard 0"):
        write_index(tmp_path)
    covers = shard_range(description, 1)
    write_shard(tmp_path, description, 1, *shard_of(description, covers, {}))
    assert missing_shards(tmp_path, description) == [0, 2, 3]
    write_description(tmp_path, description)
    with pytest.raises(StoreError, match=r"options.dtype is float16 now and int8 in the store"):
        write_description(tmp_path, describe())
    with pytest.raises(StoreError, match="splits"):
        write_description(tmp_path, describe(dtype="int8", splits={"train": 6, "val": 3}))
    with pytest.raises(StoreError, match="no store of features here"):
        FeatureStore(tmp_path / "elsewhere")


def test_a_shard_holds_what_it_should_or_is_not_written(tmp_path):
    description = describe()
    items, tokens, maps = shard_of(description, shard_range(description, 0), {})
    wrong = [
        (items[:-1], tokens, maps),
        (items[::-1], tokens, maps),
        (items, {**tokens, 6: tokens[5]}, maps),
        (items, {block: packed[1:] for block, packed in tokens.items()}, maps),
        (items, {block: pack_tokens(packed.values, "float32") for block, packed in tokens.items()}, maps),
        (items, {}, {}),
        ([*items[:-1], ShardItem(3, 0, items[3].sample, reason="gone")], tokens, maps),
    ]
    for parts in wrong:
        with pytest.raises(ValueError, match="shard 0"):
            write_shard(tmp_path, description, 0, *parts)
    assert not list(tmp_path.iterdir())
    (tmp_path / "shards").write_text("a file where a folder should be")
    with pytest.raises(SaveError):
        write_shard(tmp_path, description, 0, items, tokens, maps)


def test_a_video_of_which_one_clip_is_damaged_is_damaged_as_a_whole(tmp_path):
    description = describe(splits={"train": 3}, clips_per_video=2, clips_per_shard=3)
    write_description(tmp_path, description)
    for covers in shard_ranges(description):  # video 1 lies in two shards
        items, tokens, _ = shard_of(description, covers, {})
        gone = [(item.video, item.clip) == (1, 1) for item in items]
        items = [
            ShardItem(1, 1, items[0].sample, reason="torn") if bad else item
            for item, bad in zip(items, gone, strict=True)
        ]
        keep = torch.tensor([i for i, bad in enumerate(gone) if not bad])
        write_shard(tmp_path, description, covers.number, items, {block: one[keep] for block, one in tokens.items()})
    write_index(tmp_path)
    split = FeatureStore(tmp_path).splits["train"]
    assert split.damaged == {1: "torn"}
    assert [split.num_clips(video) for video in range(3)] == [2, 0, 2]
    read = split.read([(2, 1), (2, 0), (0, 1)])
    for row, (video, clip) in enumerate([(2, 1), (2, 0), (0, 1)]):
        assert_same(read.tokens[4][row : row + 1], packed_clip(description, "train", video, clip)[0][4])


def test_a_shard_of_damaged_videos_alone(tmp_path):
    description = describe(splits={"train": 3}, clips_per_shard=1)
    make_store(tmp_path, description, damaged={("train", 1): "no picture"})
    assert open_shard(tmp_path, description, shard_range(description, 1)).num_rows == 0
    assert FeatureStore(tmp_path).splits["train"].damaged == {1: "no picture"}
    make_store(tmp_path / "none", description, damaged={("train", v): "no picture" for v in range(3)})
    split = FeatureStore(tmp_path / "none").splits["train"]
    assert len(split) == len(split.damaged) == 3


def test_paths_that_are_no_text(tmp_path):
    description = describe(splits={"train": 1})
    write_description(tmp_path, description)
    _, tokens, maps = shard_of(description, shard_range(description, 0), {})

    write_shard(tmp_path, description, 0, [ShardItem(0, 0, Sample("a\udce9.mp4", "über"), 4)], tokens, maps)
    write_index(tmp_path)
    assert FeatureStore(tmp_path).splits["train"].samples == (Sample("a\\udce9.mp4", "über"),)


def test_shards_cover_every_item_once():
    for most in (1, 2, 4, 7, 100):
        description = describe(splits={"train": 5, "val": 3, "test": 4}, clips_per_video=3, clips_per_shard=most)
        ranges = shard_ranges(description)
        assert [covers.number for covers in ranges] == list(range(len(ranges)))
        for split in ("train", "val", "test"):
            pairs = [pair for covers in ranges if covers.split == split for pair in covers.pairs]
            clips = description.clips_per_video(split)
            assert pairs == [(v, c) for v in range(description.splits[split]) for c in range(clips)]
        for covers in ranges:
            if covers.split != "train":  # whole videos
                assert covers.pairs[0][1] == 0
                assert covers.pairs[-1][1] == 1
            assert covers.count <= max(most, 2)
        with pytest.raises(IndexError):
            shard_range(description, len(ranges))


def test_shards_are_as_large_as_was_asked():
    description = describe()
    assert clips_per_shard(1_000_000, description.options) == 128
    assert clips_per_shard(12_103_680, description.options) == 10
    assert clips_per_shard(10**12, description.options) == 1


def test_drawn_frames():
    draws = [drawn_frames(32, 20, 8, "dense", seed=1, epoch=e, video=3) for e in range(300)]
    assert all(frames == list(range(frames[0], frames[0] + 8)) for frames in draws)
    assert {frames[0] for frames in draws} == set(range(13))
    assert draws[5] == drawn_frames(32, 20, 8, "dense", seed=1, epoch=5, video=3)
    assert drawn_frames(32, 5, 8, "dense", seed=1, epoch=5, video=3) == list(range(8))
    draws = [drawn_frames(12, 12, 4, "segment", seed=1, epoch=e, video=3) for e in range(200)]
    for group in range(4):
        assert {frames[group] for frames in draws} == {3 * group, 3 * group + 1, 3 * group + 2}
    for wrong in ((4, 4, 8, "dense"), (10, 10, 4, "segment")):
        with pytest.raises(ValueError, match="cannot be drawn"):
            drawn_frames(*wrong, seed=1, epoch=0, video=0)


def test_segment_sampling_reads_one_frame_of_each_group(tmp_path):
    clip = ClipConfig(num_frames=3, sampling="segment")
    make_store(tmp_path, describe(frames=6, clip=clip))
    split = FeatureStore(tmp_path).splits["train"]
    frames = drawn_frames(6, 6, 3, "segment", seed=0, epoch=1, video=2)
    read, whole = split.read([(2, 0)], frames=[frames]), split.read([(2, 0)])
    assert torch.equal(read.tokens[5].values[0], whole.tokens[5].values[0, frames])


def test_a_store_may_be_moved(tmp_path):
    make_store(tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert len(FeatureStore(tmp_path / "b").splits["val"].read([(0, 0), (1, 1)])) == 2
