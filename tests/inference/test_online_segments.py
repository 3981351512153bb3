"""Segments that are found while scores come are those that are found when all are there."""

import numpy as np
import pytest

from evl.errors import ConfigError
from evl.inference.online_segments import Begun, SegmentTracker
from evl.inference.segments import Segment, SegmentRules, find_segments

NAMES = ("run", "jump", "background", "sit")


def drawn(seed):
    """(times, scores, rules, end, gaps): scores that wander, at uneven times."""
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, 60))
    times = np.cumsum(generator.choice([0.0, 0.25, 0.5, 0.7], count, p=[0.05, 0.25, 0.5, 0.2]))
    wander = np.cumsum(generator.normal(0, 0.25, (count, len(NAMES))), axis=0)
    scores = (0.5 + 0.5 * np.sin(wander + generator.random(len(NAMES)) * 6)).clip(0, 1)
    rules = SegmentRules(
        on={"run": 0.9, "jump": 0.8} if seed % 3 else 0.7,
        off=0.4 if seed % 2 else None,
        smooth=int(generator.choice([1, 1, 3, 5, 7])),
        merge_seconds=float(generator.choice([0, 0, 0.5, 1.2, 4])),
        min_seconds=float(generator.choice([0, 0, 0.9, 2])),
    )
    gaps, shift = [], 0.0
    for place in sorted(generator.choice(count, min(count, seed % 4), replace=False).tolist()):
        if place > 0 and times[place] > times[place - 1]:  # a gap between two windows
            length = float(generator.choice([0.4, 3.0]))
            before = float(times[place - 1] + 0.1)
            times[place:] += length
            gaps.append((before, float(times[place] - 0.1)))
            shift += length
    return times, scores, rules, float(times[-1] + 0.3), gaps


def tracked(times, scores, rules, end, gaps, names=NAMES):
    tracker, found = SegmentTracker(names, rules), []
    waiting = list(gaps)
    for time, row in zip(times, scores, strict=True):
        if waiting and time >= waiting[0][0]:
            start, stop = waiting.pop(0)
            found += tracker.end_part(start)
            found += tracker.pass_time((start + stop) / 2)
            found += tracker.begin_part(stop)
        found += tracker.push(time, row)
    found += tracker.end_part(end)  # a source that broke before it was stopped
    return found + tracker.finish(end), tracker


@pytest.mark.parametrize("seed", range(80))
def test_the_same_segments(seed):
    times, scores, rules, end, gaps = drawn(seed)
    wanted = find_segments(times, scores, NAMES, rules, start_seconds=0.0, end_seconds=end, gaps=gaps)
    found, tracker = tracked(times, scores, rules, end, gaps)
    ended = [one for one in found if isinstance(one, Segment)]
    ended.sort(key=lambda one: (one.start_seconds, NAMES.index(one.label)))
    assert [(one.label, one.start_seconds, one.end_seconds) for one in ended] == [
        (one.label, one.start_seconds, one.end_seconds) for one in wanted
    ]
    np.testing.assert_allclose([one.score for one in ended], [one.score for one in wanted], rtol=1e-12)
    begun = [(one.label, one.start_seconds) for one in found if isinstance(one, Begun)]
    assert sorted(begun) == sorted((one.label, one.start_seconds) for one in wanted)
    assert not tracker._classes
    for one in wanted:  # each begins before it ends
        kinds = [type(other) for other in found if (other.label, other.start_seconds) == (one.label, one.start_seconds)]
        assert kinds == [Begun, Segment]


def test_the_draws_have_all_that_there_is_to_test():
    drawn_all = [drawn(seed) for seed in range(80)]
    found = [find_segments(*one[:2], NAMES, one[2], start_seconds=0.0, end_seconds=one[3], gaps=one[4])
             for one in drawn_all]  # fmt: skip
    assert sum(map(len, found)) > 100
    assert sum(len(one[4]) for one in drawn_all) > 25


def test_a_segment_begins_when_it_is_certain():
    tracker = SegmentTracker(("a",), SegmentRules(on=0.6, off=0.4, merge_seconds=1))
    assert tracker.push(0.5, [0.5]) == []
    assert tracker.push(1.0, [0.7]) == [Begun("a", 0.0, 0.7)]
    assert tracker.push(1.5, [0.1]) == []  # it may go on within a second
    assert tracker.push(2.0, [0.5]) == []
    assert tracker.push(2.25, [0.1]) == []  # that was none; another one could begin at 2.25
    assert tracker.push(2.5, [0.1]) == [Segment("a", 0.0, 1.25, 0.6)]
    assert tracker.finish(9.0) == []


def test_what_is_too_short_never_begins():
    tracker = SegmentTracker(("a",), SegmentRules(on=0.6, min_seconds=2))
    found = [tracker.push(0.5 * i, [0.9 if 2 <= i < 4 else 0.0]) for i in range(9)]
    assert not any(found)
    found = [tracker.push(4.5 + 0.5 * i, [0.9]) for i in range(6)]
    assert [len(one) for one in found] == [0, 0, 0, 0, 1, 0]


def test_rules_that_do_not_go_together():
    with pytest.raises(ConfigError, match="above"):
        SegmentTracker(("a",), SegmentRules(on=0.4, off=0.6))
