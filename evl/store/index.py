"""``index.parquet``: a table with one row per stored clip and one per damaged video."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evl.errors import StoreError, one_line
from evl.runtime.files import require_plain_file, write_atomically
from evl.store.description import SPLITS, ShardRange, StoreDescription, first_shards, items_per_shard, shard_ranges
from evl.store.shards import missing_shards, open_shard, read_description
from evl.types import Sample

if TYPE_CHECKING:
    import pyarrow

INDEX = "index.parquet"
COLUMNS = (
    "split", "video", "path", "start_seconds", "end_seconds", "label", "clip", "num_valid", "shard", "row", "reason",
    "group",
)  # fmt: skip
_NUMBERS = {
    "video": "int32", "start_seconds": "float64", "end_seconds": "float64", "clip": "int32", "num_valid": "int32",
    "shard": "int32", "row": "int32",
}  # fmt: skip


@cache
def schema(has_groups: bool = False) -> pyarrow.Schema:
    """The columns of an index. The last one exists only if the videos have groups."""
    import pyarrow  # imported here, because only reading and writing an index need it

    names = COLUMNS if has_groups else COLUMNS[:-1]
    return pyarrow.schema([(name, getattr(pyarrow, _NUMBERS.get(name, "string"))()) for name in names])


def write_index(folder: str | Path) -> None:
    """Writes ``index.parquet`` from the headers of all shards. Every process writes the same bytes.

    If one clip of a video could not be made, the whole video is listed as damaged. Raises StoreError if shards are
    missing or wrong.
    """
    import pyarrow
    from pyarrow import parquet

    description = read_description(folder)
    if missing := missing_shards(folder, description):
        raise StoreError(f"{folder}: {len(missing)} shards are missing, the first is shard {missing[0]}")
    columns: dict[str, list] = {name: [] for name in COLUMNS}
    for video in _videos(folder, description):
        damaged = [row for row in video if row["reason"] is not None]
        for row in damaged[:1] or video:
            for name in COLUMNS:
                columns[name].append(row[name])
    wanted = schema(any(group is not None for group in columns["group"]))
    table = pyarrow.Table.from_arrays(
        [pyarrow.array(columns[field.name], field.type) for field in wanted], schema=wanted
    )
    with write_atomically(Path(folder) / INDEX) as file:
        # every setting that decides bytes is given; Arrow's copy of the schema is left out
        parquet.write_table(
            table, file, row_group_size=1 << 20, version="2.6", compression="snappy", use_dictionary=True,
            write_statistics=True, data_page_version="1.0", store_schema=False, write_page_checksum=True,
        )  # fmt: skip


def _videos(folder: str | Path, description: StoreDescription) -> Iterator[list[dict]]:
    """The rows of each video, from all shards."""
    rows: list[dict] = []
    for covers in shard_ranges(description):
        for row in _rows(folder, description, covers):
            if rows and (rows[0]["split"], rows[0]["video"]) != (row["split"], row["video"]):
                yield rows
                rows = []
            rows.append(row)
    if rows:
        yield rows


def _rows(folder: str | Path, description: StoreDescription, covers: ShardRange) -> Iterator[dict]:
    """The rows of one shard."""
    place = 0
    for item in open_shard(folder, description, covers).items:
        row = dict.fromkeys(COLUMNS) | item
        row.pop("checksums", None)
        for name in ("path", "group"):
            row[name] = row[name] and as_text(row[name])
        if item.get("reason") is None:
            row |= {"shard": covers.number, "row": place}
            place += 1
        else:
            row["clip"] = None
        yield row


def as_text(name: str) -> str:
    """A name with bytes that are no text, as Parquet, which holds text only, has it."""
    return name.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class SplitRows:
    """The rows of one split."""

    samples: tuple[Sample, ...]  # all videos of the split
    labels: tuple[int, ...]  # the number of each video's class
    damaged: dict[int, str]  # video -> reason
    num_clips: np.ndarray  # stored clips of each video; 0 if it is damaged
    first: np.ndarray  # the place of each video's first row
    num_valid: np.ndarray  # for each row, the frames of its clip that lie inside the video
    row: np.ndarray  # for each row, its place in its shard


def read_index(path: Path, description: StoreDescription) -> dict[str, SplitRows]:
    """The rows of each split that has videos. Raises StoreError if the file is no index of that store."""
    import pyarrow
    from pyarrow import parquet

    most = sum(count * description.clips_per_video(split) for split, count in description.splits.items())
    try:
        require_plain_file(path)
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            columns = {field.name: field.type for field in file.schema_arrow}
            known = [{field.name: field.type for field in schema(has_groups)} for has_groups in (False, True)]
            if columns not in known or not 0 < file.metadata.num_rows <= most:
                raise StoreError(f"{path}: not the index of this store: other columns, or more rows than it can have")
            table = file.read()
            table.validate(full=True)  # also whether texts are UTF-8
    except StoreError:
        raise
    except (OSError, ValueError, pyarrow.ArrowException) as error:  # ValueError: names of columns that are no text
        raise StoreError(f"{path}: damaged ({one_line(error)}); delete it, and evl extract makes it again") from None
    splits = np.asarray(table["split"].to_numpy(zero_copy_only=False), dtype=object)
    ends = [0]
    rows = {}
    for split in SPLITS:
        if description.splits.get(split):
            ends.append(ends[-1] + int((splits == split).sum()))
            if not (splits[ends[-2] : ends[-1]] == split).all():
                raise StoreError(f"{path}: the rows of its splits are not in order")
            rows[split] = _rows_of(table.slice(ends[-2], ends[-1] - ends[-2]), split, description, path)
    if ends[-1] != len(table):
        raise StoreError(f"{path}: has rows of splits that the store does not have")
    return rows


def _rows_of(table: pyarrow.Table, split: str, description: StoreDescription, path: Path) -> SplitRows:
    """The rows of one split. Raises StoreError if a number in them is impossible."""

    def require(condition: bool, what: str) -> None:
        if not condition:
            raise StoreError(f"{path}: {what}, in split {split}; delete it, and evl extract makes it again")

    require(not any(table[name].null_count for name in ("video", "path", "label")), "a video without a path or a label")
    is_damaged = table["reason"].is_valid().to_numpy()
    for name in ("clip", "num_valid", "shard", "row"):
        require(
            (table[name].is_valid().to_numpy() != is_damaged).all(), f"{name} is missing, or given for a damaged video"
        )
    video, clip, num_valid, shard, row = (
        table[name].fill_null(0).to_numpy().astype(np.int64) for name in ("video", "clip", "num_valid", "shard", "row")
    )
    count, clips = description.splits[split], description.clips_per_video(split)
    starts = np.flatnonzero(np.diff(video, prepend=-1))
    require(np.array_equal(video[starts], np.arange(count)), f"its videos are not 0 to {count - 1}, each once")
    lengths = np.diff(starts, append=len(video))
    require(np.array_equal(clip, np.arange(len(video)) - np.repeat(starts, lengths)), "clips that are not 0, 1, 2, …")
    require((clip < clips).all(), f"more than {clips} clips of a video")
    require((lengths[is_damaged[starts]] == 1).all() and is_damaged.sum() == is_damaged[starts].sum(),
            "clips of a damaged video")  # fmt: skip
    require(((num_valid >= 0) & (num_valid <= description.num_frames(split))).all(), "more frames than a clip has")
    nth = (video * clips + clip) // items_per_shard(description, split)
    require((shard == first_shards(description)[split] + nth)[~is_damaged].all(), "a clip in the wrong shard")
    good_row, good_nth = row[~is_damaged], nth[~is_damaged]
    is_new = np.diff(good_nth, prepend=-1) != 0
    require(((good_row >= 0) & (is_new | (np.diff(good_row, prepend=-1) > 0))).all(), "rows that are not in order")
    firsts = table.take(starts)
    samples = _samples(firsts, require)
    numbers = {name: number for number, name in enumerate(description.class_names)}
    unknown = next((sample.label for sample in samples if sample.label not in numbers), None)
    require(unknown is None, f"a class {str(unknown)[:50]!r} that store.json does not name")
    return SplitRows(
        samples,
        tuple(numbers[sample.label] for sample in samples),
        {int(video[start]): str(table["reason"][int(start)])[:1000] for start in starts[is_damaged[starts]]},
        np.where(is_damaged[starts], 0, lengths),
        starts,
        num_valid,
        row,
    )


def _samples(rows: pyarrow.Table, require) -> tuple[Sample, ...]:
    samples = []
    has_groups = "group" in rows.column_names
    require(not has_groups or rows["group"].null_count in (0, len(rows)), "a video without a group")
    names = ["path", "label", "start_seconds", "end_seconds", *["group"] * has_groups]
    for row in rows.select(names).to_pylist():
        for time in (row["start_seconds"], row["end_seconds"]):
            require(time is None or 0 <= time < float("inf"), "a time that is negative or not finite")
        samples.append(Sample(**row))
    return tuple(samples)
