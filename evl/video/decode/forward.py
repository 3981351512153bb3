"""Many frames of a long file in one pass forward, a picture at a time; a damaged stretch costs only its own frames."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence

import av
import numpy as np

from evl.errors import VideoError
from evl.video.decode.container import open_video
from evl.video.decode.decoders import decode_packet, decoder_of
from evl.video.decode.frame_folder import each_picture
from evl.video.decode.index import FrameIndex, counted_index
from evl.video.decode.missing import is_missing
from evl.video.decode.packets import PacketOrder
from evl.video.decode.reader import (
    SeekFailedError,
    by_runs,
    from_start,
    in_size,
    packets_from,
    upright_pictures,
)
from evl.video.decode.rgb import ToRGB, pixel_shape
from evl.video.decode.trust import WrongIndexError

Picture = np.ndarray | str  # (H,W,3) uint8, or the reason why there is none
Run = tuple[int | None, Sequence[int]]  # the key frame to begin with (None: the first packet), the frames to read


class OtherFramesError(Exception):
    """A file that is not damaged has other frames than its packets promised. ``index`` is the one that was counted."""

    def __init__(self, index: FrameIndex):
        super().__init__()
        self.index = index


def read_forward(
    path: str, index: FrameIndex, wanted: Sequence[int], *, square_pixels: bool = False
) -> Iterator[tuple[int, Picture]]:
    """Yields (number, picture) of the wanted frames, which rise: upright, in the size of the first, one at a time.

    The pictures are those of ``read_frames``. The file is decoded from the key frame before the first wanted frame on,
    without further seeks. Where it is damaged, the frames from the first broken packet up to the next key frame have a
    reason in place of a picture, because a decoder may make wrong pictures of them. Reading goes on at that key frame.

    Raises OtherFramesError if ``index`` is wrong although the file is not damaged. Raises VideoError if the file cannot
    be opened, or if it is damaged and its packets do not show where decoding can go on.
    """
    if os.path.isdir(path):
        for number, picture in each_picture(path, wanted):
            yield number, picture.reason if isinstance(picture, VideoError) else picture
        return
    shape = None
    for number, picture in _forward(path, index, wanted, square_pixels):
        if not isinstance(picture, str):
            shape = shape or picture.shape
            picture = in_size(picture, shape)
        yield number, picture


def _forward(path: str, index: FrameIndex, wanted: Sequence[int], square_pixels: bool) -> Iterator[tuple[int, Picture]]:
    """As ``read_forward`` for a file, each picture in its own size."""
    if index.is_counted:  # the file was decoded whole when its frames were counted
        yield from _counted(path, wanted, square_pixels)
        return
    rest, is_damaged = list(wanted), False
    while rest:
        done = 0
        try:
            for number, picture in _run(path, index, (_key_at(index, rest[0]), rest), square_pixels):
                done += 1
                yield number, picture
            return
        except (VideoError, WrongIndexError) as error:
            rest = rest[done:]
            if isinstance(error, VideoError) and is_missing(error.reason):
                yield from ((number, error.reason) for number in rest)
                return
        if not is_damaged:
            is_damaged, reason = True, _damage(path)
        end = _next_key(index, rest[0])
        yield from _group(path, index, [number for number in rest if number < end], square_pixels, reason)
        rest = [number for number in rest if number >= end]


def _counted(path: str, wanted: Sequence[int], square_pixels: bool) -> Iterator[tuple[int, np.ndarray]]:
    with open_video(path) as (container, stream):
        to_rgb = ToRGB(pixel_shape(stream) if square_pixels else None)
        yield from upright_pictures(path, from_start(path, container, stream, wanted[-1]), wanted, to_rgb)


def _run(path: str, index: FrameIndex, run: Run, square_pixels: bool) -> Iterator[tuple[int, np.ndarray]]:
    """The frames of one run. Raises WrongIndexError if it ends without the last of them."""
    has_begun = False
    for key in dict.fromkeys((run[0], None)):  # where a seek fails, from the first packet
        try:
            with open_video(path) as (container, stream):
                to_rgb = ToRGB(pixel_shape(stream) if square_pixels else None)
                frames = by_runs(container, stream, index, [(key, run[1])], skip=True)
                for number, picture in upright_pictures(path, frames, run[1], to_rgb):
                    has_begun = True
                    yield number, picture
            return
        except SeekFailedError:
            if has_begun:
                break
    raise WrongIndexError


def _group(
    path: str, index: FrameIndex, numbers: list[int], square_pixels: bool, reason: str
) -> Iterator[tuple[int, Picture]]:
    """The frames between two key frames, some of which may be damaged."""
    key = _key_at(index, numbers[0])
    broken = _first_broken(path, index, key, _next_key(index, numbers[0]))
    sound = [number for number in numbers if index.packets[number] < broken]
    pictures: dict[int, np.ndarray] = {}
    with contextlib.suppress(VideoError, WrongIndexError):
        pictures.update(_run(path, index, (key, sound), square_pixels) if sound else ())
    yield from ((number, pictures.get(number, reason)) for number in numbers)


def _first_broken(path: str, index: FrameIndex, key: int | None, end: int) -> int:
    """The place of the first packet, of those of the frames from ``key`` up to ``end``, that does not decode cleanly.

    One thread decodes, so that the decoder reports an error with its packet. If there is none, the place is that of the
    packet after them.
    """
    last = int(index.packets[key or 0 : end].max())
    broken, awaited, place = {last + 1}, set(), 0 if key is None else int(index.packets[key])
    with contextlib.suppress(VideoError, SeekFailedError), open_video(path, one_thread=True) as (container, stream):
        order, decoder = PacketOrder(stream), decoder_of(container, stream)
        for place, packet in packets_from(container, stream, index, key, is_fresh=True):
            if place > last:
                break
            try:
                if order.see(packet)[1]:
                    raise av.error.InvalidDataError(0, "a picture is missing")
                awaited |= {place} if index.numbers[place] >= (key or 0) else set()
                _take(decode_packet(decoder, packet), index, key, awaited, broken)
            except av.error.FFmpegError:
                broken.add(place)
                break
        else:
            broken.add(place + 1)
        with contextlib.suppress(av.error.FFmpegError):
            _take(decoder.decode(None), index, key, awaited, broken)
    return min(broken | awaited)


def _take(
    frames: Iterable[av.VideoFrame], index: FrameIndex, key: int | None, awaited: set[int], broken: set[int]
) -> None:
    """Takes the places of frames off ``awaited``; those of corrupt frames go to ``broken``."""
    for frame in frames:
        number = index.number_at(frame.pts)
        if number is None:
            broken.add(min(awaited, default=0))
        elif number >= (key or 0):
            awaited.discard(int(index.packets[number]))
            if frame.is_corrupt:
                broken.add(int(index.packets[number]))


def _damage(path: str) -> str:
    """The reason why a file is damaged. Raises OtherFramesError if it is not."""
    try:
        raise OtherFramesError(counted_index(path))
    except VideoError as error:
        return error.reason


def _key_at(index: FrameIndex, number: int) -> int | None:
    """The last key frame up to ``number``; None for the first packet."""
    place = int(np.searchsorted(index.keys, number, side="right"))
    return int(index.keys[place - 1]) if place > 1 else None


def _next_key(index: FrameIndex, number: int) -> int:
    """The first key frame after ``number``, or the number of frames."""
    place = int(np.searchsorted(index.keys, number, side="right"))
    return int(index.keys[place]) if place < len(index.keys) else index.num_frames
