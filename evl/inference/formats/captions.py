"""WebVTT (W3C) and SRT: a caption for each segment, which players show beside the video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evl.inference.formats.common import LabeledVideo, caption_text, milliseconds
from evl.runtime.files import write_file


def write_webvtt(folder: Path, videos: Sequence[LabeledVideo]) -> None:
    """Writes NAME.vtt for each video. Cues may overlap; they are in the order of their starts, as WebVTT asks."""
    for video in videos:
        cues = [f"{_times(one, '.')}\n{_escaped(caption_text(one.label))}\n" for one in video.segments]
        write_file(folder / f"{video.name}.vtt", "\n".join(["WEBVTT\n", *cues]))


def write_srt(folder: Path, videos: Sequence[LabeledVideo]) -> None:
    """Writes NAME.srt for each video."""
    for video in videos:
        captions = [
            f"{number}\n{_times(one, ',')}\n{caption_text(one.label)}\n" for number, one in enumerate(video.segments, 1)
        ]
        write_file(folder / f"{video.name}.srt", "\n".join(captions))


def _times(segment, mark: str) -> str:
    start, end = (clock(time, mark) for time in milliseconds(segment))
    return f"{start} --> {end}"


def clock(time: int, mark: str) -> str:
    """Milliseconds as ``HH:MM:SS.mmm``, with more digits of hours if they need them."""
    seconds, rest = divmod(time, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{mark}{rest:03}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
