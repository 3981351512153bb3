"""Damaged files: cut, flipped, zeroed, lying, empty, of the wrong kind. ``make_damaged`` writes them.

In the folder ``certain`` lies what is wrong by the way it was made, and can be told from the container alone; in
``perhaps`` what only decoding can tell (a flipped bit may change nothing but a shade of grey).
"""

from __future__ import annotations

import os
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np

from tests.helpers import numbered_frames, write_audio
from tests.lies import avi_lies, fragment_lies, matroska_lies, mp4_lies, picture_lies
from tests.makers import piped, video

COUNT = 40
B_FRAMES = dict(x264="keyint=10:bframes=2", count=COUNT)
VP = {"deadline": "realtime", "cpu-used": "8", "g": "10"}
MPEG = {"g": "10", "qscale": "3"}
SOURCES = {  # name: (ending, how it is encoded)
    "front": ("mp4", B_FRAMES | {"container_options": {"movflags": "faststart"}}),
    "behind": ("mp4", B_FRAMES),
    "fragments": ("mp4", B_FRAMES | {"container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    "mov": ("mov", B_FRAMES),
    "mkv": ("mkv", B_FRAMES),
    "webm": ("webm", dict(codec="libvpx-vp9", options=VP, count=COUNT)),
    "avi": ("avi", dict(codec="mpeg4", options=MPEG, count=COUNT)),
    "ts": ("ts", B_FRAMES),
    "mpg": ("mpg", dict(codec="mpeg2video", options=MPEG, count=COUNT)),
    "flv": ("flv", B_FRAMES),
    "ogg": ("ogv", dict(codec="libvpx", options=VP, count=COUNT)),
    "ivf": ("ivf", dict(codec="libvpx-vp9", options=VP, count=COUNT)),
    "gif": ("gif", dict(codec="gif", pixel_format="rgb8", count=COUNT)),
    "h264": ("h264", B_FRAMES),
    "hevc": ("mp4", dict(x265="keyint=10:bframes=2", count=COUNT)),
    "av1": ("mp4", dict(codec="libsvtav1", picture=(64, 96), options={"preset": "12"}, count=COUNT)),
    "vp8": ("webm", dict(codec="libvpx", options=VP, count=COUNT)),
    "mjpeg": ("avi", dict(codec="mjpeg", pixel_format="yuvj420p", options={"qscale": "3"}, count=COUNT)),
    "y4m": ("y4m", dict(codec="wrapped_avframe", count=8)),
}
UNSIZED = {"h264", "y4m"}  # formats that do not say how long they are: a cut between two frames leaves a sound file

# Lies about the length of what must lie in the file: so the file was cut, or is no longer what was written. (A RIFF of
# 4 GB less a byte is not among them: FFmpeg says so when it writes to a pipe.)
LONGER_THAN_THE_FILE = {
    "segment-2^56-bytes",
    "segment-twice-as-long",
    "block-of-256-MB",
    "block-of-2^56-bytes",
    "cluster-of-2^56-bytes",
    "riff-twice-as-long",
    "moov-box-of-4-GB",
    "mdat-box-of-4-GB",
    "moof-box-of-4-GB",
    "stco-far-1000000000",
    "stco-far-4294967295",
}


def make_damaged(folder: Path) -> dict[str, Path]:
    """Writes all of them; the parent folder's name says whether the damage is certain."""
    folder = Path(folder)
    for name in ("sound", "certain", "perhaps"):
        (folder / name).mkdir()
    files = {}
    for name, (ending, how) in SOURCES.items():
        video(folder / "sound" / f"{name}.{ending}", **how)
        files[name] = (folder / "sound" / f"{name}.{ending}").read_bytes()
    piped(folder / "sound" / "live.mkv", **B_FRAMES)
    files["live"] = (folder / "sound" / "live.mkv").read_bytes()
    endings = {name: ending for name, (ending, _) in SOURCES.items()} | {"live": "mkv"}

    certain, perhaps = wrong_kinds(folder, files), picture_lies(files)
    for name, content in files.items():
        for part in (1, 10, 30, 50, 70, 90, 99):
            length = len(content) * part // 100
            length -= length % 188 == 0  # not at the end of a packet of a transport stream
            if name == "flv":
                length = inside_a_tag(content, length)
            to = perhaps if name in UNSIZED else certain
            to[f"cut-{part}-percent-{name}.{endings[name]}"] = content[:length]
        for seed in range(8):
            perhaps[f"flips-{seed}-{name}.{endings[name]}"] = flipped(content, seed)
        for place in (0, 1, 3, 5, 7, 9):
            start = len(content) * place // 10
            length = max(len(content) // 50, 64)
            perhaps[f"zeros-{place}-{name}.{endings[name]}"] = (
                content[:start] + bytes(length) + content[start + length :]
            )
    lies = {
        "mp4": mp4_lies(files["front"]),
        "fragments.mp4": fragment_lies(files["fragments"]),
        "mkv": matroska_lies(files["mkv"]),
        "avi": avi_lies(files["avi"]),
    }
    for ending, made in lies.items():
        for name, content in made.items():
            to = certain if name in LONGER_THAN_THE_FILE else perhaps
            to[f"lie-{name}.{ending}"] = content
    for place, made in {"certain": certain, "perhaps": perhaps}.items():
        for name, content in made.items():
            (folder / place / name).write_bytes(content)
    odd_entries(folder / "certain", files)
    return {path.name: path for place in ("certain", "perhaps") for path in sorted((folder / place).iterdir())}


def inside_a_tag(content: bytes, length: int) -> int:
    """A cut of a Flash video that is not between two of its tags, where nothing could tell it: there, some bytes less.

    A tag is 11 bytes, of which the second to the fourth say how long its data is, the data, and 4 bytes of its size.
    """
    start = 13
    while start < length:
        end = start + 11 + int.from_bytes(content[start + 1 : start + 4], "big") + 4
        if end - 4 <= length <= end:
            return end - 5
        start = end
    return length


def flipped(content: bytes, seed: int) -> bytes:
    """Bytes turned over: by seed in the first tenth (headers), the last tenth (often the index), or in the data."""
    rng = np.random.default_rng(seed)
    size = len(content)
    low, high = [(8, size // 10 + 100), (size * 9 // 10, size), (size // 5, size * 4 // 5)][seed % 3]
    changed = np.frombuffer(content, np.uint8).copy()
    places = rng.integers(low, high, 1 + 6 * (seed // 2))
    changed[places] ^= rng.integers(1, 256, len(places)).astype(np.uint8)
    return changed.tobytes()


def wrong_kinds(folder: Path, files: dict[str, bytes]) -> dict[str, bytes]:
    """What else is found under a video's name."""
    from PIL import Image

    packed, pictures = BytesIO(), {}
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("video.mp4", files["front"])
    for kind in ("png", "jpeg", "webp", "bmp"):
        into = BytesIO()
        Image.fromarray(numbered_frames(1)[0]).save(into, format=kind)
        pictures[kind] = into.getvalue()
    sounds = {kind: write_audio(folder / "sound" / f"a.{kind}").read_bytes() for kind in ("m4a", "mka", "aac")}
    rng = np.random.default_rng(0)
    contents = {
        "empty": b"",
        "one-byte": b"\0",
        "zeros": bytes(5000),
        "ones": b"\xff" * 5000,
        "noise": rng.bytes(5000),
        "noise-of-sync-bytes": b"".join(b"\x47" + rng.bytes(187) for _ in range(50)),
        "text": b"this is not a video\n" * 100,
        "html": b"<!DOCTYPE html><html><head><title>404 Not Found</title></head><body>Not Found</body></html>\n" * 20,
        "json": b'{"error": "quota exceeded"}\n',
        "git-lfs-pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n",
        "zip": packed.getvalue(),
        "pdf": b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\ntrailer\n<< /Root 1 0 R >>\n%%EOF\n",
        "elf": b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\0\x3e\0" + bytes(2000),
        "gzip": b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + rng.bytes(500),
        "playlist-m3u8": b"#EXTM3U\n#EXTINF:1,\nfront.mp4\n#EXT-X-ENDLIST\n",
        "playlist-concat": b"ffconcat version 1.0\nfile front.mp4\n",
        "playlist-dash": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>\n',
        "subtitles": b"1\n00:00:00,000 --> 00:00:02,000\nHello\n\n" * 20,
        "python": b"import os\nprint(os.getcwd())\n",
        "header-only-mp4": files["front"][:28],
        "header-only-mkv": files["mkv"][:40],
        "header-only-riff": b"RIFF\xff\xff\xff\xffAVI ",
        "header-only-gif": files["gif"][:13],
        "header-only-flv": files["flv"][:13],
        "wav-in-riff": b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\0\0\0\0",
    }
    return {f"type-{name}.mp4": content for name, content in (contents | pictures | sounds).items()}


def odd_entries(folder: Path, files: dict[str, bytes]) -> None:
    """What is no plain file: folders, links that lead nowhere or to a device, a pipe that nobody writes to."""
    (folder / "a-folder.mp4").mkdir()
    (folder / "a-link-to-nothing.mp4").symlink_to(folder / "nothing.mp4")
    (folder / "a-link-to-itself.mp4").symlink_to(folder / "a-link-to-itself.mp4")
    (folder / "a-link-to-a-device.mp4").symlink_to("/dev/zero")
    os.mkfifo(folder / "a-pipe.mp4")
    (folder / "a-link-to-a-pipe.mp4").symlink_to(folder / "a-pipe.mp4")
    whole = files["mjpeg"]
    start = whole.index(b"\xff\xd8\xff")
    picture = whole[start : whole.index(b"\xff\xd9", start) + 2]
    spoiled = {"cut": picture[: len(picture) // 2], "empty": b"", "text": b"no picture\n"}
    for name, content in spoiled.items():  # a folder of frames, one of them spoiled
        frames = folder / f"frames-one-{name}"
        frames.mkdir()
        for i in range(5):
            (frames / f"{i:05d}.jpg").write_bytes(content if i == 3 else picture)
