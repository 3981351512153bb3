"""Index files: the frame indexes of a collection in one Arrow file, which all workers map into memory.

``evl check DATA --index FILE`` decodes every file whole and writes the index of each good one. Training with
``data.index=FILE`` then reads no packets and decodes no file whole, as long as a file's size and time of change are the
same.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evl.errors import DataError, one_line
from evl.runtime.files import expand_home, write_atomically
from evl.video.decode.index import FrameIndex

if TYPE_CHECKING:
    import pyarrow

FORMAT = b"evl frame index 2"


@cache
def _schema() -> pyarrow.Schema:
    import pyarrow  # only index files need it

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
            ("counted_seconds", pyarrow.list_(pyarrow.float64())),  # null: the times in the packets are right
        ],
        metadata={"format": FORMAT},
    )


def write_index(path: str | Path, entries: Sequence[tuple[str, FrameIndex, tuple[int, int]]]) -> None:
    """Writes an index file. Raises SaveError if the system refuses.

    ``entries``: for each video its path, its frame index, and its (bytes, time of change in ns) before it was decoded.
    """
    import pyarrow
    from pyarrow import feather

    rows = [
        {
            "path": os.path.realpath(name),
            "bytes": num_bytes,
            "mtime_ns": mtime_ns,
            "codec": index.codec,
            "time_base": str(index.time_base),
            "pts": index.pts,
            "seek_to": index.seek_to,
            "is_key": index.is_key.astype(np.uint8),
            "is_shown": index.is_shown.astype(np.uint8),
            "counted_seconds": index.counted_seconds if index.is_counted else None,
        }
        for name, index, (num_bytes, mtime_ns) in entries
    ]
    table = pyarrow.Table.from_pylist(rows, schema=_schema())
    with write_atomically(path) as file:
        feather.write_feather(table, file, compression="uncompressed")  # so that workers can map it


class IndexFile:
    """An index file that is open for reading. Raises DataError if it is not an index file of this version."""

    def __init__(self, path: str | Path):
        self.path = expand_home(str(path))
        self._table  # noqa: B018  (it raises the error for a wrong file)

    def __getstate__(self) -> dict:
        return {"path": self.path}  # each worker maps the file itself

    @cached_property
    def _table(self) -> pyarrow.Table:
        import pyarrow
        from pyarrow import feather

        try:
            table = feather.read_table(self.path, memory_map=True)
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(
                f"{self.path}: cannot be read as an index file ({one_line(error)}); evl check --index writes one"
            ) from None
        if (table.schema.metadata or {}).get(b"format") != FORMAT or table.schema.names != _schema().names:
            raise DataError(
                f"{self.path}: not an index file that this version of evl reads; evl check --index writes one"
            )
        return table

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {path: row for row, path in enumerate(self._table["path"].to_pylist())}

    def find(self, path: str) -> FrameIndex | None:
        """Returns the frame index of a video; None if the file has none for it, or if the video has changed since."""
        row = self._rows.get(os.path.realpath(path))
        if row is None:
            return None
        (stored,) = self._table.slice(row, 1).select(["bytes", "mtime_ns", "codec", "time_base"]).to_pylist()
        try:
            stat = os.stat(path)
        except OSError:
            return None
        if (stat.st_size, stat.st_mtime_ns) != (stored["bytes"], stored["mtime_ns"]):
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
                Fraction(stored["time_base"]),
                stored["codec"],
                counted.to_numpy() if counted is not None else None,
            )
        except (ValueError, ZeroDivisionError):
            return None
        return index if index.is_plausible else None
