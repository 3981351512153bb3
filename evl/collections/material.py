"""Notices about the files of a collection: frame rates, pixels that are not square, HDR, interlaced films.

``evl check`` reads every file. A run reads the headers of a few files when it starts, for at most two seconds.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from evl.config import ClipConfig, RunConfig
from evl.data.index_file import IndexFile
from evl.errors import VideoError
from evl.types import Sample
from evl.video.decode.index import frame_index
from evl.video.notices import HDR, INTERLACED, PIXELS, header_notices

log = logging.getLogger("evl")
MAX_RATIO = 1.5  # of frame rates
MAX_BYTES = 1 << 26  # the frame rate of a larger file comes from its header, not from its frames
MATERIAL = (PIXELS, HDR, INTERLACED)


def announce_material(samples: Sequence[Sample], config: RunConfig) -> None:
    """Logs the notices about the files of a run (``material_notices``)."""
    paths, index = [sample.path for sample in samples], config.data.index
    known = None if index is None else IndexFile(index)
    options = dict(pixel_aspect=config.data.pixel_aspect, index=known, seed=config.training.seed)
    for notice in material_notices(paths, config.clip, **options):
        log.warning("%s", notice)


def frame_rate_notices(rates: Sequence[tuple[str, float]], clip: ClipConfig | None = None) -> tuple[str, ...]:
    """Returns a notice if the largest frame rate is more than 1.5 times the smallest.

    ``rates``: (path, frames per second) of each video. ``clip``: the settings that read them; there is no notice if
    their clips do not depend on the frame rate.
    """
    if not rates or (clip is not None and (clip.sampling == "segment" or clip.frames_per_second is not None)):
        return ()
    ordered = sorted(rates, key=lambda rate: rate[1])
    (slow_path, slow_rate), (fast_path, fast_rate) = ordered[0], ordered[-1]
    ratio = fast_rate / slow_rate
    if ratio <= MAX_RATIO:
        return ()
    stride = (clip or ClipConfig()).stride
    median = ordered[len(ordered) // 2][1]
    return (
        f"frame rates differ: {slow_path} has {slow_rate:.4g} frames per second, and {fast_path} {fast_rate:.4g}. A "
        f"clip with clip.stride={stride} lasts {ratio:.2g} times as long in the first as in the second; to give all "
        f"clips the same length, choose frames by time, for example with clip.frames_per_second={median / stride:.3g}",
    )


def material_notices(
    paths: Sequence[str],
    clip: ClipConfig,
    *,
    pixel_aspect: bool,
    index: IndexFile | None = None,
    seed: int = 0,
    max_files: int = 48,
    max_seconds: float = 2.0,
) -> tuple[str, ...]:
    """Returns a notice for each property of the files themselves: frame rates, pixels, HDR, interlaced films.

    Args:
        paths: The videos.
        clip: The settings that read them.
        pixel_aspect: Whether the run makes pixels square.
        index: The frame rates of all its videos are compared too.
        seed: Draws the files to read.
        max_files: The headers of at most this many files are read.
        max_seconds: After this time, the notices are those of the files read so far.
    """
    distinct = sorted(set(paths))
    order = np.random.default_rng(seed).permutation(len(distinct)).tolist()
    survey = _Survey([distinct[place] for place in order], max_files, index)
    thread = threading.Thread(target=survey.run, daemon=True)  # so that a slow disk cannot delay the run
    thread.start()
    thread.join(max_seconds)
    survey.is_over = True
    lines = []
    for what, files in list(survey.notices.items()):
        if what == PIXELS:
            effect = "made square" if pixel_aspect else "read as they are; data.pixel_aspect=true makes them square"
            what = f"pixels that are not square ({effect})"
        path, detail = files[0]
        more = f", and {len(files) - 1} more" if len(files) > 1 else ""
        lines.append(f"{what}: {path}: {detail}{more} (of {survey.num_files} videos looked at)")
    return (*frame_rate_notices(list(survey.rates.items()), clip), *lines)


class _Survey:
    """Reads headers of ``paths`` in a thread, until all are read or ``is_over`` is set."""

    def __init__(self, paths: Sequence[str], max_files: int, index: IndexFile | None):
        self.paths, self.max_files, self.index = paths, max_files, index
        self.notices: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self.rates: dict[str, float] = {}  # empty until the extreme rates are confirmed
        self.num_files = 0
        self.is_over = False

    def run(self) -> None:
        rates: dict[str, float] = {}
        for path in self.paths[: self.max_files]:
            if self.is_over:
                return
            try:
                notices, rate = header_notices(path)
            except (VideoError, OSError):
                continue  # the error appears when the file is read
            self.num_files += 1
            for notice in notices:
                if notice.what in MATERIAL:
                    self.notices[notice.what].append((path, notice.detail))
            if rate:
                rates[path] = rate
        for path in self.paths if self.index is not None else ():
            if self.is_over:
                return
            if (entry := self.index.find(path)) is not None and (rate := rate_of(entry.times_seconds, entry.codec)):
                rates[path] = rate
        self._confirm(rates)

    def _confirm(self, rates: dict[str, float]) -> None:
        """Sets ``rates`` when its extremes are confirmed by the times of the frames, because headers may be wrong."""
        confirmed: set[str] = set()
        while rates and not self.is_over:
            slowest, fastest = min(rates, key=rates.get), max(rates, key=rates.get)
            unsure = next((path for path in (slowest, fastest) if path not in confirmed), None)
            if unsure is None or rates[fastest] <= MAX_RATIO * rates[slowest]:
                self.rates = rates
                return
            try:
                if os.path.getsize(unsure) > MAX_BYTES:
                    confirmed.add(unsure)
                    continue
                index = frame_index(unsure)
                rate = rate_of(index.times_seconds, index.codec)
            except (VideoError, OSError):
                rate = None
            if rate is None:
                del rates[unsure]
            else:
                rates[unsure] = rate
                confirmed.add(unsure)


def rate_of(times_seconds: Sequence[float], codec: str) -> float | None:
    """Returns the frames per second; None for a single frame, and for a folder of frames, which has no frame rate."""
    if codec == "frames" or len(times_seconds) < 2 or times_seconds[-1] <= times_seconds[0]:
        return None
    return (len(times_seconds) - 1) / float(times_seconds[-1] - times_seconds[0])
