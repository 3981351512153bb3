"""One pass forward: the pictures of ``read_frames``, and damage that costs only its own frames."""

import itertools
import tracemalloc

import av
import numpy as np
import pytest
import torch
from PIL import Image

from evl.video.decode.forward import OtherFramesError, read_forward
from evl.video.decode.index import FrameIndex, counted_index, frame_index
from evl.video.decode.reader import read_frames
from tests.helpers import number_of, numbered_frames
from tests.makers import joined, video

KINDS = {
    "mp4": dict(x264="keyint=10:bframes=2"),
    "open.mp4": dict(x264="keyint=10:bframes=2:open-gop=1"),
    "mkv": dict(x264="keyint=12:bframes=2"),
    "ts": dict(x264="keyint=12:bframes=2"),
    "hevc.mp4": dict(x265="keyint=10:bframes=2"),
    "mpg": dict(codec="mpeg2video", options={"g": "10", "qscale": "3"}),
    "webm": dict(codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8", "g": "10"}),
}


def tensor(picture):
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wanted", [range(60), range(0, 60, 7), [33], [25, 26, 59]])
def test_the_pictures_of_read_frames(tmp_path, kind, wanted):
    path = str(tmp_path / f"a.{kind}")
    video(tmp_path / f"a.{kind}", **KINDS[kind])
    got = list(read_forward(path, frame_index(path), list(wanted)))
    assert [number for number, _ in got] == list(wanted)
    assert [number_of(tensor(picture)) for _, picture in got] == list(wanted)
    for (_, picture), alike in zip(got, read_frames(path, list(wanted)), strict=True):
        assert torch.equal(tensor(picture), alike)


def test_a_folder_of_frames(tmp_path):
    for place, picture in enumerate(numbered_frames(12)):
        Image.fromarray(picture).save(tmp_path / f"{place:03}.png")
    (tmp_path / "005.png").write_bytes(b"no picture")
    got = dict(read_forward(str(tmp_path), frame_index(tmp_path), [0, 4, 5, 6]))
    assert "005.png" in got[5]
    assert [number_of(tensor(got[place])) for place in (0, 4, 6)] == [0, 4, 6]


def with_noise(path, **how):
    """60 frames with a key frame at each tenth; the packet in place 34 is noise."""
    video(path, **how)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        place, size = packets[34].pos, packets[34].size
    content = bytearray(path.read_bytes())
    content[place + 4 : place + size] = np.random.default_rng(0).bytes(size - 4)
    path.write_bytes(content)
    return str(path)


def test_damage_costs_the_frames_up_to_the_next_key_frame(tmp_path):
    damaged = with_noise(tmp_path / "damaged.mp4", x264="keyint=10:min-keyint=10:bframes=0")
    got = dict(read_forward(damaged, frame_index(damaged), list(range(60))))
    assert list(got) == list(range(60))
    lost = [number for number, picture in got.items() if isinstance(picture, str)]
    assert lost == list(range(34, 40))
    for number in (0, 33, 40, 59):
        assert number_of(tensor(got[number])) == number


def test_frames_that_refer_to_a_broken_packet_are_lost_too(tmp_path):
    """Packet 34 holds a later picture, and the decoder makes pictures of earlier ones without an error."""
    damaged = with_noise(tmp_path / "damaged.mp4", x264="keyint=10:min-keyint=10:bframes=2")
    index = frame_index(damaged)
    got = dict(read_forward(damaged, index, list(range(60))))
    lost = {number for number, picture in got.items() if isinstance(picture, str)}
    assert lost == {number for number in range(30, 40) if index.packets[number] >= 34}
    assert all(number_of(tensor(got[number])) == number for number in set(range(60)) - lost)


def test_all_pictures_have_the_size_of_the_first(tmp_path):
    """As in ``read_frames``, where the size changes in the middle of a file, or of a folder."""
    path, folder = str(tmp_path / "a.h264"), tmp_path / "frames"
    joined(tmp_path / "a.h264", [dict(count=10), dict(count=10, picture=(64, 112))])
    folder.mkdir()
    for number in range(4):
        Image.fromarray(numbered_frames(4, *((48, 80), (64, 112))[number // 2])[number]).save(folder / f"{number}.png")
    for source, count in ((path, 20), (str(folder), 4)):
        got = dict(read_forward(source, frame_index(source), range(count)))
        assert {picture.shape for picture in got.values()} == {(48, 80, 3)}
        assert torch.equal(
            torch.stack([tensor(picture) for picture in got.values()]), read_frames(source, range(count))
        )


def test_an_index_that_is_wrong_is_counted(tmp_path):
    path = str(tmp_path / "a.mp4")
    video(tmp_path / "a.mp4", x264="keyint=10")
    right = frame_index(path)
    parts = [part.copy() for part in (right.pts, right.seek_to, right.is_key, right.is_shown)]
    parts[3][20] = False  # this index says that a frame is not shown
    with pytest.raises(OtherFramesError) as caught:
        list(read_forward(path, FrameIndex(*parts, right.time_base, right.codec), list(range(50))))
    assert caught.value.index.num_frames == 60


def test_a_file_that_goes_away(tmp_path):
    path = str(tmp_path / "gone.mp4")
    video(tmp_path / "gone.mp4")
    index = frame_index(path)
    (tmp_path / "gone.mp4").unlink()
    assert dict(read_forward(path, index, [3, 5])) == {3: "no such file", 5: "no such file"}


def test_memory_does_not_depend_on_the_number_of_frames(tmp_path):
    path = str(tmp_path / "long.mp4")
    video(tmp_path / "long.mp4", count=200, picture=(96, 128), x264="keyint=20")
    index, most = counted_index(path), []
    frame_index(path)
    for count in (20, 200):
        tracemalloc.start()
        for _ in itertools.islice(read_forward(path, frame_index(path), list(range(count))), count):
            pass
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert index.num_frames == 200
    assert most[1] < most[0] + 5 * 96 * 128 * 3  # a few pictures, not 180 more
