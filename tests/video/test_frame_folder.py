"""Folders of pictures as videos: order, pixels, damage."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from evl.errors import VideoError
from evl.video.decode.frame_folder import check_frames, frame_files, probe_folder
from evl.video.decode.reader import read_frames


def picture(path, value, size=(8, 6), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(path, **options)


def test_frames_come_in_the_order_of_their_numbers(tmp_path):
    for number in (1, 2, 9, 10, 11, 100):
        picture(tmp_path / f"img_{number}.png", number)
    picture(tmp_path / ".img_3.png", 3)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "img_5.png").mkdir()
    assert [file.stem for file in frame_files(tmp_path)] == [f"img_{n}" for n in (1, 2, 9, 10, 11, 100)]
    info = probe_folder(tmp_path)
    assert (info.num_frames, info.width, info.height, info.codec) == (6, 8, 6, "frames")
    assert info.times_seconds == (0, 0.04, 0.08, 0.12, 0.16, 0.2)
    for _ in range(2):
        frames = read_frames(tmp_path, [5, 0, 0, 3])
        assert frames.shape == (4, 3, 6, 8)
        assert frames.dtype == torch.uint8
        assert frames[:, 0, 0, 0].tolist() == [100, 1, 1, 10]


def test_a_folder_without_frames_is_refused(tmp_path):
    (tmp_path / "b").mkdir()
    for name, reason in (("b", "without JPEG or PNG"), ("gone", "no such file")):
        with pytest.raises(VideoError, match=reason):
            probe_folder(tmp_path / name)


def test_other_sizes_and_modes_become_rgb_of_the_first_size(tmp_path):
    picture(tmp_path / "1.png", (10, 20, 30), (8, 6))
    picture(tmp_path / "2.png", (40, 50, 60), (16, 12))
    Image.fromarray(np.full((6, 8), 77, np.uint8)).save(tmp_path / "3.png")
    Image.fromarray(np.full((6, 8), 200 * 256 + 9, np.uint16)).save(tmp_path / "4.png")
    frames = read_frames(tmp_path, [0, 1, 2, 3])
    assert frames[:, :, 3, 4].tolist() == [[10, 20, 30], [40, 50, 60], [77] * 3, [200] * 3]
    assert read_frames(tmp_path, [2, 1]).shape == (2, 3, 12, 16)  # 1 is the first of them


def test_pictures_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "1.jpg", 9, (8, 6), exif=exif)
    info = probe_folder(tmp_path)
    assert (info.width, info.height) == (6, 8)
    assert read_frames(tmp_path, [0]).shape == (1, 3, 8, 6)


def bomb(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda whole: whole[: len(whole) // 2], r"frame 2\.jpg cannot be decoded \(.*truncated"),
        (lambda whole: b"", r"frame 2\.jpg is empty"),
        (lambda whole: b"GIF89a" + whole, r"frame 2\.jpg is not a JPEG or PNG"),
        (lambda whole: bomb(8193, 8193), r"frame 2\.jpg claims 8193×8193 pixels"),
        (lambda whole: bomb(100_000, 100_000), r"frame 2\.jpg claims more than"),
        (lambda whole: bomb(400, 300), r"frame 2\.jpg cannot be decoded"),
    ],
)
def test_damaged_pictures_are_named(tmp_path, content, reason):
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    for number in (1, 2, 3):
        Image.fromarray(noise).save(tmp_path / f"{number}.jpg")
    check_frames(tmp_path, 0, 3)
    damaged = tmp_path / "2.jpg"
    damaged.write_bytes(content(damaged.read_bytes()))
    with pytest.raises(VideoError, match=reason) as caught:
        read_frames(tmp_path, [0, 1])
    assert caught.value.path == str(tmp_path)
    with pytest.raises(VideoError, match=reason):
        check_frames(tmp_path, 1, 2)
    check_frames(tmp_path, 2, 1)
    assert read_frames(tmp_path, [2]).shape == (1, 3, 60, 80)


def test_wrong_numbers(tmp_path):
    picture(tmp_path / "1.png", 1)
    with pytest.raises(VideoError, match="has 1 frames, but frame 4 was wanted"):
        read_frames(tmp_path, [0, 4, 7])
    with pytest.raises(VideoError, match="has 1 frames, but frame 1 was wanted"):
        check_frames(tmp_path, 0, 2)
    with pytest.raises(ValueError, match="no frame indices"):
        read_frames(tmp_path, [])
    with pytest.raises(ValueError, match="negative"):
        read_frames(tmp_path, [-1])
