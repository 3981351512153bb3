"""What tools for labeling export, as they write it, and the published lists of segments."""

import pytest

from evl.data.layouts.segments.places import path_in
from evl.data.manifests.manifest import read_manifest
from evl.errors import DataError
from evl.types import Sample
from tests.data.helpers import make, segments, write


def test_activitynet_ground_truth(tmp_path):
    """The order of keys is that of the published file: long lists come first."""
    taxonomy = [{"parentName": "Sports", "nodeName": f"class {n}", "nodeId": n, "parentId": 0} for n in range(2000)]
    database = {
        "sJSrkKnTsNI": {"duration": 30.0, "subset": "training", "resolution": "1280x720", "url": "u",
                        "annotations": [{"segment": [1.5, 7], "label": "Fixing bicycle"}]},
        "-xxxxxxxxxx": {"duration": 9, "subset": "validation", "annotations": [
            {"segment": [0, 3.25], "label": "Fixing bicycle"}, {"segment": [3.25, 9], "label": "Beach soccer"}]},
        "testtesttes": {"duration": 9, "subset": "testing", "annotations": []},
    }  # fmt: skip
    content = {"taxonomy": taxonomy, "version": "VERSION 1.3", "database": database}
    write(tmp_path, "activity_net.v1-3.min.json", content)
    make(tmp_path, "videos/v_sJSrkKnTsNI.mp4", "videos/-xxxxxxxxxx.mkv")
    for path in (tmp_path, tmp_path / "activity_net.v1-3.min.json"):
        manifest = read_manifest(path)
        assert (manifest.layout, manifest.missing) == ("activitynet", ())
        assert segments(manifest, tmp_path) == {
            "train": [("videos/v_sJSrkKnTsNI.mp4", "Fixing bicycle", 1.5, 7.0)],
            "val": [("videos/-xxxxxxxxxx.mkv", "Fixing bicycle", 0.0, 3.25),
                    ("videos/-xxxxxxxxxx.mkv", "Beach soccer", 3.25, 9.0)],
        }  # fmt: skip
        assert manifest.class_names == ("Beach soccer", "Fixing bicycle")
        assert any("left out 1: videos without annotations" in notice for notice in manifest.notices)


def test_thumos14(tmp_path):
    write(tmp_path, "val/annotation/Diving_val.txt", "video_validation_0000051  67.5 75.9\n\n")
    write(tmp_path, "val/annotation/CliffDiving_val.txt", "video_validation_0000051  67.5 75.9\n")
    write(tmp_path, "val/annotation/Ambiguous_val.txt", "video_validation_0000051  1 2\n")
    write(tmp_path, "test/annotation/Diving_test.txt", "video_test_0000004 0.2 1.1\nvideo_test_0000004 0.2 1.1\n")
    write(tmp_path, "readme.txt", "THUMOS CHALLENGE 2014\n")
    make(tmp_path, "val/video_validation_0000051.mp4")
    manifest = read_manifest(tmp_path)
    assert manifest.layout == "thumos14"
    found = segments(manifest, tmp_path)
    assert sorted(found["train"]) == [
        ("val/video_validation_0000051.mp4", "CliffDiving", 67.5, 75.9),
        ("val/video_validation_0000051.mp4", "Diving", 67.5, 75.9),
    ]
    assert found["test"] == [("video_test_0000004", "Diving", 0.2, 1.1)]
    assert [one.path for one in manifest.missing] == [str(tmp_path / "video_test_0000004")]
    text = " ".join(manifest.notices)
    assert "left out 1: ambiguous segments" in text
    assert "left out 1: segments that are listed twice" in text
    write(tmp_path, "test/annotation/Run_test.txt", "video_test_0000004 0.2 1.1\nvideo_test_0000004 5.5\n")
    with pytest.raises(
        DataError, match=r"1 of 6 segments is wrong: Run_test.txt, line 2: .*expected 'video start end'"
    ):
        read_manifest(tmp_path)


# ---------------------------------------------------------------- Label Studio


def region(start=1, end=25, label="run", **fields):
    value = {"ranges": [{"start": start, "end": end}], "timelinelabels": [label]}
    return {"id": "x", "from_name": "labels", "to_name": "video", "type": "timelinelabels", "value": value} | fields


def task(*annotations, video="/data/upload/3/0a1b2c3d-match.mp4", fps=25, **fields):
    return {"id": 17, "data": {"video": video, "fps": fps}, "annotations": list(annotations), **fields}


def annotation(*regions, **fields):
    return {"id": 1, "result": list(regions), "was_cancelled": False, "updated_at": "2026-01-01T00:00:00Z"} | fields


