"""What BORIS exports, as it writes it."""

import pytest

from evl.data.manifests.manifest import read_manifest
from evl.errors import DataError
from tests.data.helpers import make, segments, write

TABULAR = (
    "Observation id,Observation date,Description,Observation duration,Observation type,Source,Time offset (s),"
    "Media duration (s),FPS,Subject,Behavior,Behavioral category,Modifier #1,Behavior type,Time,Media file name,"
    "Image index,Image file path,Comment\n"
)


def tabular(*events, name="obs 1", source="player #1:a.mp4", offset="0.0", lengths="100.000"):
    rows = [
        f"{name},2026-01-01 10:00:00,,100.0,Media file(s),{source},{offset},{lengths},25.000,{subject},{behavior},"
        f"Not defined,{modifier},{kind},{time},{file},0,NA,"
        for subject, behavior, modifier, kind, time, file in events
    ]
    return TABULAR + "\n".join(rows) + "\n"


def test_boris_tabular_events(tmp_path):
    make(tmp_path, "a.mp4")
    write(tmp_path, "obs 1.csv", tabular(
        ("rat 1", "walk", "", "START", 10.5, "a.mp4"), ("rat 2", "walk", "", "START", 11, "a.mp4"),
        ("rat 1", "walk", "fast", "START", 11.5, "a.mp4"), ("rat 1", "rear", "", "POINT", 12, "a.mp4"),
        ("rat 1", "walk", "", "STOP", 12.75, "a.mp4"), ("rat 1", "walk", "fast", "STOP", 13, "a.mp4"),
        ("rat 2", "walk", "", "STOP", 20.5, "a.mp4"), offset="10.5",
    ))  # fmt: skip
    manifest = read_manifest(tmp_path / "obs 1.csv")
    assert manifest.layout == "boris"
    assert segments(manifest, tmp_path) == {
        "all": [("a.mp4", "walk", 0.0, 2.25), ("a.mp4", "walk", 1.0, 2.5), ("a.mp4", "walk", 0.5, 10.0)]
    }
    assert any("left out 1: point events, which have no length" in notice for notice in manifest.notices)


def test_boris_plays_files_one_after_another(tmp_path):
    """The time of an event is that of the observation; the second file begins where the first ends."""
    make(tmp_path, "a.mp4", "b.mp4")
    events = (("", "walk", "", "START", 110, "b.mp4"), ("", "walk", "", "STOP", 115.5, "b.mp4"))
    source = {"source": "player #1:a.mp4;b.mp4|player #2:side.mp4", "lengths": "100.000;50.000|150.000"}
    write(tmp_path, "t.csv", tabular(*events, **source))
    assert segments(read_manifest(tmp_path / "t.csv"), tmp_path) == {"all": [("b.mp4", "walk", 10.0, 15.5)]}
    events = (("", "walk", "", "START", 90, "a.mp4"), ("", "walk", "", "STOP", 115.5, "b.mp4"))
    write(tmp_path, "t.csv", tabular(*events, **source))
    assert segments(read_manifest(tmp_path / "t.csv"), tmp_path) == {
        "all": [("a.mp4", "walk", 90.0, 100.0), ("b.mp4", "walk", 0.0, 15.5)]
    }
    write(tmp_path, "t.csv", tabular(*events, **source | {"lengths": "NA;50|150"}))
    with pytest.raises(DataError, match="has 2 files, and their lengths are not all given"):
        read_manifest(tmp_path / "t.csv")


def test_boris_aggregated_events(tmp_path):
    """Columns of version 8, and of version 6, which had other names."""
    make(tmp_path, "a.mp4")
    head = "Observation id\tSubject\tBehavior\tBehavioral category\tModifiers\tBehavior type\tStart (s)\tStop (s)\t"
    for media in ("Media file name", "Media file"):
        text = f"{head}Duration (s)\t{media}\n"
        text += "o\tNo focal subject\twalk\t\t\tSTATE\t1.800\t8.125\t6.325\ta.mp4\n"
        text += "o\tNo focal subject\tpeck\t\t\tPOINT\t9.000\t9.000\tNA\ta.mp4\n"
        write(tmp_path, "aggregated.tsv", text)
        manifest = read_manifest(tmp_path)
        assert segments(manifest, tmp_path) == {"all": [("a.mp4", "walk", 1.8, 8.125)]}
        assert any("point events" in notice for notice in manifest.notices)


