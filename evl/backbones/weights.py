"""Weight files, read for their tensors only: safetensors, torch's own, and TorchScript archives.

What a file is decides its content, never its name. No pickle in it is executed (``unpickle``), torch's format from
before 1.6 included; torch's own loader is not used.
"""

from __future__ import annotations

import io
import pickletools
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from evl.backbones.unpickle import Refused, read_pickle, tensors_below
from evl.errors import BackboneError, CheckpointError
from evl.files import expand_home

_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_LARGEST_PICKLE = 64 << 20  # bytes of description, tensors not among them
_LONGEST_NAME = 400
_WRAPPERS = (
    *("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net", "module", "teacher", "encoder"),
)
_UNKNOWN = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the weights: fetch the file itself ('git lfs pull')"),
    (b"<", "a web page, not weights: the download went wrong"),
    (b"\x93NUMPY", "a NumPy array, which is not read; convert it to safetensors"),
    (b"\x89HDF", "an HDF5 file, which is not read; convert it to safetensors"),
    (b"\x80", "a plain pickle, which may hold code (Python objects) and is never loaded"),
)


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], bool]:
    """All tensors of a file by name, and whether it is a TorchScript archive. Runs no code found in it.

    Wrappers of training programs (``{"state_dict": …}``, ``{"model_ema": …}``) are taken off.
    Raises BackboneError for a missing, damaged or unsafe file.
    """
    path = Path(path)
    if path.is_dir():
        inside = sorted(file.name for file in path.glob("*") if file.suffix in (".safetensors", ".bin", ".pt", ".pth"))
        raise BackboneError(
            f"{path} is a folder; give the weights file in it" + (f": {', '.join(inside[:4])}" if inside else "")
        )
    if not path.is_file():
        raise BackboneError(f"{path}: no such weights file")
    try:
        kind = _kind_of(path)
        if kind == "safetensors":
            tensors = load_file(path)
        elif kind == "TorchScript":
            tensors = read_torchscript(path)
        else:
            content = load_torch_file(path)
            tensors = _unwrapped(content)
            if not tensors and isinstance(content, Mapping) and content:
                came = ", ".join(ascii(key)[:40] for key in list(content)[:6])
                raise BackboneError(
                    f"{path}: holds no named tensors, neither itself nor where wrappers are; it has {came}"
                )
    except CheckpointError as error:
        raise BackboneError(str(error)) from None
    except (SafetensorError, OSError) as error:
        raise BackboneError(f"{path}: not a readable weights file ({_first_line(error)})") from None
    if not tensors:
        raise BackboneError(f"{path}: holds no named tensors")
    _refuse_odd(tensors, path)
    return tensors, kind == "TorchScript"


