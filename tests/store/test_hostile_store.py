"""A store that is torn, or lies, is a StoreError in one sentence: never another number, another error, or a crash."""

import json
import os
import random
import socket

import pytest
import safetensors.torch
import torch

from evl.errors import StoreError
from evl.runtime.checksums import checksums
from evl.store import FeatureStore
from evl.store.shards import ITEMS, shard_path
from tests.store.helpers import describe, make_store

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


@pytest.fixture(name="store")
def a_store(tmp_path):
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
