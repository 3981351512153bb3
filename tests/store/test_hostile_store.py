"""A store that is torn, or lies, is a StoreError in one sentence: never another number, another error, or a crash."""

import contextlib
import json
import os
import random
import socket
from dataclasses import replace

import pyarrow
import pytest
import safetensors.torch
import torch
from pyarrow import parquet

from evl.errors import StoreError
from evl.store import FeatureStore
from evl.store.checksums import checksums
from evl.store.description import shard_ranges
from evl.store.index import INDEX, schema, write_index
from evl.store.shards import ITEMS, shard_path
from evl.store.writing import write_description, write_shard
from tests.store.helpers import describe, make_store, shard_of

EVERY = {"train": [(v, 0) for v in (0, 2, 3, 4)], "val": [(v, c) for v in range(3) for c in range(2)]}


def read_all(folder):
    store = FeatureStore(folder)
    return {name: split.read(EVERY[name]) for name, split in store.splits.items()}


def read_listed(folder):
    """All clips that the index lists."""
    for split in FeatureStore(folder).splits.values():
        split.read([(v, c) for v in range(len(split)) for c in range(split.num_clips(v))])


def refused(folder, reason=None):
    with pytest.raises(StoreError, match=reason) as caught:
        read_all(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert len(message.splitlines()) == 1
    assert len(message) < 700


@pytest.fixture
def store(tmp_path):
    make_store(tmp_path, describe(dtype="int8"), damaged={("train", 1): "no picture"})
    read_all(tmp_path)
    return tmp_path


# shards


def rewritten(folder, number=0, *, tensors=None, listed=None):
    """A shard with its tensors or its metadata changed."""
    path = shard_path(folder, number)
    with safetensors.safe_open(path, "pt") as file:
        content = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        metadata = json.loads(file.metadata()[ITEMS])
    if tensors:
        tensors(content)
    if listed:
        metadata = listed(metadata) or metadata
    safetensors.torch.save_file(content, path, metadata={ITEMS: json.dumps(metadata)})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.pop("tokens.3"), r"'tokens\.3' is not in it"),
        (lambda t: t.pop("tokens.3.scale"), r"'tokens\.3\.scale' is not in it"),
        (lambda t: t.update(other=torch.zeros(3)), "'other' should not be in it"),
        (lambda t: t.update({"tokens.3": t["tokens.3"][:2]}), r"tokens\.3 is I8 \(2, 4, 7, 8\), but should be"),
        (lambda t: t.update({"tokens.3": t["tokens.3"].transpose(1, 2).contiguous()}), "but should be"),
        (lambda t: t.update({"tokens.3": t["tokens.3"].flatten(1)}), "but should be"),
        (lambda t: t.update({"tokens.3": t["tokens.3"].to(torch.uint8)}), "is U8"),
        (lambda t: t.update({"tokens.3": t["tokens.3"].float()}), "is F32"),
        (lambda t: t.update({"tokens.3.scale": t["tokens.3.scale"].double()}), "is F64"),
        (lambda t: t.clear(), "is not in it"),
    ],
)
def test_other_tensors(store, change, reason):
    rewritten(store, tensors=change)
    refused(store, reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.update(fingerprint="0"), "a shard of another store"),
        (lambda m: m.pop("fingerprint"), "a shard of another store"),
        (lambda m: m.pop("items"), "does not list clips"),
        (lambda m: m.update(items=3), "does not list clips"),
        (lambda m: m.update(items=[3]), "does not list clips"),
        (lambda m: m["items"].pop(), "lists other clips"),
        (lambda m: m["items"].reverse(), "lists other clips"),
        (lambda m: m["items"].append(m["items"][-1]), "lists other clips"),
        (lambda m: m["items"][0].update(video=3), "lists other clips"),
        (lambda m: m["items"][0].update(video=0.0), "lists other clips"),
        (lambda m: m["items"][0].update(video=False), "lists other clips"),
        (lambda m: m["items"][0].update(split="val"), "lists other clips"),
        (lambda m: m["items"][0].update(num_valid=10**30), "lists other clips"),
        (lambda m: m["items"][0].update(path=["a"]), "lists other clips"),
        (lambda m: m["items"][0].update(start_seconds=-1), "lists other clips"),
        (lambda m: m["items"][0].update(reason="gone"), "but should be"),
        (lambda m: [3], "does not list clips"),
    ],
)
def test_other_metadata(store, change, reason):
    def listed(metadata):
        changed = change(metadata)
        return changed if changed == [3] else None

    rewritten(store, listed=listed)
    refused(store, reason)