def load_torch_file(path: str | Path):
    """What ``torch.save`` wrote, its tensors on the CPU: containers, numbers, text and tensors, ``Inert`` for the rest.

    Never executes a pickle. CheckpointError where a file is missing, damaged, or holds code.
    """
    path = expand_home(Path(path))
    try:
        kind = _kind_of(path, "checkpoint")
        if kind == "torch":
            return _read_zip(path, _root(path))
        if kind == "old torch":
            return _read_old(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    except CheckpointError:
        raise
    except Refused as error:
        raise CheckpointError(f"{path}: refused: {error}") from None
    except Exception as error:  # a damaged file can raise nearly anything
        raise CheckpointError(f"{path}: not a readable checkpoint: damaged ({_first_line(error)})") from None
    raise CheckpointError(f"{path}: not a torch checkpoint, but {kind}")


def read_torchscript(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a TorchScript archive by dotted name, without building or running its modules."""
    try:
        if _kind_of(Path(path)) != "TorchScript":
            raise BackboneError(f"{path}: not a TorchScript archive")
        module = _read_zip(Path(path), _root(path))
        return tensors_below(module)
    except CheckpointError as error:
        raise BackboneError(str(error)) from None
    except Refused as error:
        raise BackboneError(f"{path}: refused: {error}") from None


def class_names(path: str | Path) -> set[str]:
    """The classes of the modules in a TorchScript archive ("__torch__.open_clip.model.CLIP"), without the numbers that
    TorchScript puts into them; none for other files. For files that ``read_weights`` has read."""
    path = Path(path)
    if _kind_of(path) != "TorchScript":
        return set()
    with zipfile.ZipFile(path) as archive:
        description = archive.read(f"{_root(path)}/data.pkl")
    found = (asked for code, asked, _ in pickletools.genops(description) if code.name == "GLOBAL")
    return {re.sub(r"\.___torch_mangle_\d+", "", asked.replace(" ", ".")) for asked in found}


def _kind_of(path: Path, what: str = "weights file") -> str:
    """``safetensors``, ``torch``, ``old torch`` or ``TorchScript``, by content; CheckpointError for anything else."""
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise CheckpointError(f"{path}: not a readable {what}: it is empty")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= 100_000_000:
        return "safetensors"
    if start.startswith(_OLD_TORCH):
        return "old torch"
    if (names := _names_in_zip(path, what)) is not None:
        root = _root_among(names)
        if root is not None:
            has_code = any(name.startswith((f"{root}/code/", f"{root}/constants")) for name in names)
            return "TorchScript" if has_code else "torch"
        if any(name.endswith(".npy") for name in names):
            raise CheckpointError(
                f"{path}: NumPy archives (JAX weights) are not read; take the same weights from timm, or safetensors"
            )
        raise CheckpointError(f"{path}: not a readable {what}: a zip archive without tensors")
    if start.startswith(b"PK"):
        raise CheckpointError(f"{path}: not a readable {what}: its end is missing (an interrupted download?)")
    for sign, found in _UNKNOWN:
        if start.lstrip().startswith(sign):
            raise CheckpointError(f"{path}: not a readable {what}: {found}")
    raise CheckpointError(f"{path}: not a readable {what}: neither safetensors nor torch's")


def _names_in_zip(path: Path, what: str) -> list[str] | None:
    try:
        if not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise CheckpointError(f"{path}: not a readable {what}: damaged archive ({error})") from None


def _root(path: str | Path) -> str:
    with zipfile.ZipFile(path) as archive:
        return _root_among(archive.namelist())


def _root_among(names: list[str]) -> str | None:
    """The folder inside the zip that holds the tensors' description."""
    return next((name.removesuffix("/data.pkl") for name in names if name.endswith("/data.pkl")), None)


def _read_zip(path: Path, root: str):
    """What the description in a torch archive says, its tensors filled with the numbers stored beside it."""
    stored: dict[str, Tensor] = {}  # each is read once, however often it is asked for
    with zipfile.ZipFile(path) as archive:

        def storage(dtype: torch.dtype, key: str, count: int) -> Tensor:
            if key not in stored:
                entry = archive.getinfo(f"{root}/data/{key}")
                if entry.compress_type != zipfile.ZIP_STORED or count * dtype.itemsize != entry.file_size:
                    raise Refused(f"tensor data {key!a:.40} is not {count} plain numbers of {dtype.itemsize} bytes")
                content = bytearray(entry.file_size)
                with archive.open(entry) as file:
                    if file.readinto(content) != len(content) or file.read(1):
                        raise Refused(f"tensor data {key!a:.40} is not as long as it says")
                stored[key] = torch.frombuffer(content, dtype=dtype) if count else torch.empty(0, dtype=dtype)
            if stored[key].dtype != dtype or len(stored[key]) != count:
                raise Refused(f"tensor data {key!a:.40} stands for two different kinds of numbers")
            return stored[key]

        try:
            _refuse_bombs(archive, path, root)
            return read_pickle(archive.read(f"{root}/data.pkl"), storage)
        except Refused as error:
            raise CheckpointError(f"{path}: refused: {error}") from None
        except Exception as error:  # a damaged description can raise nearly anything
            raise CheckpointError(f"{path}: damaged archive ({_first_line(error)})") from None


def _read_old(path: Path):
    """Torch's format before 1.6: five pickles (magic number, protocol, system, the object, keys), then the numbers.

    The numbers stand behind what describes them, so that memory is made first, for no more than the file has, and then
    filled.
    """
    size, stored = path.stat().st_size, {}
    claimed = 0

    def storage(dtype: torch.dtype, key: str, count: int) -> Tensor:
        nonlocal claimed
        if key not in stored:
            claimed += count * dtype.itemsize
            if claimed > size:
                raise Refused("its tensor data have more bytes than the file")
            stored[key] = torch.empty(count, dtype=dtype)
        if stored[key].dtype != dtype or len(stored[key]) != count:
            raise Refused(f"tensor data {key!a:.40} stands for two different kinds of numbers")
        return stored[key]

    with path.open("rb") as file:
        pickles = io.BytesIO(file.read(_LARGEST_PICKLE))
        _, protocol, system = (read_pickle(pickles, storage) for _ in range(3))
        if protocol != 1001 or type(system) is not dict or system.get("little_endian") is not True:
            raise Refused("its numbers are in the byte order of other machines, or its protocol is not 1001")
        content, keys = (read_pickle(pickles, storage) for _ in range(2))
        if type(keys) is not list or not all(type(key) in (str, int) for key in keys):
            raise Refused("a list of tensor data that is none")
        keys = [str(key) for key in keys]
        if len(set(keys)) != len(keys) or set(keys) != set(stored):
            raise Refused("its tensor data are not those that its tensors ask for")
        file.seek(pickles.tell())
        for key in keys:
            if int.from_bytes(file.read(8), "little") != len(stored[key]):
                raise Refused(f"tensor data {key!a:.40} is not as long as it says")
            if len(stored[key]) and file.readinto(bytes_of := stored[key].view(torch.uint8).numpy()) != len(bytes_of):
                raise Refused(f"tensor data {key!a:.40} is cut off")
    return content


def _first_line(error: Exception) -> str:
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])[:300]


