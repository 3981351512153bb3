"""The shards of a store, mapped into memory. Each is checked against the description before it is used."""

from __future__ import annotations

import json
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import safetensors
from torch import Tensor

from evl.errors import StoreError, one_line
from evl.runtime.checksums import checksum, is_finite
from evl.runtime.files import require_plain_file
from evl.store.description import DESCRIPTION, ShardRange, StoreDescription, clip_tensors, first_shards, shard_range
from evl.store.packing import TYPES

SHARDS = "shards"
ITEMS = "evl"  # the one entry of a shard's metadata
MOST_OPEN = 1024  # shards that stay mapped; a mapping does not keep its file open
# the names of types in safetensors
_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int8": "I8", "uint8": "U8", "float8": "F8_E4M3"}
_MOST_ITEMS_BYTES = 64 << 20


def shard_path(folder: str | Path, number: int) -> Path:
    """``shards/00000.safetensors`` of a store."""
    return Path(folder) / SHARDS / f"{number:05d}.safetensors"


def read_description(folder: str | Path) -> StoreDescription:
    """The description of a store, finished or not. Raises StoreError if there is none, or it cannot be read."""
    path = Path(folder) / DESCRIPTION
    try:
        require_plain_file(path)
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{folder}: no store of features here (no {DESCRIPTION}); evl extract makes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: cannot be read ({one_line(error)})") from None
    return StoreDescription.from_json(text, path)


def missing_shards(folder: str | Path, description: StoreDescription) -> list[int]:
    """The numbers of the shards that do not exist yet."""
    there = _names_of_shards(folder)
    return [n for n in range(first_shards(description)[""]) if shard_path(folder, n).name not in there]


def num_shards(folder: str | Path) -> int:
    """The number of shards that exist."""
    return len(_names_of_shards(folder))


def _names_of_shards(folder: str | Path) -> set[str]:
    try:
        return {name for name in os.listdir(Path(folder) / SHARDS) if re.fullmatch(r"\d{5,}\.safetensors", name)}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise StoreError(f"{folder}: its shards cannot be listed ({error.strerror or error})") from None


