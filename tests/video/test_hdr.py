"""HDR to SDR: known points of the curves, the formulas without tables, and files as they come out of the reader."""

import av
import numpy as np
import pytest

import evl
from evl.collections.copy_video import CopySettings, prepare_video
from evl.video.decode.reader import read_frames
from evl.video.decode.rgb import (
    FULL_SCALE,
    HLG,
    LUMINANCE,
    PQ,
    TO_BT709,
    hlg_to_scene,
    nits_to_pq,
    pq_to_nits,
    to_sdr,
    tone_mapped,
)  # fmt: skip

GREY, COLORS = (
    [(x, x, x) for x in (0, 0.25, 0.5, 0.58, 0.7, 0.75, 1)],
    [(0.7, 0.3, 0.2), (0.2, 0.6, 0.4), (0.3, 0.3, 0.7)],
)


def plain(codes, transfer):
    """R'G'B' codes (…,3), 0–1 -> 0–255 in double precision, one step after the other."""
    if transfer == PQ:
        nits = pq_to_nits(codes)
    else:
        scene = hlg_to_scene(codes)
        nits = 1000 * (scene @ LUMINANCE)[..., None] ** 0.2 * scene
    return 255 * (tone_mapped(nits) @ TO_BT709.T).clip(0, 1) ** (1 / 2.4)


def test_known_points_of_the_curves():
    # BT.2408: reference white, 203 cd/m², is 58 % of PQ and 75 % of HLG
    assert nits_to_pq(203) == pytest.approx(0.58, abs=0.001)
    assert nits_to_pq(1000) == pytest.approx(0.7518, abs=1e-4)
    assert pq_to_nits(np.array([0, 0.5, 1])) == pytest.approx([0, 92.25, 10_000], abs=0.01)
    assert 1000 * hlg_to_scene(0.75) ** 1.2 == pytest.approx(203, abs=1)
    assert hlg_to_scene(np.array([0, 0.5, 1])) == pytest.approx([0, 1 / 12, 1], abs=1e-6)
    # BT.2390's EETF: what is dark stays, what is bright is compressed, without a step
    assert tone_mapped(np.array([0.0, 1, 50, 87])) * 203 == pytest.approx([0, 1, 50, 87], abs=1e-6)
    curve = tone_mapped(np.linspace(0, 1000, 5001))
    assert (np.diff(curve) > 0).all()
    assert np.diff(curve).max() <= 0.2 / 203 * 1.001
    assert tone_mapped(np.array([1000, 4000, 10_000])).tolist() == pytest.approx([1, 1, 1])
    # colors: white stays white, the matrix is BT.2087's
    assert TO_BT709.sum(1) == pytest.approx([1, 1, 1], abs=2e-4)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_tables_are_the_formulas(transfer):
    rng = np.random.default_rng(0)
    codes = rng.random((400, 50, 3))
    codes[:20] = np.linspace(0, 1, 1000).reshape(20, 50, 1)  # greys
    codes = np.rint(codes * FULL_SCALE)
    got = to_sdr(codes.astype(np.uint16), transfer)
    assert got.dtype == np.uint8
    difference = np.abs(got - plain(codes / FULL_SCALE, transfer))
    assert difference.max() < 3  # next to black, where a color is outside of BT.709's
    assert difference.mean() < 0.3
    assert (
        np.diff(
            to_sdr(np.arange(0, FULL_SCALE, 64, np.uint16)[:, None, None].repeat(3, 2), transfer)[:, 0, 0].astype(int)
        )
        >= 0
    ).all()


def test_greys_stay_grey_and_white_is_white():
    ramp = np.arange(FULL_SCALE + 1, dtype=np.uint16)[:, None, None].repeat(3, 2)
    for transfer in (PQ, HLG):
        made = to_sdr(ramp, transfer)[:, 0].astype(int)
        assert np.ptp(made, axis=1).max() <= 1
        assert made[0].tolist() == [0, 0, 0]
        assert made[-1].tolist() == [255, 255, 255]
    assert to_sdr(np.full((1, 1, 3), 65535, np.uint16), PQ).tolist() == [[[255] * 3]]


