"""The page of a timeline: the video or its thumbnails, and a lane for each class with its segments and its curve.

All values go into the page as JSON, and its script writes them as text, never as HTML. A content policy forbids all
requests but that for the video's own file, and all scripts but this one.
"""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from urllib.parse import quote

import numpy as np

from evl.inference.segments import smoothed
from evl.inference.timeline import Timeline
from evl.inference.timeline_page.thumbnails import thumbnails
from evl.runtime.files import write_file
from evl.runtime.text import render, visible

PAGE = "timeline.html"
TEMPLATE, SCRIPT = (Path(__file__).with_name(name) for name in ("timeline.html.j2", "timeline.js"))
CURVE_BYTES = 1 << 20  # of all curves together: a minimum and a maximum for each class and bucket
MOST_BUCKETS, FEWEST_BUCKETS = 8000, 400
MOST_SEGMENTS = 5000  # in the page; segments.csv has all


def write_page(path: str | Path, line: Timeline) -> None:
    """Writes the page of a timeline. The video is linked from the page's folder, and thumbnails are in the page.

    Raises SaveError. A video that cannot be read, or is gone, has no thumbnails.
    """
    script = SCRIPT.read_text(encoding="utf-8")
    data = {
        "video": _link(line.path, Path(path)),
        "start": line.start_seconds,
        "end": line.end_seconds,
        "classes": [visible(name) for name in line.class_names],
        "thumbnails": thumbnails(line.path, line.start_seconds, line.end_seconds),
        "damaged": [[gap.start_seconds, gap.end_seconds, visible(gap.reason)] for gap in line.damaged],
        **_segments(line),
        **_curves(line),
    }
    page = render(
        TEMPLATE,
        name=os.path.basename(os.path.abspath(line.path)),
        line=line,
        num_left_out=max(0, len(line.segments) - MOST_SEGMENTS),
        data=data,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    write_file(path, page)


def _link(video: str, page: Path) -> str | None:
    """The video's address as seen from the page's folder; None for a folder of frames."""
    video = os.path.abspath(video)
    if os.path.isdir(video):
        return None
    try:
        return quote(os.fsencode(os.path.relpath(video, os.path.abspath(page.parent))).replace(b"\\", b"/"))
    except ValueError:  # another drive
        return Path(video).as_uri()


def _segments(line: Timeline) -> dict:
    """The longest segments, in order, as (class, start, end, score); and the two thresholds of each class."""
    longest = sorted(line.segments, key=lambda one: one.start_seconds - one.end_seconds)[:MOST_SEGMENTS]
    number = {name: y for y, name in enumerate(line.class_names)}
    rows = [
        [number[one.label], round(one.start_seconds, 3), round(one.end_seconds, 3), round(one.score, 4)]
        for one in sorted(longest, key=lambda one: (one.start_seconds, number[one.label]))
    ]
    on, off = line.rules.thresholds(line.class_names)
    return {"segments": rows, "on": on.round(4).tolist(), "off": off.round(4).tolist()}


def _curves(line: Timeline) -> dict:
    """``times`` of buckets of windows, and for each class the lowest and highest score in each, as bytes in base64.

    The scores are smoothed as for the segments. With few windows, each is a bucket of its own.
    """
    scores = smoothed(np.asarray(line.scores, np.float64), line.rules.smooth)
    count = int(np.clip(CURVE_BYTES // (2 * scores.shape[1]), FEWEST_BUCKETS, MOST_BUCKETS))
    starts = np.unique(np.linspace(0, len(scores), min(count, len(scores)), endpoint=False).astype(np.int64))
    low, high = (reduce.reduceat(scores, starts, axis=0) for reduce in (np.minimum, np.maximum))  # (m,Y)
    last = np.append(starts[1:], len(scores)) - 1
    times = (line.times[starts] + line.times[last]) / 2
    both = np.stack([low, high], -1)  # (m,Y,2)
    curves = np.clip(np.rint(both * 255), 0, 255).astype(np.uint8).transpose(1, 0, 2)
    return {
        "times": times.round(3).tolist(),
        "curves": [base64.b64encode(np.ascontiguousarray(one).tobytes()).decode() for one in curves],
        "highest": scores.max(0).round(4).tolist(),
        "step": round(float(np.median(np.diff(line.times))), 4) if len(line.times) > 1 else 1.0,
    }
