"""Stores with any value or byte changed: a StoreError in one sentence, or features of the shapes that were promised."""

import json
import random

import pytest
import safetensors.torch
from pyarrow import parquet

from evl.errors import StoreError
from evl.store import FeatureStore
from evl.store.index import INDEX
from evl.store.shards import ITEMS, shard_path
from tests.mutations import at_most_one_sentence, bounded, change, torn
from tests.store.helpers import describe, make_store
from tests.store.test_hostile_index import index_with

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    make_store(folder, describe(dtype="int8"), damaged={("train", 1): "no picture"})
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def store(tmp_path, files):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def answers(folder):
    with bounded(), at_most_one_sentence(StoreError):
        for split in FeatureStore(folder).splits.values():
            pairs = [(video, clip) for video in range(len(split)) for clip in range(split.num_clips(video))]
            if pairs:
                read = split.read(pairs)
                assert all(len(one.values) == len(pairs) for one in read.tokens.values())


@pytest.mark.parametrize("seed", range(300))
def test_any_change_of_its_description(store, seed):
    content = json.loads((store / "store.json").read_text())
    change(content, random.Random(seed))
    (store / "store.json").write_text(json.dumps(content))
    answers(store)


@pytest.mark.parametrize("seed", range(300))
def test_any_change_of_its_index(store, seed):
    rng = random.Random(seed)

    def changed(rows):
        row, kind = rng.choice(rows), rng.randrange(4)
        if kind == 0:
            rows.remove(row)
        elif kind == 1:
            rows.insert(rng.randrange(len(rows)), dict(row))
        elif kind == 2:
            rng.shuffle(rows)
        else:
            name = rng.choice(list(row))
            row[name] = rng.choice([other[name] for other in rows] + [None])
            if isinstance(row[name], int):
                row[name] += rng.choice([-1, 1, 2**31 - 1 - row[name]])

    index_with(store, changed)
    answers(store)


@pytest.mark.parametrize("seed", range(300))
def test_any_change_of_what_a_shard_lists(store, seed):
    rng = random.Random(seed)
    path = shard_path(store, rng.randrange(4))
    with safetensors.safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        listed = json.loads(file.metadata()[ITEMS])
    change(listed, rng)
    safetensors.torch.save_file(tensors, path, metadata={ITEMS: json.dumps(listed)})
    answers(store)


@pytest.mark.parametrize("seed", range(600))
def test_any_bytes(store, files, seed):
    rng = random.Random(seed)
    name = rng.choice(sorted(files))
    (store / name).write_bytes(torn(files[name], rng))
    answers(store)


def test_an_unchanged_store_has_these_rows(store):
    assert parquet.read_table(store / INDEX).num_rows == 11
