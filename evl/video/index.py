"""What frames a file has, and where: from its packets, without decoding, where packets can be trusted.

A packet says when its picture is shown and whether decoding can start with it. That is enough to number all frames in
the order they are shown, and to know the packets that a wanted one needs. Where packets do not say it, everything is
decoded and counted instead (``FrameIndex.is_counted``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from pathlib import Path

import av
import numpy as np

from evl.errors import VideoError
from evl.types import VideoInfo
from evl.video.container import file_stat, open_video, refuse_corrupt, refuse_truncated
from evl.video.frame_folder import check_folder, probe_folder

# where one packet is one picture with its own time, once hidden ones are left out
ONE_PACKET_ONE_PICTURE = frozenset("h264 hevc vp8 libvpx vp9 libvpx-vp9 av1 libdav1d mpeg4 mjpeg".split())  # noqa: SIM905
MPEG4_PICTURE = b"\0\0\1\xb6"  # start code of a picture; "packed" files have two in a packet, and then none


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """The frames of a file by number, in the order they are shown.

    ``pts``, ``seek_to``, ``is_key``, ``is_shown`` (P each) describe its packets in the file's order; times are in units
    of ``time_base`` seconds; ``seek_to`` is what to ask the container for to be led to a packet. A counted index has no
    packets: ``counted_seconds`` says when each decoded frame is shown.
    """

    pts: np.ndarray
    seek_to: np.ndarray
    is_key: np.ndarray
    is_shown: np.ndarray
    time_base: Fraction
    codec: str
    counted_seconds: np.ndarray | None = None

    @property
    def is_counted(self) -> bool:
        return self.counted_seconds is not None

    @property
    def num_frames(self) -> int:
        return len(self.times_seconds)

    @cached_property
    def times_seconds(self) -> np.ndarray:
        """When each frame is shown."""
        if self.counted_seconds is not None:
            return self.counted_seconds
        return self._shown_pts * float(self.time_base)

    @cached_property
    def packets(self) -> np.ndarray:
        """frame number -> its packet."""
        shown = np.flatnonzero(self.is_shown)
        return shown[np.argsort(self.pts[shown])]

    @cached_property
    def _shown_pts(self) -> np.ndarray:
        return self.pts[self.packets]

    def number_at(self, pts: int | None) -> int | None:
        """The number of the frame that is shown at this time, in units of ``time_base``."""
        place = int(np.searchsorted(self._shown_pts, pts)) if pts is not None else len(self._shown_pts)
        return place if place < len(self._shown_pts) and self._shown_pts[place] == pts else None

    @cached_property
    def key_places(self) -> dict[int, int]:
        """time of a key packet -> its place among all packets."""
        places = np.flatnonzero(self.is_key)
        return dict(zip(self.pts[places].tolist(), places.tolist(), strict=True))

    @cached_property
    def keys(self) -> np.ndarray:
        """Numbers of the frames that decoding can start with, if the file is right about them."""
        return np.flatnonzero(self.is_key[self.packets])

    def plan(self, wanted: list[int]) -> list[tuple[int | None, list[int]]]:
        """[(key frame to seek to, frames to take from there on)]: sorted frame numbers, cut where a seek saves work.

        None: from the file's first packet. A key frame that is farther on than the next frame is worth a seek.
        """
        runs: list[tuple[int | None, list[int]]] = []
        places = np.searchsorted(self.keys, wanted, side="right")
        for number, place in zip(wanted, places.tolist(), strict=True):
            key = int(self.keys[place - 1]) if place else None
            if runs and (key is None or key <= runs[-1][1][-1] + 1):
                runs[-1][1].append(number)
            else:
                runs.append((key, [number]))
        return runs


def frame_index(path: str | Path) -> FrameIndex:
    """Of a file, from its packets if they can be trusted, else by decoding it; kept in memory. Of a folder of frames by
    its names. Raises VideoError."""
    path = str(path)
    if os.path.isdir(path):
        return _counted(probe_folder(path))
    found = file_stat(path)
    return _frame_index(path, found.st_size, found.st_mtime_ns)


def counted_index(path: str | Path) -> FrameIndex:
    """Of a file, by decoding everything (``decode_everything``)."""
    return _counted(decode_everything(path))


def _counted(info: VideoInfo) -> FrameIndex:
    none = np.empty(0, np.int64)
    return FrameIndex(none, none, none > 0, none > 0, Fraction(1), info.codec, np.array(info.times_seconds))


def decode_everything(path: str | Path) -> VideoInfo:
    """What decoding the whole file tells; kept in memory. Raises VideoError, with the reason, for a file that cannot be
    used: one with any frame that does not decode cleanly, too."""
    path = str(path)
    if os.path.isdir(path):
        check_folder(path)
        return probe_folder(path)
    found = file_stat(path)
    return _decode_everything(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=4096)  # about 50 MB at 300 frames a video
def _frame_index(path: str, size: int, mtime_ns: int) -> FrameIndex:
    with open_video(path) as (container, stream):
        refuse_truncated(path, stream)
        index = _from_packets(container, stream)
    return index or counted_index(path)


@lru_cache(maxsize=4096)
def _decode_everything(path: str, size: int, mtime_ns: int) -> VideoInfo:
    times: list[float] = []
    first = None
    with open_video(path, one_thread=True) as (container, stream):
        refuse_truncated(path, stream)
        rate = float(stream.average_rate or 25)
        for frame in container.decode(stream):
            refuse_corrupt(path, frame, len(times))
            first = first or (frame.width, frame.height, frame.rotation)
            previous = times[-1] if times else -1 / rate
            times.append(frame.time if frame.time is not None else previous + 1 / rate)
        codec = stream.codec_context.name
    if first is None:
        raise VideoError(path, "has a video stream, but not one frame can be decoded")
    times.sort()  # frames come in the order they are shown; some containers (H.264 in AVI) label them in another
    width, height, rotation = first
    if rotation % 180:
        width, height = height, width
    return VideoInfo(path, tuple(times), width, height, codec, rotation)


def _from_packets(container: av.container.InputContainer, stream: av.VideoStream) -> FrameIndex | None:
    """None where packets do not tell which frames there are: no times, equal or guessed ones, no key frame at the start
    or pictures before it."""
    codec = stream.codec_context.name
    if codec not in ONE_PACKET_ONE_PICTURE:
        return None
    if container.format.name in ("avi", "asf") and codec != "mpeg4" and stream.codec_context.has_b_frames:
        return None  # these containers know one time a packet; that it is shown at another is libav's guess
    rows = []
    for packet in container.demux(stream):
        if packet.size == 0:  # the end
            continue
        if packet.pts is None or packet.is_corrupt or (codec == "mpeg4" and bytes(packet).count(MPEG4_PICTURE) != 1):
            return None
        shown = not packet.is_discard and not _is_hidden(codec, packet)
        rows.append((packet.pts, packet.dts, packet.is_keyframe, shown))
    if not rows or not rows[0][2]:
        return None
    pts, dts, is_key, is_shown = map(list, zip(*rows, strict=True))
    # containers look for places by decoding time, but Matroska, which has none, by the time a key frame is shown
    seek_to = pts if None in dts else dts
    pts, seek_to, is_key, is_shown = map(np.array, (pts, seek_to, is_key, is_shown))
    times, key_times = pts[is_shown], pts[is_key]
    if pts.min() < pts[0]:  # shown before the key frame: these may need what came before the file was cut
        return None
    if len(times) == 0 or len(np.unique(times)) < len(times) or len(np.unique(key_times)) < len(key_times):
        return None
    return FrameIndex(pts, seek_to, is_key, is_shown, stream.time_base, codec)


def _is_hidden(codec: str, packet: av.Packet) -> bool:
    """Whether a packet of VP8 or VP9 is decoded but not shown (an alternate reference frame)."""
    if codec in ("vp8", "libvpx"):
        return not bytes(memoryview(packet)[:1])[0] & 0x10  # RFC 6386, section 9.1
    if codec in ("vp9", "libvpx-vp9"):  # VP9 bitstream specification, 6.2 and annex B
        data = memoryview(packet)
        if data[len(data) - 1] & 0xE0 == 0xC0:  # a superframe: its last frame is shown
            return False
        bits = format(int.from_bytes(bytes(data[:2]), "big"), "016b")
        at = 5 if bits[2:4] == "11" else 4  # a reserved bit in profile 3
        shows_existing, shows_this = bits[at] == "1", bits[at + 2] == "1"
        return not shows_existing and not shows_this
    return False
