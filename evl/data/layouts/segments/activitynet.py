"""ActivityNet's JSON: ground truth (``database``), and results as its evaluator takes them (``results``)."""

from __future__ import annotations

from pathlib import Path

from evl.data.layouts.base import Annotation, FoundLayout
from evl.data.layouts.segments.base import SegmentReader, Segments, expect, load_json, start_of, text_of
from evl.data.manifests.listing import SPLIT_NAMES
from evl.errors import DataError

LOOKED_FOR = "a .json with 'database' (or 'results'), whose segments have 'segment' and 'label'"
NUM_SPLITS = 1
SUFFIXES = (".json",)


def find(files: list[Path]) -> list[Path]:
    """Returns the first file that looks like ActivityNet's, and all further ones in its folder."""
    found = [file for file in files if file.suffix.lower() in SUFFIXES and _is_ours(start_of(file))]
    return [file for file in found if file.parent == found[0].parent]


def _is_ours(start: str) -> bool:
    has_list = any(f'"{name}"' in start for name in ("database", "results", "taxonomy"))
    return has_list and any(f'"{name}"' in start for name in ("segment", "subset", "nodeName", "external_data"))


def read(found: FoundLayout, split_number: int) -> Annotation | Segments:
    """Reads segments. The splits of ground truth are ``training``, ``validation``, ``testing``."""
    reader = SegmentReader(found.files[0] if len(found.files) == 1 else found.folder)
    for file in found.files:
        content = expect(load_json(file), dict, str(file), "the content")
        if "database" in content:
            _read_database(reader, file, expect(content["database"], dict, str(file), "'database'"))
        elif "results" in content:
            paths = expect(content.get("paths", {}), dict, str(file), "'paths'")
            for name, rows in expect(content["results"], dict, str(file), "'results'").items():
                _read_rows(reader, f"{file}, video {name!r:.60}", name, paths.get(name, name), rows, "all")
        else:
            raise DataError(f"{file}: has neither 'database' nor 'results'; expected {LOOKED_FOR}")
    return reader.finish()


def _read_database(reader: SegmentReader, file: Path, database: dict) -> None:
    for name, video in database.items():
        where = f"{file}, video {name!r:.60}"
        expect(video, dict, where, "its value")
        subset = str(video.get("subset") or "all").lower()
        if subset != "all" and subset not in SPLIT_NAMES:
            raise DataError(f"{where}: subset {subset!r:.60}, expected training, validation or testing")
        rows = expect(video.get("annotations", []), list, where, "'annotations'")
        if not rows:
            reader.leave_out("videos without annotations")
        _read_rows(reader, where, name, name, rows, SPLIT_NAMES.get(subset, "all"))


def _read_rows(reader: SegmentReader, where: str, name: str, path: object, rows: object, split: str) -> None:
    path = text_of(path, where, "the path")
    names = (text_of(name, where, "the name"), f"v_{name}")  # videos are published as v_ID.mp4
    for number, row in enumerate(expect(rows, list, where, "its value"), 1):
        place = f"{where}, segment {number}"
        times = row.get("segment") if isinstance(row, dict) else None
        if not isinstance(times, list) or len(times) != 2:
            reader.reject(place, f"it is {row!r:.80}, expected an object with 'label' and 'segment': [start, end]")
        else:
            reader.add(place, path, row.get("label"), *times, split=split, names=names)
