"""No file that is loaded runs code, or takes more memory or time than its size warrants. Made files, all refused."""

import contextlib
import io
import json
import os
import pickle
import random
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import tests.backbones.tiny  # noqa: F401
from evl.backbones import create_backbone
from evl.backbones.weights.files import load_torch_file, read_weights
from evl.config import BackboneConfig
from evl.errors import EVLError
from tests.helpers import GOLDEN


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


@pytest.fixture
def marker(tmp_path):
    """A file that every payload here would make; the test fails if one did."""
    path = tmp_path / "code_ran"
    yield path
    assert not path.exists()


def zipped(path, data, *, script=False, more=(), compress=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compress) as archive:
        archive.writestr("x/data.pkl", data)
        archive.writestr("x/version", "3\n")
        for name, content in more:
            archive.writestr(name, content)
        if script:
            archive.writestr("x/code/__torch__.py", "import os")
    return path


def said_of(path):
    with pytest.raises(EVLError) as caught:
        read_weights(path)
    said = str(caught.value)
    assert "\n" not in said
    assert path.name in said
    return said


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


PAYLOADS = {
    "reduce": lambda m: b"\x80\x02cos\nmkdir\n" + text(m) + b"\x85R.",
    "reduce eval": lambda m: b"\x80\x02cbuiltins\neval\n" + text(f"__import__('os').mkdir({m!r})") + b"\x85R.",
    "inst": lambda m: b"(S" + repr(m).encode() + b"\nios\nmkdir\n.",
    "obj": lambda m: b"\x80\x02(cos\nmkdir\n" + text(m) + b"o.",
    "stack global": lambda m: b"\x80\x04" + text("os") + text("mkdir") + b"\x93" + text(m) + b"\x85R.",
    "newobj": lambda m: b"\x80\x02cos\nmkdir\n" + text(m) + b"\x85\x81.",
    "newobj ex": lambda m: b"\x80\x04cos\nmkdir\n" + text(m) + b"\x85}\x92.",
    "extension": lambda m: b"\x80\x02\x82\x01.",
    "in a dict": lambda m: b"\x80\x02}" + text("state_dict") + b"cos\nmkdir\n" + text(m) + b"\x85Rs.",
    "build on a name": lambda m: b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}" + text("__defaults__") + b")sb.",
    "build on a class": lambda m: b"\x80\x02c__torch__.M\nN\n}" + text("__setstate__") + b"cos\nmkdir\nsb.",
    "setstate": lambda m: b"\x80\x02c__torch__\nM\n)\x81}" + text("__class__") + b"cbuiltins\nexec\nsb.",
    "dotted": lambda m: b"\x80\x04" + text("torch") + text("serialization.os.mkdir") + b"\x93" + text(m) + b"\x85R.",
    "persistent name": lambda m: b"\x80\x02Pstorage\n.",
    "call of a type": lambda m: b"\x80\x02ctorch\nFloatStorage\n)R.",
    "call of a text": lambda m: b"\x80\x02" + text("os.mkdir") + text(m) + b"\x85R.",
    "arguments no tuple": lambda m: b"\x80\x02ccollections\nOrderedDict\n]R.",
}


