"""Missing is not damaged: what is away is asked for again, everywhere; what is broken is not."""

import errno
import json
import os
import shutil
import time
from pathlib import Path

import av
import pytest
import typer

import evl
import evl.extraction.work
from evl.cli.show_stores import show_extraction
from evl.collections.check import check_file
from evl.collections.copies import Job
from evl.collections.copy_video import CopySettings
from evl.collections.prepare import _copy_in_process
from evl.config import replace
from evl.errors import DataError, VideoError
from evl.extraction.extract import ExtractResult, extract
from evl.types import Sample
from evl.video.decode import missing
from evl.video.decode.missing import AWAY, NO_FILE, is_missing, os_reason, read_patiently, unreadable
from evl.video.decode.reader import read_clip
from evl.video.plans import Numbered
from tests.extraction.test_extract_killed import files_of

NUMBERS = [errno.ENOENT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ENODEV]


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """The pauses that were made, in no time."""
    made = []
    monkeypatch.setattr(missing.time, "sleep", made.append)
    monkeypatch.setattr(missing, "PAUSES", (0.25, 0.75, 2.25))
    monkeypatch.setattr(missing, "_patience", missing._Patience())
    return made


@pytest.fixture
def folder(videos, tmp_path):
    return shutil.copytree(videos, tmp_path / "videos")