def test_labelstudio(tmp_path):
    other = annotation(region(label="old"), updated_at="2025-01-01T00:00:00Z")
    skipped = annotation(region(label="skipped"), was_cancelled=True, updated_at="2027-01-01T00:00:00Z")
    choices = {"id": "y", "type": "choices", "value": {"choices": ["good"]}}
    sound = {"id": "z", "type": "labels", "value": {"start": 0.5, "end": 1.75, "labels": ["loud"], "channel": 0}}
    whole = task(other, annotation(region(), region(51, 51, "jump"), choices, sound), skipped,
                 predictions=[{"result": [region(label="predicted")]}])  # fmt: skip
    export = [
        whole,
        task(annotation()),
        task(video="s3://bucket/second.mp4", predictions=[{"result": [region(label="predicted")]}]),
    ]
    write(tmp_path, "project-1.json", export)
    make(tmp_path, "videos/match.mp4", "videos/second.mp4")
    manifest = read_manifest(tmp_path / "project-1.json")
    assert manifest.layout == "labelstudio"
    assert segments(manifest, tmp_path) == {
        "all": [("videos/match.mp4", "run", 0.0, 1.0), ("videos/match.mp4", "jump", 2.0, 2.04),
                ("videos/match.mp4", "loud", 0.5, 1.75)],
    }  # fmt: skip
    text = " ".join(manifest.notices)
    for wanted in (
        "1: tasks without a segment",
        "1: further annotations",
        "1: tasks without an annotation",
        "1: regions that are no labels",
    ):
        assert wanted in text
    whole["annotations"][0]["ground_truth"] = True
    write(tmp_path, "project-1.json", export)
    assert [one.label for one in read_manifest(tmp_path / "project-1.json").samples] == ["old"]


def test_labelstudio_json_min_and_one_task(tmp_path):
    make(tmp_path, "match.mp4")
    value = {"ranges": [{"start": 26, "end": 50}], "timelinelabels": ["run", "outdoors"]}
    write(tmp_path, "min.json", [{"video": "match.mp4", "fps": "25", "id": 1, "labels": [value], "annotator": 1}])
    write(tmp_path, "one.json", task(annotation(region(26, 50)), video="match.mp4"))
    assert segments(read_manifest(tmp_path / "min.json"), tmp_path) == {
        "all": [("match.mp4", "run", 1.0, 2.0), ("match.mp4", "outdoors", 1.0, 2.0)]
    }
    assert segments(read_manifest(tmp_path / "one.json"), tmp_path) == {"all": [("match.mp4", "run", 1.0, 2.0)]}


@pytest.mark.parametrize("rate", [None, 0, -1, "many", True, 1e9])
def test_labelstudio_without_a_rate(tmp_path, rate):
    write(tmp_path, "a.json", [task(annotation(region()), fps=rate)])
    with pytest.raises(DataError, match=r"a.json, task 17, region 1: 'fps' is .*24 if it has none"):
        read_manifest(tmp_path / "a.json")


# ---------------------------------------------------------------- BORIS


def eaf(annotations, *, medium='MEDIA_URL="file:///C:/films/a%20b.mp4" MIME_TYPE="video/mp4"', before="", tier=""):
    slots, rows = [], []
    for number, (start, end, label) in enumerate(annotations):
        for side, time in (("s", start), ("e", end)):
            value = "" if time is None else f' TIME_VALUE="{time}"'
            slots.append(f'<TIME_SLOT TIME_SLOT_ID="{side}{number}"{value}/>')
        rows.append(
            f'<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a{number}" TIME_SLOT_REF1="s{number}" '
            f'TIME_SLOT_REF2="e{number}"><ANNOTATION_VALUE>{label}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>'
        )
    newline = "\n"
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{before}\n<ANNOTATION_DOCUMENT AUTHOR="" VERSION="3.0" FORMAT="3.0">\n'
        f'<HEADER TIME_UNITS="milliseconds"><MEDIA_DESCRIPTOR {medium}/></HEADER>\n<TIME_ORDER>{newline.join(slots)}'
        f'</TIME_ORDER>\n<TIER TIER_ID="feeding" LINGUISTIC_TYPE_REF="t"{tier}>{newline.join(rows)}</TIER>\n'
        f'<TIER TIER_ID="words" PARENT_REF="feeding" LINGUISTIC_TYPE_REF="r"><ANNOTATION><REF_ANNOTATION '
        f'ANNOTATION_ID="b" ANNOTATION_REF="a0"><ANNOTATION_VALUE>w</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>'
        f'</TIER><LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="t"/></ANNOTATION_DOCUMENT>'
    )


