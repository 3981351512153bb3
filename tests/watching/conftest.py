"""A model that costs nothing: the scores of a window are the brightness of its frames."""

import numpy as np
import pytest

from evl.inference.live import Live
from evl.inference.segments import SegmentRules
from evl.watching import feed, loop
from evl.watching.address import parse_source
from evl.watching.loop import Watch
from evl.watching.opening import Settings
from tests.inference.test_timeline import untrained

NAMES = ("dark", "bright")


@pytest.fixture(scope="session")
def model():
    return untrained(clip={"num_frames": 2, "stride": 1})


@pytest.fixture
def watched(monkeypatch, model):
    """``watched(sources, …)`` → a Watch whose pauses are short."""

    def brightness(found, costs=None):
        rows = []
        for live, windows in found:
            for frame in {
                id(f): f for w in (*windows, *live._windows.open) for f in w.frames if f.parts is None
            }.values():
                frame.parts, frame.picture = [float(frame.picture().mean() / 255)], None
                live.num_encoded += 1
            means = [np.mean([frame.parts[0] for frame in window.frames]) for window in windows]
            rows.append([np.array([1 - mean, mean]) for mean in means])
        return rows

    monkeypatch.setattr(loop, "score_windows", brightness)
    monkeypatch.setattr(feed, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(feed, "LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(feed, "FOLDER_PAUSE", 0.05)
    monkeypatch.setattr(feed, "REST", 0.2)

    def make(sources, *, rules=None, timeout=5.0, follow=False, **options):
        addresses = [parse_source(one, follow=follow) for one in sources]
        options.setdefault("leave_out", False)  # so that counts are certain
        rules = rules or SegmentRules(on=0.6, off=0.5)
        return Watch(addresses, lambda: Live(model), NAMES, rules, Settings(timeout), **options)

    return make