def test_a_shard_in_the_place_of_another(store):
    os.replace(shard_path(store, 0), shard_path(store, 1))
    refused(store, "not finished, 3 of 4 shards")
    shard_path(store, 0).write_bytes(shard_path(store, 1).read_bytes())
    refused(store, "lists other clips than shard")


def test_a_shard_without_metadata(store):
    safetensors.torch.save_file({"tokens.3": torch.zeros(2)}, shard_path(store, 2))
    refused(store, "does not list clips")


def test_torn_shards(store):
    path = shard_path(store, 0)
    whole = path.read_bytes()
    generator = random.Random(0)
    for size in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        refused(store, "damaged")
    path.write_bytes(whole + b"\0")
    refused(store, "damaged")
    for claimed in (0, 1, 2**31, 2**63, 2**64 - 1):
        path.write_bytes(claimed.to_bytes(8, "little") + whole[8:])
        refused(store, "damaged")
    header = int.from_bytes(whole[:8], "little")
    outcomes = set()
    for _ in range(300):  # bytes of the header turned
        torn = bytearray(whole)
        torn[generator.randrange(8 + header)] ^= 1 << generator.randrange(8)
        path.write_bytes(torn)
        try:
            read_all(store)
            outcomes.add("read")  # a path's letter, say
        except StoreError:
            outcomes.add("refused")
    assert "refused" in outcomes
    path.unlink()
    path.mkdir()
    refused(store, "damaged")


def test_offsets_that_point_elsewhere(store):
    path = shard_path(store, 0)
    whole = path.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    for name, offsets in (
        ("tokens.3", [0, 10**15]),
        ("tokens.3", [-8, 0]),
        ("tokens.1", header["tokens.2"]["data_offsets"]),
    ):
        text = json.dumps(header | {name: header[name] | {"data_offsets": offsets}}).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + size :])
        refused(store, "damaged")
    text = json.dumps(header | {"tokens.3": header["tokens.3"] | {"shape": [2**40, 2**40]}}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + size :])
    refused(store, "damaged")


def test_a_shard_that_goes_while_it_is_read(store):
    split = FeatureStore(store).splits["train"]
    before = split.read([(0, 0)]).tokens[3].values.clone()
    shard_path(store, 0).unlink()
    assert torch.equal(split.read([(0, 0)]).tokens[3].values, before)  # it stays mapped
    shard_path(store, 1).unlink()
    with pytest.raises(StoreError, match="missing"):
        split.read([(4, 0)])


# the index


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


@pytest.mark.parametrize("form", ["tokens", "maps"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "float8"])
def test_every_flipped_bit_of_a_clip_is_found_when_it_is_first_read(tmp_path, form, dtype):
    make_store(tmp_path, describe(dtype=dtype, form=form))
    path = shard_path(tmp_path, 0)
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    generator = random.Random(3)
    for place in [start, len(whole) - 1, *(generator.randrange(start, len(whole)) for _ in range(20))]:
        torn = bytearray(whole)
        torn[place] ^= 1 << generator.randrange(8)
        path.write_bytes(torn)
        split = FeatureStore(tmp_path).splits["train"]
        with pytest.raises(
            StoreError, match=r"00000.safetensors: .* of clip 0 of videos/train \d.mp4 (is damaged|has num)"
        ):
            split.read([(video, 0) for video in range(5)])
        found = dict(split.problems())
        assert [path for path, problem in found.items() if problem] == [path]
        split.read([(4, 0)])  # in another shard
    path.write_bytes(whole)
    assert set(dict(FeatureStore(tmp_path).splits["train"].problems()).values()) == {None}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "float8"])
