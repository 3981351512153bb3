"""docs/store.md: its example reads a store without evl, and its numbers are those that the code computes."""

import re
from pathlib import Path

import pytest
import torch

from evl.store import FeatureStore, StoreOptions
from evl.store.description import bytes_per_clip
from evl.types import BackboneSpec
from tests.store.helpers import describe, make_store

PAGE = (Path(__file__).parents[2] / "docs" / "store.md").read_text(encoding="utf-8")
B16 = BackboneSpec("b16", 768, 12, 12, 64, (14, 14), 1, (224, 224), (16, 16))


@pytest.mark.parametrize(("dtype", "scale"), [("float16", "channel"), ("int8", "channel"), ("float8", "token")])
def test_the_example_reads_a_store(tmp_path, dtype, scale):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    assert set(re.findall(r"^import (\w+)", code, re.M)) == {"pyarrow", "safetensors", "torch"}
    assert len(code.splitlines()) <= 16
    make_store(tmp_path, describe(dtype=dtype, scale=scale), damaged={("train", 1): "no picture"})
    names = {}
    exec(code, names)
    splits = FeatureStore(tmp_path).splits
    for split, video, clip in (("train", 0, 0), ("train", 3, 0), ("val", 2, 1)):
        expected = splits[split].read([(video, clip)]).tokens[4].unpack()[0]
        assert torch.equal(names["read_clip"](tmp_path, split, video, clip, 4), expected)


@pytest.mark.parametrize("form", ["tokens", "maps"])
def test_bytes_on_the_page(form):
    (row,) = re.findall(rf"^\| `{form}` \|(( [\d,]+ \|){{4}})$", PAGE, re.M)
    found = [int(cell.replace(",", "")) for cell in row[0].strip(" |").split("|")]
    options = [("float32", "channel"), ("float16", "channel"), ("int8", "channel"), ("float8", "token")]
    assert found == [bytes_per_clip(B16, (9, 10, 11, 12), StoreOptions(form, *one), 8) for one in options]
    assert "29,048,832" in PAGE
    assert 3 * 4 * 8 * 197 * 768 * 2 == 29_048_832
