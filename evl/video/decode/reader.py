"""A file or a folder of pictures → exactly the wanted frames, with no more decoding than needed.

Frames are numbered in the order in which they are shown. There are three levels, and tests compare each with the one
before: ``probe`` (``index``) decodes everything; ``read_frames`` reads frames by number; ``read_clip`` reads the frames
that a plan chooses once the number of frames is known.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
from torch import Tensor

from evl.errors import VideoError
from evl.video.decode import torchcodec
from evl.video.decode.container import decode, demux, open_video, refuse_corrupt
from evl.video.decode.decoders import decode_packet, decoder_of, marks_keys
from evl.video.decode.frame_folder import check_frames, read_pictures
from evl.video.decode.index import FrameIndex, counted_index, frame_index
from evl.video.decode.orientation import Orientations
from evl.video.decode.packets import PacketOrder
from evl.video.decode.rgb import ToRGB, pixel_shape
from evl.video.decode.trust import AwaitedFrames, WrongIndexError
from evl.video.plans import Known, Numbered, Plan
from evl.video.sampling import microseconds

# codecs in which a decoder can skip pictures that no other refers to, and the rest stays the same (in HEVC a higher
# temporal layer may still need such a picture, and in VP9 the next frame uses its motion vectors)
SKIPS_UNREFERENCED = frozenset({"h264", "mpeg4"})


class Clip(NamedTuple):
    """``frames`` uint8 (F,3,H,W), the file's ``index`` that decoding confirmed, and ``known``, the plan's argument."""

    frames: Tensor
    index: FrameIndex
    known: Known


class SeekFailedError(Exception):
    """A seek ended after the wanted packet, or at a packet that the index does not have."""


def read_frames(path: str | Path, indices: Sequence[int]) -> Tensor:
    """Reads frames by number, in the order in which they are shown: uint8 (len(indices), 3, H, W), RGB, upright.

    Indices may repeat and be in any order. Decoding starts at the key frame before the wanted frames, or at the first
    packet if the file's packets cannot be trusted. Raises VideoError if the file has no such frame, or if a part that
    had to be decoded is damaged.
    """
    if len(indices) == 0:
        raise ValueError("no frame indices given")
    if min(indices) < 0:
        raise ValueError(f"negative frame index {min(indices)}")
    return read_clip(path, Numbered(str(path), tuple(indices))).frames


def read_clip(
    path: str | Path,
    plan: Plan,
    *,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    verify: bool = False,
    index: FrameIndex | None = None,
    decoder: torchcodec.Decoder = "pyav",
    square_pixels: bool = False,
) -> Clip:
    """Reads the frames that ``plan`` chooses from the part [start, end) of a file. Raises VideoError.

    If decoding finds other frames than the packets promise, the plan chooses again.

    Args:
        verify: whether to decode the whole part, and refuse it if any frame does not decode cleanly.
        index: the file's index, if it is known already.
        decoder: what decodes if nothing is verified.
        square_pixels: whether to resize pictures so that pixels that are not square become square.
    """
    path = str(path)
    index = index or frame_index(path)
    for attempt in (index, None):
        index = attempt or counted_index(path)
        first, count = find_part(path, index, start_seconds, end_seconds)
        known = microseconds(index.times_seconds[first : first + count]) if plan.by_time else count
        indices = [first + number for number in plan.indices(known)]
        whole = range(first, first + count) if verify else range(0)
        try:
            wanted = sorted(set(indices))
            pictures = torchcodec.read(path, index, wanted, decoder) if decoder != "pyav" and not verify else None
            pictures = pictures or _read(path, index, wanted, whole, square_pixels)
        except WrongIndexError:
            continue
        return Clip(_stack(pictures, indices), index, known)
    raise AssertionError("a counted index is never wrong")


def find_part(path: str, index: FrameIndex, start_seconds: float | None, end_seconds: float | None) -> tuple[int, int]:
    """(first frame, number of frames) of the part [start, end): seconds from the file's first frame, to a microsecond.

    Raises VideoError if the part has no frame.
    """
    if start_seconds is None and end_seconds is None:
        return 0, index.num_frames
    times = np.round(index.times_seconds - index.times_seconds[0], 6)
    start, end = np.round([start_seconds or 0.0, np.inf if end_seconds is None else end_seconds], 6)
    inside = np.flatnonzero((times >= start) & (times < end))
    if len(inside) == 0:
        raise VideoError(path, f"has no frame between {start:g} and {end:g} s (its last one is at {times[-1]:.2f} s)")
    return int(inside[0]), int(inside[-1] - inside[0]) + 1


def _stack(pictures: dict[int, np.ndarray], indices: Sequence[int]) -> Tensor:
    """(len(indices),3,H,W), in memory format channels_last."""
    return torch.from_numpy(np.stack([pictures[index] for index in indices])).permute(0, 3, 1, 2)


def _read(path: str, index: FrameIndex, wanted: list[int], verify: range, square_pixels: bool) -> dict[int, np.ndarray]:
    """The wanted pictures (H,W,3) by number. Raises WrongIndexError if decoding contradicts the packets' index."""
    if os.path.isdir(path):
        if verify:
            check_frames(path, verify.start, len(verify))
        return read_pictures(path, wanted)
    if index.is_counted:  # then the whole file was decoded and verified when the index was made
        with open_video(path, one_thread=True) as (container, stream):
            to_rgb = ToRGB(pixel_shape(stream) if square_pixels else None)
            return _pictures(path, from_start(path, container, stream, wanted[-1]), wanted, to_rgb)
    needed = list(verify) or wanted
    for runs in (index.plan(needed), [(None, needed)]):
        try:
            with open_video(path, one_thread=bool(verify)) as (container, stream):
                frames = by_runs(container, stream, index, runs, skip=not verify)
                to_rgb = ToRGB(pixel_shape(stream) if square_pixels else None)
                pictures = _pictures(path, frames, wanted, to_rgb, all_upright=bool(verify))
        except SeekFailedError:
            continue
        except VideoError:  # decoding the whole file then shows whether it is damaged, and how
            raise WrongIndexError from None
        if pictures.keys() != set(wanted):
            raise WrongIndexError
        return pictures
    raise WrongIndexError


