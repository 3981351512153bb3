"""Reads the tensors of weights files: safetensors, torch's own, and TorchScript archives.

The content of a file decides its kind, never its name. No pickle in it is executed: ``torch.load(weights_only=True)``
reads torch's files and the tensors of TorchScript archives.
"""

from __future__ import annotations

import argparse
import io
import pickletools
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from evl.errors import BackboneError, CheckpointError
from evl.runtime.files import expand_home

_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_LONGEST_NAME = 400
_MOST_ATTRIBUTES, _DEEPEST = 200_000, 64  # of a scripted module
MOST_TENSORS = 20_000  # the largest encoders have some thousands
_WRAPPERS = "state_dict_ema model_ema state_dict model_state_dict model net module teacher encoder".split()  # noqa: SIM905
_UNKNOWN = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the weights: fetch the file itself ('git lfs pull')"),
    (b"<", "a web page, not weights: the download went wrong"),
    (b"\x93NUMPY", "a NumPy array, which is not read; convert it to safetensors"),
    (b"\x89HDF", "an HDF5 file, which is not read; convert it to safetensors"),
    (b"\x80", "a plain pickle, which may hold code (Python objects) and is never loaded"),
)


class Refused(Exception):
    """A file holds something that evl does not read. The message is the reason, to follow 'refused: '."""


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], bool]:
    """Returns the tensors of a file by name, and whether it is a TorchScript archive. Runs no code from the file.

    Wrappers of training programs (``{"state_dict": …}``, ``{"model_ema": …}``) are removed.
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
            refuse_many_tensors(path)
            tensors = load_file(path)
        elif kind == "TorchScript":
            with _as_checkpoint_errors(path):
                _refuse_bombs(path)
                tensors = _read_script(path)
        else:
            content = load_torch_file(path)
            tensors = _unwrapped(content)
            if not tensors and isinstance(content, Mapping) and content:
                keys = ", ".join(ascii(key)[:40] for key in list(content)[:6])
                raise BackboneError(f"{path}: holds no named tensors, also not in a known wrapper; its keys are {keys}")
        refuse_many_tensors(path, len(tensors))
    except CheckpointError as error:
        raise BackboneError(str(error)) from None
    except (SafetensorError, OSError) as error:
        raise BackboneError(f"{path}: not a readable weights file ({_first_line(error)})") from None
    if not tensors:
        raise BackboneError(f"{path}: holds no named tensors")
    _refuse_odd(tensors, path)
    return tensors, kind == "TorchScript"


def refuse_many_tensors(path: str | Path, count: int | None = None) -> None:
    """Raises CheckpointError for a file of more than ``MOST_TENSORS``, whose reading takes long even if they are empty.

    ``count``: how many it has; None reads it from the header of a safetensors file.
    """
    if count is None:
        with safe_open(path, "pt") as file:
            count = len(file.keys())
    if count > MOST_TENSORS:
        raise CheckpointError(f"{path}: refused: {count:,} tensors; a model has at most {MOST_TENSORS:,}")


def load_torch_file(path: str | Path):
    """Returns what ``torch.save`` wrote, with tensors on the CPU. ``torch.load(weights_only=True)`` runs no code.

    The file may hold tensors, containers, numbers, text, and the ``argparse.Namespace`` that many training programs
    save. Raises CheckpointError if it is missing, damaged, or holds code.
    """
    path = expand_home(Path(path))
    with _as_checkpoint_errors(path):
        kind = _kind_of(path, "checkpoint")
        if kind == "torch":
            _refuse_bombs(path)
        elif kind != "old torch":
            raise CheckpointError(f"{path}: not a torch checkpoint, but {kind}")
        # an open file, because torch treats some file names in a special way
        with path.open("rb") as file, safe_globals([argparse.Namespace]):
            return torch.load(file, map_location="cpu", weights_only=True)


@contextmanager
def _as_checkpoint_errors(path: Path) -> Iterator[None]:
    """Turns the errors of reading a file into a CheckpointError with one sentence."""
    try:
        yield
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Refused as error:
        raise CheckpointError(f"{path}: refused: {error}") from None
    except UnpicklingError as error:
        raise CheckpointError(f"{path}: refused: {_why_refused(error)}") from None
    except Exception as error:  # a damaged file can raise nearly anything
        raise CheckpointError(f"{path}: not a readable checkpoint: damaged ({_first_line(error)})") from None


def _why_refused(error: UnpicklingError) -> str:
    """Returns torch's reason, without its advice to load the file nevertheless."""
    reason = str(error.__context__ or error)  # torch puts its advice around the reason
    if found := re.search(r"GLOBAL (\S+)", reason):
        what = f"the archive refers to {ascii(found[1])[1:-1]:.120}, which is no tensor: it holds code (Python objects)"
        return f"{what}, which is never loaded"
    return f"the archive holds what no tensor needs ({ascii(reason.strip().splitlines()[0])[1:-1]:.200})"


