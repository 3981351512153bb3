"""Stores are computed again and compared: equal ones pass in every type, changed ones do not."""

import numpy as np
import pytest
import safetensors.torch
import torch

import evl.extraction.work
from evl.config import replace
from evl.errors import StoreError
from evl.extraction.extract import extract
from evl.extraction.verify import difference, verify_store
from evl.store import FeatureStore, Packed, StoreOptions
from evl.store.packing import pack_tokens
from tests.helpers import write_video

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("form", ["tokens", "maps"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "float8"])
def test_a_store_equals_what_is_computed_again(tiny_config, tmp_path, form, dtype):
    extract(tiny_config, tmp_path / "store", StoreOptions(form=form, dtype=dtype, scale="token"))
    results = verify_store(tmp_path / "store", sample=6, num_workers=0)
    assert len(results.clips) == 6
    assert results.different == ()


def test_damaged_projections_are_found_and_made_again(tiny_config, tmp_path):
    extract(tiny_config, tmp_path / "store", StoreOptions())
    path = tmp_path / "store/projections.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert list(verify_store(tmp_path / "store", sample=0, num_workers=0).damaged_shards) == [str(path)]
    path.unlink()
    extract(tiny_config, tmp_path / "store", StoreOptions())
    assert path.read_bytes() == whole
    assert not verify_store(tmp_path / "store", sample=0, num_workers=0).damaged_shards


def test_every_clip_may_be_drawn_and_each_once(tiny_config, tmp_path):
    extract(replace(tiny_config, evaluation={"num_crops": 3}), tmp_path / "store", StoreOptions(clips_per_video=2))
    results = verify_store(tmp_path / "store", sample=10**6, num_workers=0)
    assert len(results.clips) == 8 * 2 + 4 * 6
    assert results.different == ()
    assert len({(one.split, one.path, one.clip) for one in results.clips}) == len(results.clips)
    few = [verify_store(tmp_path / "store", sample=4, seed=seed, num_workers=0).clips for seed in (1, 2)]
    assert few[0] != few[1]


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "float8"])
def test_one_number_of_one_clip_is_found(tiny_config, tmp_path, dtype):
    extract(tiny_config, tmp_path / "store", StoreOptions(dtype=dtype))
    path = tmp_path / "store/shards/00001.safetensors"
    tensors = safetensors.torch.load_file(path)
    name = sorted(name for name in tensors if not name.endswith("scale"))[0]
    chosen = tensors[name][3].view(-1)
    largest = int(chosen.float().abs().argmax())
    chosen[largest] = (chosen[largest].float() * 0.5).to(chosen.dtype)
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    safetensors.torch.save_file(tensors, path, metadata)
    result = verify_store(tmp_path / "store", sample=1000, num_workers=0)
    wrong = result.different
    assert list(result.damaged_shards) == [str(path)]
    assert [(one.split, one.clip) for one in wrong] == [("val", 1)]  # the second view of the second video
    assert wrong[0].difference > 2


def test_other_videos_are_found(tiny_config, tmp_path, videos):
    folder = tmp_path / "videos"
    for path in sorted(videos.rglob("*.mp4")):
        target = folder / path.relative_to(videos)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    config = replace(tiny_config, data={"path": str(folder), "val_path": str(folder)})
    extract(config, tmp_path / "store", StoreOptions(dtype="int8"))
    assert verify_store(tmp_path / "store", sample=100, num_workers=0).different == ()
    frames = np.random.default_rng(3).normal(120, 20, (12, 40, 56, 3)).clip(0, 255).astype(np.uint8)
    write_video(folder / "dark/0 video.mp4", frames)
    (folder / "bright/0 video.mp4").unlink()
    results = verify_store(tmp_path / "store", sample=100, num_workers=0).different
    assert {one.path.rsplit("/", 2)[1] for one in results} == {"bright", "dark"}
    assert len(results) == 2 * (1 + 2)
    gone = [one for one in results if "bright" in one.path]
    assert all("no such file" in one.problem for one in gone)
    assert all(one.problem is None and one.difference > 2 for one in results if one not in gone)


def test_what_cannot_be_made_again_is_told(tiny_config, tmp_path, monkeypatch):
    with pytest.raises(StoreError, match="no store of features here"):
        verify_store(tmp_path / "nothing")
    monkeypatch.setattr(evl.extraction.work, "clips_per_shard", lambda size, options: 4)
    extract(tiny_config, tmp_path / "store", part=(1, 2))
    with pytest.raises(StoreError, match="not finished"):
        verify_store(tmp_path / "store")
    extract(tiny_config, tmp_path / "store", part=(2, 2))
    assert len(verify_store(tmp_path / "store", num_workers=0).clips) == 16
    text = (tmp_path / "store/store.json").read_text()
    weights = FeatureStore(tmp_path / "store").description.backbone_hash
    (tmp_path / "store/store.json").write_text(text.replace(weights, "0" * 64))
    with pytest.raises(StoreError, match=f"cannot be made again: backbone_hash is {weights} now and 0000"):
        verify_store(tmp_path / "store")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "float8"])
@pytest.mark.parametrize("scale", ["channel", "token"])
def test_rounding_is_allowed_and_no_more(dtype, scale):
    generator = torch.Generator().manual_seed(torch.seed() % 2**31)
    tokens = torch.randn(1, 3, 5, 16, generator=generator) * 10 ** torch.empty(1, 1, 1, 16).uniform_(-2, 1)
    near = tokens + 5e-5 * tokens.abs().max() * torch.empty_like(tokens).uniform_(-1, 1)
    packed = [pack_tokens(one, dtype, scale) for one in (tokens, near)]
    assert difference(*packed, dtype, "fp32") <= 1
    far = pack_tokens(tokens.flip(1), dtype, scale)
    assert difference(packed[0], far, dtype, "fp32") > 2
    zeros = Packed(torch.zeros(1, 3, 5, 16))
    assert difference(zeros, zeros, "float32", "fp32") == 0
    assert difference(zeros, Packed(torch.ones(1, 3, 5, 16)), "float32", "fp32") == float("inf")
