"""Scores of windows → segments, against a plain twin."""

import itertools

import numpy as np
import pytest

from evl.errors import ConfigError
from evl.inference.segments import SegmentRules, find_segments, smoothed

NAMES = ("run", "jump")


def plain_segments(times, scores, names, rules, start, end):
    """Window by window, for windows at equal steps of which none is missing."""
    on, off = rules.thresholds(names)
    half, found = rules.smooth // 2, []
    means = [[np.mean([scores[j][y] for j in range(max(0, i - half), min(len(times), i + half + 1))])
              for y in range(len(names))] for i in range(len(times))]  # fmt: skip
    borders = [start, *[(a + b) / 2 for a, b in itertools.pairwise(times)], end]
    for y, name in enumerate(names):
        open_run, runs = None, []
        for i in range(len(times) + 1):
            if i < len(times) and means[i][y] >= off[y]:
                open_run = [*(open_run or []), i]
            elif open_run:
                if max(means[j][y] for j in open_run) >= on[y]:
                    runs.append(open_run)
                open_run = None
        place = 0
        while place + 1 < len(runs):
            gap = borders[runs[place + 1][0]] - borders[runs[place][-1] + 1]
            if rules.merge_seconds > 0 and gap <= rules.merge_seconds:
                runs[place : place + 2] = [runs[place] + runs[place + 1]]
            else:
                place += 1
        for run in runs:
            a, b = borders[run[0]], borders[run[-1] + 1]
            if b - a >= rules.min_seconds:
                found.append((a, y, name, b, np.mean([means[j][y] for j in run])))
    return [(name, a, b, score) for a, _, name, b, score in sorted(found)]


@pytest.mark.parametrize("seed", range(60))
def test_as_the_plain_twin(seed):
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, 40))
    times = 1.0 + 0.5 * np.arange(count)
    scores = generator.random((count, 2))
    rules = SegmentRules(
        on={"run": 0.7} if seed % 3 == 0 else 0.6,
        off=0.4 if seed % 2 else None,
        smooth=int(generator.choice([1, 3, 5])),
        merge_seconds=float(generator.choice([0, 0.5, 1.2])),
        min_seconds=float(generator.choice([0, 0.9, 2])),
    )
    start, end = 0.25, float(times[-1] + 0.9)
    got = find_segments(times, scores, NAMES, rules, start_seconds=start, end_seconds=end)
    wanted = plain_segments(times.tolist(), scores.tolist(), NAMES, rules, start, end)
    assert [one.label for one in got] == [one[0] for one in wanted]
    for one, (_, a, b, score) in zip(got, wanted, strict=True):
        assert (one.start_seconds, one.end_seconds, one.score) == pytest.approx((a, b, score))


def test_two_thresholds():
    times = np.arange(7.0)
    scores = np.array([0.1, 0.5, 0.9, 0.5, 0.1, 0.5, 0.1])[:, None]
    (one,) = find_segments(times, scores, ("run",), SegmentRules(on=0.8, off=0.4))
    assert (one.start_seconds, one.end_seconds) == (0.5, 3.5)  # the second hill never reaches 0.8
    assert one.score == pytest.approx((0.5 + 0.9 + 0.5) / 3)


def test_where_windows_are_missing_there_is_no_segment():
    times, scores = np.array([2, 3, 7, 8, 9.0]), np.ones((5, 1))
    where = dict(start_seconds=-1, end_seconds=12, gaps=[(-1, 1.5), (3.5, 6.5), (9.5, 12)])
    found = find_segments(times, scores, ("run",), **where)
    assert [(one.start_seconds, one.end_seconds) for one in found] == [(1.5, 3.5), (6.5, 9.5)]
    (one,) = find_segments(times, scores, ("run",), SegmentRules(merge_seconds=3), **where)
    assert (one.start_seconds, one.end_seconds) == (1.5, 9.5)


def test_smoothing_does_not_cross_missing_windows():
    times = np.array([0, 1, 2, 7, 8, 9.0])
    scores = np.array([0, 0, 0, 1, 1, 1.0])[:, None]
    (one,) = find_segments(times, scores, ("run",), SegmentRules(on=0.9, smooth=3), gaps=[(2.5, 6.5)])
    assert one.score == 1


def test_smoothed_keeps_constant_scores():
    assert smoothed(np.full((9, 2), 0.3), 5) == pytest.approx(np.full((9, 2), 0.3))


def test_no_windows_no_segments():
    assert find_segments(np.zeros(0), np.zeros((0, 2)), NAMES) == ()


@pytest.mark.parametrize(
    ("rules", "word"),
    [
        (dict(on=1.5), "from 0 to 1"),
        (dict(on=0.3, off=0.5), "above"),
        (dict(on={"runn": 0.5}), "no class 'runn'"),
        (dict(smooth=2), "odd"),
        (dict(min_seconds=-1), "at least 0"),
    ],
)
def test_rules_that_cannot_be(rules, word):
    with pytest.raises(ConfigError, match=word):
        find_segments(np.arange(3.0), np.ones((3, 2)), NAMES, SegmentRules(**rules))
