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
from evl.video.decode.container import demux, file_stat, open_video, refuse_corrupt, refuse_truncated
from evl.video.decode.decoders import decode_packet, decoder_of
from evl.video.decode.frame_folder import check_frames, probe_folder
from evl.video.decode.orientation import Orientations
from evl.video.decode.packets import READ_BYTES, PacketOrder, num_shown

# codecs in which each packet is one picture with its own time, if hidden pictures are left out
ONE_PACKET_ONE_PICTURE = frozenset("h264 hevc vp8 libvpx vp9 libvpx-vp9 av1 libdav1d mpeg4 mjpeg".split())  # noqa: SIM905


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
    def numbers(self) -> np.ndarray:
        """For each packet, the number of its frame; -1 if it shows none."""
        numbers = np.full(len(self.pts), -1)
        numbers[self.packets] = np.arange(len(self.packets))
        return numbers

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

    def lost(self, returned: list[int | None]) -> list[int]:
        """The numbers of the frames that a decoder should have returned, and did not. ``returned``: their times.

        A decoder may begin later than the file. It may also leave out all pictures that are shown before a key frame
        but stored after it, as where a file was cut and joined.
        """
        arrived = np.isin(self.pts, [time for time in returned if time is not None])
        group = np.cumsum(self.is_key) - 1
        leads = self.is_shown & (self.pts < self.pts[self.is_key][group])
        none_leads = leads & (np.bincount(group, leads & arrived)[group] == 0)
        lost = (self.is_shown & ~arrived & ~none_leads)[self.packets]
        return np.flatnonzero(lost & np.maximum.accumulate(arrived[self.packets])).tolist()

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
        rows = Rows(container, stream)
        for packet in demux(container, stream):
            rows.add(packet)
            if not rows.are_trusted:
                break
        index = rows.index()
    return index or counted_index(path)


@lru_cache(maxsize=4096)
def _probe(path: str, size: int, mtime_ns: int) -> VideoInfo:
    first, orientations, returned = None, Orientations(path), []
    with open_video(path, one_thread=True) as (container, stream):
        refuse_truncated(path, stream)
        clock, rows, order = Clock(container, stream), Rows(container, stream), PacketOrder(stream)
        decoder = decoder_of(container, stream)
        for packet in demux(container, stream):
            clock.packet(packet)
            rows.add(packet)
            if packet.size and order.see(packet)[1]:
                raise VideoError(path, f"is damaged: pictures are missing near frame {clock.num_frames}")
            for frame in decode_packet(decoder, packet):
                refuse_corrupt(path, frame, clock.num_frames)
                shown = orientations.of(frame)
                first = first or (frame.width, frame.height, shown)
                clock.frame(frame.time)
                returned.append(frame.pts)
        codec, index = stream.codec_context.name, rows.index()
    if first is None:
        raise VideoError(path, "has a video stream, but no frame of it can be decoded")
    if index is not None and (lost := index.lost(returned)):
        raise VideoError(path, f"is damaged: frame {lost[0]} cannot be decoded")
    times, jumps = clock.seconds()
    width, height, shown = first
    if shown.swaps_sides:
        width, height = height, width
    return VideoInfo(path, times, width, height, codec, 90 * shown.quarter_turns, shown.is_mirrored, jumps)


def shows_picture(codec: str, packet: av.Packet) -> bool | None:
    """Whether a packet of ``ONE_PACKET_ONE_PICTURE`` shows a picture; None if its bytes do not say."""
    pictures = num_shown(codec, bytes(packet)) if codec in READ_BYTES else 1
    return None if pictures is None else pictures > 0 and not packet.is_discard


class Rows:
    """What the packets of a stream say. Call ``add`` with each, then ``index``."""

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream):
        self.stream, self.codec = stream, stream.codec_context.name
        self.may_jump = may_jump(container)
        # these containers hold one time per packet, so libav guesses when the picture is shown
        is_guessed = (
            container.format.name in ("avi", "asf") and self.codec != "mpeg4" and stream.codec_context.has_b_frames
        )
        self.are_trusted = self.codec in ONE_PACKET_ONE_PICTURE and not is_guessed
        self._rows: list[tuple] = []

    def add(self, packet: av.Packet) -> None:
        if packet.size == 0 or not self.are_trusted:  # the end
            return
        is_shown = shows_picture(self.codec, packet)
        if packet.pts is None or packet.is_corrupt or is_shown is None:
            self.are_trusted = False
            return
        self._rows.append((packet.pts, packet.dts, packet.is_keyframe, is_shown))

    def index(self) -> FrameIndex | None:
        """The index; None if the packets do not show all frames and their times.

        The reasons are: times that are missing, equal or guessed; a clock that jumps; no key frame at the start, or
        pictures that are shown before it.
        """
        if not self.are_trusted or not self._rows:
            return None
        pts, dts, is_key, is_shown = map(list, zip(*self._rows, strict=True))
        if _goes_back(pts, dts, is_shown):
            return None
        if self.may_jump and jumps_ahead((np.sort(pts) * float(self.stream.time_base)).tolist()):
            return None
        # a seek uses decoding times; in Matroska, which has none, it uses the times at which key frames are shown
        seek_to = pts if None in dts else dts
        index = FrameIndex(*map(np.array, (pts, seek_to, is_key, is_shown)), self.stream.time_base, self.codec)
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
