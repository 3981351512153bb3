"""Videos in which one packet is broken, lost or in the wrong place, and what the readers make of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from evl.errors import VideoError
from evl.video.decode import index as indexes
from evl.video.decode.forward import OtherFramesError, read_forward
from evl.video.decode.index import frame_index
from evl.video.decode.reader import read_clip
from evl.video.plans import Numbered
from evl.watching.address import parse_source
from evl.watching.opening import Picture, Settings, open_source, pictures
from tests.helpers import write_video

COUNT, GROUP = 40, 12
X264 = {"codec": "libx264", "threads": "1", "x264-params": f"scenecut=0:b-adapt=0:keyint={GROUP}"}
VP = {"deadline": "realtime", "cpu-used": "8", "g": str(GROUP)}
KINDS: dict[str, dict[str, str]] = {  # the encoder, and its options
    "h264.mp4": X264 | {"x264-params": X264["x264-params"] + ":bframes=2"},
    "h264-without-b.mp4": X264 | {"x264-params": X264["x264-params"] + ":bframes=0"},
    "h264-cavlc.mkv": X264 | {"x264-params": X264["x264-params"] + ":bframes=2:cabac=0"},
    "hevc.mp4": {
        "codec": "libx265",
        "x265-params": f"log-level=none:scenecut=0:b-adapt=0:pools=1:frame-threads=1:keyint={GROUP}:bframes=2",
    },
    "mpeg4.mp4": {"codec": "mpeg4", "g": str(GROUP), "qscale": "3"},
    "vp9.webm": {"codec": "libvpx-vp9"} | VP,
    "vp8.webm": {"codec": "libvpx"} | VP,
    "mjpeg.avi": {"codec": "mjpeg", "qscale": "3"},
}


def moving_picture(count: int = COUNT, height: int = 64, width: int = 96) -> np.ndarray:
    """(count,H,W,3): a texture that moves, so that each frame needs the one before."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 4 + count // 4 + 2, width // 4 + count // 2 + 2, 3), np.uint8)
    fine = coarse.repeat(4, 0).repeat(4, 1)
    return np.stack([fine[i : i + height, 2 * i : 2 * i + width] for i in range(count)])


def sound_video(folder: Path, kind: str) -> Path:
    options = dict(KINDS[kind])
    pixels = "yuvj420p" if kind.startswith("mjpeg") else "yuv420p"
    path = folder / f"sound-{kind}"
    return write_video(path, moving_picture(), codec=options.pop("codec"), options=options, pixel_format=pixels)


def remade(source: Path, target: Path, change: Callable[[list], None]) -> Path:
    """The same file with other packets: ``change`` gets a list of [bytes, pts, dts, is key, time base, duration]."""
    with av.open(str(source)) as container, av.open(str(target), "w") as made:
        stream = container.streams.video[0]
        to = made.add_stream_from_template(stream)
        rows = [
            [bytes(packet), packet.pts, packet.dts, packet.is_keyframe, packet.time_base, packet.duration or 0]
            for packet in container.demux(stream)
            if packet.size
        ]
        change(rows)
        for data, pts, dts, is_key, time_base, duration in rows:
            packet = av.Packet(data)
            packet.pts, packet.dts, packet.time_base, packet.duration = pts, dts, time_base, duration
            packet.stream, packet.is_keyframe = to, is_key
            made.mux(packet)
    return target


def _flip(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    data[rng.integers(len(data))] ^= np.uint8(1 << rng.integers(8))
    return data


def _flip_eight(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    for place in rng.integers(0, len(data), 8):
        data[place] ^= np.uint8(rng.integers(1, 256))
    return data


def _zeros(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    start = rng.integers(0, max(1, len(data) - 8))
    data[start : start + 8] = 0
    return data


def _zero_half(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    data[len(data) // 2 :] = 0
    return data


def _noise(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    data[6:] = rng.integers(0, 256, max(0, len(data) - 6), dtype=np.uint8)
    return data


def _cut(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return data[: max(1, len(data) // 2)]


IN_A_PACKET = {
    "flip": _flip,
    "flip-8": _flip_eight,
    "zeros-8": _zeros,
    "zeros-half": _zero_half,
    "noise": _noise,
    "cut": _cut,
}


def break_packet(source: Path, target: Path, damage: str, place: int, seed: int = 0) -> Path:
    """Writes ``target`` with the packet in ``place`` damaged: ``IN_A_PACKET``, or ``lost``, or ``repeated``."""

    def change(rows: list) -> None:
        if damage == "lost":
            del rows[place]
        elif damage == "repeated":
            rows[place][0] = rows[place - 1][0]
        else:
            data = np.frombuffer(rows[place][0], np.uint8).copy()
            rows[place][0] = IN_A_PACKET[damage](data, np.random.default_rng(seed)).tobytes()

    return remade(source, target, change)


Pictures = dict[int, np.ndarray]  # by time in microseconds


def readings(path: Path) -> dict[str, Pictures | str]:
    """What each way of reading gives as good; a reason where it refuses the file."""
    found: dict[str, Pictures | str] = {}
    for name, read in {
        "all": lambda: _clip(path, slice(None)),
        "verified": lambda: _clip(path, slice(0, None, 5), verify=True),
        "one": lambda: _clip(path, slice(20, 21)),
        "some": lambda: _clip(path, slice(3, None, 7)),
        "forward": lambda: _forward(path, 1),
        "forward-4": lambda: _forward(path, 4),
        "watched": lambda: watched(path),
        **({} if path.suffix == ".mp4" else {"followed": lambda: watched(path, follow=True)}),  # MP4 needs seeks
    }.items():
        indexes._frame_index.cache_clear()
        indexes._probe.cache_clear()
        try:
            found[name] = read()
        except VideoError as error:
            found[name] = error.reason
    return found


def _clip(path: Path, chosen: slice, *, verify: bool = False) -> Pictures:
    wanted = range(frame_index(path).num_frames)[chosen]
    clip = read_clip(path, Numbered(str(path), tuple(wanted)), verify=verify)
    times = np.rint(clip.index.times_seconds[list(wanted)] * 1e6).astype(int).tolist()
    return dict(zip(times, clip.frames.numpy(), strict=True))


def _forward(path: Path, step: int) -> Pictures:
    index = frame_index(path)
    for _ in range(2):
        found = {}
        try:
            for number, picture in read_forward(str(path), index, list(range(0, index.num_frames, step))):
                if not isinstance(picture, str):
                    found[round(index.times_seconds[number] * 1e6)] = picture.transpose(2, 0, 1)
            return found
        except OtherFramesError as error:
            index = error.index
    raise AssertionError("a counted index is never wrong")


def watched(path: Path, *, follow: bool = False) -> Pictures:
    """What ``evl watch`` reads. ``follow``: as a stream, whose end is not known."""
    found, _ = frames_watched(path, follow=follow)
    return {round(one.time_seconds * 1e6): one.rgb().transpose(2, 0, 1) for one in found}


def frames_watched(path: Path, *, follow: bool = False) -> tuple[list[Picture], int]:
    """(the frames, the number of those that are left out)"""
    address, stop, damaged = parse_source(path, follow=follow), threading.Event(), []
    with open_source(address, Settings(0.1), stop, print) as source:
        return list(pictures(source, str(path), Settings(0.1), damaged.append, stop)), sum(damaged)


def wrong_pictures(found: Pictures, sound: Pictures) -> list[int]:
    """The times of pictures that are not those of the sound file."""
    return [time for time, picture in found.items() if time not in sound or not np.array_equal(picture, sound[time])]