def test_numbers_that_are_not_finite_are_refused_also_with_their_checksum(tmp_path, dtype, number):
    """In values, or in scales where values cannot hold them; the shard's metadata are made to fit."""
    make_store(tmp_path, describe(dtype=dtype))
    name = "tokens.3.scale" if dtype == "int8" or (dtype == "float8" and number != number) else "tokens.3"
    number = float("nan") if dtype == "float8" and name == "tokens.3" else number  # it has no infinity

    def change(tensors):
        tensors[name][2].view(-1)[1] = number

    def listed(metadata):
        with safetensors.safe_open(shard_path(tmp_path, 0), "pt") as file:
            content = {one: file.get_tensor(one).clone() for one in file.keys()}  # noqa: SIM118
        change(content)
        metadata["items"][2]["checksums"] = checksums(content, 2)

    rewritten(tmp_path, tensors=change, listed=listed)
    split = FeatureStore(tmp_path).splits["train"]
    split.read([(0, 0), (1, 0), (3, 0)])
    with pytest.raises(
        StoreError, match=r"00000.*tokens\.3.* of clip 0 of videos/train 2.mp4 has numbers that are not fin"
    ):
        split.read([(2, 0)])


@pytest.mark.parametrize("wrong", [None, [1], [1, 2, 3, 4, "5", 6], [-1] * 6, [2**32] * 6, "x", [1.5] * 6])
def test_checksums_that_are_none(store, wrong):
    rewritten(store, listed=lambda metadata: metadata["items"][0].update(checksums=wrong))
    refused(store, "its metadata")


@pytest.mark.parametrize("name", ["shards/00000.safetensors", "index.parquet", "store.json"])
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
def test_what_is_no_plain_file_is_refused_at_once(store, name, kind, monkeypatch):
    (store / name).unlink()
    if kind == "pipe":
        os.mkfifo(store / name)
    elif kind == "socket":
        monkeypatch.chdir((store / name).parent)  # the paths of sockets are short
        socket.socket(socket.AF_UNIX).bind((store / name).name)
    elif kind == "device":
        (store / name).symlink_to("/dev/zero")
    else:
        (store / name).mkdir()
    refused(store, "not a plain file|not finished")


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


def test_store_json_that_lies(store):
    path = store / "store.json"
    text = path.read_text()
    for name, value, reason in (
        ("format_version", 4, "newer evl"),
        ("config", {"model": {"taps": [2, 3, 6]}}, "a shard of another store"),
        ("config", {"training": {"seed": 8}}, "a shard of another store"),
        ("clips_per_shard", 1, "not finished, 4 of 8 shards"),
        ("clips_per_shard", 5, "a clip in the wrong shard"),
        ("splits", {"train": 5}, "more rows"),
        ("splits", {"train": 10**8}, "not finished"),
        ("splits", {"train": 5, "test": 3}, "its videos are not 0 to 2, each once, in split test"),
        ("class_names", ["left", "right"], "a class 'über'"),
    ):
        content = json.loads(text)
        if name == "config":
            value = content[name] | {section: content[name][section] | fields for section, fields in value.items()}
        path.write_text(json.dumps(content | {name: value}))
        refused(store, reason)
    for content in (b"", b"\xff\xfe", b"nothing", b"[" * 100_000):
        path.write_bytes(content)
        refused(store)
    path.unlink()
    path.mkdir()
    refused(store, "cannot be read")


def test_folders_that_are_no_stores(tmp_path):
    refused(tmp_path, "no store of features here")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "no store of features here")
    refused(tmp_path / "gone", "no store of features here")
