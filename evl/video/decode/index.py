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

# where one packet is one picture with its own time, once hidden ones are left out
ONE_PACKET_ONE_PICTURE = frozenset("h264 hevc vp8 libvpx vp9 libvpx-vp9 av1 libdav1d mpeg4 mjpeg".split())  # noqa: SIM905
TOLD_BY_BYTES = frozenset("vp8 libvpx vp9 libvpx-vp9 mpeg4".split())  # noqa: SIM905  (packets that may show none, or two)
MPEG4_PICTURE = b"\0\0\1\xb6"  # start code of a picture
MPEG4_LEAST_BYTES = 16


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
    def is_plausible(self) -> bool:
        """Whether this could be of a file: it may come from a disk."""
        if self.counted_seconds is not None:
            return len(self.counted_seconds) > 0
        if not len(self.pts) == len(self.seek_to) == len(self.is_key) == len(self.is_shown):
            return False
        times, key_times = self.pts[self.is_shown], self.pts[self.is_key]
        is_unique = len(np.unique(times)) == len(times) and len(np.unique(key_times)) == len(key_times)
        # pictures shown before the first key frame may need what came before the file was cut
        return len(times) > 0 and is_unique and bool(self.is_key[0]) and self.pts.min() >= self.pts[0]

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

    def num_between(self, key: int | None, numbers: list[int]) -> int:
        """Frames from ``key`` on (None: from the first packet) whose packets come up to the last one of ``numbers``."""
        first, last = (0 if key is None else self.packets[key]), self.packets[numbers].max()
        return int(((self.packets[key or 0 :] >= first) & (self.packets[key or 0 :] <= last)).sum())

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
    if os.path.isdir(path):
        return frame_index(path)  # names are counted, pictures need not be decoded for it
    return _counted(decode_everything(path))


def _counted(info: VideoInfo) -> FrameIndex:
    none = np.empty(0, np.int64)
    return FrameIndex(none, none, none > 0, none > 0, Fraction(1), info.codec, np.array(info.times_seconds))


def decode_everything(path: str | Path) -> VideoInfo:
    """What decoding the whole file tells; kept in memory. Raises VideoError, with the reason, for a file that cannot be
    used: one with any frame that does not decode cleanly, too."""
    path = str(path)
    if os.path.isdir(path):
        check_frames(path)
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
        raise VideoError(path, "has a video stream, but not one frame can be decoded")
    times, jumps = clock.seconds()
    width, height, shown = first
    if shown.swaps_sides:
        width, height = height, width
    return VideoInfo(path, times, width, height, codec, 90 * shown.quarter_turns, shown.is_mirrored, jumps)


def _from_packets(container: av.container.InputContainer, stream: av.VideoStream) -> FrameIndex | None:
    """None where packets do not tell which frames there are, and when: no times, equal or guessed ones, a clock that
    jumps, no key frame at the start or pictures before it."""
    codec = stream.codec_context.name
    if codec not in ONE_PACKET_ONE_PICTURE:
        return None
    if container.format.name in ("avi", "asf") and codec != "mpeg4" and stream.codec_context.has_b_frames:
        return None  # these containers know one time a packet; that it is shown at another is libav's guess
    rows = []
    for packet in demux(container, stream):
        if packet.size == 0:  # the end
            continue
        pictures = _num_shown(codec, bytes(packet)) if codec in TOLD_BY_BYTES else 1
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
    # containers look for places by decoding time, but Matroska, which has none, by the time a key frame is shown
    seek_to = pts if None in dts else dts
    index = FrameIndex(*map(np.array, (pts, seek_to, is_key, is_shown)), stream.time_base, codec)
    return index if index.is_plausible else None


def _goes_back(pts: list[int], dts: list[int | None], is_shown: list[bool]) -> bool:
    """Whether decoding times go back, and pictures from there on are shown among earlier ones: parts of two files."""
    known = [place for place, time in enumerate(dts) if time is not None]
    for before, place in pairwise(known):
        if dts[place] < dts[before]:
            earlier = [time for time, shown in zip(pts[:place], is_shown, strict=False) if shown]
            later = [time for time, shown in zip(pts[place:], is_shown[place:], strict=True) if shown]
            if earlier and later and max(earlier) > min(later):
                return True
    return False


def _num_shown(codec: str, data: bytes) -> int | None:
    """How many pictures of a packet are shown, 0 or 1; None where it is more, or not told."""
    if codec in ("vp8", "libvpx"):
        return data[0] >> 4 & 1  # RFC 6386, section 9.1
    if codec in ("vp9", "libvpx-vp9"):
        shown = sum(map(_vp9_shows, _vp9_frames(data)))
        return shown if shown <= 1 else None
    if codec == "mpeg4":
        # "packed" files have two in a packet, and then none; a picture of a few bytes may be one that is not coded, for
        # which no frame comes out
        is_one = data.count(MPEG4_PICTURE) == 1 and len(data) - data.rfind(MPEG4_PICTURE) >= MPEG4_LEAST_BYTES
        return 1 if is_one else None
    raise ValueError(f"packets of {codec} need no look inside")


def _vp9_frames(data: bytes) -> list[bytes]:
    """The frames of a packet, which is one, or a superframe with an index at its end (VP9 specification, annex B)."""
    marker = data[-1]
    count, width = (marker & 7) + 1, (marker >> 3 & 3) + 1
    index = data[-(2 + count * width) :]
    if marker & 0xE0 != 0xC0 or len(index) != 2 + count * width or index[0] != marker:
        return [data]
    sizes = [int.from_bytes(index[1 + i * width : 1 + (i + 1) * width], "little") for i in range(count)]
    starts = [sum(sizes[:i]) for i in range(count)]
    return [data[start : start + size] for start, size in zip(starts, sizes, strict=True) if size]


def _vp9_shows(frame: bytes) -> bool:
    """Whether a frame is shown, or an earlier one instead of it (VP9 specification, 6.2)."""
    bits = format(int.from_bytes(frame[:2].ljust(2, b"\0"), "big"), "016b")
    at = 5 if bits[2:4] == "11" else 4  # a reserved bit in profile 3
    return bits[at] == "1" or bits[at + 2] == "1"