class Shard:
    """An open shard.

    Attributes:
        tensors: name -> memory-mapped tensor with ``num_rows`` clips. Never write to it.
        items: all clips of the shard, as its metadata lists them.
        pairs: (video, clip) of each row.
        verified: for each row and tensor, in the order of their names, whether ``verify`` found it right.
    """

    def __init__(self, path: Path, tensors: dict[str, Tensor], items: list[dict]):
        self.path, self.tensors, self.items = path, tensors, items
        self.pairs = [(item["video"], item["clip"]) for item in items if item.get("reason") is None]
        # the tensors fill the file up to its end; safetensors refuses any other file
        self._end = max((t.data_ptr() + t.nbytes for t in tensors.values() if t.nbytes), default=0)
        self._bytes = path.stat().st_size
        self._names = sorted(tensors)
        self._good_items = [item for item in items if item.get("reason") is None]
        self.verified = np.zeros((self.num_rows, len(tensors)), bool)

    @property
    def num_rows(self) -> int:
        return len(self.pairs)

    def verify(self, row: int, names: Iterable[str]) -> None:
        """Compares tensors of a clip with their checksums, each only once. Raises StoreError, which names the clip."""
        for name in names:
            place = self._names.index(name)
            if self.verified[row, place]:
                continue
            values, item = self.tensors[name][row], self._good_items[row]
            what = f"{self.path}: {name} of clip {item['clip']} of {item['path']}"
            if not is_finite(values):
                raise StoreError(f"{what} has numbers that are not finite; delete the shard, and evl extract makes it "
                                 "again")  # fmt: skip
            if checksum(values) != item["checksums"][place]:
                raise StoreError(f"{what} is damaged: its bytes are not those of its checksum; delete the shard, and "
                                 "evl extract makes it again")  # fmt: skip
            self.verified[row, place] = True

    def prefetch(self, parts: Sequence[Tensor]) -> None:
        """Asks the system to read parts of the tensors from disk together. Page by page takes three times as long."""
        if not hasattr(os, "posix_fadvise"):
            return
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:  # the file was removed since; the mapping still works
            return
        try:
            for part in parts:
                start = self._bytes - self._end + part.data_ptr()
                os.posix_fadvise(file, start, part.nbytes, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(file)


def open_shard(folder: str | Path, description: StoreDescription, covers: ShardRange) -> Shard:
    """Maps a shard. Raises StoreError if it is missing, damaged, or does not fit the description."""
    path = shard_path(folder, covers.number)
    try:
        require_plain_file(path)
        with safetensors.safe_open(path, "pt") as file:
            items = _items((file.metadata() or {}).get(ITEMS), description, covers, path)
            rows = sum(item.get("reason") is None for item in items)
            frames = description.num_frames(covers.split)
            wanted = clip_tensors(description.spec, description.taps, description.options, frames)
            names = set(file.keys())
            if names != set(wanted) and (names or rows):
                name = sorted(names ^ set(wanted))[0]
                raise StoreError(f"{path}: {name[:50]!r} {'should not be' if name in names else 'is not'} in it")
            tensors = {}
            for name in names:
                dtype, shape = wanted[name]
                part = file.get_slice(name)
                if part.get_dtype() != _NAMES[dtype] or tuple(part.get_shape()) != (rows, *shape):
                    actual = f"{part.get_dtype()} {tuple(part.get_shape())}"
                    raise StoreError(f"{path}: {name} is {actual}, but should be {_NAMES[dtype]} {(rows, *shape)}")
                tensors[name] = file.get_tensor(name)
                assert tensors[name].dtype == TYPES[dtype]
            listed = [item.get("checksums") for item in items if item.get("reason") is None]
            if not all(_are_checksums(one, len(names)) for one in listed):
                raise StoreError(f"{path}: its metadata lists other checksums than its clips have")
            return Shard(path, tensors, items)
    except StoreError:
        raise
    except FileNotFoundError:
        raise StoreError(f"{path}: missing; evl extract goes on with an unfinished store") from None
    except (OSError, safetensors.SafetensorError, RuntimeError, ValueError) as error:
        raise StoreError(f"{path}: damaged ({one_line(error)}); delete it, and evl extract makes it again") from None


def _items(text: str | None, description: StoreDescription, covers: ShardRange, path: Path) -> list[dict]:
    """The items in a shard's metadata. Raises StoreError if they are not those of ``covers``."""
    if text is None or len(text) > _MOST_ITEMS_BYTES:
        raise StoreError(f"{path}: its metadata does not list clips; it is no shard of a store")
    try:
        content = json.loads(text)
        items = content["items"]
        pairs = [(item["video"], item["clip"]) for item in items]
        is_whole = all(_is_item(item, covers.split, description.num_frames(covers.split)) for item in items)
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        raise StoreError(f"{path}: its metadata does not list clips; it is no shard of a store") from None
    if content.get("fingerprint") != description.fingerprint_hash:
        raise StoreError(f"{path}: a shard of another store, whose fingerprint is not that of store.json")
    if pairs != covers.pairs or not is_whole:
        raise StoreError(f"{path}: lists other clips than shard {covers.number} of this store has")
    return items


def _is_item(item: dict, split: str, frames: int) -> bool:
    times = [item.get(name) for name in ("start_seconds", "end_seconds")]
    reason, valid = item.get("reason"), item.get("num_valid")
    return (
        item["split"] == split
        and isinstance(item["path"], str)
        and isinstance(item["label"], str)
        and isinstance(item.get("group", ""), str)
        and type(item["video"]) is type(item["clip"]) is int
        and all(time is None or (type(time) in (int, float) and 0 <= time < float("inf")) for time in times)
        and (isinstance(reason, str) if reason is not None else type(valid) is int and 1 <= valid <= frames)
    )


def _are_checksums(numbers: object, count: int) -> bool:
    is_list = isinstance(numbers, list) and len(numbers) == count
    return is_list and all(type(one) is int and 0 <= one < 1 << 32 for one in numbers)


class Shards:
    """Opens the shards of a store when they are first used, and keeps the ``most`` last used ones. Thread-safe."""

    def __init__(self, folder: Path, description: StoreDescription, most: int = MOST_OPEN):
        self.folder, self.description, self.most = folder, description, most
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._verified: dict[int, np.ndarray] = {}  # also of shards that were closed since
        self._lock = threading.Lock()

    def __getstate__(self) -> dict:
        return {"folder": self.folder, "description": self.description, "most": self.most}

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)  # another process opens them again

    def get(self, number: int) -> Shard:
        with self._lock:
            if number in self._open:
                self._open.move_to_end(number)
                return self._open[number]
        shard = open_shard(self.folder, self.description, shard_range(self.description, number))
        with self._lock:
            shard.verified = self._verified.setdefault(number, shard.verified)
            self._open[number] = shard
            while len(self._open) > self.most:
                self._open.popitem(last=False)
        return shard
