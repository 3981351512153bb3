"""What is known of the files of a collection, kept on disk: an Arrow file that all workers map into memory.

``evl check DATA --index FILE`` writes it, with every good file, decoded whole. Training with ``data.index=FILE`` then
needs no look at a file's packets, and no decoding of whole files, as long as size and time of change are the same.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evl.errors import DataError
from evl.runtime.files import expand_home, write_atomically
from evl.video.decode.index import FrameIndex

if TYPE_CHECKING:
    import pyarrow

FORMAT = b"evl frame index 2"  # 1: other streams of some files, other times of joined ones


@cache
def _schema() -> pyarrow.Schema:
    import pyarrow  # when an index is read or written: readers of videos need none

    return pyarrow.schema(
        [
            ("path", pyarrow.string()),
            ("bytes", pyarrow.int64()),
            ("mtime_ns", pyarrow.int64()),
            ("codec", pyarrow.string()),
            ("time_base", pyarrow.string()),
            ("pts", pyarrow.list_(pyarrow.int64())),
            ("seek_to", pyarrow.list_(pyarrow.int64())),
            ("is_key", pyarrow.list_(pyarrow.uint8())),
            ("is_shown", pyarrow.list_(pyarrow.uint8())),
            ("counted_seconds", pyarrow.list_(pyarrow.float64())),  # null: packets can be trusted
        ],
        metadata={"format": FORMAT},
    )


def write_index(path: str | Path, entries: Sequence[tuple[str, FrameIndex, tuple[int, int]]]) -> None:
    """(path of a file, what its frames are, its bytes and time of change in ns before that was found out) of each."""
    import pyarrow
    from pyarrow import feather

    rows = []
    for name, index, (num_bytes, mtime_ns) in entries:
        counted = index.counted_seconds.tolist() if index.is_counted else None
        rows.append(
            (os.path.realpath(name), num_bytes, mtime_ns, index.codec, str(index.time_base),
             index.pts, index.seek_to, index.is_key.astype(np.uint8), index.is_shown.astype(np.uint8), counted)
        )  # fmt: skip
    columns = list(zip(*rows, strict=True)) or [[]] * len(_schema())
    table = pyarrow.Table.from_arrays(
        [pyarrow.array(column, field.type) for column, field in zip(columns, _schema(), strict=True)], schema=_schema()
    )
    with write_atomically(path) as file:
        feather.write_feather(table, file, compression="uncompressed")  # so that it can be mapped


class IndexFile:
    """``IndexFile(path).find(video)`` -> its FrameIndex, or None if it is not there or has changed since."""

    def __init__(self, path: str | Path):
        self.path = expand_home(str(path))
        self._table  # noqa: B018  (a wrong file is told now)

    def __getstate__(self) -> dict:
        return {"path": self.path}  # a worker maps it again

    @cached_property
    def _table(self) -> pyarrow.Table:
        import pyarrow
        from pyarrow import feather

        try:
            table = feather.read_table(self.path, memory_map=True)
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(
                f"{self.path}: not a readable index of videos ({error}); evl check --index makes one"
            ) from None
        if (table.schema.metadata or {}).get(b"format") != FORMAT or table.schema.names != _schema().names:
            raise DataError(f"{self.path}: not an index that this version of evl reads; evl check --index makes one")
        return table

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {path: row for row, path in enumerate(self._table["path"].to_pylist())}

    def find(self, path: str) -> FrameIndex | None:
        row = self._rows.get(os.path.realpath(path))
        if row is None:
            return None
        (known,) = self._table.slice(row, 1).select(["bytes", "mtime_ns", "codec", "time_base"]).to_pylist()
        try:
            found = os.stat(path)
        except OSError:
            return None
        if (found.st_size, found.st_mtime_ns) != (known["bytes"], known["mtime_ns"]):
            return None
        pts, seek_to, is_key, is_shown = (
            self._table[name][row].values.to_numpy() for name in ("pts", "seek_to", "is_key", "is_shown")
        )
        counted = self._table["counted_seconds"][row].values
        try:
            index = FrameIndex(
                pts,
                seek_to,
                is_key.astype(bool),
                is_shown.astype(bool),
                Fraction(known["time_base"]),
                known["codec"],
                counted.to_numpy() if counted is not None else None,
            )
        except (ValueError, ZeroDivisionError):
            return None
        return index if index.is_plausible else None
