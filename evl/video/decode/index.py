"""The frames of a file and their packets, found without decoding if the packets can be trusted.

A packet holds the time at which its picture is shown, and whether decoding can start with it. From these, all frames
are numbered in the order in which they are shown, and the packets that a frame needs are known. If packets lack this
information, the whole file is decoded and its frames are counted instead (``FrameIndex.is_counted``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from evl.errors import VideoError
from evl.types import VideoInfo
from evl.video.decode.clock import Clock, jumps_ahead, may_jump
from evl.video.decode.container import decode, demux, file_stat, open_video, refuse_corrupt, refuse_truncated
from evl.video.decode.frame_folder import check_frames, probe_folder
from evl.video.decode.orientation import Orientations

# codecs in which each packet is one picture with its own time, if hidden pictures are left out
ONE_PACKET_ONE_PICTURE = frozenset("h264 hevc vp8 libvpx vp9 libvpx-vp9 av1 libdav1d mpeg4 mjpeg".split())  # noqa: SIM905
# codecs whose packets may show no picture, or two, so their bytes must be read
READ_BYTES = frozenset("vp8 libvpx vp9 libvpx-vp9 mpeg4".split())  # noqa: SIM905
MPEG4_PICTURE = b"\0\0\1\xb6"  # start code of a picture
MPEG4_LEAST_BYTES = 16


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """The frames of a file, numbered in the order in which they are shown.

    ``pts``, ``seek_to``, ``is_key`` and ``is_shown`` (P each) describe its P packets in the file's order. Times are in
    units of ``time_base`` seconds. ``seek_to`` is the time to seek to in the container for each packet. A counted index
    has no packets; its ``counted_seconds`` holds the time of each decoded frame.
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
    def is_plausible(self) -> bool:
        """Whether the arrays can describe a real file; an index that was read from a disk may be wrong."""
        if self.counted_seconds is not None:
            return len(self.counted_seconds) > 0
        if not len(self.pts) == len(self.seek_to) == len(self.is_key) == len(self.is_shown):
            return False
        times, key_times = self.pts[self.is_shown], self.pts[self.is_key]
        is_unique = len(np.unique(times)) == len(times) and len(np.unique(key_times)) == len(key_times)
        # pictures shown before the first key frame may need packets that were cut off
        return len(times) > 0 and is_unique and bool(self.is_key[0]) and self.pts.min() >= self.pts[0]

    @property
    def num_frames(self) -> int:
        return len(self.times_seconds)

    @cached_property
    def times_seconds(self) -> np.ndarray:
        """The time at which each frame is shown."""
        if self.counted_seconds is not None:
            return self.counted_seconds
        return self._shown_pts * float(self.time_base)

    @cached_property
    def packets(self) -> np.ndarray:
        """For each frame, the number of its packet."""
        shown = np.flatnonzero(self.is_shown)
        return shown[np.argsort(self.pts[shown])]

    @cached_property
    def _shown_pts(self) -> np.ndarray:
        return self.pts[self.packets]

    def number_at(self, pts: int | None) -> int | None:
        """The number of the frame at this time, in units of ``time_base``; None if there is no such frame."""
        place = int(np.searchsorted(self._shown_pts, pts)) if pts is not None else len(self._shown_pts)
        return place if place < len(self._shown_pts) and self._shown_pts[place] == pts else None

    @cached_property
    def key_places(self) -> dict[int, int]:
        """The time of each key packet -> its position among all packets."""
        places = np.flatnonzero(self.is_key)
        return dict(zip(self.pts[places].tolist(), places.tolist(), strict=True))

    @cached_property
    def keys(self) -> np.ndarray:
        """The numbers of the frames that decoding can start with, as the file marks them."""
        return np.flatnonzero(self.is_key[self.packets])

    def num_between(self, key: int | None, numbers: list[int]) -> int:
        """The number of frames from ``key`` on whose packets come no later than the last one of ``numbers``.

        ``key`` None means from the first packet.
        """
        first, last = (0 if key is None else self.packets[key]), self.packets[numbers].max()
        return int(((self.packets[key or 0 :] >= first) & (self.packets[key or 0 :] <= last)).sum())

    def plan(self, wanted: list[int]) -> list[tuple[int | None, list[int]]]:
        """Splits sorted frame numbers where a seek saves work: [(key frame to seek to, frames to read from there)].

        None instead of a key frame means the file's first packet. A seek saves work if it skips at least one frame.
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
    """The frame index of a file, from its packets if they can be trusted, else by decoding it; kept in memory.

    That of a folder of frames comes from its file names. Raises VideoError.
    """
    path = str(path)
    if os.path.isdir(path):
        return _counted(probe_folder(path))
    info = file_stat(path)
    return _frame_index(path, info.st_size, info.st_mtime_ns)


def counted_index(path: str | Path) -> FrameIndex:
    """The frame index of a file, made by decoding the whole file (``probe``)."""
    if os.path.isdir(path):
        return frame_index(path)  # which counts names, so no picture needs to be decoded
    return _counted(probe(path))


def _counted(info: VideoInfo) -> FrameIndex:
    none = np.empty(0, np.int64)
    return FrameIndex(none, none, none > 0, none > 0, Fraction(1), info.codec, np.array(info.times_seconds))


def probe(path: str | Path) -> VideoInfo:
    """The VideoInfo of a file, found by decoding the whole file; kept in memory.

    Raises VideoError, with the reason, for a file that cannot be used, also if a single frame is damaged.
    """
    path = str(path)
    if os.path.isdir(path):
        check_frames(path)
        return probe_folder(path)
    info = file_stat(path)
    return _probe(path, info.st_size, info.st_mtime_ns)


@lru_cache(maxsize=4096)  # about 50 MB at 300 frames a video
def _frame_index(path: str, size: int, mtime_ns: int) -> FrameIndex:
    with open_video(path) as (container, stream):
        refuse_truncated(path, stream)
        index = _from_packets(container, stream)
    return index or counted_index(path)


@lru_cache(maxsize=4096)
def _probe(path: str, size: int, mtime_ns: int) -> VideoInfo:
    first, orientations = None, Orientations(path)
    with open_video(path, one_thread=True) as (container, stream):
        refuse_truncated(path, stream)
        clock = Clock(container, stream)
        for frame in decode(container, stream, clock.packet):
            refuse_corrupt(path, frame, clock.num_frames)
            shown = orientations.of(frame)
            first = first or (frame.width, frame.height, shown)
            clock.frame(frame.time)
        codec = stream.codec_context.name
    if first is None:
        raise VideoError(path, "has a video stream, but no frame of it can be decoded")
    times, jumps = clock.seconds()
    width, height, shown = first
    if shown.swaps_sides:
        width, height = height, width
    return VideoInfo(path, times, width, height, codec, 90 * shown.quarter_turns, shown.is_mirrored, jumps)


def _from_packets(container: av.container.InputContainer, stream: av.VideoStream) -> FrameIndex | None:
    """The index from a stream's packets; None if they do not show all frames and their times.

    The reasons are: times that are missing, equal or guessed; a clock that jumps; no key frame at the start, or
    pictures that are shown before it.
    """
    codec = stream.codec_context.name
    if codec not in ONE_PACKET_ONE_PICTURE:
        return None
    if container.format.name in ("avi", "asf") and codec != "mpeg4" and stream.codec_context.has_b_frames:
        return None  # these containers hold one time per packet, so libav guesses when the picture is shown
    rows = []
    for packet in demux(container, stream):
        if packet.size == 0:  # the end
            continue
        pictures = _num_shown(codec, bytes(packet)) if codec in READ_BYTES else 1
        if packet.pts is None or packet.is_corrupt or pictures is None:
            return None
        rows.append((packet.pts, packet.dts, packet.is_keyframe, pictures > 0 and not packet.is_discard))
    if not rows:
        return None
    pts, dts, is_key, is_shown = map(list, zip(*rows, strict=True))
    if _goes_back(pts, dts, is_shown):
        return None
    if may_jump(container) and jumps_ahead((np.sort(pts) * float(stream.time_base)).tolist()):
        return None
    # a seek uses decoding times; in Matroska, which has none, it uses the times at which key frames are shown
    seek_to = pts if None in dts else dts
    index = FrameIndex(*map(np.array, (pts, seek_to, is_key, is_shown)), stream.time_base, codec)
    return index if index.is_plausible else None


def _goes_back(pts: list[int], dts: list[int | None], is_shown: list[bool]) -> bool:
    """Whether decoding times fall, and later pictures are shown among earlier ones, as where two files were joined."""
    known = [place for place, time in enumerate(dts) if time is not None]
    for before, place in pairwise(known):
        if dts[place] < dts[before]:
            earlier = [time for time, shown in zip(pts[:place], is_shown, strict=False) if shown]
            later = [time for time, shown in zip(pts[place:], is_shown[place:], strict=True) if shown]
            if earlier and later and max(earlier) > min(later):
                return True
    return False


def _num_shown(codec: str, data: bytes) -> int | None:
    """The number of pictures of a packet that are shown, 0 or 1; None if it is more or unknown."""
    if codec in ("vp8", "libvpx"):
        return data[0] >> 4 & 1  # RFC 6386, section 9.1
    if codec in ("vp9", "libvpx-vp9"):
        shown = sum(map(_vp9_shows, _vp9_frames(data)))
        return shown if shown <= 1 else None
    if codec == "mpeg4":
        # "packed" files have two pictures in a packet, and then none; for a picture of a few bytes, the decoder may
        # return no frame
        is_one = data.count(MPEG4_PICTURE) == 1 and len(data) - data.rfind(MPEG4_PICTURE) >= MPEG4_LEAST_BYTES
        return 1 if is_one else None
    raise ValueError(f"packets of {codec} need not be read")


def _vp9_frames(data: bytes) -> list[bytes]:
    """The frames of a packet: one, or those of a superframe with an index at its end (VP9 specification, annex B)."""
    marker = data[-1]
    count, width = (marker & 7) + 1, (marker >> 3 & 3) + 1
    index = data[-(2 + count * width) :]
    if marker & 0xE0 != 0xC0 or len(index) != 2 + count * width or index[0] != marker:
        return [data]
    sizes = [int.from_bytes(index[1 + i * width : 1 + (i + 1) * width], "little") for i in range(count)]
    starts = [sum(sizes[:i]) for i in range(count)]
    return [data[start : start + size] for start, size in zip(starts, sizes, strict=True) if size]


def _vp9_shows(frame: bytes) -> bool:
    """Whether a frame, or an earlier one in its place, is shown (VP9 specification, 6.2)."""
    bits = format(int.from_bytes(frame[:2].ljust(2, b"\0"), "big"), "016b")
    at = 5 if bits[2:4] == "11" else 4  # a reserved bit in profile 3
    return bits[at] == "1" or bits[at + 2] == "1"