@pytest.fixture
def away(monkeypatch):
    """``away(path, number, times)``: the system says ``number`` so many times when it is asked for the file."""
    state, stat = {}, os.stat

    def asked(path, *args, **kwargs):
        if (entry := state.get(os.fspath(path) if not isinstance(path, int) else None)) and entry[1] > 0:
            entry[1] -= 1
            raise OSError(entry[0], os.strerror(entry[0]), path)
        return stat(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", asked)
    return lambda path, number, times: state.update({str(path): [number, times]})


@pytest.mark.parametrize("number", NUMBERS)
def test_what_the_system_says_of_a_video_that_is_away(number):
    assert number in AWAY
    assert is_missing(os_reason(OSError(number, os.strerror(number))))


@pytest.mark.parametrize(
    "reason", ["is empty (0 bytes)", "cannot be read (permission denied)", "is damaged: frame 3 …"]
)
def test_what_is_damaged_is_not_missing(reason, pauses):
    assert not is_missing(reason)

    def read():
        raise VideoError("a", reason)

    with pytest.raises(VideoError):
        read_patiently(read)
    assert pauses == []


def test_pauses_grow_and_end(pauses):
    def read():
        raise VideoError("a", NO_FILE)

    for _ in range(5):
        with pytest.raises(VideoError, match=NO_FILE):
            read_patiently(read)
    assert pauses == [0.25, 0.75, 2.25] * 3  # then this process does not wait for a while
    missing._patience.last -= missing.RESTS_SECONDS
    with pytest.raises(VideoError):
        read_patiently(read)
    assert len(pauses) == 12


@pytest.mark.parametrize("number", NUMBERS)
def test_every_use_asks_again(finished_run, folder, away, number, pauses, tmp_path, tiny_config):
    model, path = evl.load(finished_run), folder / "dark/3 video.mp4"
    samples = [Sample(str(one), one.parent.name) for one in sorted(folder.rglob("*.mp4"))]
    wanted = evl.predict(model, samples).predictions
    uses = {
        "predict": lambda: (
            [one.scores for one in evl.predict(model, samples).predictions] == [one.scores for one in wanted]
        ),
        "model.predict": lambda: model.predict(path).scores == pytest.approx(wanted[9].scores),
        "evaluate": lambda: evl.evaluate(model, samples).damaged == {},
        "embed": lambda: len(evl.embed(model, samples)) == 12,
        "check": lambda: check_file(Sample(str(path))).problem is None,
        "read_views": lambda: len(model.read_views(path)) == 2,
    }
    for name, use in uses.items():
        away(path, number, 6)  # some of these are asked by os.path.isdir, which does not say so
        assert use(), name
        assert pauses, name
        pauses.clear()
    if number == errno.ESTALE:
        config = evl.RunConfig.from_dict(
            {**tiny_config.to_dict(), "data": {**tiny_config.to_dict()["data"], "path": str(folder)}}
        )
        away(path, number, 3)
        assert extract(config, tmp_path / "store").num_damaged == 0


def test_an_extraction_asks_anew_for_what_was_away(folder, away, tiny_config, tmp_path, monkeypatch, one_thread):
    """Only the shards in which a video was away are made again; then the store is that of an undisturbed call."""
    monkeypatch.setattr(evl.extraction.work, "clips_per_shard", lambda size, options: 4)
    config = replace(tiny_config, data={"path": str(folder), "max_damaged_share": 0.3})
    out, path = tmp_path / "store", folder / "dark/3 video.mp4"
    away(path, errno.ESTALE, 10**6)
    first = extract(config, out)
    assert (first.is_complete, first.damaged) == (True, {})
    assert [list(group.values()) for group in first.away.values()] == [["cannot be read (stale file handle)"]]
    assert "3 video.mp4" in (out / "missing.csv").read_text()
    assert not (out / "damaged.csv").exists()
    before = {shard.name: shard.stat().st_mtime_ns for shard in (out / "shards").iterdir()}
    away(path, errno.ESTALE, 0)
    second = extract(config, out)
    after = {shard.name: shard.stat().st_mtime_ns for shard in (out / "shards").iterdir()}
    assert (second.is_complete, second.away) == (True, {})
    assert sum(after[name] != time for name, time in before.items()) == 1 < len(before)
    extract(config, tmp_path / "whole")
    assert files_of(out) == files_of(tmp_path / "whole")


def test_the_command_says_what_was_away(capsys):
    """Exit code 1, each video with its reason, and what to do."""
    away = {"train": {"a.mp4": "no such file"}}
    for as_json in (False, True):
        with pytest.raises(typer.Exit) as stop:
            show_extraction(ExtractResult(Path("store"), 8, 1000, 1.0, True, {}, (), away), False, as_json)
        assert stop.value.exit_code == 1
        text = capsys.readouterr().out
        if as_json:
            assert json.loads(text)["away"] == [{"split": "train", "path": "a.mp4", "problem": "no such file"}]
        else:
            assert "missing: a.mp4: no such file" in text
            assert "The same command asks again" in text


def test_copies_are_made_of_videos_that_come_back(folder, away, tmp_path):
    path = folder / "dark/3 video.mp4"
    out, job = tmp_path / "out", Job(str(path), "dark/3 video.mp4")
    away(path, errno.ESTALE, 10**6)
    assert _copy_in_process((job, out, CopySettings())) == "cannot be read (stale file handle)"
    away(path, errno.ESTALE, 3)  # one for the stamp
    made = _copy_in_process((job, out, CopySettings()))
    assert (made.num_frames, (out / job.target).exists()) == (12, True)


def test_missing_videos_are_asked_for_once_more_at_the_end(finished_run, folder, away, monkeypatch):
    """An outage that is longer than the pauses, but shorter than the command."""
    monkeypatch.setattr(missing, "PAUSES", ())
    model, path = evl.load(finished_run), folder / "bright/0 video.mp4"
    away(path, errno.ESTALE, 1)
    assert evl.predict(model, folder).damaged == {}
    away(path, errno.ESTALE, 10)
    assert evl.predict(model, folder).damaged == {0: "cannot be read (stale file handle)"}


def test_an_error_of_input_is_told_from_a_broken_file(folder, monkeypatch, pauses):
    """libav says the same of both, so the file itself is read."""
    path = folder / "dark/0 video.mp4"

    def broken(*args, **kwargs):
        raise av.error.OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr("evl.video.decode.container._open", broken)
    with pytest.raises(VideoError, match="cannot be decoded"):
        read_clip(str(path), Numbered(str(path), (0,)))
    monkeypatch.setattr("evl.video.decode.container.unreadable", lambda path: OSError(errno.EIO, "Input/output error"))
    with pytest.raises(VideoError) as away:
        read_clip(str(path), Numbered(str(path), (0,)))
    assert is_missing(away.value.reason)
    assert unreadable(str(path)) is None
    assert unreadable(str(folder)).errno == errno.EISDIR


def test_frames_that_are_away(tmp_path, monkeypatch):
    from PIL import Image

    (tmp_path / "video").mkdir()
    for number in range(3):
        Image.new("RGB", (32, 32)).save(tmp_path / f"video/{number}.jpg")

    def away(*args, **kwargs):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(Image, "open", away)
    with pytest.raises(VideoError) as error:
        read_clip(str(tmp_path / "video"), Numbered("video", (0,)))
    assert is_missing(error.value.reason)


def test_a_list_is_looked_at_again(folder, monkeypatch, tmp_path, pauses):
    """The disk of a list comes back while the list is read."""
    (tmp_path / "list.csv").write_text(
        "path,label\n" + "".join(f"{p},{p.parent.name}\n" for p in sorted(folder.rglob("*.mp4")))
    )
    os.rename(folder, tmp_path / "elsewhere")

    def back(seconds):
        pauses.append(seconds)
        if len(pauses) == 2:
            os.rename(tmp_path / "elsewhere", folder)

    monkeypatch.setattr(missing.time, "sleep", back)
    found = evl.read_manifest(tmp_path / "list.csv")
    assert (len(found.samples), found.missing) == (12, ())
    os.rename(folder, tmp_path / "elsewhere")
    with pytest.raises(DataError):
        evl.read_manifest(tmp_path / "list.csv").require_videos()
    assert time.sleep is back
