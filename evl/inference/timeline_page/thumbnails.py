"""Small pictures of a video at even distances, as JPEGs in base64."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from evl.errors import VideoError
from evl.video.decode.index import frame_index
from evl.video.decode.reader import read_frames

MOST, BYTES = 120, 1_500_000  # pictures, and bytes of all of them together before base64
HEIGHT, WIDEST = 120, 240  # pixels
QUALITIES = (80, 65, 50, 35, 20)


def thumbnails(path: str, start_seconds: float, end_seconds: float) -> list[tuple[float, str]]:
    """(seconds, JPEG in base64) of at most ``MOST`` frames, one in each equal part of the time; key frames, if a part
    has one, since they are the fastest to read. Frames that cannot be read are left out."""
    try:
        index = frame_index(path)
    except VideoError:
        return []
    times = index.times_seconds - index.times_seconds[0]
    found: list[tuple[float, str]] = []
    kept = 0
    for number in _chosen(times, np.asarray(index.keys), start_seconds, end_seconds):
        try:
            frame = read_frames(path, [number])[0].permute(1, 2, 0).numpy()
        except VideoError:
            continue
        picture = _jpeg(frame, BYTES // MOST)
        kept += len(picture)
        if kept > BYTES:
            break
        found.append((round(float(times[number]), 3), base64.b64encode(picture).decode()))
    return found


def _chosen(times: np.ndarray, keys: np.ndarray, start: float, end: float) -> list[int]:
    """The numbers of the frames: in each of the equal parts of the time a key frame, or else its first frame."""
    inside = np.flatnonzero((times >= start - 1e-6) & (times < max(end, start + 1e-6)))
    parts = np.minimum((times[inside] - start) / max(end - start, 1e-6) * MOST, MOST - 1).astype(int)
    is_key = np.isin(inside, keys)
    order = np.lexsort((inside, ~is_key, parts))
    first = np.unique(parts[order], return_index=True)[1]
    return inside[order][first].tolist()


def _jpeg(frame: np.ndarray, most_bytes: int) -> bytes:
    """A frame (H,W,3) as a small JPEG of at most so many bytes, if the lowest quality allows."""
    height, width = frame.shape[:2]
    scale = min(HEIGHT / height, WIDEST / width, 1.0)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = Image.fromarray(np.ascontiguousarray(frame)).resize(size, Image.Resampling.BILINEAR)
    for quality in QUALITIES:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= most_bytes:
            break
    return file.getvalue()
