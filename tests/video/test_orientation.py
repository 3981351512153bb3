"""All eight ways a stored picture may be turned and mirrored to be shown, pixel by pixel, wherever that is written."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from evl.collections.check import check_file
from evl.collections.copy_video import CopySettings, prepare_video
from evl.data.index_file import IndexFile, write_index
from evl.errors import VideoError
from evl.types import Sample
from evl.video.decode.index import probe
from evl.video.decode.orientation import UPRIGHT, Orientation, Orientations
from evl.video.decode.reader import read_clip, read_frames
from evl.video.views import read_views
from tests.boxes import words
from tests.helpers import Wanted
from tests.makers import boxes, shown_by

ONE = 1 << 16
# (a, b, c, d) of the matrix -> what is done to the picture (C,H,W). Each is written by itself, as a reader of ISO/IEC
# 14496-12, 6.2.2 would draw it: (p, q) goes to (ap + cq, bp + dq)
EIGHT = {
    "as stored": ((1, 0, 0, 1), lambda x: x),
    "mirrored left to right": ((-1, 0, 0, 1), lambda x: x.flip(2)),
    "mirrored top to bottom": ((1, 0, 0, -1), lambda x: x.flip(1)),
    "turned by half": ((-1, 0, 0, -1), lambda x: x.flip(1).flip(2)),
    "clockwise": ((0, 1, -1, 0), lambda x: x.transpose(1, 2).flip(2)),
    "counter-clockwise": ((0, -1, 1, 0), lambda x: x.transpose(1, 2).flip(1)),
    "transposed": ((0, 1, 1, 0), lambda x: x.transpose(1, 2)),
    "transposed the other way": ((0, -1, -1, 0), lambda x: x.transpose(1, 2).flip(1).flip(2)),
}
MP4 = {"x264": "keyint=4:bframes=2", "count": 9}


def drawn(a, b, c, d, picture):
    """The picture (C,H,W) drawn point by point through the matrix, onto its own rectangle."""
    _, height, width = picture.shape
    q, p = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x, y = a * p + c * q, b * p + d * q
    x, y = x - x.min(), y - y.min()
    out = torch.zeros(3, int(y.max()) + 1, int(x.max()) + 1, dtype=picture.dtype)
    out[:, y, x] = picture
    return out


def as_stored(path):
    """The pictures of a file (F,C,H,W) as they are stored: PyAV applies no matrix. Of the file itself: two files of the
    same pictures may differ by a level, since libswscale rounds by where its buffers lie."""
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", EIGHT)
def test_the_whole_display_matrix_is_applied(tmp_path, name):
    matrix, shown = EIGHT[name]
    path = tmp_path / "a.mp4"
    boxes(path, shown_by(*matrix), **MP4)
    stored = as_stored(path)
    truth = torch.stack([shown(picture) for picture in stored])
    assert torch.equal(truth[1], drawn(*matrix, stored[1]))
    others = [other(stored[1]) for key, (_, other) in EIGHT.items() if key != name]
    assert not any(torch.equal(truth[1], other) for other in others)  # the comparison can tell all eight

    info = probe(path)
    assert (info.height, info.width) == truth.shape[2:]
    told = Orientation(info.is_mirrored, info.rotation_degrees // 90)
    applied = told.apply(stored[1].permute(1, 2, 0).numpy())
    assert torch.equal(torch.from_numpy(applied.copy()).permute(2, 0, 1), truth[1])
    assert torch.equal(read_frames(path, range(9)), truth)
    assert torch.equal(read_frames(path, [7]), truth[[7]])
    assert torch.equal(read_clip(path, Wanted(lambda count: range(count)), verify=True).frames, truth)

    size = truth.shape[2:]
    how = dict(num_frames=3, stride=2, num_clips=1, num_crops=1, mean=(0,) * 3, std=(1,) * 3)
    views = read_views(path, size=tuple(size), **how)
    assert (views[0] * 255).round().to(torch.uint8).equal(truth[[2, 4, 6]])

    report = check_file(Sample(str(path)))
    assert (report.info.height, report.info.width) == size
    write_index(tmp_path / "index", [(str(path), report.index, report.stamp)])
    known = IndexFile(tmp_path / "index").find(str(path))
    assert torch.equal(read_clip(path, Wanted(lambda count: range(count)), index=known).frames, truth)

    prepare_video(path, tmp_path / "copy.mp4", CopySettings(quality=1))
    with av.open(str(tmp_path / "copy.mp4")) as container:  # as any player would: the copy has no matrix
        copy = list(container.decode(video=0))
    assert {Orientations("copy").of(frame) for frame in copy} == {UPRIGHT}
    copied = torch.from_numpy(np.stack([frame.to_ndarray(format="rgb24") for frame in copy])).permute(0, 3, 1, 2)
    assert (copied.float() - truth.float()).abs().mean() < 4
    alike = [other.float() for other in others if other.shape == truth.shape[1:]]
    assert all((copied[1].float() - other).abs().mean() > 20 for other in alike)


@pytest.mark.parametrize(
    ("matrix", "options", "name"),
    [
        ((-2, 0, 0, 0.5), {}, "mirrored left to right"),  # a length is not looked at
        ((0.01, 1, -1, -0.01), {}, "clockwise"),  # a rounded quarter turn
        ((0, 1, -1, 0), {"last": (0, 0, 48 << 16, 0, 1 << 30)}, "clockwise"),  # nor a place
        ((0, 0, 0, 0), {"last": (0,) * 5}, "as stored"),  # nobody filled it
    ],
)
def test_what_a_matrix_may_hold_besides(tmp_path, matrix, options, name):
    path = tmp_path / "a.mp4"
    boxes(path, shown_by(*matrix, **options), **MP4)
    assert torch.equal(read_frames(path, [5])[0], EIGHT[name][1](as_stored(path)[5]))


@pytest.mark.parametrize(
    ("matrix", "options"),
    [
        ((0.7071, 0.7071, -0.7071, 0.7071), {}),
        ((1, 0.2, 0, 1), {}),  # sheared
        ((1, 1, 1, 1), {}),  # a line
        ((1, 0, 0, 0), {}),
        ((1, 0, 0, 1), {"last": (1 << 20, 0, 0, 0, 1 << 30)}),  # in perspective
    ],
)
def test_what_is_no_quarter_turn_is_refused_with_a_reason(tmp_path, matrix, options):
    path = tmp_path / "a.mp4"
    boxes(path, shown_by(*matrix, **options), **MP4)
    for read in (probe, lambda path: read_frames(path, [5]), lambda path: prepare_video(path, tmp_path / "copy.mp4")):
        with pytest.raises(VideoError, match="not a quarter turn"):
            read(path)
    assert "not a quarter turn" in check_file(Sample(str(path))).problem


@pytest.mark.parametrize("name", EIGHT)
def test_a_matrix_in_matroska_and_in_the_stream_itself(tmp_path, name):
    (a, b, c, d), shown = EIGHT[name]
    boxes(tmp_path / "a.mp4", lambda kind, body: body, **MP4)
    truth = shown(as_stored(tmp_path / "a.mp4")[5])
    path = tmp_path / "a.mkv"
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(path), "w") as made:
        stream = made.add_stream_from_template(source.streams.video[0])
        stream.set_display_matrix([a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                made.mux(packet)
    assert torch.equal(read_frames(path, [5])[0], truth)

    turns = {(1, 0, 0, 1): (0, ""), (-1, 0, 0, 1): (0, "horizontal"), (1, 0, 0, -1): (0, "vertical"),
             (-1, 0, 0, -1): (180, ""), (0, 1, -1, 0): (270, ""), (0, -1, 1, 0): (90, ""),
             (0, 1, 1, 0): (90, "horizontal"), (0, -1, -1, 0): (270, "horizontal")}  # fmt: skip
    degrees, flip = turns[a, b, c, d]  # counter-clockwise, after the flip: ITU-T H.264, D.2.27
    path = tmp_path / "sei.mp4"
    with_sei(tmp_path / "a.mp4", path, degrees, flip)
    assert torch.equal(read_frames(path, [5])[0], truth)
    assert torch.equal(read_clip(path, Wanted(lambda count: [5]), verify=True).frames[0], truth)


def with_sei(source, path, degrees, flip, every=True):
    """Display orientation written into an H.264 stream, in front of every picture or the first."""
    bits = f"0{flip == 'horizontal':d}{flip == 'vertical':d}{degrees * 65536 // 360:016b}" + "010" + "0" + "1"
    unit = b"\x06\x2f\x03" + int(bits, 2).to_bytes(3, "big") + b"\x80"
    with av.open(str(source)) as source, av.open(str(path), "w") as made:
        stream = made.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size == 0:
                continue
            told = av.Packet((words(len(unit)) + unit if every or number == 0 else b"") + bytes(packet))
            for field in ("pts", "dts", "time_base", "duration"):
                setattr(told, field, getattr(packet, field))
            told.stream, told.is_keyframe = stream, packet.is_keyframe
            made.mux(told)


def test_where_only_some_frames_say_it_nobody_can_tell(tmp_path):
    boxes(tmp_path / "a.mp4", lambda kind, body: body, **MP4)
    path = tmp_path / "sei.mp4"
    with_sei(tmp_path / "a.mp4", path, 90, "", every=False)
    for read in (probe, lambda path: read_frames(path, [2])):
        with pytest.raises(VideoError, match="some of its frames only"):
            read(path)
    assert "some of its frames only" in check_file(Sample(str(path))).problem


@pytest.mark.parametrize("tag", range(1, 9))
def test_exif_of_pictures_in_a_film_of_jpegs_and_in_a_folder(tmp_path, tag):
    """EXIF 2.32, table 6: a picture of four colours in four quarters, read by Pillow, which has its own table."""
    picture = np.zeros((48, 80, 3), np.uint8)
    picture[:24, :40], picture[:24, 40:], picture[24:, :40] = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    exif, content = Image.Exif(), io.BytesIO()
    exif[0x0112] = tag
    Image.fromarray(picture).save(content, "JPEG", exif=exif, quality=95, subsampling=0)
    with av.open(str(tmp_path / "a.avi"), "w") as made:
        stream = made.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuvj444p"
        for number in range(3):
            packet = av.Packet(content.getvalue())
            packet.pts = packet.dts = number
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 25), stream, True
            made.mux(packet)
    steps = {1: [], 2: ["h"], 3: ["h", "v"], 4: ["v"], 5: ["t"], 6: ["t", "h"], 7: ["t", "h", "v"], 8: ["t", "v"]}
    for step in steps[tag]:
        picture = picture.transpose(1, 0, 2) if step == "t" else picture[:, ::-1] if step == "h" else picture[::-1]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "1.jpg").write_bytes(content.getvalue())
    gray = Image.fromarray((np.arange(12, dtype=np.uint16) * 5000).reshape(3, 4))
    gray.save(tmp_path / "folder" / "2.png", exif=exif)
    for path in (tmp_path / "a.avi", tmp_path / "folder"):
        got = read_frames(path, [0])[0].permute(1, 2, 0).numpy().astype(int)
        assert got.shape == picture.shape
        assert np.abs(got - picture).max() < 30
    (frame,) = read_frames(tmp_path / "folder", [1])
    corner = 5000 * {1: 0, 2: 3, 3: 11, 4: 8, 5: 0, 6: 8, 7: 11, 8: 3}[tag]
    assert frame[0, 0, 0] == corner >> 8


def test_side_data_that_pyav_does_not_list_hides_no_matrix():
    from av.sidedata.sidedata import Type

    assert Type(6) is Type.DISPLAYMATRIX
    assert Type(10_000) != Type.DISPLAYMATRIX
    assert "10000" in str(Type(10_000))