def class_names(path: str | Path) -> set[str]:
    """Returns the module classes of a TorchScript archive, such as "__torch__.open_clip.model.CLIP"; none for others.

    The numbers that TorchScript puts into the names are removed. Call it only for files that ``read_weights`` accepts.
    """
    path = Path(path)
    if _kind_of(path) != "TorchScript":
        return set()
    with zipfile.ZipFile(path) as archive:
        description = archive.read(f"{_root(path)}/data.pkl")
    names = (name for code, name, _ in pickletools.genops(description) if code.name == "GLOBAL")
    return {re.sub(r"\.___torch_mangle_\d+", "", name.replace(" ", ".")) for name in names}


def _kind_of(path: Path, what: str = "weights file") -> str:
    """Returns ``safetensors``, ``torch``, ``old torch`` or ``TorchScript``, by the content of the file."""
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
            has_code = any(name.startswith(_code_and_constants(root)) for name in names)
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


def _code_and_constants(root: str) -> tuple[str, str]:
    """Returns how the names of a TorchScript archive's code and constants begin."""
    return f"{root}/code/", f"{root}/constants"


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
    """Returns the folder of ``data.pkl``, the description of the tensors, inside the zip; None if there is none."""
    return next((name.removesuffix("/data.pkl") for name in names if name.endswith("/data.pkl")), None)


class _Module:
    """Stands for a scripted module, or another object of TorchScript; its attributes are those in the pickle."""


def _read_script(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a TorchScript archive by dotted name.

    ``torch.load(weights_only=True)`` refuses archives with code and constants, so it reads a copy without them, in
    memory. In it a ``_Module`` stands for every class of TorchScript; all other names that torch refuses stay refused.
    """
    root, copy = _root(path), io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as tensors_only:
        for name in archive.namelist():
            if not name.startswith(_code_and_constants(root)):
                tensors_only.writestr(name, archive.read(name))
    copy.seek(0)
    names = get_unsafe_globals_in_checkpoint(copy)
    copy.seek(0)
    stand_ins = [(_Module, name) for name in names if name.startswith("__torch__.")]
    stand_ins += [(_first, name) for name in names if name.startswith("torch.jit._pickle.")]
    with safe_globals(stand_ins):
        return _tensors_below(torch.load(copy, map_location="cpu", weights_only=True))


def _first(*arguments):
    """Stands for TorchScript's functions that make typed lists of lists."""
    return arguments[0] if arguments else None


def _tensors_below(module: object) -> dict[str, Tensor]:
    """Returns the tensors of a scripted module by dotted name. Raises Refused for modules nested too deeply."""
    tensors: dict[str, Tensor] = {}
    queue = [((), module)]
    for _ in range(_MOST_ATTRIBUTES):
        if not queue:
            return tensors
        names, value = queue.pop()
        if len(names) > _DEEPEST:
            break
        if isinstance(value, Tensor):
            tensors[".".join(names)] = value
        elif type(value) is _Module:
            queue += [((*names, str(name)), part) for name, part in vars(value).items()]
    raise Refused("modules nested too deeply, or without end")


def _first_line(error: Exception) -> str:
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])[:300]


def _refuse_bombs(path: Path) -> None:
    """Raises Refused, before anything is read, if a name is there twice or the entries are larger than the file.

    Torch compresses neither tensors nor their description. Only a scripted module's code is compressed; it is not read.
    """
    root = _root(path)
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if len({entry.filename for entry in entries}) != len(entries):
        raise Refused("the archive has two entries with the same name")
    read = (entry for entry in entries if not entry.filename.startswith(f"{root}/code/"))
    if sum(entry.file_size for entry in read) > path.stat().st_size:
        raise Refused("its tensor data have more bytes than the file")


def _unwrapped(content) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    for _ in range(4):
        content = next((content[name] for name in _WRAPPERS if isinstance(content.get(name), Mapping)), content)
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _refuse_odd(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises BackboneError for tensors that are not plain numbers, or are many times larger than the file."""
    size = path.stat().st_size
    for name, tensor in tensors.items():
        if not name.isprintable() or len(name) > _LONGEST_NAME:
            raise BackboneError(f"{path}: refused: a tensor with the name {name!a:.60}…")
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise BackboneError(f"{path}: refused: {name} is not a plain tensor ({tensor.layout}, {tensor.device})")
        if tensor.numel() * tensor.element_size() > size:
            raise BackboneError(f"{path}: refused: {name} of shape {tuple(tensor.shape)} is larger than the file")
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > 4 * size:
        raise BackboneError(f"{path}: refused: its tensors are many times larger than the file")