def test_boris_tables_of_old_versions(tmp_path):
    """Until version 6, lines about the observation stood in front of the header."""
    make(tmp_path, "video_test_25fps_360s.mp4")
    text = "Observation id,observation #1,,,,,,,\n,,,,,,,,\nMedia file(s),,,,,,,,\nPlayer #1,v.mp4,,,,,,,\n"
    text += "Observation date,2016-11-27 01:57:26,,,,,,,\nTime offset (s),1.0,,,,,,,\n,,,,,,,,\n"
    text += "Time,Media file path,Total length,FPS,Subject,Behavior,Behavioral category,Comment,Status\n"
    text += "3.300,video_test_25fps_360s.mp4,359.960,25.0,subject1,s,,,START\n"
    text += "7.750,video_test_25fps_360s.mp4,359.960,25.0,subject1,s,,,STOP\n"
    write(tmp_path, "old.csv", text)
    assert segments(read_manifest(tmp_path / "old.csv"), tmp_path) == {
        "all": [("video_test_25fps_360s.mp4", "s", 2.3, 6.75)]
    }
    write(tmp_path, "old.csv", text.replace("7.750", "2.750"))
    with pytest.raises(DataError, match=r"old.csv.*row 9: the end, 2.75 s, is not after the start, 3.3 s"):
        read_manifest(tmp_path / "old.csv")


def project(*events, files=("a.mp4",), length=100.0, **fields):
    observation = {
        "type": "MEDIA", "file": {"1": list(files), "2": []}, "events": [list(one) for one in events],
        "time offset": 0.0, "media_info": {"length": dict.fromkeys(files, length), "offset": {"1": 0.0}},
    } | fields  # fmt: skip
    behaviors = {"0": {"type": "State event", "code": "walk"}, "1": {"type": "Point event", "code": "peck"}}
    return {"project_format_version": "7.0", "behaviors_conf": behaviors, "observations": {"o": observation}}


def test_boris_project(tmp_path):
    make(tmp_path, "a.mp4")
    content = project(  # not in the order of time, as after an import
        (2, "", "peck", "", "", 50), (3.25, "", "walk", "", "", 81), (1.5, "", "walk", "", ""), (4, "b", "walk", ""),
        (8, "", "walk", "", ""), (5, "b", "walk", ""), (6, "", "walk", "", ""),
    )  # fmt: skip
    content["observations"]["empty"] = {"type": "MEDIA", "file": {"1": ["b.mp4"]}, "events": []}
    content["observations"]["live"] = {"type": "LIVE", "file": [], "events": [[1, "", "walk", "", ""]]}
    write(tmp_path, "p.boris", content)
    for path in (tmp_path, tmp_path / "p.boris"):
        manifest = read_manifest(path)
        assert segments(manifest, tmp_path) == {
            "all": [("a.mp4", "walk", 1.5, 3.25), ("a.mp4", "walk", 4.0, 5.0), ("a.mp4", "walk", 6.0, 8.0)]
        }
        text = " ".join(manifest.notices)
        assert "1: point events" in text
        assert "1: observations without events" in text
        assert "1: events of observations without video files" in text


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (project((1, "", "walk", "", "")), "observation 'o', event 1: the behavior 'walk' starts and never stops"),
        (project((1, "", "walk", "", ""), ("x", "", "walk", "", "")), "event 1: the end is .*expected a number"),
        (project((1, "", "walk", "", ""), (-5, "", "walk", "", "")), "the start is -5.0, expected seconds, 0 or more"),
        (project((1, "", "sleep", "")), "event 1: the project does not define the behavior 'sleep'"),
        (project((1, "")), r"event 1: it is \[1, ''\], expected \[time, subject, behavior"),
        (project((1, "", "walk", ""), files=()), "has events, and no video file of player 1"),
        (project((1, "", "walk", ""), files=("a.mp4", "b.mp4"), length=None), "has 2 files, and their lengths"),
        (project((1, "", "walk", ""), **{"time offset": "soon"}), "the time offset is 'soon', expected seconds"),
        ({"observations": []}, r"'observations' is \[\], expected an object"),
        ({}, "has no 'observations'"),
        ([], "the content is .*, expected an object"),
    ],
)
def test_wrong_projects_of_boris(tmp_path, content, wanted):
    write(tmp_path, "p.boris", content)
    with pytest.raises(DataError, match=f"(?s)p.boris.*{wanted}"):
        read_manifest(tmp_path / "p.boris")


# ---------------------------------------------------------------- ELAN
