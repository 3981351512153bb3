"""Weight files, read for their tensors only: safetensors, torch's (weights_only), and TorchScript archives."""

from __future__ import annotations

import collections
import io
import math
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from evl.errors import BackboneError, CheckpointError


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], bool]:
    """All tensors of a file by name, and whether it is a TorchScript archive. Runs no code found in it.

    Raises BackboneError for a missing, damaged or unsafe file.
    """
    path = Path(path)
    if not path.is_file():
        raise BackboneError(f"{path}: no such weights file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path), False
        if zipfile.is_zipfile(path) and _root_of_torchscript(path) is not None:
            return read_torchscript(path), True
        content = load_torch_file(path)
    except CheckpointError as error:
        raise BackboneError(str(error)) from None
    except (SafetensorError, zipfile.BadZipFile, OSError) as error:
        raise BackboneError(f"{path}: not a readable weights file ({error})") from None
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not tensors:
        raise BackboneError(f"{path}: holds no named tensors")
    return tensors, False


def load_torch_file(path: str | Path):
    """``torch.load`` that never executes a pickle; CheckpointError where a file is damaged or would have to."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: not a readable checkpoint: damaged, or it holds code (Python objects), which is never loaded"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        reason = str(error).split("\n")[0]
        raise CheckpointError(f"{path}: not a readable checkpoint ({reason})") from None


def read_torchscript(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a TorchScript archive by dotted name, without building or running its modules."""
    root = _root_of_torchscript(path)
    if root is None:
        raise BackboneError(f"{path}: not a TorchScript archive")
    with zipfile.ZipFile(path) as archive:
        try:
            module = _TensorsOnly(archive, root).load()
        except BackboneError:
            raise
        except Exception as error:  # a damaged pickle can raise nearly anything
            raise BackboneError(f"{path}: damaged TorchScript archive ({type(error).__name__}: {error})") from None
    tensors: dict[str, Tensor] = {}
    _collect(module, "", tensors)
    return tensors


def _root_of_torchscript(path: str | Path) -> str | None:
    """The folder inside the zip, if there is code beside the data (plain torch checkpoints have none)."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    roots = [name.removesuffix("/data.pkl") for name in names if name.endswith("/data.pkl")]
    return next(
        (root for root in roots if any(n.startswith((f"{root}/code/", f"{root}/constants")) for n in names)), None
    )


class _Module:
    """Stands for any scripted module: holds what the archive says of it, does nothing."""

    def __init__(self, *args):
        self.state = {}

    def __setstate__(self, state):
        self.state = state


_STORAGE_TYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class _TensorsOnly(pickle.Unpickler):
    """An unpickler that can name nothing but tensors, ordered dicts and inert stand-ins for modules."""

    def __init__(self, archive: zipfile.ZipFile, root: str):
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str):
        if module == "__torch__" or module.startswith(("__torch__.", "torch.jit._pickle")):
            return _Module
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in _STORAGE_TYPES:
            return _STORAGE_TYPES[name]
        raise BackboneError(f"refused: the archive asks for {module}.{name}, which is no tensor")

    def persistent_load(self, pid):
        _, dtype, key, _, count = pid
        entry = self._archive.getinfo(f"{self._root}/data/{key}")
        if entry.compress_type != zipfile.ZIP_STORED or count * dtype.itemsize != entry.file_size:
            raise BackboneError(f"refused: tensor data {key} is not {count} plain numbers of {dtype.itemsize} bytes")
        if count == 0:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(bytearray(self._archive.read(entry)), dtype=dtype)


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *ignored) -> Tensor:
    if math.prod(size) > storage.numel():  # a stride of 0 would make terabytes out of nothing
        raise BackboneError(f"refused: a tensor of shape {tuple(size)} out of {storage.numel()} stored numbers")
    return storage.as_strided(size, stride, offset)  # checks bounds


def _collect(value, name: str, tensors: dict[str, Tensor]) -> None:
    if isinstance(value, Tensor):
        tensors[name] = value
    elif isinstance(value, _Module) and isinstance(value.state, Mapping):
        for key, part in value.state.items():
            _collect(part, f"{name}.{key}" if name else str(key), tensors)
