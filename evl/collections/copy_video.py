"""Makes a copy of a video that is fast to read: small pictures, many key frames, the same frames and times.

The format of a copy was chosen for the time to decode one random frame (docs/data.md has the numbers).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, pairwise
from math import ceil
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from evl.errors import ConfigError, VideoError
from evl.runtime.files import write_atomically
from evl.types import VideoInfo
from evl.video.decode.container import decode, open_video, refuse_corrupt
from evl.video.decode.frame_folder import read_pictures
from evl.video.decode.index import probe
from evl.video.decode.orientation import UPRIGHT, Orientation, Orientations
from evl.video.decode.rgb import ToRGB, is_hdr

FINEST = 10_000_000  # ticks per second; with more, times would not fit into the fields of an MP4


@dataclass(frozen=True)
class CopySettings:
    """The settings of copies.

    Args:
        short_side: Pixels of the short side; smaller videos are not enlarged.
        gop: Frames from key frame to key frame.
        every: Keep every n-th frame.
        quality: x264's rate factor; a smaller one is better and gives larger files. Each frame is coded without the
            others, so 20 is a few dB worse here than in an ordinary file. 18 gives 1.4 dB more, for a quarter more
            bytes and a tenth more decoding time.

    Raises ConfigError for values out of range.
    """

    short_side: int = 256
    gop: int = 1
    every: int = 1
    quality: int = 20

    def __post_init__(self):
        if self.short_side < 16 or self.short_side % 2:
            raise ConfigError(f"short_side {self.short_side}: expected an even number of pixels from 16")
        if self.gop < 1:
            raise ConfigError(f"gop {self.gop}: expected frames from key frame to key frame, at least 1")
        if self.every < 1:
            raise ConfigError(f"every {self.every}: expected 1 (all frames), 2 (every second one), …")
        if not 1 <= self.quality <= 51:
            raise ConfigError(f"quality {self.quality}: expected a rate factor of x264 from 1 (best) to 51")


@dataclass(frozen=True)
class _Picture:
    """A frame of the copy, the time base of its source, and the shape of a pixel (width : height), None if unknown."""

    frame: av.VideoFrame
    time_base: Fraction
    pixel_shape: Fraction | None


def prepare_video(source: str | Path, target: str | Path, settings: CopySettings | None = None) -> VideoInfo:
    """Writes ``target``, an MP4 file with H.264 pictures and no sound; or no file if it fails. Returns its facts.

    Frame k of the copy is frame k · every of ``source``, as ``read_frames`` counts them. It is turned upright, and has
    the same time from the first frame. The copy keeps the color matrix and range of its source, except that HDR becomes
    SDR (``evl.video.decode.rgb``). It takes one thread.

    Raises VideoError, with the reason, for a source that cannot be used; SaveError if the system refuses to write.
    """
    settings = settings or CopySettings()
    source, target = str(source), Path(target)
    info = probe(source)
    with write_atomically(target, one_of_many=True) as file:
        _encode(source, info, file.name, settings)
        # the copy is decoded as training will do it, before it gets its name: a faulty copy must never appear
        made = probe(file.name)
        _refuse_difference(source, info, made, settings)
        return replace(made, path=str(target))


def copy_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Returns the even (width, height) of a picture's copy; its short side is ``short_side``, or its own if smaller."""
    scale = min(1.0, short_side / min(width, height))
    # an unscaled odd size loses one line of pixels; a scaled size is rounded to the nearest even number
    even = (lambda pixels: pixels // 2 * 2) if scale == 1 else (lambda pixels: round(pixels * scale / 2) * 2)
    return max(2, even(width)), max(2, even(height))


def _encode(source: str, info: VideoInfo, target: str, settings: CopySettings) -> None:
    """Encodes the copy. Raises OSError if the system refuses to write, VideoError if libav refuses to encode."""
    pictures = _pictures(source, info, settings)
    first = next(pictures)
    base, ticks = _ticks(info.times_seconds, first.time_base)
    ticks = ticks[:: settings.every]
    last = ticks[-1] - ticks[-2] if len(ticks) > 1 else max(1, round(Fraction(1, 25) / base))
    lengths = [b - a for a, b in pairwise(ticks)] + [last]
    rate = info.frames_per_second / settings.every or 25
    try:
        with av.open(target, "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream(
                "libx264", rate=Fraction(min(max(rate, 1), 1000)).limit_denominator(1001), options=_options(settings)
            )
            _describe(stream.codec_context, first, base)
            for picture, tick, length in zip(chain([first], pictures), ticks, lengths, strict=True):
                frame = picture.frame
                frame.time_base, frame.pts, frame.duration = base, tick, length
                frame.pict_type = 0  # the encoder chooses the key frames, not the source
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    except av.error.FFmpegError as error:
        if isinstance(error, OSError):
            raise  # write_atomically turns it into a SaveError
        raise VideoError(source, f"cannot be encoded ({(error.strerror or str(error)).lower()})") from None


def _options(settings: CopySettings) -> dict[str, str]:
    """Returns options of x264 for fast decoding.

    No arithmetic coding halves the time per frame, for a tenth more bytes. No deblocking saves a fifth of the time.
    There are no B-frames, one reference frame, and no weighted prediction. Slower presets gave neither fewer bytes nor
    faster decoding.
    """
    gop = settings.gop
    return {
        "preset": "veryfast",
        "crf": str(settings.quality),
        "a53cc": "0",  # no closed captions in the video stream
        "x264-params": f"keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0:bframes=0:ref=1:weightp=0:"
        "cabac=0:no-deblock=1:threads=1:lookahead-threads=1",
    }


def _describe(context, first: _Picture, base: Fraction) -> None:
    frame = first.frame
    context.width, context.height, context.pix_fmt = frame.width, frame.height, "yuv420p"
    context.time_base, context.thread_count = base, 1
    context.colorspace, context.color_range = frame.colorspace, frame.color_range
    context.color_primaries, context.color_trc = frame.color_primaries, frame.color_trc
    if first.pixel_shape:
        context.sample_aspect_ratio = first.pixel_shape


def _pictures(path: str, info: VideoInfo, settings: CopySettings) -> Iterator[_Picture]:
    """Yields the frames of the copy: yuv420p, small, upright."""
    width, height = copy_size(info.width, info.height, settings.short_side)
    if os.path.isdir(path):
        for number in range(0, info.num_frames, settings.every):
            picture = read_pictures(path, [number])[number]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            yield _Picture(_small(frame, width, height), Fraction(1, 90_000), None)
        return
    count, orientations, to_rgb = 0, Orientations(path), ToRGB()
    with open_video(path) as (container, stream):
        stream.codec_context.thread_count = 1  # many files are copied at the same time, one per process
        base, shape = stream.time_base or Fraction(1, 90_000), stream.sample_aspect_ratio
        for frame in decode(container, stream):
            refuse_corrupt(path, frame, count)
            if count % settings.every == 0:
                shown = orientations.of(frame)
                if is_hdr(frame.color_trc):  # eight bits of an HDR curve would show steps
                    frame = av.VideoFrame.from_ndarray(to_rgb(frame), format="rgb24")
                if shown.swaps_sides:
                    yield _Picture(_upright(_small(frame, height, width), shown), base, 1 / shape if shape else None)
                else:
                    yield _Picture(_upright(_small(frame, width, height), shown), base, shape)
            count += 1
    if count != info.num_frames:
        raise VideoError(path, f"is damaged: {info.num_frames} frames were counted, but {count} decode")


def _small(frame: av.VideoFrame, width: int, height: int) -> av.VideoFrame:
    """Returns a yuv420p frame of this size with the color matrix and range of ``frame``; RGB becomes BT.601, limited
    range."""
    colors = {}
    if frame.format.is_rgb or frame.format.has_palette:
        colors = {"dst_colorspace": Colorspace.ITU601, "dst_color_range": ColorRange.MPEG}
    return frame.reformat(width, height, "yuv420p", interpolation="BICUBIC", threads=1, **colors)


def _upright(frame: av.VideoFrame, shown: Orientation) -> av.VideoFrame:
    if shown == UPRIGHT:
        return frame
    width, height = (frame.height, frame.width) if shown.swaps_sides else (frame.width, frame.height)
    turned = av.VideoFrame(width, height, "yuv420p")
    for plane, out in zip(frame.planes, turned.planes, strict=True):
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        np.frombuffer(out, np.uint8).reshape(-1, out.line_size)[: out.height, : out.width] = shown.apply(rows)
    for name in ("colorspace", "color_range", "color_primaries", "color_trc"):
        setattr(turned, name, getattr(frame, name))
    return turned


def _ticks(times_seconds: Sequence[float], base: Fraction) -> tuple[Fraction, list[int]]:
    """Returns (time base, times from the first frame in ticks); each time is later than the one before.

    The time base is that of the source if possible. Frames with the same time get times about 10 µs apart.
    """
    if base.denominator > FINEST:
        base = Fraction(1, 1_000_000)
    ticks = [round((time - times_seconds[0]) / base) for time in times_seconds]
    if all(a < b for a, b in pairwise(ticks)):
        return base, ticks
    base /= max(1, ceil(base * 100_000))
    ticks = [round((time - times_seconds[0]) / base) for time in times_seconds]
    for i in range(1, len(ticks)):
        ticks[i] = max(ticks[i], ticks[i - 1] + 1)
    return base, ticks


def _refuse_difference(source: str, info: VideoInfo, made: VideoInfo, settings: CopySettings) -> None:
    wanted = info.times_seconds[:: settings.every]
    if made.num_frames != len(wanted):
        raise VideoError(source, f"cannot be copied: the copy has {made.num_frames} frames, expected {len(wanted)}")
    if made.rotation_degrees or made.is_mirrored:
        raise VideoError(source, "cannot be copied: the copy has a display matrix")
    shift_seconds = max(
        abs((copy - made.times_seconds[0]) - (time - wanted[0]))
        for copy, time in zip(made.times_seconds, wanted, strict=True)
    )
    if shift_seconds > 0.01:
        raise VideoError(source, f"cannot be copied: a frame of the copy is {shift_seconds:.3f} s from its time")
