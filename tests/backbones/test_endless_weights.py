"""A few hundred bytes can describe more than any machine finishes. Made files, all refused; sound ones beside them."""

import pickle
import pickletools
import struct
import zipfile

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_flatten

from evl.backbones.unpickle import _MOST_OPERATIONS, STORAGES
from evl.backbones.weights import load_torch_file, read_weights
from tests.backbones.test_hostile_weights import module, said_of, tensor, text, zipped


def nested(count):
    """A tuple that holds the one before twice, and so on: 3 bytes a level, 2**count ends."""
    return b")q\x09" + b"h\x09\x86q\x09" * count


DEEP = b")" + b"\x85" * 200_000
COUNT = b"\x8a\x08" + struct.pack("<q", 4)
STORAGE = b"ctorch\nFloatStorage\n"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
NUMBERS = b"(" + text("storage") + STORAGE + text("0") + text("cpu") + COUNT + b"tQ"
ENDLESS = {
    "key": (b"}" + nested(45) + b"K\x01s", "a tuple as a key"),
    "keys": (b"}(" + nested(45) + b"K\x01u", "a tuple as a key"),
    "key of a dict": (b"(" + nested(45) + b"K\x01d", "a tuple as a key"),
    "key of pairs": (b"ccollections\nOrderedDict\n]" + nested(45) + b"K\x01\x86a\x85R", "a tuple as a key"),
    "pairs of a text": (b"ccollections\nOrderedDict\n" + text("abcd") + b"\x85R", "something else than pairs"),
    "pairs of texts": (b"ccollections\nOrderedDict\n]" + text("ab") + b"a\x85R", "something else than pairs"),
    "deep key": (b"}" + DEEP + b"K\x01s", "a tuple as a key"),
    "name as a key": (b"}ctorch\nfloat32\nK\x01s", "a Name as a key"),
    "large number as a key": (b"}\x8a\x09" + bytes(8) + b"\x01K\x01s", "more than 64 bits as a key"),
    "module": (nested(45) + text("a") + b"\x93", "a name that is a str in a tuple"),
    "name": (text("a") + nested(45) + b"\x93", "a name that is a tuple in a str"),
    "storage": (nested(45) + b"Q", "stored data of an unknown kind"),
    "kind": (b"(" + nested(45) + STORAGE + text("0") + text("cpu") + COUNT + b"tQ", "stored data of an unknown kind"),
    "type": (b"(" + text("storage") + nested(45) + text("0") + text("cpu") + COUNT + b"tQ", "an unknown kind"),
    "storage key": (b"(" + text("storage") + STORAGE + nested(45) + text("cpu") + COUNT + b"tQ", "without a key"),
    "count": (b"(" + text("storage") + STORAGE + text("0") + text("cpu") + nested(45) + b"tQ", "without a key and"),
    "offset": (TENSOR + b"(" + NUMBERS + nested(45) + b"K\x04\x85K\x01\x85tR", "are no numbers"),
    "shape": (TENSOR + b"(" + NUMBERS + b"K\x00" + nested(45) + b"K\x01\x85tR", "are no numbers"),
    "strides": (TENSOR + b"(" + NUMBERS + b"K\x00K\x04\x85" + nested(45) + b"tR", "are no numbers"),
    "large strides": (TENSOR + b"(" + NUMBERS + b"K\x00K\x04\x85\x8a\x09" + bytes(8) + b"\x01\x85tR", "are no numbers"),
    "many sizes": (TENSOR + b"(" + NUMBERS + b"K\x00(" + b"K\x01" * 99 + b"t)tR", "without a shape and strides"),
    "value": (b"}" + text("a") + nested(45) + b"s", "containers nested without end"),
    "deep value": (b"}" + text("a") + DEEP + b"s", "containers nested without end"),
    "deep lists": (b"]" * 200_000 + b"a" * 199_999, "containers nested without end"),
    "a list in itself": (b"]q\x00h\x00a", "containers nested without end"),
    "text": (b"](" + text("a" * 600_000) + b"q\x00" + b"h\x00" * 1000 + b"e", "containers nested without end"),
}  # fmt: skip


def old(content, keys=("0",), numbers=((4, bytes(16)),), protocol=1001, little=True):
    """Torch's format from before 1.6, around a pickle without its first and last operation."""
    parts = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, protocol, {"little_endian": little})]
    parts += [b"\x80\x02" + content + b".", pickle.dumps(list(keys), 2)]
    return b"".join(parts) + b"".join(struct.pack("<q", count) + raw for count, raw in numbers)


@pytest.mark.parametrize("kind", ["torch", "script", "old"])
@pytest.mark.parametrize("case", ENDLESS)
def test_a_small_pickle_is_not_followed_without_end(tmp_path, case, kind):
    content, sentence = ENDLESS[case]
    if kind == "old":
        path = tmp_path / "evil.pth"
        path.write_bytes(old(content))
    else:
        data = b"\x80\x02" + content + b"."
        path = zipped(tmp_path / "evil.pt", data, script=kind == "script", more=[("x/data/0", bytes(16))])
    assert sentence in said_of(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"}" * 4_100_000, "more than 4000000 operations"),
        (b"(" + TENSOR + b"q\x01(" + NUMBERS + b"K\x00K\x04\x85K\x01\x85tq\x02R" + b"h\x01h\x02R" * 200_000 + b"t",
         "more than 200000 tensors"),
    ],
)  # fmt: skip
def test_operations_and_tensors_are_counted(tmp_path, content, sentence):
    path = zipped(tmp_path / "evil.pt", b"\x80\x02" + content + b".", more=[("x/data/0", bytes(16))])
    assert sentence in said_of(path)