@pytest.mark.parametrize("kind", ["torch", "script", "pickle", "safetensors", "npz", "wrapped"])
@pytest.mark.parametrize("payload", PAYLOADS)
def test_crafted_pickles_are_refused_unrun(tmp_path, marker, payload, kind):
    data = PAYLOADS[payload](str(marker))
    if kind in ("torch", "script"):
        said = said_of(zipped(tmp_path / "evil.pt", data, script=kind == "script"))
        # torch lets two of them pass, since they ask for nothing but what tensors need
        harmless = ("call of a type", "arguments no tuple")
        assert "refused: the archive" in said or payload in harmless
        return
    name = {"pickle": "evil.bin", "safetensors": "evil.safetensors", "npz": "evil.npz", "wrapped": "evil.pth"}[kind]
    path = tmp_path / name
    if kind == "npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("pos_embed.npy", data)
    elif kind == "wrapped":  # torch's old format: magic, version, system, then the object
        start = b"".join(pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
        path.write_bytes(start + data + pickle.dumps([], 2))
    else:
        path.write_bytes(data)
    said_of(path)


def test_what_pickle_itself_would_run(tmp_path, marker):
    """The payloads are alive: pickle runs them. torch.save's own forms of the same are refused."""
    for old in (True, False):
        torch.save({"model": Touch(marker)}, tmp_path / "evil.pth", _use_new_zipfile_serialization=not old)
        assert "refers to" in said_of(tmp_path / "evil.pth")
        assert "holds code" in said_of(tmp_path / "evil.pth")
    alive = tmp_path / "alive"
    for name in ("reduce", "reduce eval", "inst", "obj", "stack global"):
        pickle.loads(PAYLOADS[name](str(alive)))
        alive.rmdir()


def module(state):
    """A scripted module with a state, as a pickle writes it."""
    return b"c__torch__\nM\n)\x81" + state + b"b"


def test_nested_modules_end(tmp_path):
    laughs = b"\x80\x02" + module(b"}") + b"q\x00"
    for level in range(60):  # each holds the one before twice: 2**60 paths
        before = b"h" + bytes([level])
        laughs += module(b"}(" + text("a") + before + text("b") + before + b"u") + b"q" + bytes([level + 1])
    endless = b"\x80\x02c__torch__\nM\n)\x81q\x00}" + text("me") + b"h\x00sb."
    deep = b"\x80\x02" + b"c__torch__\nM\n)\x81" * 1
    for _ in range(5000):
        deep = deep[:2] + module(b"}" + text("a") + deep[2:] + b"s")
    for name, data in {"laughs": laughs + b".", "endless": endless, "deep": deep + b"."}.items():
        said = said_of(zipped(tmp_path / f"{name}.pt", data, script=True))
        assert "modules nested too deeply, or without end" in said


def tensor(count, size, stride=(1,), offset=0, key="0", kind="FloatStorage"):
    def number(value):
        return b"\x8a\x08" + struct.pack("<q", value)

    def numbers(values):
        return b"(" + b"".join(number(value) for value in values) + b"t"

    storage = (
        b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu") + number(count) + b"tQ"
    )
    return (b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + numbers(size) + numbers(stride)
            + b"\x89ccollections\nOrderedDict\n)RtR")  # fmt: skip


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (tensor(4, (4,)), None),
        (tensor(10**12, (4,)), "does not match expected size"),
        (tensor(5, (5,)), "does not match expected size"),
        (tensor(4, (10**9, 10**9), (0, 0)), "is larger than the file"),
        (tensor(4, (4,), (2**40,)), "damaged"),
        (tensor(4, (2,), (1,), 3), "damaged"),
        (tensor(4, (2,), (1,), -1), "offset -1"),
        (tensor(4, (-4,)), "damaged"),
        (tensor(4, (4,), (-1,)), "damaged"),
        (tensor(4, (4,), key="../../../etc/passwd"), "damaged"),
        (tensor(4, (4,), kind="QInt8Storage"), "damaged"),
        (tensor(16, (16,), kind="QInt8Storage"), "is not a plain tensor"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x02K\x03K\x04tR", "damaged"),
        (tensor(4, (4,)) + b"r\xff\xff\xff\xff", None),  # pickle would make a table of that many entries
        (b"\x8e" + struct.pack("<Q", 2**62) + b"a", "Unsupported operand"),
        (b"B" + struct.pack("<I", 2**32 - 1) + b"a", "Unsupported operand"),
    ],
)
@pytest.mark.parametrize("script", [False, True])
def test_sizes_are_not_believed(tmp_path, made, sentence, script):
    data = b"\x80\x02}" + text("a.weight") + made + b"s."
    if script:
        data = b"\x80\x02" + module(b"}" + text("a.weight") + made + b"s") + b"."
    path = zipped(tmp_path / "sizes.pt", data, script=script, more=[("x/data/0", np.arange(4, dtype="<f4").tobytes())])
    if sentence is None:
        assert torch.equal(read_weights(path)[0]["a.weight"], torch.arange(4.0))
    else:
        assert sentence in said_of(path)


