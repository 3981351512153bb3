"""evl timeline: what it prints and writes."""

import json

import numpy as np
import pytest

import evl
from evl.errors import DataError
from evl.inference.timeline_files import read_timeline
from tests.helpers import run_command, write_video


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Dark, bright, dark: 20 frames each, of the kinds that the finished run tells."""
    generator = np.random.default_rng(1)
    levels = np.repeat([50, 200, 50], 20)[:, None, None, None]
    frames = (levels + generator.normal(0, 20, (60, 40, 56, 3))).clip(0, 255).astype(np.uint8)
    return write_video(tmp_path_factory.mktemp("films") / "night.mp4", frames)


def test_one_video(finished_run, film, tmp_path, capsys):
    out = tmp_path / "out"
    code, text, _ = run_command(capsys, "timeline", finished_run, film, "--out", out)
    assert code == 0
    assert "bright" in text
    assert sorted(path.name for path in out.iterdir()) == ["scores.parquet", "segments.csv"]
    manifest = evl.read_manifest(out / "segments.csv")
    (samples,) = manifest.splits.values()
    assert [one.label for one in samples] == ["dark", "bright", "dark"]
    assert samples[0].start_seconds == 0
    assert samples[1].start_seconds == pytest.approx(20 / 25, abs=0.15)
    assert samples[1].end_seconds == pytest.approx(40 / 25, abs=0.15)
    assert samples[2].end_seconds == pytest.approx(60 / 25)
    assert {one.path for one in samples} == {str(film)}
    assert (out / "segments.csv").read_text().startswith("path,label,start_seconds,end_seconds,score\n")
    line, saved = evl.timeline(str(finished_run), film), read_timeline(out / "scores.parquet")
    np.testing.assert_array_equal(saved.scores, line.scores)
    np.testing.assert_array_equal(saved.frames, line.frames)
    assert saved.segments == line.segments
    assert (saved.class_names, saved.protocol) == (line.class_names, line.protocol)


def test_formats_of_other_tools(finished_run, film, tmp_path, capsys):
    """Predict, correct in another tool, train again: what --format writes is read as --data."""
    out, again = tmp_path / "out", tmp_path / "again"
    code, _, _ = run_command(
        capsys, "timeline", finished_run, film, "--out", out, "--format", "webvtt,labelstudio", "--format", "ELAN"
    )
    assert code == 0
    wanted = ["labelstudio.json", "labelstudio.xml", "night.eaf", "night.vtt", "scores.parquet", "segments.csv"]
    assert sorted(path.name for path in out.iterdir()) == wanted
    samples = evl.read_manifest(out / "segments.csv").samples
    for name in ("labelstudio.json", "night.eaf"):
        back = sorted(evl.read_manifest(out / name).samples, key=lambda one: one.start_seconds)
        assert [(one.path, one.label) for one in back] == [(one.path, one.label) for one in samples]
        for one, other in zip(back, samples, strict=True):
            assert (one.start_seconds, one.end_seconds) == pytest.approx(
                (other.start_seconds, other.end_seconds), abs=0.021
            )
    (task,) = json.loads((out / "labelstudio.json").read_text())
    assert task["data"]["fps"] == 25
    code, _, _ = run_command(
        capsys, "timeline", "--from", out / "scores.parquet", "--out", again, "--format", "srt,boris"
    )
    assert code == 0
    assert sorted(path.name for path in again.iterdir())[:2] == ["night.srt", "scores.parquet"]
    project = json.loads((again / "timeline.boris").read_text())
    assert project["observations"]["night"]["media_info"]["fps"] == {str(film): 25.0}
    code, _, error = run_command(capsys, "timeline", finished_run, film, "--out", tmp_path / "no", "--format", "vtt")
    assert code == 2
    assert "the format 'vtt' is unknown; did you mean webvtt?" in error
    assert not (tmp_path / "no").exists()


def test_json_of_several_videos(finished_run, film, tmp_path, capsys):
    (tmp_path / "no.mp4").write_bytes(b"no video")
    (tmp_path / "night.mp4").write_bytes(film.read_bytes())
    videos = [film, tmp_path / "no.mp4", tmp_path / "night.mp4"]
    code, text, _ = run_command(capsys, "timeline", finished_run, *videos, "--out", tmp_path / "out", "--json")
    document = json.loads(text)
    assert code == 1
    assert [one["path"] for one in document["videos"]] == [str(film), str(tmp_path / "night.mp4")]
    assert [one["path"] for one in document["failed"]] == [str(tmp_path / "no.mp4")]
    first = document["videos"][0]
    assert [one["label"] for one in first["segments"]] == ["dark", "bright", "dark"]
    assert first["num_windows"] == 29
    assert first["damaged"] == []
    written = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert written == [
        *("night-2/scores.parquet", "night-2/segments.csv", "night/scores.parquet", "night/segments.csv"),
        "segments.csv",
    ]
    assert len(evl.read_manifest(tmp_path / "out/segments.csv").splits["all"]) == 6


def test_segments_again_without_computing(finished_run, film, tmp_path, capsys):
    run_command(capsys, "timeline", finished_run, film, "--out", tmp_path / "first")
    scores = tmp_path / "first/scores.parquet"
    again = ("timeline", "--from", scores, "--json")
    code, text, _ = run_command(capsys, *again, "--min-seconds", 1.5)
    assert code == 0
    assert json.loads(text)["videos"][0]["segments"] == []
    _, text, _ = run_command(capsys, *again, "--on", "dark=1", "--on", "bright=0.9", "--out", tmp_path / "second")
    assert {one["label"] for one in json.loads(text)["videos"][0]["segments"]} <= {"bright"}
    assert read_timeline(tmp_path / "second/scores.parquet").rules.on == {"dark": 1.0, "bright": 0.9}


def test_usage_errors(finished_run, film, tmp_path, capsys):
    for arguments in (
        ["timeline", finished_run],
        ["timeline", finished_run, film, "--from", "x.parquet"],
        ["timeline", finished_run, film, "--on", "high"],
        ["timeline", finished_run, film, "--on", "0.5", "--on", "bright=0.4"],
        ["timeline", finished_run, film, "--on", "brigt=0.4"],
        ["timeline", finished_run, film, "--every", "1", "--every-frames", "2"],
        ["timeline", finished_run, film, "--window-seconds", "2"],
    ):
        code, text, message = run_command(capsys, *arguments)
        assert (code, text) == (2, ""), arguments
        assert message
    (tmp_path / "used").mkdir()
    (tmp_path / "used/a").touch()
    assert run_command(capsys, "timeline", finished_run, film, "--out", tmp_path / "used")[0] == 1
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["a"]


def test_files_that_are_no_scores(tmp_path, capsys):
    import pyarrow as pa
    import pyarrow.parquet

    path = tmp_path / "scores.parquet"
    with pytest.raises(DataError, match="cannot be read"):
        read_timeline(path)
    path.write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="cannot be read"):
        read_timeline(path)
    table = pa.table({"time_seconds": [0.0], "frames": [[0, 1]], "scores": [[0.5, 0.5]]})
    pyarrow.parquet.write_table(table, path)
    with pytest.raises(DataError, match="evl timeline"):
        read_timeline(path)
    for facts in ("[]", "{}", '{"format_version": "x"}', '{"format_version": 99}', "no json"):
        pyarrow.parquet.write_table(table.replace_schema_metadata({b"evl.timeline": facts.encode()}), path)
        with pytest.raises(DataError, match=r"damaged|newer"):
            read_timeline(path)
    assert run_command(capsys, "timeline", "--from", path)[0] == 1
