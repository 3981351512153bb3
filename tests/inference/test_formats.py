"""The formats of other tools, as their own readers see them, and as evl reads them back."""

import datetime
import html
import json
import os
from pathlib import Path
from xml.etree import ElementTree

import pympi
import pytest
import srt
import webvtt

import evl
from evl.api.timelines import Timelines
from evl.data.layouts.segments.labelstudio import frame_range, range_seconds
from evl.errors import ConfigError
from evl.inference.formats import FORMATS, checked_formats
from evl.inference.segments import Segment
from tests.inference.made_timelines import NAMES, SEGMENTS, made

CLASSES = {one.label for one in SEGMENTS}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two videos of the same name, and one named as ActivityNet names its files."""
    folder = tmp_path_factory.mktemp("videos")
    paths = [folder / "one" / "a b & ü.mp4", folder / "two" / "a b & ü.mp4", folder / "v_abcdefghij-.mp4"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    return paths


@pytest.fixture(scope="module")
def written(videos, tmp_path_factory):
    """All formats of three videos; the second has no segment, the third has two at 29.97 frames per second."""
    lines = (made(videos[0]), made(videos[1], ()), made(videos[2], SEGMENTS[:2], rate=29.97003))
    out = tmp_path_factory.mktemp("out") / "new"
    evl.write_timelines(Timelines(lines, {}), out, ["webvtt, SRT", *FORMATS])
    return out


def test_names_of_files(written):
    own = [f"{name}.{end}" for name in ("a b & ü", "a b & ü-2", "v_abcdefghij-") for end in ("eaf", "srt", "vtt")]
    of_all = ["activitynet.json", "labelstudio.json", "labelstudio.xml", "timeline.boris"]
    assert sorted(path.name for path in written.iterdir()) == sorted((*own, *of_all))


def test_unknown_formats():
    assert checked_formats("webvtt, ELAN,webvtt") == ("webvtt", "elan")
    with pytest.raises(ConfigError, match="'vtt' is unknown; did you mean webvtt"):
        checked_formats(["srt,vtt"])
    with pytest.raises(ConfigError, match="with `formats` or `page`, give `out`"):
        evl.timelines(None, scores=["scores.parquet"], formats="srt")


def test_webvtt(written):
    cues = list(webvtt.read(written / "a b & ü.vtt"))
    assert [html.unescape(cue.text) for cue in cues] == [one.label for one in SEGMENTS]
    assert [(cue.start, cue.end) for cue in cues] == [
        ("00:00:00.000", "00:00:01.500"), ("00:00:01.000", "00:00:02.250"), ("00:00:02.000", "00:00:02.001"),
        ("00:00:02.250", "00:00:03.000"), ("00:00:03.000", "00:00:03.750"), ("25:00:00.123", "25:00:01.500"),
        ("100:00:00.000", "100:00:01.000"),
    ]  # fmt: skip
    text = (written / "a b & ü.vtt").read_text()
    assert text.startswith("WEBVTT\n\n")
    assert text.count("-->") == len(SEGMENTS)  # none in the text of a cue, where WebVTT forbids it
    assert (written / "a b & ü-2.vtt").read_text() == "WEBVTT\n"
    assert not list(webvtt.read(written / "a b & ü-2.vtt"))


def test_srt(written):
    captions = list(srt.parse((written / "a b & ü.srt").read_text(), ignore_errors=False))
    assert [one.index for one in captions] == list(range(1, 8))
    assert [one.content for one in captions] == [one.label for one in SEGMENTS]
    assert [one.start for one in captions] == [
        datetime.timedelta(milliseconds=round(one.start_seconds * 1000)) for one in SEGMENTS
    ]
    assert captions[2].end - captions[2].start == datetime.timedelta(milliseconds=1)
    assert list(srt.parse((written / "a b & ü-2.srt").read_text(), ignore_errors=False)) == []


def test_captions_are_one_line(videos, tmp_path):
    names = ("two\n\nlines", "end\x1b[0m", "  ")
    evl.write_timelines(made(videos[0], [Segment(name, 1, 2, 0.5) for name in names], names), tmp_path, "webvtt,srt")
    wanted = ["two lines", "end\\x1b[0m", "(no name)"]
    assert [one.content for one in srt.parse(next(tmp_path.glob("*.srt")).read_text())] == wanted
    text = next(tmp_path.glob("*.vtt")).read_text()
    assert [block.split("\n", 1)[1].strip() for block in text.split("\n\n")[1:]] == wanted


def test_elan(written, videos):
    eaf = pympi.Elan.Eaf(str(written / "a b & ü.eaf"))
    assert list(eaf.get_tier_names()) == list(NAMES)
    found = {name: eaf.get_annotation_data_for_tier(name) for name in NAMES}
    assert found[NAMES[0]] == [(0, 1500, NAMES[0]), (360000000, 360001000, NAMES[0])]
    assert found[NAMES[2]] == [(2000, 2001, NAMES[2])]
    assert found[NAMES[3]] == [(90000123, 90001500, NAMES[3])]
    assert found[NAMES[5]] == []
    (medium,) = eaf.get_linked_files()
    assert medium["MEDIA_URL"] == videos[0].as_uri()
    assert medium["MIME_TYPE"] == "video/mp4"
    entries = eaf.controlled_vocabularies["classes"][1]
    assert [values[0][0] for values, _ in entries.values()] == list(NAMES)
    assert not pympi.Elan.Eaf(str(written / "a b & ü-2.eaf")).get_annotation_data_for_tier(NAMES[0])


# element → (its elements in order, required attributes, others), as in the schema EAFv3.0.xsd; + for what repeats
SCHEMA = {
    "ANNOTATION_DOCUMENT": (
        "LICENSE+ HEADER TIME_ORDER TIER+ LINGUISTIC_TYPE+ LOCALE+ LANGUAGE+ CONSTRAINT+ CONTROLLED_VOCABULARY+",
        "DATE AUTHOR VERSION", "FORMAT {http://www.w3.org/2001/XMLSchema-instance}noNamespaceSchemaLocation",
    ),
    "HEADER": ("MEDIA_DESCRIPTOR+ LINKED_FILE_DESCRIPTOR+ PROPERTY+", "", "MEDIA_FILE TIME_UNITS"),
    "MEDIA_DESCRIPTOR": ("", "MEDIA_URL MIME_TYPE", "RELATIVE_MEDIA_URL TIME_ORIGIN EXTRACTED_FROM"),
    "PROPERTY": ("", "", "NAME"),
    "TIME_ORDER": ("TIME_SLOT+", "", ""),
    "TIME_SLOT": ("", "TIME_SLOT_ID", "TIME_VALUE"),
    "TIER": ("ANNOTATION+", "TIER_ID LINGUISTIC_TYPE_REF", "PARTICIPANT ANNOTATOR PARENT_REF"),
    "ANNOTATION": ("ALIGNABLE_ANNOTATION", "", ""),
    "ALIGNABLE_ANNOTATION": ("ANNOTATION_VALUE", "ANNOTATION_ID TIME_SLOT_REF1 TIME_SLOT_REF2", "CVE_REF"),
    "ANNOTATION_VALUE": ("", "", ""),
    "LINGUISTIC_TYPE": ("", "LINGUISTIC_TYPE_ID", "TIME_ALIGNABLE GRAPHIC_REFERENCES CONTROLLED_VOCABULARY_REF"),
    "LANGUAGE": ("", "LANG_ID", "LANG_DEF LANG_LABEL"),
    "CONTROLLED_VOCABULARY": ("DESCRIPTION+ CV_ENTRY_ML+", "CV_ID", "EXT_REF"),
    "DESCRIPTION": ("", "LANG_REF", ""),
    "CV_ENTRY_ML": ("CVE_VALUE+", "CVE_ID", "EXT_REF"),
    "CVE_VALUE": ("", "LANG_REF", "DESCRIPTION"),
}  # fmt: skip


def check_element(element):
    inside, required, others = (part.split() for part in SCHEMA[element.tag])
    assert set(required) <= set(element.attrib) <= {*required, *others}, element.tag
    order = [name.rstrip("+") for name in inside]
    tags = [child.tag for child in element]
    assert tags == sorted(tags, key=order.index), element.tag
    assert all(tags.count(name) == 1 for name in inside if not name.endswith("+")), element.tag
    for child in element:
        check_element(child)


@pytest.mark.parametrize("name", ["a b & ü.eaf", "a b & ü-2.eaf"])
def test_elan_has_the_form_of_its_schema(written, name):
    root = ElementTree.parse(written / name).getroot()
    check_element(root)
    datetime.datetime.fromisoformat(root.get("DATE"))
    times = [int(slot.get("TIME_VALUE")) for slot in root.iter("TIME_SLOT")]
    assert times == sorted(times)
    ids = [one.get(key) for key in ("TIME_SLOT_ID", "ANNOTATION_ID", "LANG_ID") for one in root.iter() if one.get(key)]
    assert len(set(ids)) == len(ids)  # one space of names, as for all of XML's IDs


def test_overlaps_of_one_class(videos, tmp_path):
    """ELAN and BORIS allow none: they get a tier, or a subject, of their own."""
    segments = [Segment("a", 0, 5, 0.9), Segment("a", 1, 2, 0.8), Segment("a (2)", 0, 1, 0.5), Segment("a", 5, 6, 0.7)]
    evl.write_timelines(made(videos[0], segments, ("a", "a (2)")), tmp_path, "elan,boris")
    eaf = pympi.Elan.Eaf(str(tmp_path / "a b & ü.eaf"))
    found = {name: [one[:2] for one in eaf.get_annotation_data_for_tier(name)] for name in eaf.get_tier_names()}
    assert found == {"a": [(0, 5000), (5000, 6000)], "a (2)": [(1000, 2000)], "a (2) (2)": [(0, 1000)]}
    for name in ("a b & ü.eaf", "timeline.boris"):
        back = {(one.label, one.start_seconds, one.end_seconds) for one in evl.read_manifest(tmp_path / name).samples}
        assert back == {("a", 0, 5), ("a", 1, 2), ("a (2)", 0, 1), ("a", 5, 6)}


def test_activitynet(written):
    """The keys that its evaluator asks for, and the types that it converts."""
    content = json.loads((written / "activitynet.json").read_text())
    assert {"version", "results", "external_data"} <= set(content)
    assert set(content["external_data"]) == {"used", "details"}
    assert list(content["results"]) == ["a b & ü", "a b & ü-2", "abcdefghij-"]
    assert content["results"]["a b & ü-2"] == []
    assert content["results"]["abcdefghij-"][1] == {"label": "a --> b", "score": 0.8, "segment": [1.0, 2.25]}


def test_labelstudio(written, videos):
    """What label-studio-sdk 2.1.2 accepts as tasks of this configuration (checked by hand; too heavy for the tests)."""
    view = ElementTree.parse(written / "labelstudio.xml").getroot()
    assert {tag: view.find(tag).attrib for tag in ("Video", "TimelineLabels")} == {
        "Video": {"name": "video", "value": "$video", "frameRate": "$fps"},
        "TimelineLabels": {"name": "labels", "toName": "video"},
    }
    assert [label.get("value") for label in view.iter("Label")] == list(NAMES)
    tasks = json.loads((written / "labelstudio.json").read_text())
    assert [task["data"]["path"] for task in tasks] == list(map(str, videos))
    assert [task["data"]["fps"] for task in tasks] == [25, 25, 29.97003]
    assert tasks[0]["data"]["video"].startswith("/data/local-files/?d=")
    results = [region for task in tasks for one in task["predictions"] for region in one["result"]]
    assert len({region["id"] for region in results}) == len(results) == len(SEGMENTS) + 2
    for region in results:
        assert {key: region[key] for key in ("type", "from_name", "to_name")} == {
            "type": "timelinelabels", "from_name": "labels", "to_name": "video",
        }  # fmt: skip
        assert set(region["value"]) == {"ranges", "timelinelabels"}
        ((start, end),) = [(one["start"], one["end"]) for one in region["value"]["ranges"]]
        assert 1 <= start <= end
        assert isinstance(start, int)
        assert isinstance(end, int)


@pytest.mark.parametrize("rate", [10.0, 24.0, 25.0, 29.97003, 60.0])
def test_frames_of_labelstudio(rate):
    """A range that is read and written again does not move; times on frames are exact, others half a frame off."""
    for start in range(1, 500, 7):
        for end in (start, start + 1, start + 1234567):
            assert frame_range(*range_seconds(start, end, rate), rate) == (start, end)
    for start, end in ((0.0, 1.0), (1.234, 5.678), (86400.0, 86401.7)):
        back = range_seconds(*frame_range(start, end, rate), rate)
        assert back == pytest.approx((start, end), abs=0.5 / rate + 1e-9)


def test_boris(written, videos):
    """BORIS 8.27.4 opens such projects, and its check of their integrity finds nothing (by hand; it needs Qt)."""
    project = json.loads((written / "timeline.boris").read_text())
    codes = [one["code"] for one in project["behaviors_conf"].values()]
    assert codes == list(NAMES)
    assert {one["type"] for one in project["behaviors_conf"].values()} == {"State event"}
    assert list(project["observations"]) == ["a b & ü", "a b & ü-2", "v_abcdefghij-"]
    first = project["observations"]["a b & ü"]
    assert first["file"] == {"1": [str(videos[0])]}
    assert first["media_info"]["length"] == {str(videos[0]): 400000.0}
    times = [event[0] for event in first["events"]]
    assert times == sorted(times)
    assert all(len(event) == 6 and event[2] in codes for event in first["events"])
    for code in codes:  # paired: each code is started and stopped
        assert sum(event[2] == code for event in first["events"]) % 2 == 0
    assert project["observations"]["a b & ü-2"]["events"] == []


EXACT, MILLISECONDS, FRAMES = 1e-6, 0.00051, 0.0201  # to what each format holds a time


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("activitynet.json", EXACT), ("timeline.boris", MILLISECONDS), ("labelstudio.json", FRAMES),
        ("a b & ü.eaf", MILLISECONDS),
    ],
)  # fmt: skip
def test_round_trips(written, videos, name, precision):
    manifest = evl.read_manifest(written / name)
    assert manifest.missing == ()
    found = sorted((one for one in manifest.samples if one.path == str(videos[0])), key=lambda one: one.start_seconds)
    assert len(found) == len(SEGMENTS)
    for one, wanted in zip(found, SEGMENTS, strict=True):
        assert one.label == wanted.label
        assert one.start_seconds == pytest.approx(wanted.start_seconds, abs=precision)
        longer = 0.001 if precision == MILLISECONDS else 0.04  # what is shorter than a unit becomes one unit long
        assert one.end_seconds == pytest.approx(
            wanted.end_seconds, abs=max(precision, longer * (one.label == NAMES[2]))
        )
    assert set(manifest.class_names) == CLASSES
    if not name.endswith(".eaf"):
        third = [one for one in manifest.samples if one.path == str(videos[2])]
        assert [one.label for one in third] == [NAMES[0], NAMES[1]]


def test_parts_of_one_file_are_one_video(videos, tmp_path):
    parts = [made(videos[0], SEGMENTS[:1], end=2.0), made(videos[0], SEGMENTS[1:2], NAMES[:3], end=5.0)]
    evl.write_timelines(parts, tmp_path, FORMATS)
    assert len(json.loads((tmp_path / "labelstudio.json").read_text())) == 1
    assert [one.label for one in evl.read_manifest(tmp_path / "a b & ü.eaf").samples] == [NAMES[0], NAMES[1]]


def test_files_that_moved(videos, written, tmp_path):
    """Annotations that are read elsewhere: videos are found by their names below the root."""
    root = tmp_path / "moved"
    for video in videos:
        (root / video.parent.name).mkdir(parents=True, exist_ok=True)
        (root / video.parent.name / video.name).write_bytes(b"")
    text = (written / "activitynet.json").read_text().replace(json.dumps(str(videos[0].parent.parent))[1:-1], "/gone")
    (tmp_path / "activitynet.json").write_text(text)
    manifest = evl.read_manifest(tmp_path / "activitynet.json", root=root)
    assert manifest.missing == ()
    assert {os.path.relpath(one.path, root) for one in manifest.samples} == {
        str(Path("one") / videos[0].name), str(Path(videos[2].parent.name) / videos[2].name),
    }  # fmt: skip