def test_archives_that_unpack_to_more(tmp_path):
    four, good = ("x/data/0", bytes(16)), b"\x80\x02}" + text("a") + tensor(4, (4,)) + b"s."
    bomb = zipped(tmp_path / "bomb.pt", bytes(65 << 20), compress=zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 1 << 20
    assert "more bytes than the file" in said_of(bomb)
    for compress in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        dicts = zipped(tmp_path / "dicts.pt", b"}" * (63 << 20) + b".", compress=compress)
        assert "more bytes than the file" in said_of(dicts)
    order = zipped(tmp_path / "order.pt", good, more=[four])
    with zipfile.ZipFile(order, "a", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x/byteorder", b"little" * 9999)
    assert "more bytes than the file" in said_of(order)
    data = zipped(tmp_path / "data.pt", good, more=[("x/data/0", bytes(50 << 20))], compress=zipfile.ZIP_DEFLATED)
    assert "more bytes than the file" in said_of(data)
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = zipped(tmp_path / "twice.pt", good, more=[four, four])
    assert "two entries with the same name" in said_of(twice)
    swapped = ("x/data/0", np.arange(4, dtype=">f4").tobytes())
    order = zipped(tmp_path / "order.pt", good, more=[swapped, ("x/byteorder", b"big")])
    assert read_weights(order)[0]["a"].tolist() == [0, 1, 2, 3]
    script = b"\x80\x02" + module(b"}" + text("a") + tensor(4, (4,)) + b"s") + b"."
    order = zipped(tmp_path / "script.pt", script, script=True, more=[swapped, ("x/byteorder", b"big")])
    assert read_weights(order)[0]["a"].tolist() == [0, 1, 2, 3]
    one = b"".join(text(f"n{i}") + (b"h\x01" if i else tensor(4096, (4096,)) + b"q\x01") for i in range(99))
    many = zipped(tmp_path / "many.pt", b"\x80\x02}(" + one + b"u.", more=[("x/data/0", bytes(16384))])
    assert "many times larger than the file" in said_of(many)
    with tarfile.open(tmp_path / "tar.pt", "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(name))
    assert "neither safetensors nor torch's" in said_of(tmp_path / "tar.pt")


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 1 << 40]}}, 16),
        ({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 16]}}, 16),
        ({"a": {"dtype": "F32", "shape": [1 << 63, 2], "data_offsets": [0, 16]}}, 16),
        ({"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}, 16),
        ({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, "b": {"dtype": "F32", "shape": [4],
          "data_offsets": [0, 16]}}, 16),
        ({"a": {"dtype": "X99", "shape": [4], "data_offsets": [0, 16]}}, 16),
        ({"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}, 16),
        ({"a": 3}, 16),
        ([], 16),
    ],
)  # fmt: skip
def test_lying_headers(tmp_path, header, data):
    raw = json.dumps(header).encode()
    path = tmp_path / "lies.safetensors"
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(data))
    said_of(path)
    path.write_bytes(struct.pack("<Q", 99_999_999) + raw + bytes(data))
    said_of(path)


def test_content_decides_not_the_name(tmp_path):
    state = {"a": torch.arange(4.0)}
    save_file(state, tmp_path / "model.pt")
    torch.save(state, tmp_path / "model.safetensors")
    torch.save(state, tmp_path / "old.safetensors", _use_new_zipfile_serialization=False)
    for name in ("model.pt", "model.safetensors", "old.safetensors"):
        assert torch.equal(read_weights(tmp_path / name)[0]["a"], state["a"])
    (tmp_path / "script.safetensors").write_bytes((GOLDEN / "openai_clip_tiny.pt").read_bytes())
    assert read_weights(tmp_path / "script.safetensors")[1]
    for name, content, sentence in (
        ("lfs.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS"),
        ("page.pt", b"\n<!DOCTYPE html><html>", "a web page"),
        ("weights.npy", b"\x93NUMPY\x01\x00", "NumPy array"),
        ("cut.pt", b"PK\x03\x04" + bytes(99), "end is missing"),
    ):
        (tmp_path / name).write_bytes(content)
        assert sentence in said_of(tmp_path / name)
    np.savez(tmp_path / "objects.npz", a=np.array([object()], dtype=object))
    assert "NumPy archives (JAX weights) are not read" in said_of(tmp_path / "objects.npz")
    said = said_of(tmp_path)
    assert "is a folder; give the weights file in it: " in said


def test_tensors_that_are_none(tmp_path):
    torch.save({"a": torch.ones(3).to_sparse()}, tmp_path / "sparse.pt")
    torch.save({"a": torch.ones(3, device="meta")}, tmp_path / "meta.pt")
    torch.save({"a": torch.ones(3).to_sparse()}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, tmp_path / "wide.pt", _use_new_zipfile_serialization=False)
    for name in ("sparse", "meta", "old", "wide"):
        assert "refused" in said_of(tmp_path / f"{name}.pt")


def test_names_do_not_write_on_the_terminal(tmp_path):
    for name in ("a\x1b[2Jb", "a\nb", "a\u202eb", "a" * 1000):
        torch.save({name: torch.ones(1)}, tmp_path / "names.pt")
        assert "refused: a tensor with the name 'a" in said_of(tmp_path / "names.pt")
    evil = b"\x80\x04" + text("os\n\x1b[2J") + text("x\ny") + b"\x93."
    assert said_of(zipped(tmp_path / "global.pt", evil)).isprintable()


def test_every_loader_refuses(tmp_path, marker):
    """Released checkpoints, training's own, saved models, and backbones by name or by archive."""
    from evl.saving import load_release
    from evl.training.checkpoint import load_checkpoint

    evil = zipped(tmp_path / "evil.pt", PAYLOADS["reduce"](str(marker)))
    torch.save({"model": Touch(marker), "step": 1}, tmp_path / "step_0000001.pt")
    for load in (
        lambda: load_release(evil, GOLDEN / "openai_clip_tiny.pt"),
        lambda: load_release(GOLDEN / "release_checkpoint_tiny.pth", evil),
        lambda: load_checkpoint(tmp_path / "step_0000001.pt", None, None),
        lambda: create_backbone(BackboneConfig("openai_clip", weights=str(evil)), 1),
        lambda: create_backbone(BackboneConfig("tiny_vit_16", weights=str(evil)), 1),
    ):
        with pytest.raises(EVLError, match="holds code"):
            load()


def test_a_download_runs_no_code(tmp_path, marker, monkeypatch):
    """By a name of timm, with a pickle in the hub's cache and at an address: timm's own loading is not asked."""
    import timm.models._builder
    import timm.models._hub
    from huggingface_hub import constants

    from tests.backbones.test_offline import on_hub

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    for module, name in ((timm.models._builder, "load_state_dict"), (timm.models._hub, "_torch_load")):
        monkeypatch.setattr(module, name, None)
    on_hub(tmp_path, "timm/tiny_vit_16.on_hub", "pytorch_model.bin", {"state_dict": Touch(marker)})
    (tmp_path / "checkpoints").mkdir()
    torch.save({"model": Touch(marker)}, tmp_path / "checkpoints" / "tiny-vit.pth")
    for tag in ("on_hub", "at_an_address"):
        with pytest.raises(EVLError, match="holds code"):
            create_backbone(f"tiny_vit_16.{tag}", 1)


def test_what_training_programs_put_beside_their_tensors(tmp_path):
    """Text, numbers, lists and an argparse namespace are no reason to refuse a checkpoint."""
    import argparse

    content = {
        "args": argparse.Namespace(lr=0.1, size=(3, 4)), "epoch": 7, "losses": [0.5, -1e300, None, True, 2**70],
        "where": torch.device("cpu"), "type": torch.float16, "tied": [torch.ones(2)] * 2, "bytes": torch.Size([2, 3]),
        "model": torch.nn.Linear(3, 2).state_dict(), 5: torch.zeros(0, dtype=torch.bfloat16),
    }  # fmt: skip
    for old in (False, True):
        torch.save(content, tmp_path / "checkpoint.pth", _use_new_zipfile_serialization=not old)
        got = load_torch_file(tmp_path / "checkpoint.pth")
        assert got["losses"] == content["losses"]
        assert got["epoch"] == 7
        assert got["tied"][0] is got["tied"][1]
        assert got[5].dtype == torch.bfloat16
        tensors, is_script = read_weights(tmp_path / "checkpoint.pth")
        assert set(tensors) == {"weight", "bias"}
        assert not is_script
        assert torch.equal(tensors["weight"], content["model"]["weight"])


def test_damage_anywhere_is_an_error_or_harmless(tmp_path):
    """A thousand files with bytes changed or cut: each is read or refused, and nothing else."""
    state = {f"blocks.{i}.weight": torch.randn(3, 4) for i in range(4)}
    buffers = {}
    for name, write in (
        ("zip", lambda f: torch.save(state, f)),
        ("old", lambda f: torch.save(state, f, _use_new_zipfile_serialization=False)),
    ):
        buffer = io.BytesIO()
        write(buffer)
        buffers[name] = buffer.getvalue()
    save_file(state, tmp_path / "s.safetensors")
    buffers["safetensors"] = (tmp_path / "s.safetensors").read_bytes()
    with zipfile.ZipFile(io.BytesIO(buffers["zip"])) as archive:
        description = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        entries = {name: archive.read(name) for name in archive.namelist()}
    generator, refused = random.Random(0), 0
    path = tmp_path / "damaged.bin"
    for turn in range(1000):
        kind = ("zip", "old", "safetensors", "description")[turn % 4]
        raw = bytearray(entries[description] if kind == "description" else buffers[kind])
        for _ in range(generator.randint(1, 4)):
            raw[generator.randrange(len(raw))] = generator.randrange(256)
        if turn % 5 == 0:
            del raw[generator.randrange(len(raw)) :]
        if kind == "description":  # with right check sums around it
            with zipfile.ZipFile(path, "w") as archive:
                for name, content in entries.items():
                    archive.writestr(name, bytes(raw) if name == description else content)
        else:
            path.write_bytes(raw)
        with contextlib.suppress(EVLError):
            refused += 1
            read_weights(path)
            refused -= 1
    assert 200 < refused < 1000
