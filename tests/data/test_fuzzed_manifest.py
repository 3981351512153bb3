"""Lists of videos with any value or byte changed: a sentence, or samples that can be written and read again."""

import csv
import io
import random

import pyarrow
import pytest
from pyarrow import parquet

from evl.data.manifests.manifest import read_manifest, write_manifest
from evl.errors import DataError, SaveError
from tests.mutations import NUMBERS, TEXTS, at_most_one_sentence, bounded, torn

pytestmark = pytest.mark.slow
COLUMNS = ["path", "label", "start_seconds", "end_seconds", "split", "group"]
ROWS = [[f"videos/{i}.mp4", "ab"[i % 2], i, i + 1.5, ("train", "val", "test")[i % 3], f"g{i}"] for i in range(8)]


def answers(path):
    manifest, is_written, file = None, False, path.with_name("again.csv")
    with bounded():
        with at_most_one_sentence(DataError):
            manifest = read_manifest(path)
        if manifest is None:
            return
        samples = [sample for group in manifest.splits.values() for sample in group]
        splits = [split for split, group in manifest.splits.items() for _ in group]
        with at_most_one_sentence(DataError, SaveError):
            write_manifest(file, samples, splits)
            is_written = True
        if is_written:
            again = read_manifest(file, class_names=manifest.class_names).splits
            assert again == {name: group for name, group in manifest.splits.items() if group}


def odd_table(rng):
    rows = [list(row) for row in ROWS]
    names = list(COLUMNS)
    for _ in range(rng.randint(1, 4)):
        if rng.random() < 0.1:
            names[rng.randrange(len(names))] = rng.choice([*TEXTS, "path", "label", "video"])
        else:
            rng.choice(rows)[rng.randrange(len(names))] = rng.choice([*NUMBERS, *TEXTS, None])
    return names, rows


@pytest.mark.parametrize("seed", range(400))
def test_any_value_of_a_table(tmp_path, seed):
    rng = random.Random(seed)
    into = io.StringIO()
    writer = csv.writer(into, delimiter=rng.choice(",;\t "), quoting=rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    names, rows = odd_table(rng)
    writer.writerows([names, *rows] if rng.random() < 0.8 else rows)
    encoding = rng.choice(["utf-8", "utf-8-sig", "utf-16", "latin-1"])
    path = tmp_path / f"list{rng.choice(['.csv', '.tsv', '.txt'])}"
    path.write_bytes(into.getvalue().encode(encoding, "replace"))
    answers(path)


@pytest.mark.parametrize("seed", range(200))
def test_any_value_of_a_parquet_table(tmp_path, seed):
    rng = random.Random(seed)
    names, rows = odd_table(rng)
    columns = {}
    for name, values in zip(names, zip(*rows, strict=True), strict=True):
        try:
            columns[name.encode("utf-8", "replace").decode()] = pyarrow.array(values)
        except (pyarrow.ArrowException, OverflowError, TypeError, UnicodeEncodeError):
            texts = [None if one is None else str(one).encode("utf-8", "replace").decode() for one in values]
            columns[name.encode("utf-8", "replace").decode()] = pyarrow.array(texts)
    parquet.write_table(pyarrow.table(columns), tmp_path / "list.parquet")
    answers(tmp_path / "list.parquet")


@pytest.mark.parametrize("seed", range(300))
def test_any_bytes(tmp_path, seed):
    rng, into = random.Random(seed), io.StringIO()
    csv.writer(into).writerows([COLUMNS, *ROWS])
    content = into.getvalue().encode()
    path = tmp_path / rng.choice(["list.csv", "list.txt", "list.parquet"])
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.table(dict(zip(COLUMNS, zip(*ROWS, strict=True), strict=True))), path)
        content = path.read_bytes()
    path.write_bytes(torn(content, rng))
    answers(path)