def _pictures(
    path: str,
    frames: Iterator[tuple[int, av.VideoFrame]],
    wanted: list[int],
    to_rgb: ToRGB,
    *,
    all_upright: bool = False,
) -> dict[int, np.ndarray]:
    """The wanted pictures of numbered frames, upright, all in the size of the first.

    ``all_upright`` checks the orientations of the other frames, too. Raises VideoError if a frame has none.
    """
    pictures: dict[int, np.ndarray] = {}
    for number, picture in upright_pictures(path, frames, wanted, to_rgb, all_upright=all_upright):
        pictures[number] = in_size(picture, next(iter(pictures.values()), picture).shape)
    return pictures


def in_size(picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The picture in the height and width of ``shape``: some files change their size in the middle."""
    if picture.shape == shape:
        return picture
    upright = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    return upright.reformat(width=shape[1], height=shape[0]).to_ndarray(format="rgb24")


def upright_pictures(
    path: str,
    frames: Iterator[tuple[int, av.VideoFrame]],
    wanted: Sequence[int],
    to_rgb: ToRGB,
    *,
    all_upright: bool = False,
) -> Iterator[tuple[int, np.ndarray]]:
    """(number, picture) of the wanted ones among numbered frames, upright, each in its own size."""
    numbers, orientations = set(wanted), Orientations(path)
    for number, frame in frames:
        if number not in numbers and not all_upright:
            orientations.pass_by(frame)
            continue
        shown = orientations.of(frame)
        if number not in numbers:
            continue
        yield number, shown.apply(to_rgb(frame))


def from_start(path: str, container, stream, last: int) -> Iterator[tuple[int, av.VideoFrame]]:
    """(number, frame) of the frames up to ``last``, counted. Raises VideoError for a damaged one."""
    for number, frame in enumerate(itertools.islice(decode(container, stream), last + 1)):
        refuse_corrupt(path, frame, number)
        yield number, frame


def by_runs(
    container, stream, index: FrameIndex, runs: list[tuple[int | None, list[int]]], *, skip: bool
) -> Iterator[tuple[int, av.VideoFrame]]:
    """(number, frame) of at least the frames of ``runs`` (see ``FrameIndex.plan``), numbered by their times.

    A frame comes only when it can be trusted (``trust``). Raises WrongIndexError, also where the file is damaged.
    """
    skip = skip and stream.codec_context.name in SKIPS_UNREFERENCED
    order, decoder = PacketOrder(stream), decoder_of(container, stream)
    for place, (key, numbers) in enumerate(runs):
        order.forget()
        decoder.flush_buffers()
        packets = packets_from(container, stream, index, key, is_fresh=place == 0)
        frames = AwaitedFrames(index, key, marks_keys=marks_keys(decoder))
        yield from _by_run(packets, decoder, order, frames, numbers, skip)


def _by_run(
    packets: Iterator[tuple[int, av.Packet]],
    decoder: av.VideoCodecContext,
    order: PacketOrder,
    frames: AwaitedFrames,
    numbers: list[int],
    skip: bool,
) -> Iterator[tuple[int, av.VideoFrame]]:
    """The frames that the decoder returns for the packets up to the last one of ``numbers``."""
    needed = set(frames.index.packets[numbers].tolist())
    last, key = max(needed), None if frames.key is None else int(frames.index.packets[frames.key])
    for place, packet in packets:
        is_referred, is_gap = order.see(packet)
        if is_gap or (place == key and not order.is_key(packet)):
            raise WrongIndexError
        is_needed = not skip or place in needed or packet.is_keyframe
        if skip:
            decoder.skip_frame = "DEFAULT" if is_needed else "NONREF"
        if is_needed or is_referred:
            frames.sent(place)
        for frame in decode_packet(decoder, packet):
            yield from frames.returned(frame)
        if place == last:
            break
    else:
        raise WrongIndexError
    for frame in decoder.decode(None):
        yield from frames.returned(frame)
    yield from frames.end()


def packets_from(
    container, stream, index: FrameIndex, key: int | None, *, is_fresh: bool
) -> Iterator[tuple[int, av.Packet]]:
    """(position in the index, packet) from the packet of key frame ``key`` on, or from an earlier key packet."""
    start = 0 if key is None else int(index.packets[key])
    targets = [None] if is_fresh and start == 0 else [int(index.pts[start]), int(index.seek_to[start])]
    # in most containers a seek finds the key frame shown at or before a time; in some, the packet decoded at that time
    for target in targets:
        if target is not None:
            container.seek(target, stream=stream)
        packets = (packet for packet in demux(container, stream) if packet.size)
        packet = next((packet for packet in packets if packet.is_keyframe), None)
        place = index.key_places.get(packet.pts, len(index.pts)) if packet is not None else len(index.pts)
        if place <= start:
            break
    else:
        raise SeekFailedError
    for place, packet in enumerate(itertools.chain([packet], packets), place):  # noqa: B020
        if place == len(index.pts) or packet.pts != index.pts[place]:
            raise SeekFailedError
        yield place, packet