def _refuse_bombs(archive: zipfile.ZipFile, path: Path, root: str) -> None:
    """Before anything is read: no more bytes than the file has, each name once, nothing that has to be unpacked.

    Torch compresses neither tensors nor their description; a scripted module's code is compressed, and not read.
    """
    entries = archive.infolist()
    names = {entry.filename for entry in entries}
    if len(names) != len(entries):
        raise Refused("entries of the archive stand there twice")
    data = sum(entry.file_size for entry in entries if entry.filename.startswith(f"{root}/data/"))
    if data > path.stat().st_size:
        raise Refused("its tensor data have more bytes than the file")
    if archive.getinfo(f"{root}/data.pkl").file_size > _LARGEST_PICKLE:
        raise Refused(f"its description is larger than {_LARGEST_PICKLE >> 20} MiB")
    for name in {f"{root}/data.pkl", f"{root}/byteorder"} & names:
        if (
            entry := archive.getinfo(name)
        ).compress_type != zipfile.ZIP_STORED or entry.file_size > entry.compress_size:
            raise Refused(f"{name!a:.60} is compressed, which torch never does")
    if f"{root}/byteorder" in names:
        with archive.open(f"{root}/byteorder") as file:
            if file.read(8) != b"little":
                raise Refused("its numbers are in the byte order of other machines")


def _unwrapped(content) -> dict[str, Tensor]:
    """Named tensors out of what training programs put around them."""
    for _ in range(4):
        inner = next(
            (
                content[name]
                for name in _WRAPPERS
                if isinstance(content, Mapping) and isinstance(content.get(name), Mapping)
            ),
            None,
        )
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping):
        return {}
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _refuse_odd(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Only plain numbers in memory, and not many times more of them than the file has bytes."""
    size = path.stat().st_size
    for name, tensor in tensors.items():
        if not name.isprintable() or len(name) > _LONGEST_NAME:
            raise BackboneError(f"{path}: refused: a tensor with the name {name!a:.60}…")
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise BackboneError(f"{path}: refused: {name} is no plain tensor ({tensor.layout}, {tensor.device})")
        if tensor.numel() * tensor.element_size() > size:
            raise BackboneError(f"{path}: refused: {name} of shape {tuple(tensor.shape)} is larger than the file")
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > 4 * size:
        raise BackboneError(f"{path}: refused: its tensors are many times larger than the file")
