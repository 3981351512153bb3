"""ELAN: an EAF file for each video (schema 3.0), with a tier for each class."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from evl.inference.formats.common import LabeledVideo, by_class, milliseconds, xml_text
from evl.runtime.files import write_file

_SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
_TYPE, _VOCABULARY, _LANGUAGE = "class", "classes", "und"


def write_elan(folder: Path, videos: Sequence[LabeledVideo]) -> None:
    """Writes NAME.eaf for each video. Segments of one class that overlap are on tiers of their own."""
    for video in videos:
        root = _document(folder, video)
        ElementTree.indent(root)
        write_file(folder / f"{video.name}.eaf", ElementTree.tostring(root, "UTF-8", xml_declaration=True) + b"\n")


def _document(folder: Path, video: LabeledVideo) -> Element:
    tiers = _tiers(video)
    root = Element("ANNOTATION_DOCUMENT", {
        "AUTHOR": "evl", "DATE": datetime.now().astimezone().isoformat(timespec="seconds"), "FORMAT": "3.0",
        "VERSION": "3.0", "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
        "xsi:noNamespaceSchemaLocation": _SCHEMA,
    })  # fmt: skip
    header = SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    relative = os.path.relpath(video.path, folder)
    kind = mimetypes.guess_type(video.path)[0] or ""
    SubElement(header, "MEDIA_DESCRIPTOR", {
        "MEDIA_URL": Path(video.path).as_uri(), "MIME_TYPE": kind if kind.startswith("video/") else "video/*",
        "RELATIVE_MEDIA_URL": quote(f"./{Path(relative).as_posix()}".encode("utf-8", "surrogateescape")),
    })  # fmt: skip
    number = sum(len(segments) for _, segments in tiers)
    SubElement(header, "PROPERTY", NAME="lastUsedAnnotationId").text = str(number)
    slots = _time_slots(SubElement(root, "TIME_ORDER"), [one for _, segments in tiers for one in segments])
    place = 0
    for name, segments in tiers:
        tier = SubElement(root, "TIER", LINGUISTIC_TYPE_REF=_TYPE, TIER_ID=name[1])
        for one in segments:
            start, end = slots[place]
            place += 1
            annotation = SubElement(SubElement(tier, "ANNOTATION"), "ALIGNABLE_ANNOTATION", {
                "ANNOTATION_ID": f"a{place}", "TIME_SLOT_REF1": start, "TIME_SLOT_REF2": end,
            })  # fmt: skip
            SubElement(annotation, "ANNOTATION_VALUE").text = xml_text(one.label)
    SubElement(root, "LINGUISTIC_TYPE", {
        "CONTROLLED_VOCABULARY_REF": _VOCABULARY, "GRAPHIC_REFERENCES": "false", "LINGUISTIC_TYPE_ID": _TYPE,
        "TIME_ALIGNABLE": "true",
    })  # fmt: skip
    SubElement(root, "LANGUAGE", LANG_ID=_LANGUAGE, LANG_LABEL="undetermined (und)")
    _vocabulary(SubElement(root, "CONTROLLED_VOCABULARY", CV_ID=_VOCABULARY), [name[0] for name, _ in tiers])
    return root


def _tiers(video: LabeledVideo) -> list[tuple[tuple[str, str], list]]:
    """Returns ((class, id of the tier), segments) of each tier: one for each class, more where segments overlap."""
    tiers, used = [], set()
    for name, found in by_class(video).items():
        for segments in found or [[]]:
            tier, number = xml_text(name), 1
            while tier in used:
                number += 1
                tier = f"{xml_text(name)} ({number})"
            used.add(tier)
            tiers.append(((name, tier), segments))
    return tiers


def _time_slots(order: Element, segments: Sequence) -> list[tuple[str, str]]:
    """Adds the time slots of all segments, in the order of time. Returns the ids of (start, end) of each segment."""
    ends = [(time, place, side) for place, one in enumerate(segments) for side, time in enumerate(milliseconds(one))]
    ids = {}
    for number, (time, place, side) in enumerate(sorted(ends), 1):
        ids[place, side] = f"ts{number}"
        SubElement(order, "TIME_SLOT", TIME_SLOT_ID=f"ts{number}", TIME_VALUE=str(time))
    return [(ids[place, 0], ids[place, 1]) for place in range(len(segments))]


def _vocabulary(vocabulary: Element, names: Sequence[str]) -> None:
    """The classes to choose from in ELAN."""
    SubElement(vocabulary, "DESCRIPTION", LANG_REF=_LANGUAGE)
    for number, name in enumerate(dict.fromkeys(names), 1):
        entry = SubElement(vocabulary, "CV_ENTRY_ML", CVE_ID=f"class{number}")
        SubElement(entry, "CVE_VALUE", DESCRIPTION="", LANG_REF=_LANGUAGE).text = xml_text(name)
