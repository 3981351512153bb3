"""Collections of copies: what is made, kept, made again, refused."""

import fcntl
import json
import os
import signal
import time
from dataclasses import asdict

import pytest

import evl.collections.prepare
from evl.collections import loading_speed
from evl.collections.copies import plan_copies
from evl.collections.copy_video import CopySettings, prepare_video
from evl.collections.loading_speed import measure_loading
from evl.collections.prepare import _copy_in_process, prepare
from evl.data.manifests.manifest import read_manifest
from evl.errors import DataError, RunError, SaveError
from evl.video.decode.index import probe
from evl.video.decode.reader import read_clip, read_frames
from tests.helpers import frame_range, number_of, numbered_frames, write_video

SETTINGS = CopySettings(short_side=48)


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch):
    """Loading speed takes a second; one test looks at it."""
    monkeypatch.setattr(evl.collections.prepare, "measure_loading", lambda pairs, every: None)


@pytest.fixture
def folder(tmp_path):
    """Three videos, a damaged one, two lists, something else, a hidden file."""
    data = tmp_path / "data"
    for name in ("train/a b/1.avi", "train/c/2.webm", "val/c/3.MP4"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        options = {"deadline": "realtime", "cpu-used": "8"} if name.endswith("webm") else {}
        codec = "libvpx" if name.endswith("webm") else "libx264"
        write_video(data / name, numbered_frames(20), codec=codec, options=options)
    (data / "train/c/bad.mp4").write_text("no video")
    (data / "labels.json").write_text('{"a": 0}')
    (data / "train/list.TXT").write_text("a 1\n")
    (data / "notes.bin").write_bytes(b"0")
    (data / ".hidden.json").write_text("{}")
    return data


COPIES = ["train/a b/1.mp4", "train/c/2.mp4", "val/c/3.mp4"]


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def stamps(folder):
    return {name: (folder / name).stat().st_mtime_ns for name in COPIES}


def test_a_folder_keeps_its_form(folder, tmp_path):
    out = tmp_path / "out"
    heard = []
    report = prepare(folder, out, SETTINGS, num_workers=2, progress=heard.append)
    own = ["damaged.csv", "prepare.json", "prepare.jsonl"]
    assert files(out) == sorted([*COPIES, "labels.json", "train/list.TXT", *own])
    for name in COPIES:
        frames = read_frames(out / name, range(20))
        assert frames.shape[2] == 48
        assert [number_of(frame) for frame in frames] == list(range(20))
    assert (out / "labels.json").read_text() == '{"a": 0}'
    assert (report.num_files, report.num_made, report.num_kept, report.num_others) == (4, 3, 0, 2)
    assert [path for path, _ in report.damaged] == [str(folder / "train/c/bad.mp4")]
    assert report.left_out == (str(folder / "notes.bin"),)
    assert report.bytes_after == sum((out / name).stat().st_size for name in COPIES)
    sources = ("train/a b/1.avi", "train/c/2.webm", "val/c/3.MP4")
    assert report.bytes_before == sum((folder / name).stat().st_size for name in sources)
    assert [(one.step, one.steps) for one in heard] == [(done, 4) for done in range(5)]
    damaged = (out / "damaged.csv").read_text().splitlines()
    assert damaged[0] == "path,reason"
    assert damaged[1].startswith(f"{folder / 'train/c/bad.mp4'},cannot be decoded")
    document = json.loads((out / "prepare.json").read_text())
    assert document["settings"] == {"short_side": 48, "gop": 1, "every": 1, "quality": 20}
    assert document["report"]["num_made"] == 3
    assert {sample.label for sample in read_manifest(out).samples} == {"a b", "c"}


def test_again_makes_only_what_is_missing(folder, tmp_path):
    out = tmp_path / "out"
    prepare(folder, out, SETTINGS)
    before = stamps(out)
    report = prepare(folder, out, SETTINGS)
    assert (report.num_made, report.num_kept, len(report.damaged)) == (0, 3, 1)
    assert stamps(out) == before
    # another size; another time; a copy that is gone; what a killed run leaves behind
    write_video(folder / "train/a b/1.avi", numbered_frames(30))
    os.utime(folder / "train/c/2.webm", ns=(0, 0))
    (out / "val/c/3.mp4").unlink()
    (out / "val/c/.3.mp4.0123abcd.tmp").write_text("torn")
    (folder / "train/c/bad.mp4").unlink()
    report = prepare(folder, out, SETTINGS)
    assert (report.num_made, report.num_kept, report.damaged) == (3, 0, ())
    assert probe(out / "train/a b/1.mp4").num_frames == 30
    assert not [name for name in files(out) if "tmp" in name or "damaged" in name]


def test_a_torn_journal_costs_one_copy(folder, tmp_path):
    out = tmp_path / "out"
    prepare(folder, out, SETTINGS)
    journal = out / "prepare.jsonl"
    journal.write_text(journal.read_text()[:-20])
    report = prepare(folder, out, SETTINGS)
    assert (report.num_made, report.num_kept) == (1, 2)
    assert prepare(folder, out, SETTINGS).num_kept == 3


def test_a_source_that_went_bad_loses_its_copy(folder, tmp_path):
    out = tmp_path / "out"
    prepare(folder, out, SETTINGS)
    (folder / "val/c/3.MP4").write_bytes(b"")
    report = prepare(folder, out, SETTINGS)
    assert (str(folder / "val/c/3.MP4"), "is empty (0 bytes)") in report.damaged
    assert not (out / "val/c/3.mp4").exists()


def hang_on_webm(item):
    job, out, _ = item
    if job.source.endswith("webm"):
        (out / job.target).with_name(".2.mp4.0123abcd.tmp").write_text("half a copy")
        time.sleep(600)
    return _copy_in_process(item)


def test_stopped_goes_on(folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    torn = out / "train/c/.2.mp4.0123abcd.tmp"
    (out / "train/c").mkdir(parents=True)
    (out / "prepare.json").write_text(json.dumps({"source": str(folder), "settings": asdict(SETTINGS)}))

    def stop(report):
        if report.step == 3:  # all but the one that hangs in the middle of writing
            while not torn.exists():
                time.sleep(0.01)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(evl.collections.prepare, "_copy_in_process", hang_on_webm)
        with pytest.raises(KeyboardInterrupt, match="stopped: 3 of 4 files are done and stay; the same command makes"):
            prepare(folder, out, SETTINGS, num_workers=2, progress=stop)
    assert not torn.exists()
    report = prepare(folder, out, SETTINGS)
    assert (report.num_kept, report.num_made) == (2, 1)


def crash_on_webm(item):
    if item[0].source.endswith("webm"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return _copy_in_process(item)


def test_a_decoder_that_crashes_is_one_damaged_file(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(evl.collections.prepare, "_copy_in_process", crash_on_webm)
    report = prepare(folder, tmp_path / "out", SETTINGS, num_workers=2)
    assert report.num_made == 2
    assert dict(report.damaged)[str(folder / "train/c/2.webm")] == "the decoder crashed (exit code -11)"


def test_a_disk_that_refuses_ends_the_work(folder, tmp_path):
    out = tmp_path / "out"
    prepare(folder, out, SETTINGS)
    (out / "val/c/3.mp4").unlink()
    (out / "val/c").rmdir()
    (out / "val/c").write_text("a file where a folder is wanted")
    with pytest.raises(SaveError, match=r"3\.mp4 could not be written"):
        prepare(folder, out, SETTINGS)


def test_other_settings_sources_and_folders_are_refused(folder, tmp_path):
    out = tmp_path / "out"
    prepare(folder, out, SETTINGS)
    before = stamps(out)
    with pytest.raises(RunError, match="contains copies with short_side 48, not 32, gop 1, not 2; use the same"):
        prepare(folder, out, CopySettings(short_side=32, gop=2))
    with pytest.raises(RunError, match=f"contains copies of {folder}; for {folder}/train choose another"):
        prepare(folder / "train", out, SETTINGS)
    moved = folder.rename(tmp_path / "moved")
    assert prepare(moved, out, SETTINGS).num_kept == 3
    assert stamps(out) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(RunError, match=r"contains thesis\.txt, but no prepare\.json; choose another"):
        prepare(moved, tmp_path / "mine", SETTINGS)
    (out / "prepare.json").write_text("[]")
    with pytest.raises(RunError, match="cannot be read as the settings"):
        prepare(moved, out, SETTINGS)


def test_two_runs_in_one_folder_are_refused(folder, tmp_path):
    out = tmp_path / "out"
    prepare(folder, out, SETTINGS)
    with open(out / ".prepare.evl.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="another process of evl is writing here"):
            prepare(folder, out, SETTINGS)


def test_sources_and_copies_do_not_mix(folder, tmp_path):
    for out in (folder, folder / "copies", tmp_path, tmp_path / "data" / ".." / "data"):
        with pytest.raises(DataError, match="copies need a folder of their own"):
            plan_copies(folder, out)
    (folder / "train/c/2.mkv").write_bytes(b"")
    with pytest.raises(DataError, match=r"2\.mkv and .*2\.webm would both become train/c/2\.mp4"):
        plan_copies(folder, tmp_path / "out")
    with pytest.raises(DataError, match="is a video; expected a folder of videos, or a manifest"):
        plan_copies(folder / "train/c/2.webm", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no videos found"):
        plan_copies(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_large_lists_and_own_names_stay_behind(folder, tmp_path):
    (folder / "damaged.csv").write_text("path,reason\n")
    with open(folder / "features.json", "wb") as file:
        file.truncate(65 * 2**20)
    plan = plan_copies(folder, tmp_path / "out", reserved=("damaged.csv",))
    assert [name for _, name in plan.lists] == ["labels.json", "train/list.TXT"]
    assert set(plan.left_out) == {str(folder / name) for name in ("damaged.csv", "features.json", "notes.bin")}


def test_a_manifest_gets_its_counterpart(folder, tmp_path):
    outside = write_video(tmp_path / "elsewhere.mov", numbered_frames(20))
    lines = [
        "path,label,start_seconds,end_seconds,split",
        "train/a b/1.avi,x,0.2,0.4,train",
        "train/a b/1.avi,y,0.4,,val",
        f"{outside},x,,,train",
        "train/c/bad.mp4,x,,,train",
        "missing.mp4,y,,,val",
    ]
    (folder / "parts.csv").write_text("\n".join(lines) + "\n")
    out = tmp_path / "out"
    report = prepare(folder / "parts.csv", out, SETTINGS)
    assert (report.num_files, report.num_made) == (4, 2)
    assert dict(report.damaged)[str(folder / "missing.mp4")] == "no such file"
    assert report.manifest == str(out / "parts.csv")
    found = read_manifest(report.manifest)
    copy = out / "train/a b/1.mp4"
    other = out / outside.relative_to("/").with_suffix(".mp4")
    assert [(s.path, s.label, s.start_seconds, s.end_seconds) for s in found.splits["train"]] == [
        (str(copy), "x", 0.2, 0.4),
        (str(other), "x", None, None),
    ]
    assert [(s.path, s.label, s.start_seconds, s.end_seconds) for s in found.splits["val"]] == [
        (str(copy), "y", 0.4, None)
    ]
    first, count = frame_range(copy, 0.2, 0.4)
    assert [number_of(frame) for frame in read_frames(copy, range(first, first + count))] == [5, 6, 7, 8, 9]
    with pytest.raises(DataError, match="is the folder of"):
        plan_copies(folder / "parts.csv", folder)
    with pytest.raises(DataError, match="lies inside"):
        plan_copies(folder / "parts.csv", folder / "train")
    plan_copies(folder / "parts.csv", folder / "copies")  # beside the sources is fine where a list says what they are


def test_names_without_an_ending_are_kept_whole(tmp_path):
    (tmp_path / "list.txt").write_text("clip v1.5 0\nother.webm 1\n")
    plan = plan_copies(tmp_path / "list.txt", tmp_path / "out")
    assert [job.target for job in plan.jobs] == ["clip v1.5.mp4", "other.mp4"]
    assert plan.manifest_name == "list.csv"


def test_speed_is_measured_on_the_same_moments(tmp_path, monkeypatch):
    source = write_video(tmp_path / "a.mp4", numbered_frames(150), options={"g": "50"})
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"")
    settings = CopySettings(every=4)
    prepare_video(source, tmp_path / "copy.mp4", settings)
    pairs = [(str(source), str(tmp_path / "copy.mp4"))] * 3 + [(str(bad), str(bad))]
    speed = measure_loading(pairs, 4)
    assert (speed.num_files, speed.num_clips) == (3, 6)
    assert speed.ratio == speed.copy_clips_per_second / speed.source_clips_per_second > 0
    assert measure_loading([(str(bad), str(bad))]) is None
    assert measure_loading([]) is None
    assert measure_loading(pairs, 4, max_files=2).num_files == 2
    assert measure_loading(pairs, 4, max_seconds=0).num_files == 1
    seen = []

    def read(path, plan):
        clip = read_clip(path, plan)
        seen.append(clip.frames)
        return clip

    monkeypatch.setattr(loading_speed, "read_clip", read)
    loading_speed._Clips(pairs, 4)[0]
    for before, after in zip(seen[::2], seen[1::2], strict=True):
        before, after = ([number_of(frame) for frame in frames] for frames in (before, after))
        assert after == [number // 4 * 4 for number in before]
