"""Seconds of files whose clock jumps: parts joined byte by byte, a recorder started again, a clock that wraps."""

import av
import numpy as np
import pytest

from evl.collections.copy_video import prepare_video
from evl.data.index_file import IndexFile, write_index
from evl.errors import VideoError
from evl.video.decode.index import frame_index, probe
from evl.video.decode.reader import read_clip, read_frames
from evl.video.views import read_views
from tests.helpers import Wanted, number_of, numbered_frames, run_command, write_video
from tests.makers import video

H264 = "keyint=12:bframes=2"
WAYS = {
    "ts": dict(x264=H264),
    "m2ts": dict(x264=H264),
    "mpg": dict(codec="mpeg2video", options={"g": "12", "bf": "2"}),
    "mkv": dict(x264=H264),
    "webm": dict(codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8", "g": "12"}),
}


def part(path, start, end):
    frames = read_clip(path, Wanted(range), start_seconds=start, end_seconds=end).frames
    verified = read_clip(path, Wanted(range), start_seconds=start, end_seconds=end, verify=True).frames
    assert verified.equal(frames)
    return [number_of(frame) for frame in frames]


def cat(path, *counts, first=0, rates=None, starts=None, **how):
    """Parts of ``counts`` frames, joined as ``cat`` does; their frames are numbered through."""
    content = b""
    for place, count in enumerate(counts):
        begin = sum(counts[:place])
        rate = (rates or [25] * len(counts))[place]
        start = (starts or [0] * len(counts))[place]
        options = {"g": "12", "bf": "2", "threads": "1"}
        piece = path.with_name(f"piece-{place}{path.suffix}")
        frames = numbered_frames(begin + count, 48, 80)[begin:]
        times = [1000 * start + round(1000 * i / rate) for i in range(count)] if starts else None
        write_video(piece, frames, rate=rate, options=options, times=times, **how)
        content += piece.read_bytes()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("ending", WAYS)
def test_seconds_go_on_in_the_second_part_of_two_joined_files(tmp_path, ending):
    content = b""
    for count in (40, 20):
        video(tmp_path / f"part.{ending}", count=count, **WAYS[ending])
        content += (tmp_path / f"part.{ending}").read_bytes()
    path = tmp_path / f"both.{ending}"
    path.write_bytes(content)
    info = probe(path)
    assert info.clock_jumps == (40,)
    seconds = np.array(info.times_seconds) - info.times_seconds[0]
    assert np.allclose(seconds, np.arange(60) / 25, atol=0.002)
    assert np.allclose(frame_index(path).times_seconds, info.times_seconds)
    assert part(path, 0, 0.19) == [0, 1, 2, 3, 4]
    assert part(path, 1.5, 1.75) == [38, 39, 0, 1, 2, 3]
    assert part(path, 2.1, None) == list(range(13, 20))
    assert part(path, 2.1, 2.19) == [13, 14]
    with pytest.raises(VideoError, match=r"no frame between 2\.4 and 3 s"):
        part(path, 2.4, 3)


def test_three_parts_of_other_rates_and_lengths(tmp_path):
    """Times of the parts lie between each other without being equal: no packet tells by itself that they are parts."""
    path = cat(tmp_path / "a.ts", 30, 10, 41, rates=[25, 30, 24])
    info = probe(path)
    assert info.clock_jumps == (30, 40)
    assert np.all(np.diff(info.times_seconds) > 0.03)
    assert [number_of(frame) for frame in read_frames(path, range(81))] == list(range(81))
    assert part(path, 29.5 / 25, 32.5 / 25) == [30, 31, 32]
    for number in (5, 33, 77):
        assert number_of(read_frames(path, [number])[0]) == number


@pytest.mark.parametrize("starts", [[0, 3600], [3600, 0], [0, 95_000, 30], [70, 0]])
def test_a_clock_that_jumps_far(tmp_path, starts):
    """To an hour later, or back behind where libav takes it for the 33 bits running over."""
    path = cat(tmp_path / "a.ts", *[15] * len(starts), starts=starts)
    info = probe(path)
    count = 15 * len(starts)
    assert info.clock_jumps == tuple(range(15, count, 15))
    assert np.allclose(np.array(info.times_seconds) - info.times_seconds[0], np.arange(count) / 25, atol=0.002)
    assert frame_index(path).is_counted
    assert part(path, 0.7, 0.83) == [18, 19, 20]


def test_pauses_are_no_jumps(tmp_path):
    path = write_video(tmp_path / "a.ts", numbered_frames(12), times=[40 * i + 8000 * (i // 6) for i in range(12)])
    assert probe(path).clock_jumps == ()
    assert part(path, 8.1, 8.3) == [6, 7]
    slow = write_video(tmp_path / "b.ts", numbered_frames(6), times=[20_000 * i for i in range(6)])
    assert probe(slow).clock_jumps == ()
    assert part(slow, 39, 41) == [2]
    path = write_video(tmp_path / "a.mkv", numbered_frames(12), times=[40 * i + 60_000 * (i // 6) for i in range(12)])
    assert probe(path).clock_jumps == ()
    assert part(path, 60.1, 60.3) == [6, 7]


def test_every_road_counts_on(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    path = cat(tmp_path / "data" / "a.ts", 40, 20)
    how = dict(num_frames=2, stride=1, num_clips=1, num_crops=1, size=48, mean=(0,) * 3, std=(1,) * 3)
    views = read_views(path, start_seconds=1.8, end_seconds=1.9, **how)
    alone = read_views(cat(tmp_path / "b.ts", 60), start_seconds=1.8, end_seconds=1.9, **how)
    later = read_views(tmp_path / "b.ts", start_seconds=2, end_seconds=2.1, **how)
    assert (views - alone).abs().mean() < 0.03 < (views - later).abs().mean()

    index = frame_index(path)
    found = path.stat()
    write_index(tmp_path / "index", [(str(path), index, (found.st_size, found.st_mtime_ns))])
    known = IndexFile(tmp_path / "index").find(str(path))
    clip = read_clip(path, Wanted(range), start_seconds=1.79, end_seconds=1.87, index=known).frames
    assert [number_of(frame) for frame in clip] == [45, 46]

    prepare_video(path, tmp_path / "copy.mp4")
    assert part(tmp_path / "copy.mp4", 1.79, 1.87) == [45, 46]

    code, printed, _ = run_command(capsys, "check", tmp_path / "data", "--workers", 0)
    assert code == 0
    (line,) = [line for line in printed.splitlines() if "clocks that jump" in line]
    assert "a.ts: before frame 40" in line


def test_times_in_another_order_than_pictures_are_no_jumps(tmp_path):
    path = tmp_path / "a.avi"
    video(path, x264=H264, count=30)
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times != sorted(times)
    info = probe(path)
    assert info.clock_jumps == ()
    assert list(info.times_seconds) == sorted(times)


@pytest.mark.parametrize("ending", ["mp4", "mov", "flv", "asf"])
def test_a_second_film_that_no_decoder_reaches_is_refused(tmp_path, ending):
    content = b""
    for count in (20, 10):
        video(tmp_path / f"part.{ending}", count=count, x264=H264)
        content += (tmp_path / f"part.{ending}").read_bytes()
    assert probe(tmp_path / f"part.{ending}").num_frames == 10
    path = tmp_path / f"both.{ending}"
    path.write_bytes(content)
    for read in (probe, frame_index, lambda path: read_frames(path, [3]), lambda path: read_clip(path, Wanted(range))):
        with pytest.raises(VideoError, match="several videos one after the other"):
            read(path)


def test_fragments_that_begin_anew_are_read_on(tmp_path):
    """As players of HTTP streams store them: an initialization in front of each part."""
    path = tmp_path / "a.mp4"
    video(path, x264=H264, count=24, container_options={"movflags": "frag_keyframe+empty_moov+default_base_moof"})
    content = path.read_bytes()
    end = content.index(b"moof") - 4  # of ftyp and moov
    second = content.index(b"moof", end + 8) - 4
    path.write_bytes(content[:second] + content[:end] + content[second:])
    assert [number_of(frame) for frame in read_clip(path, Wanted(range), verify=True).frames] == list(range(24))
