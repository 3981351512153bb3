"""A store whose index is torn, or contradicts its shards, is refused in one sentence."""

import contextlib
import random
from dataclasses import replace

import pyarrow
import pytest
from pyarrow import parquet

from evl.errors import StoreError
from evl.store import FeatureStore
from evl.store.description import shard_ranges
from evl.store.index import INDEX, schema, write_index
from evl.store.writing import write_description, write_shard
from tests.store.helpers import describe, shard_of
from tests.store.test_hostile_store import EVERY, a_store, read_all, read_listed, refused, rewritten  # noqa: F401  (a fixture)


def index_with(folder, change):
    table = parquet.read_table(folder / INDEX)
    rows = table.to_pylist()
    change(rows)
    wider = pyarrow.schema([(f.name, pyarrow.int64() if f.type == pyarrow.int32() else f.type) for f in schema()])
    try:
        table = pyarrow.Table.from_pylist(rows, schema=schema())
    except (pyarrow.ArrowException, OverflowError):  # a number that has no place there
        table = pyarrow.Table.from_pylist(rows, schema=wider)
    parquet.write_table(table, folder / INDEX)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r: r[0].update(shard=1), "a clip in the wrong shard"),
        (lambda r: r[0].update(shard=-1), "a clip in the wrong shard"),
        (lambda r: r[0].update(shard=10**12), "other columns"),
        (lambda r: r[0].update(row=-1), "rows that are not in order"),
        (lambda r: r[2].update(row=0), "rows that are not in order"),
        (lambda r: r[3].update(row=3), r"is another clip than index.parquet lists \(clip 0 of video 3\)"),
        (lambda r: r[3].update(row=2**31 - 1), "is another clip"),
        (lambda r: r[0].update(shard=None), "shard is missing"),
        (lambda r: r[0].update(path=None), "a video without a path"),
        (lambda r: r[0].update(reason="x"), "for a damaged video|clips of a damaged video"),
        (lambda r: r[1].update(clip=0), "for a damaged video|clips of a damaged video"),
        (lambda r: r[1].update(reason=None), "clip is missing"),
        (lambda r: r[0].update(video=1), "its videos are not 0 to 4"),
        (lambda r: r[0].update(video=-1), "its videos are not 0 to 4"),
        (lambda r: r.insert(1, r[0]), "more rows"),
        (lambda r: r[1].update(r[0]), "its videos are not 0 to 4"),
        (lambda r: r[6].update(r[5]), "clips that are not 0, 1, 2"),
        (lambda r: r.insert(0, r.pop(2)), "its videos are not 0 to 4"),
        (lambda r: r.pop(0), "its videos are not 0 to 4"),
        (lambda r: r.pop(4), "its videos are not 0 to 4"),
        (lambda r: r.reverse(), "rows of its splits are not in order"),
        (lambda r: r[0].update(clip=1), "clips that are not 0, 1, 2"),
        (lambda r: r[5].update(clip=1), "clips that are not 0, 1, 2"),
        (lambda r: r[0].update(num_valid=5), "more frames than a clip has"),
        (lambda r: r[0].update(num_valid=-1), "more frames than a clip has"),
        (lambda r: r[0].update(label="up"), "a class 'up' that"),
        (lambda r: r[0].update(split="test"), "not in order|its videos are not"),
        (lambda r: r[-1].update(split="../val"), "splits that the store does not have"),
        (lambda r: r[0].update(start_seconds=float("nan")), "a time that is negative or not finite"),
        (lambda r: r.extend(r * 9), "more rows than it can have"),
        (lambda r: r.clear(), "more rows than it can have|other columns"),
    ],
)
def test_an_index_that_lies(store, change, reason):
    index_with(store, change)
    refused(store, reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r: r[0].update(label=r[2]["label"]), "the label of video 0 of train is 'über' there, and 'left' in"),
        (lambda r: [a.update(label=b) for a, b in zip(r, [x["label"] for x in r][::-1], strict=True)], "the label of"),
        (lambda r: r[0].update(num_valid=0), "num_valid of clip 0 of video 0 of train is 0 there, and 4 in"),
        (lambda r: r[6].update(num_valid=3), "num_valid of clip 1 of video 0 of val is 3 there, and 4 in"),
        (lambda r: r[2].update(path=r[0]["path"]), "the path of video 2"),
        (lambda r: r[3].update(start_seconds=0.25), "the start_seconds of video 3 of train is 0.25 there, and 1.5"),
        (lambda r: r[3].update(end_seconds=None), "the end_seconds of video 3"),
        (lambda r: r.pop(6), "the number of clips of video 0 of val is 1 there, and 2 in"),
        (lambda r: r[0].update(reason="x", clip=None, num_valid=None, shard=None, row=None), "the damage of video 0"),
        (
            lambda r: [x.update(reason="x", clip=None, num_valid=None, shard=None, row=None) for x in r[:5]],
            "the damage",
        ),
        (lambda r: r[1].update(reason=None, clip=0, num_valid=4, shard=0, row=1), "rows that are not|the damage of"),
    ],
)
def test_an_index_that_contradicts_its_shards(store, change, reason):
    """The shards' own word counts, also for videos that nothing would be read of."""
    index_with(store, change)
    with pytest.raises(StoreError, match=reason):
        read_listed(store)
    (store / INDEX).unlink()
    write_index(store)
    read_all(store)


def test_damage_may_be_in_another_shard_of_the_video(tmp_path):
    """Video 0 has five clips in two shards; one of them could not be made."""
    description = describe(splits={"train": 2}, clips_per_video=5)
    write_description(tmp_path, description)
    for covers in shard_ranges(description):
        items, tokens, maps = shard_of(description, covers, {})
        if covers.number == 1:
            items[0] = replace(items[0], num_valid=0, reason="torn")
            tokens = {block: packed[1:] for block, packed in tokens.items()}
        write_shard(tmp_path, description, covers.number, items, tokens, maps)
    write_index(tmp_path)
    split = FeatureStore(tmp_path).splits["train"]
    assert split.damaged == {0: "torn"}
    assert len(split.read([(1, clip) for clip in range(5)])) == 5
    assert [problem for _, problem in split.problems()] == [None] * 3
    index_with(tmp_path, lambda r: r[0].update(reason="torn", video=0))
    assert FeatureStore(tmp_path).splits["train"].damaged == {0: "torn"}


def test_duplicate_rows_of_views(store):
    def change(rows):
        rows[6] = rows[5] | {"clip": 1}  # the second view of a video has the first one's row

    index_with(store, change)
    refused(store, "rows that are not in order")


def test_torn_indices(store):
    path = store / INDEX
    whole = path.read_bytes()
    for size in (0, 4, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        refused(store, "damaged|not the index")
    generator = random.Random(1)
    for _ in range(100):
        torn = bytearray(whole)
        torn[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        path.write_bytes(torn)
        with contextlib.suppress(StoreError):
            FeatureStore(store)
    path.unlink()
    refused(store, "not finished, 4 of 4 shards")


def test_other_columns(store):
    table = parquet.read_table(store / INDEX)
    for other in (table.drop_columns(["row"]), table.append_column("more", table["row"]), table.rename_columns(
        ["" if name == "split" else name for name in table.column_names])):  # fmt: skip
        parquet.write_table(other, store / INDEX)
        refused(store, "other columns")


# the description