def test_elan(tmp_path):
    """A file for each video; a label is a value, or the name of its tier."""
    make(tmp_path, "films/a b.mp4", "films/c.mp4")
    rows = [(0, 1500, "eat &amp; drink"), (1500, 2001, " "), (3000, None, "unaligned")]
    write(tmp_path, "one.eaf", eaf(rows))
    medium = 'MEDIA_URL="file:///gone/c.mp4" RELATIVE_MEDIA_URL="./films/c.mp4" MIME_TYPE="video/*" TIME_ORIGIN="500"'
    write(tmp_path, "two.eaf", eaf([(90000000, 90000001, "🏃")], medium=medium))
    write(
        tmp_path,
        "three.eaf",
        eaf([], medium=medium).replace('<TIER TIER_ID="words"', "<!-- ").replace("</TIER><L", "--><L"),
    )
    manifest = read_manifest(tmp_path)
    assert manifest.layout == "elan"
    assert segments(manifest, tmp_path) == {
        "all": [("films/a b.mp4", "eat & drink", 0.0, 1.5), ("films/a b.mp4", "feeding", 1.5, 2.001),
                ("films/c.mp4", "🏃", 90000.5, 90000.501)],
    }  # fmt: skip
    text = " ".join(manifest.notices)
    assert "left out 1: annotations that are not aligned to time" in text
    assert "left out 1: files without annotations" in text
    assert "left out 2: annotations of tiers that have a parent" in text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (eaf([(2000, 1000, "a"), (0, 1, "b"), (5, 5, "c")]),
         r"a.eaf: 2 of 3 segments are wrong: line 10: the end, 1 s, is not after the start, 2 s; .*line 12"),
        (eaf([("NaN", 1000, "a")]), "line 4: 'NaN', expected milliseconds"),
        (eaf([(-5, 1000, "a")]), "line 4: '-5', expected milliseconds"),
        (eaf([("9" * 5000, 1000, "a")]), "line 4: '9999.*expected milliseconds"),
        (eaf([(0, 1, "a")]).replace('REF1="s0"', 'REF1="other"'), "the time slot 'other' does not exist"),
        (eaf([(0, 1, "a")]).replace('"e0" T', '"s0" T'), "the id 's0' of a time slot is empty, or appears twice"),
        (eaf([(0, 1, "a")], medium='MEDIA_URL="a.wav" MIME_TYPE="audio/x-wav"'), "line 3: names no video"),
        (eaf([(0, 1, "a")]).replace("milliseconds", "PAL-frames"), "times in 'PAL-frames', expected milliseconds"),
        (eaf([(0, 1, "a")])[:-30], "is not well-formed XML"),
        ("<html/>", "begins with <html>, expected ELAN's"),
        ("", "is not well-formed XML"),
        ("<a>" * 100000, "line 1: more than 50 elements are nested"),
        (eaf([(0, 1, "&lol9;")], before='<!DOCTYPE x [<!ENTITY lol9 "ha">]>'), "line 1: has a document type"),
        (eaf([(0, 1, "&f;")], before='<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>'), "has a document type"),
        (eaf([(0, 1, "a")], before='<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd">'), "has a document type"),
        (eaf([(0, 1, "&f;")]), "is not well-formed XML"),
        ('<?xml version="1.0" encoding="no-such"?><a/>', "a.eaf"),
    ],
)  # fmt: skip
def test_wrong_files_of_elan(tmp_path, text, wanted):
    write(tmp_path, "a.eaf", text)
    with pytest.raises(DataError, match=f"(?s)a.eaf.*{wanted}|{wanted}"):
        read_manifest(tmp_path / "a.eaf")


# ---------------------------------------------------------------- what all share


def detections(*rows, name="a"):
    return {"version": "VERSION 1.3", "results": {name: list(rows)}, "external_data": {}}


def row(start, end, label="run"):
    return {"label": label, "score": 1, "segment": [start, end]}


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (detections(row(5, 3), row(0, 1), row(2, 2)), "2 of 3 segments are wrong: .*'a', segment 1: the end, 3 s"),
        (detections(row(-1, 3)), "the start is -1, expected seconds, 0 or more"),
        (detections(row("soon", 3)), "the start is 'soon', expected a number"),
        (detections(row(True, 3)), "the start is True, expected a number"),
        (detections(row(None, 3)), "the start is None, expected a number"),
        (detections(row(10**400, 3)), "expected seconds, 0 or more"),
        (detections(row(0, 1, "")), "segment 1: the label is empty"),
        (detections(row(0, 1, 7)), "segment 1: the label is 7, expected a text"),
        (detections(row(0, 1, "a\nb")), "has a line break"),
        (detections(row(0, 1, "\ud800")), "is not UTF-8"),
        (detections("run"), "segment 1: it is 'run', expected an object with"),
        (detections(row(0, 1), name="a\0"), "expected the path or name of a video"),
        (detections({"label": "a", "segment": [1, 2, 3]}), "expected an object with 'label' and 'segment'"),
        ({**detections(), "results": {"a": 3}}, "video 'a': its value is 3, expected a list"),
        ({**detections(), "results": []}, r"'results' is \[\], expected an object"),
        ({"database": {"a": {"subset": "maybe", "annotations": []}}}, "subset 'maybe', expected training"),
    ],
)  # fmt: skip
def test_wrong_segments(tmp_path, content, wanted):
    write(tmp_path, "a.json", content)
    with pytest.raises(DataError, match=f"(?s)a.json.*{wanted}"):
        read_manifest(tmp_path / "a.json")


