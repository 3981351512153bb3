"""A video with the scores of its timeline painted on it, as an MP4 with its sound."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path

import av
import numpy as np

from evl.errors import VideoError
from evl.inference.bars import Bars
from evl.inference.timeline import Timeline
from evl.runtime.files import write_atomically
from evl.video.decode.forward import OtherFramesError, read_forward
from evl.video.decode.index import FrameIndex, frame_index

TICKS = 90_000  # per second
IN_MP4 = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"})  # sound that is copied; other is encoded
LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
GAP_SECONDS = 0.05  # times of sound are rounded; a longer step is a gap
X264 = {"preset": "veryfast", "crf": "21"}


def write_overlay(path: str | Path, line: Timeline, progress: Callable[[int, int], None] = lambda more, total: None):
    """Writes the part of the video that the timeline covers, upright, with bars of labels and scores.

    Frames have their own times, so a variable rate stays, and the sound stays with them. Frames that do not decode are
    left out. ``progress(n, total)`` is called with the number of newly written frames. Raises SaveError, and VideoError
    for a video that cannot be read or encoded.
    """
    index = frame_index(line.path)
    for _ in range(2):
        try:
            with write_atomically(path) as file:
                _write(file.name, line, index, progress)
            return
        except OtherFramesError as error:
            index = error.index
    raise AssertionError("a counted index is never wrong")


def _write(target: str, line: Timeline, index: FrameIndex, progress: Callable[[int, int], None]) -> None:
    times = index.times_seconds - index.times_seconds[0]
    wanted = np.flatnonzero((times >= line.start_seconds - 1e-6) & (times < line.end_seconds)).tolist()
    ticks = dict(zip(wanted, _ticks(times[wanted] - line.start_seconds), strict=True))
    read = read_forward(line.path, index, wanted, square_pixels=True)
    pictures = ((number, picture) for number, picture in read if not isinstance(picture, str))
    first = next(pictures, None)
    if first is None:
        raise VideoError(line.path, "has no frame that decodes")
    height, width = (side // 2 * 2 for side in first[1].shape[:2])
    bars, done = Bars(line, width, height), 0
    # in the clock of the file; a folder of frames has none, and no sound
    zero = float(index.times_seconds[0]) + line.start_seconds
    try:
        with av.open(target, "w", format="mp4", options={"movflags": "+faststart"}) as out, _Sound(line, zero) as sound:
            stream = out.add_stream("libx264", rate=25, options=X264)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.time_base = Fraction(1, TICKS)
            sound.add_to(out)
            for number, picture in chain([first], pictures):
                tick, length = ticks[number]
                sound.write_until(out, tick / TICKS)
                shown = _sized(picture, width, height)
                bars.paint(shown, times[number])
                frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
                frame.pts, frame.time_base, frame.duration = tick, Fraction(1, TICKS), length
                out.mux(stream.encode(frame))
                done += 1
                if done % 100 == 0:
                    progress(100, len(wanted))
            progress(done % 100, len(wanted))
            out.mux(stream.encode())
            sound.write_until(out, line.end_seconds - line.start_seconds)
            sound.finish(out)
    except av.error.FFmpegError as error:
        if isinstance(error, OSError):
            raise  # write_atomically turns it into a SaveError
        raise VideoError(line.path, f"cannot be encoded ({(error.strerror or str(error)).lower()})") from None


def _ticks(times: np.ndarray) -> list[tuple[int, int]]:
    """Of each frame (its time, its length) in ticks; each time is later than the one before."""
    ticks = np.maximum(np.rint(times * TICKS), 0).astype(np.int64)
    steps = np.arange(len(ticks))
    ticks = np.maximum.accumulate(ticks - steps) + steps
    lengths = [b - a for a, b in pairwise(ticks.tolist())]
    return list(zip(ticks.tolist(), [*lengths, lengths[-1] if lengths else TICKS // 25], strict=True))


def _sized(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """The picture in the size of the film, whose sides are even."""
    if picture.shape[0] // 2 * 2 != height or picture.shape[1] // 2 * 2 != width:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        return frame.reformat(width=width, height=height).to_ndarray(format="rgb24")
    return np.array(picture[:height, :width])  # a copy: bars are painted on it


class _Sound:
    """The first audio stream of a video: its packets are copied if an MP4 can have them, else encoded as AAC.

    ``zero``: the moment of the file's clock at which the film begins.
    """

    def __init__(self, line: Timeline, zero: float):
        self.path, self.zero, self.length = line.path, zero, line.end_seconds - line.start_seconds
        self._source = self._packets = self._next = self._stream = None
        self._copies, self._place, self._layout = False, -(1 << 60), "stereo"

    def __enter__(self) -> _Sound:
        if not os.path.isdir(self.path):
            self._source = av.open(self.path)
            if not self._source.streams.audio:
                self._source.close()
                self._source = None
        return self

    def __exit__(self, *error) -> None:
        if self._source is not None:
            self._source.close()

    def add_to(self, out: av.container.OutputContainer) -> None:
        if self._source is None:
            return
        audio = self._source.streams.audio[0]
        self._copies = audio.codec_context.name in IN_MP4
        if self._copies:
            self._stream = out.add_stream_from_template(audio)
        else:
            self._layout = LAYOUTS.get(audio.codec_context.layout.nb_channels, "stereo")
            self._stream = out.add_stream("aac", rate=audio.codec_context.sample_rate)
            self._stream.layout = self._layout
        self._packets = self._pieces(audio)
        self._next = next(self._packets, None)

    def _pieces(self, audio) -> Iterator[tuple[float, object]]:
        """(seconds of the film, packet or decoded frame), in order; those before it are left out."""
        try:
            if self.zero - 1 > (audio.start_time or 0) * audio.time_base:
                self._source.seek(round((self.zero - 1) / audio.time_base), stream=audio)
            for packet in self._source.demux(audio):
                if packet.pts is None:
                    continue
                for piece in (packet,) if self._copies else packet.decode():
                    seconds = float(piece.pts * piece.time_base) - self.zero
                    if seconds >= self.length:
                        return
                    if seconds >= 0:
                        yield seconds, piece
        except av.error.FFmpegError:  # the sound ends where it is damaged
            return

    def write_until(self, out: av.container.OutputContainer, seconds: float) -> None:
        while self._next is not None and self._next[0] <= seconds:
            piece = self._next[1]
            if self._copies:
                shift = round(self.zero / piece.time_base)
                piece.pts -= shift
                if piece.dts is not None:
                    piece.dts -= shift
                piece.stream = self._stream
                out.mux(piece)
            else:
                out.mux(self._stream.encode(self._counted(piece)))
            self._next = next(self._packets, None)

    def _counted(self, frame: av.AudioFrame) -> av.AudioFrame:
        """The frame with its time in samples, right after the one before it unless the sound has a gap.

        Its channels get the usual layout of their number, because some containers do not tell any.
        """
        rate = frame.sample_rate
        place = round((float(frame.pts * frame.time_base) - self.zero) * rate)
        if abs(place - self._place) > rate * GAP_SECONDS:
            self._place = place
        made = av.AudioFrame.from_ndarray(frame.to_ndarray(), format=frame.format.name, layout=self._layout)
        made.sample_rate, made.time_base, made.pts = rate, Fraction(1, rate), self._place
        self._place += made.samples
        return made

    def finish(self, out: av.container.OutputContainer) -> None:
        if self._stream is not None and not self._copies:
            out.mux(self._stream.encode())
