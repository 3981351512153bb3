"""What is odd about the files of a collection, although they can be used: frame rates, pixels, HDR, interlaced films.

``evl check`` sees every file; the start of a run looks at the headers of a few, for two seconds at most.
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
MOST_RATIO = 1.5  # of frame rates
MOST_BYTES = 1 << 26  # of a file that is read through for its frame rate; of larger ones the header is taken
MATERIAL = (PIXELS, HDR, INTERLACED)


def announce_material(samples: Sequence[Sample], config: RunConfig) -> None:
    """Logs what is odd about the files that a run is to read (``material_notices``): at its start, once."""
    paths, index = [sample.path for sample in samples], config.data.index
    known = None if index is None else IndexFile(index)
    options = dict(pixel_aspect=config.data.pixel_aspect, index=known, seed=config.training.seed)
    for notice in material_notices(paths, config.clip, **options):
        log.warning("%s", notice)


def frame_rates(rates: Sequence[tuple[str, float]], clip: ClipConfig | None = None) -> tuple[str, ...]:
    """A line if frame rates, (path, frames a second) each, differ more than 1.5 times; ``clip``: of the run that is to
    read them, which may not depend on them."""
    if not rates or (clip is not None and (clip.sampling == "segment" or clip.frames_per_second is not None)):
        return ()
    low, high = min(rates, key=lambda one: one[1]), max(rates, key=lambda one: one[1])
    ratio = high[1] / low[1]
    if ratio <= MOST_RATIO:
        return ()
    stride = (clip or ClipConfig()).stride
    usual = sorted(rate for _, rate in rates)[len(rates) // 2] / stride
    return (
        f"frame rates differ: {low[0]} has {low[1]:.4g} frames a second, {high[0]} {high[1]:.4g}, so that clips of "
        f"clip.stride={stride} last {ratio:.2g} times as long in one as in the other; take frames by time, such as "
        f"clip.frames_per_second={usual:.3g}",
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
    """A line on each thing that is odd about the files themselves: frame rates, pixels, HDR, interlaced films.

    Looks at the headers of ``max_files`` files, drawn by ``seed``, and at the frame rates of all that ``index`` knows,
    for ``max_seconds`` at most: what it has seen by then it tells.
    """
    distinct = sorted(set(paths))
    order = np.random.default_rng(seed).permutation(len(distinct)).tolist()
    look = _Look([distinct[place] for place in order], max_files, index)
    thread = threading.Thread(target=look.run, daemon=True)  # a slow disk must not hold up the run
    thread.start()
    thread.join(max_seconds)
    look.is_over = True
    lines = []
    for what, files in list(look.found.items()):
        if what == PIXELS:
            done = "made square" if pixel_aspect else "left as they are; data.pixel_aspect=true makes them square"
            what = f"pixels that are not square ({done})"
        path, detail = files[0]
        more = f", and {len(files) - 1} more" if len(files) > 1 else ""
        lines.append(f"{what}: {path}: {detail}{more} (of {look.num_files} videos looked at)")
    return (*frame_rates(list(look.rates.items()), clip), *lines) if look.has_confirmed else tuple(lines)


class _Look:
    """What is seen of ``paths`` in the time there is, in a thread of its own."""

    def __init__(self, paths: Sequence[str], max_files: int, index: IndexFile | None):
        self.paths, self.max_files, self.index = paths, max_files, index
        self.found: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self.rates: dict[str, float] = {}
        self.num_files = 0
        self.has_confirmed = self.is_over = False

    def run(self) -> None:
        claimed: dict[str, float] = {}
        for path in self.paths[: self.max_files]:
            if self.is_over:
                return
            try:
                noticed, rate = header_notices(path)
            except (VideoError, OSError):
                continue  # told where it is read
            self.num_files += 1
            for notice in noticed:
                if notice.what in MATERIAL:
                    self.found[notice.what].append((path, notice.detail))
            if rate:
                claimed[path] = rate
        for path in self.paths if self.index is not None else ():
            if self.is_over:
                return
            if (known := self.index.find(path)) is not None and (rate := rate_of(known.times_seconds, known.codec)):
                claimed[path] = rate
        self._confirm(claimed)

    def _confirm(self, rates: dict[str, float]) -> None:
        """Headers lie about rates: the two extremes are worked out from the files' own times, as long as there are."""
        true: set[str] = set()
        while rates and not self.is_over:
            ends = min(rates, key=rates.get), max(rates, key=rates.get)
            unsure = next((path for path in ends if path not in true), None)
            if unsure is None or rates[ends[1]] <= MOST_RATIO * rates[ends[0]]:
                self.rates, self.has_confirmed = rates, True
                return
            try:
                if os.path.getsize(unsure) > MOST_BYTES:
                    true.add(unsure)
                    continue
                index = frame_index(unsure)
                rate = rate_of(index.times_seconds, index.codec)
            except (VideoError, OSError):
                rate = None
            if rate is None:
                del rates[unsure]
            else:
                rates[unsure] = rate
                true.add(unsure)


def rate_of(times_seconds: Sequence[float], codec: str) -> float | None:
    """Frames a second; None of one frame, and of a folder of frames, which has no rate of its own."""
    if codec == "frames" or len(times_seconds) < 2 or times_seconds[-1] <= times_seconds[0]:
        return None
    return (len(times_seconds) - 1) / float(times_seconds[-1] - times_seconds[0])
