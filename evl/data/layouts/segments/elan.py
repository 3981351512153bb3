"""ELAN's annotations (EAF): a label is the value of an annotation, or the name of its tier where the value is empty."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from evl.data.layouts.base import Annotation, FoundLayout
from evl.data.layouts.segments.base import SegmentReader, Segments, text_of
from evl.data.layouts.segments.places import path_in
from evl.data.layouts.segments.xml import Element, read_xml
from evl.data.manifests.listing import is_video_name
from evl.errors import DataError

LOOKED_FOR = "a .eaf for each video"
NUM_SPLITS = 1
SUFFIXES = (".eaf",)
_MILLISECONDS = 1000


def find(files: list[Path]) -> list[Path]:
    """Returns all EAF files."""
    return [file for file in files if file.suffix.lower() in SUFFIXES]


def read(found: FoundLayout, split_number: int) -> Annotation | Segments:
    """Reads the annotations of all tiers that are aligned to time, and have no parent."""
    reader = SegmentReader(found.files[0] if len(found.files) == 1 else found.folder)
    for file in found.files:
        _read_file(reader, file)
    return reader.finish()


def _read_file(reader: SegmentReader, file: Path) -> None:
    root = read_xml(file)
    if root.tag != "ANNOTATION_DOCUMENT":
        raise DataError(f"{file}: begins with <{root.tag[:60]}>, expected ELAN's <ANNOTATION_DOCUMENT>")
    video, origin = _video(file, root)
    times = _time_slots(file, root)
    if not any(tier.children for tier in root.all("TIER")):
        reader.leave_out("files without annotations")
    for tier in root.all("TIER"):
        annotations = [one for annotation in tier.all("ANNOTATION") for one in annotation.children]
        aligned = [one for one in annotations if one.tag == "ALIGNABLE_ANNOTATION"]
        if tier.attributes.get("PARENT_REF"):
            reader.leave_out("annotations of tiers that have a parent", len(annotations) or 1)
            continue
        if len(aligned) < len(annotations):
            reader.leave_out("annotations that are not aligned to time", len(annotations) - len(aligned))
        for one in aligned:
            _read_annotation(reader, file, tier, one, video, origin, times)


def _read_annotation(reader: SegmentReader, file, tier, one: Element, video: str, origin: int, times: dict) -> None:
    where = f"{file}, line {one.line}"
    slots = [one.attributes.get(name) for name in ("TIME_SLOT_REF1", "TIME_SLOT_REF2")]
    if unknown := [slot for slot in slots if slot not in times]:
        reader.reject(where, f"the time slot {unknown[0]!r:.60} does not exist")
        return
    start, end = (times[slot] for slot in slots)
    if start is None or end is None:
        reader.leave_out("annotations that are not aligned to time")
        return
    value = "".join(child.text for child in one.all("ANNOTATION_VALUE"))
    label = value if value.strip() else tier.attributes.get("TIER_ID", "")
    reader.add(where, video, label, (start + origin) / _MILLISECONDS, (end + origin) / _MILLISECONDS)


def _video(file: Path, root: Element) -> tuple[str, int]:
    """Returns (the address of the first video, where in it the time 0 of the annotations is, in milliseconds)."""
    header = next(iter(root.all("HEADER")), None)
    if header is None:
        raise DataError(f"{file}: has no <HEADER> with a medium")
    if (units := header.attributes.get("TIME_UNITS", "milliseconds")) != "milliseconds":
        raise DataError(f"{file}, line {header.line}: times in {units!r:.60}, expected milliseconds")
    for medium in header.all("MEDIA_DESCRIPTOR"):
        where = f"{file}, line {medium.line}"
        address = text_of(medium.attributes.get("MEDIA_URL", ""), where, "MEDIA_URL")
        relative = medium.attributes.get("RELATIVE_MEDIA_URL", "")
        is_video = medium.attributes.get("MIME_TYPE", "").startswith("video/") or is_video_name(address)
        if is_video:
            return _best(file, address, relative), _whole(where, medium.attributes.get("TIME_ORIGIN", "0"))
    raise DataError(f"{file}, line {header.line}: names no video (a MEDIA_DESCRIPTOR with a MIME_TYPE of video/…)")


def _best(file: Path, address: str, relative: str) -> str:
    """The relative address if it leads to a file: ELAN looks there, too, if files were moved together."""
    return address if Path(path_in(address)).exists() or not relative else _decoded(file, relative) or address


def _decoded(file: Path, relative: str) -> str | None:
    for text in (relative, unquote(relative)):
        if "\0" not in text and (path := file.parent / text).exists():
            return str(path)
    return None


def _time_slots(file: Path, root: Element) -> dict[str, int | None]:
    """Returns the id of each time slot → milliseconds, or None where it has no time."""
    times: dict[str, int | None] = {}
    for order in root.all("TIME_ORDER"):
        for slot in order.all("TIME_SLOT"):
            where, value = f"{file}, line {slot.line}", slot.attributes.get("TIME_VALUE")
            name = slot.attributes.get("TIME_SLOT_ID", "")
            if not name or name in times:
                raise DataError(f"{where}: the id {name!r:.60} of a time slot is empty, or appears twice")
            times[name] = None if value is None else _whole(where, value)
    return times


def _whole(where: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise DataError(f"{where}: {text!r:.60}, expected milliseconds, 0 or more")
    return int(text)