def write_hdr(path, colors, transfer, codec="libx265", pixel_format="yuv420p10le", count=3):
    """Bars of R'G'B' codes, 64 pixels wide, in BT.2020 with limited range, without loss."""
    tags = f"colorprim=bt2020:transfer={'smpte2084' if transfer == PQ else 'arib-std-b67'}:colormatrix=bt2020nc"
    name = {"libx265": "x265-params", "libx264": "x264-params"}[codec]
    lossless = "log-level=none:lossless=1:" if codec == "libx265" else "qp=0:"
    high = 4 if "10" in pixel_format else 1
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={name: lossless + tags})
        stream.width, stream.height, stream.pix_fmt = 64 * len(colors), 64, pixel_format
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace, context.color_range = transfer, 9, 9, 1
        for i in range(count):
            frame = av.VideoFrame(stream.width, 64, pixel_format)
            for plane, part in zip(frame.planes, range(3), strict=True):
                rows = np.frombuffer(plane, np.uint16 if high == 4 else np.uint8).reshape(plane.height, -1)
                side = plane.width // len(colors)
                for j, (r, g, b) in enumerate(colors):
                    y = 0.2627 * r + 0.6780 * g + 0.0593 * b
                    code = (219 * y + 16, 224 * (b - y) / 1.8814 + 128, 224 * (r - y) / 1.4746 + 128)[part]
                    rows[:, j * side : (j + 1) * side] = round(high * code)
            frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range = transfer, 9, 9, 1
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def bars(frame, count):
    """(count,3): the middle of each bar."""
    return frame[:, 32, 32::64].T.numpy().astype(float)[:count]


@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize(("codec", "ending"), [("libx265", "mp4"), ("libx265", "mkv"), ("libx264", "mov")])
def test_files_are_read_as_sdr(tmp_path, transfer, codec, ending):
    colors = [*GREY, *COLORS]
    path = write_hdr(tmp_path / f"hdr.{ending}", colors, transfer, codec)
    wanted = plain(np.array(colors, float), transfer)
    for frame in read_frames(path, [0, 2]):
        assert np.abs(bars(frame, len(colors)) - wanted).max() <= 3  # codes of 10 bits
    views = evl.read_views(
        path, num_frames=2, stride=1, num_clips=1, num_crops=1, size=(64, 640), mean=(0,) * 3, std=(1 / 255,) * 3
    )
    assert np.abs(bars(views[0, 0], len(colors)) - wanted).max() <= 3


def test_eight_bits_with_the_tag_are_hdr_too(tmp_path):
    path = write_hdr(tmp_path / "hdr.mp4", GREY, PQ, "libx264", "yuv420p")
    assert np.abs(bars(read_frames(path, [0])[0], 7) - plain(np.array(GREY, float), PQ)).max() <= 8


def test_ten_bits_without_the_tag_are_left_alone(tmp_path):
    """BT.2020's own curve (14) is SDR's."""
    path = write_hdr(tmp_path / "wide.mp4", GREY, PQ, "libx265")
    data = path.read_bytes()
    assert data.count(b"colrnclx") == 1
    before = bars(read_frames(path, [0])[0], 7)
    sdr = tmp_path / "sdr.mp4"
    with av.open(str(path)) as container:
        frames = [frame for frame in container.decode(video=0)]
    with av.open(str(sdr), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, "yuv420p10le"
        for frame in frames:
            frame.color_trc = 14
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    after = bars(read_frames(sdr, [0])[0], 7)
    assert np.abs(after - 255 * np.array(GREY, float)).max() <= 3
    assert np.abs(after - before).max() > 30


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_copies_are_sdr(tmp_path, transfer):
    colors = [*GREY, *COLORS]
    path = write_hdr(tmp_path / "hdr.mp4", colors, transfer)
    prepare_video(path, tmp_path / "copy.mp4", CopySettings(quality=1))
    with av.open(str(tmp_path / "copy.mp4")) as container:
        assert next(container.decode(video=0)).color_trc not in (PQ, HLG)
    wanted = plain(np.array(colors, float), transfer)
    assert np.abs(bars(read_frames(tmp_path / "copy.mp4", [0])[0], len(colors)) - wanted).max() <= 5
