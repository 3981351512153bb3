"""What is told of mixed material, by evl check and at the start of a run: a line each, with a file and what to do."""

import logging
import shutil
import time
from fractions import Fraction

import pytest

from evl.collections import material
from evl.collections.check import check_samples
from evl.collections.material import frame_rate_notices, material_notices
from evl.config import ClipConfig, RunConfig, replace
from evl.data.index_file import IndexFile, write_index
from evl.extraction.extract import extract
from evl.training import train
from evl.types import Sample
from evl.video.decode.index import frame_index
from tests.conftest import TINY
from tests.data.test_pixel_aspect import write
from tests.helpers import numbered_frames, run_command, write_video
from tests.makers import video
from tests.structures import make_structure
from tests.video.test_hdr import GREY, HLG, PQ, write_hdr

DENSE = ClipConfig()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """One odd file of each kind among ordinary ones of 25 frames a second."""
    folder = tmp_path_factory.mktemp("mixed") / "a"
    folder.mkdir()
    for i in range(3):
        write_video(folder / f"{i}.mp4", numbered_frames(20))
    write_video(folder / "fast.mp4", numbered_frames(20), rate=50)
    write(folder / "wide.mp4", Fraction(4, 3))
    write_hdr(folder / "pq.mp4", GREY, PQ)
    write_hdr(folder / "hlg.mkv", GREY, HLG)
    make_structure(folder, "h264-mbaff.mp4")
    make_structure(folder, "mpeg2-interlaced.ts")
    video(folder / "mbaff.mkv", x264="keyint=12:bframes=2:interlaced=1:tff=1", picture=(64, 80))
    other = folder.parent / "b"
    shutil.copytree(folder, other)
    for path in other.iterdir():
        path.write_bytes(path.read_bytes() + b"\0" * 16)  # other content
    return folder.parent


def look(folder, clip=DENSE, pixel_aspect=False, **how):
    paths = [str(path) for path in sorted(folder.rglob("*.*"))]
    return material_notices(paths, clip, pixel_aspect=pixel_aspect, max_seconds=60, **how)


def test_a_line_each_with_a_file_and_what_to_do(mixed):
    rates, *lines = look(mixed / "a")
    assert "fast.mp4 50. A clip" in rates
    assert "has 25 frames per second" in rates
    assert "clip.stride=16 lasts 2 times as long" in rates
    assert rates.endswith("clip.frames_per_second=1.56")
    told = {line.split(" (")[0]: line for line in lines}
    assert set(told) == {"pixels that are not square", "HDR films", "interlaced films"}
    assert "data.pixel_aspect=true makes them square" in told["pixels that are not square"]
    assert "wide.mp4: 4:3, 160×120 is shown as 213×120 (of 10 videos looked at)" in told["pixels that are not square"]
    assert ", and 1 more (of 10" in told["HDR films"]
    assert ", and 2 more (of 10" in told["interlaced films"]
    assert "-vf bwdif" in told["interlaced films"]
    (square,) = [line for line in look(mixed / "a", pixel_aspect=True) if "pixels" in line]
    assert square.startswith("pixels that are not square (made square): ")


@pytest.mark.parametrize("clip", [ClipConfig(sampling="segment"), ClipConfig(frames_per_second=5)])
def test_no_line_of_rates_where_clips_do_not_depend_on_them(mixed, clip):
    assert not any("frame rates" in line for line in look(mixed / "a", clip))


def test_nothing_is_said_of_ordinary_videos_damage_and_folders(tmp_path):
    for name, rate in (("a", 25), ("b", 30), ("c", 24)):
        write_video(tmp_path / f"{name}.mp4", numbered_frames(20), rate=rate)
    (tmp_path / "damaged.mp4").write_bytes(b"nothing" * 100)
    (tmp_path / "frames.d").mkdir()
    make_structure(tmp_path, "h264-fake-interlaced.mp4")
    assert look(tmp_path) == ()
    assert material_notices([str(tmp_path / "gone.mp4")], DENSE, pixel_aspect=False) == ()
    assert material_notices([], DENSE, pixel_aspect=False) == ()