def test_names_of_modules_end(tmp_path):
    """One long name above many short ones: each would be as long as both."""
    inner = module(b"}(" + b"".join(text(f"{i}") + b"N" for i in range(1000)) + b"u")
    data = b"\x80\x02" + module(b"}" + text("k" * 1_000_000) + inner + b"s") + b"."
    assert "refused: a tensor with the name 'kkk" in said_of(zipped(tmp_path / "long.pt", data, script=True))


def test_the_old_format_is_what_torch_says(tmp_path, monkeypatch):
    """Without torch's loader: kinds of numbers, views, shared and empty storages, parameters, an optimizer."""
    model = torch.nn.Linear(5, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 5)).sum().backward()
    optimizer.step()
    whole = torch.randn(7, 9)
    content = {"views": [whole[2:5, ::3], whole.T, whole[6, 8]], "weight": model.weight, "step": 3,
               "model": model.state_dict(), "optimizer": optimizer.state_dict(), "none": torch.zeros(0, 4),
               "kinds": {}}  # fmt: skip
    for dtype in STORAGES.values():
        content["kinds"][str(dtype)] = (torch.randn(2, 3) * 9).abs().to(dtype)
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    theirs = torch.load(tmp_path / "old.pth", weights_only=True)
    monkeypatch.setattr(torch, "load", None)
    ours = load_torch_file(tmp_path / "old.pth")
    flat, structure = tree_flatten(theirs)
    ours_flat, ours_structure = tree_flatten(ours)
    assert str(ours_structure) == str(structure).replace("OrderedDict", "dict")
    assert len(flat) > 30
    for one, other in zip(flat, ours_flat, strict=True):
        if isinstance(one, torch.Tensor):
            assert one.dtype == other.dtype
            assert one.stride() == other.stride()
            assert torch.equal(one, other)
        else:
            assert one == other
    assert ours["views"][0].untyped_storage().data_ptr() == ours["views"][1].untyped_storage().data_ptr()


def test_the_old_format_s_parts_of_storages(tmp_path):
    """The oldest files name a part of a storage in a sixth field, and call the builder by its first name."""

    def part(offset, count):
        pid = b"(" + text("storage") + STORAGE + text("0") + text("cpu") + COUNT + b"("
        pid += text("1") + struct.pack("<BB", 0x4B, offset) + struct.pack("<BB", 0x4B, count) + b"ttQ"
        return b"}" + text("a") + TENSOR.replace(b"_v2", b"") + b"(" + pid + b"K\x01K\x01\x85K\x01\x85tRs"

    raw = np.arange(4, dtype="<f4").tobytes()
    path = tmp_path / "part.pth"
    path.write_bytes(old(part(2, 2), numbers=[(4, raw)]))
    assert torch.equal(read_weights(path)[0]["a"], torch.tensor([3.0]))
    assert torch.equal(torch.load(path, weights_only=True)["a"], torch.tensor([3.0]))
    path.write_bytes(old(part(2, 3), numbers=[(4, raw)]))
    assert "not a readable checkpoint: damaged" in said_of(path)


def test_the_old_format_s_sizes_are_not_believed(tmp_path):
    one = b"}" + text("a") + tensor(4, (4,)) + b"s"
    two = one[:-1] + b"s" + text("b") + tensor(4, (4,), kind="IntStorage") + b"s"
    cases = {
        None: {},
        "more bytes than the file": {"content": b"}" + text("a") + tensor(2**34, (4,)) + b"s"},
        "not as long as it says": {"numbers": [(3, bytes(16))]},
        "is cut off": {"numbers": [(4, bytes(15))]},
        "two different kinds": {"content": two},
        "not those that its tensors ask for": {"keys": []},
        "its tensor data are not those": {"keys": ["0", "1"]},
        "are not those that": {"keys": ["0", "0"]},
        "a list of tensor data that is none": {"keys": [["0"]]},
        "byte order of other machines": {"little": False},
        "protocol is not 1001": {"protocol": 1002},
    }
    for number, (sentence, changed) in enumerate(cases.items()):
        path = tmp_path / f"{number}.pth"
        path.write_bytes(old(**{"content": one, **changed}))
        if sentence is None:
            assert torch.equal(read_weights(path)[0]["a"], torch.zeros(4))
        else:
            assert sentence in said_of(path)


def test_a_large_checkpoint_is_within_the_bounds(tmp_path):
    """Two thousand parameters and their optimizer: a description of less than a fifteenth of what is allowed."""
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2000)]
    state = {i: {"step": torch.ones(1), "exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(3)} for i in range(2000)}
    content = {"model": {f"blocks.{i}.attn.weight": p for i, p in enumerate(parameters)}, "optimizer": {
        "state": state, "param_groups": [{"lr": 0.1, "params": list(range(2000))}]}}  # fmt: skip
    torch.save(content, tmp_path / "large.pth")
    got = load_torch_file(tmp_path / "large.pth")
    assert got["optimizer"]["param_groups"] == content["optimizer"]["param_groups"]
    assert len(got["optimizer"]["state"]) == len(got["model"]) == 2000
    with zipfile.ZipFile(tmp_path / "large.pth") as archive:
        operations = sum(1 for _ in pickletools.genops(archive.read("large/data.pkl")))
    assert operations < _MOST_OPERATIONS / 15