def test_many_wrong_segments_are_counted_and_the_first_listed(tmp_path):
    write(tmp_path, "a.json", detections(*(row(n, 0) for n in range(1000)), row(0, 1)))
    with pytest.raises(DataError, match=r"1000 of 1,001 segments are wrong: .*segment 5.*; and 995 more") as caught:
        read_manifest(tmp_path / "a.json")
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"results": {"a": [{"label": "x", "segment": [NaN, 1]}]}}', "NaN is not a number"),
        ('{"results": {"a": [], "a": []}, "segment": 0}', "a name appears twice in one object"),
        ('{"results": {"a": [], \n"segment": ', "line 2"),
        ('{"segment": 0, "results": ' + "[" * 200000, "nested too deeply"),
        ('{"name": "not one of ours"}', "looks like JSON, but of no form that evl reads alone: labelstudio: a .json"),
        ("[1, 2]", "looks like JSON, but of no form that evl reads alone"),
    ],
)
def test_wrong_json(tmp_path, text, wanted):
    write(tmp_path, "a.json", text)
    with pytest.raises(DataError, match=f"(?s)a.json.*{wanted}"):
        read_manifest(tmp_path / "a.json")


def test_huge_files(tmp_path):
    for name, start in (
        ("a.eaf", b"<ANNOTATION_DOCUMENT>"),
        ("a.boris", b"{"),
        ("a.json", b'{"results": {}, "segment"'),
    ):
        with open(tmp_path / name, "wb") as file:
            file.write(start)
            file.truncate(2**40)  # a sparse file
        with pytest.raises(DataError, match="1,048,576 MiB; evl reads at most 256 MiB"):
            read_manifest(tmp_path / name)


def test_a_layout_that_is_named(tmp_path):
    make(tmp_path, "a.mp4")
    write(tmp_path, "a.json", detections(row(0, 1)))
    assert read_manifest(tmp_path / "a.json", layout="activitynet").layout == "activitynet"
    with pytest.raises(DataError, match="the layout 'boris' needs a project of BORIS"):
        read_manifest(tmp_path / "a.json", layout="boris")
    with pytest.raises(DataError, match="the layout 'thumos14' needs a folder"):
        read_manifest(tmp_path / "a.json", layout="thumos14")


# ---------------------------------------------------------------- where videos are


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("file:///films/me/a%20b.mp4", "/films/me/a b.mp4"),
        ("/data/local-files/?d=films/me/a%20b.mp4", "/films/me/a b.mp4"),
        ("/data/local-files/?d=/films/me/a.mp4", "/films/me/a.mp4"),
        ("https://example.org/x/a%20b.mp4?token=1", "a b.mp4"),
        ("s3://bucket/x/a.mp4", "a.mp4"),
        (r"C:\films\a.mp4", r"C:\films\a.mp4"),
        ("films/a: b.mp4", "films/a: b.mp4"),
    ],
)
def test_paths_in_addresses(text, path):
    assert path_in(text) == path


def test_videos_of_the_same_name(tmp_path):
    """Folders tell them apart; without that, no guess."""
    make(tmp_path, "videos/monday/cam.mp4", "videos/tuesday/cam.mp4")
    content = {"version": "1", "results": {}, "external_data": {}, "paths": {}}
    for day in ("monday", "tuesday"):
        content["results"][f"cam-{day}"] = [row(0, 1, day)]
        content["paths"][f"cam-{day}"] = rf"D:\lab\{day}\cam.mp4"
    write(tmp_path, "a.json", content)
    assert read_manifest(tmp_path / "a.json").splits["all"] == tuple(
        Sample(str(tmp_path / "videos" / day / "cam.mp4"), day, 0.0, 1.0) for day in ("monday", "tuesday")
    )
    content["paths"]["cam-tuesday"] = r"E:\monday\cam.mp4"
    write(tmp_path, "a.json", content)
    with pytest.raises(DataError, match=r"would both be .*cam.mp4; correct the paths"):
        read_manifest(tmp_path / "a.json")