def test_limits_of_the_ratio():
    assert frame_rate_notices([("a", 20.0), ("b", 30.0)]) == ()
    assert len(frame_rate_notices([("a", 20.0), ("b", 30.1)])) == 1
    assert frame_rate_notices([]) == ()


def test_a_rate_that_a_header_only_claims_is_not_told(tmp_path, monkeypatch):
    real = material.header_notices
    for name in "abc":
        write_video(tmp_path / f"{name}.mp4", numbered_frames(20))
    monkeypatch.setattr(material, "header_notices", lambda path: ((), 1000.0) if "b.mp4" in path else real(path))
    assert look(tmp_path) == ()
    write_video(tmp_path / "d.mp4", numbered_frames(20), rate=10)
    (line,) = look(tmp_path)
    assert "d.mp4 has 10 frames per second" in line
    assert "1000" not in line


def test_few_files_are_opened_and_a_slow_disk_holds_nothing_up(mixed, monkeypatch):
    opened = []
    real = material.header_notices
    monkeypatch.setattr(material, "header_notices", lambda path: opened.append(path) or real(path))
    look(mixed, max_files=7, seed=1)
    first = list(opened)
    assert len(set(first)) == 7
    opened.clear()
    look(mixed, max_files=7, seed=1)
    assert opened == first  # by the seed
    monkeypatch.setattr(material, "header_notices", lambda path: time.sleep(1) or ((), None))
    started = time.monotonic()
    paths = [str(path) for path in mixed.rglob("*.*")]
    assert material_notices(paths, DENSE, pixel_aspect=False, max_seconds=0.2) == ()
    assert time.monotonic() - started < 0.9


def test_an_index_tells_the_rates_of_all(mixed, tmp_path):
    paths = [str(path) for path in sorted((mixed / "a").glob("*.mp4"))]
    stamps = [(path, frame_index(path), (_stat(path).st_size, _stat(path).st_mtime_ns)) for path in paths]
    write_index(tmp_path / "index", stamps)
    options = dict(pixel_aspect=False, max_files=0, max_seconds=60)
    assert material_notices(paths, DENSE, **options) == ()
    (line,) = material_notices(paths, DENSE, index=IndexFile(tmp_path / "index"), **options)
    assert "fast.mp4 50" in line


def _stat(path):
    from os import stat

    return stat(path)


def test_check_tells_it(mixed, capsys):
    code, out, _ = run_command(capsys, "check", mixed, "--workers", "0")
    text = " ".join(out.split())
    assert code == 0
    for part in ("frame rates differ", "fast.mp4 50", "pixels that are not square", "4:3, 160×120 is shown as 213×120",
                 "HDR films", "interlaced films", "bwdif"):  # fmt: skip
        assert part in text, part
    report = check_samples([Sample(str(mixed / "a" / "pq.mp4")), Sample(str(mixed / "a" / "wide.mp4"))])
    assert [[notice.detail for notice in file.notices] for file in report.files] == [
        ["PQ"], ["4:3, 160×120 is shown as 213×120"]
    ]  # fmt: skip


def test_a_run_tells_it_once_at_its_start(mixed, tmp_path, caplog):
    config = replace(RunConfig(), **{**TINY, "data": {**TINY["data"], "path": str(mixed)}})
    config = replace(config, training={"steps": 1, "eval_every": 0, "seed": 3})
    with caplog.at_level(logging.WARNING, "evl"):
        train(config, tmp_path / "run")
    for part in ("frame rates differ", "pixels that are not square (made square)", "HDR films", "interlaced films"):
        assert sum(part in message for message in caplog.messages) == 1, part
    caplog.clear()
    with caplog.at_level(logging.WARNING, "evl"):
        extract(config, tmp_path / "store")
    assert sum("frame rates differ" in message for message in caplog.messages) == 1
