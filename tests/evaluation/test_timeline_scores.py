"""Scores of timelines against plain twins, and against cases worked out by hand from the published rules."""

import itertools

import numpy as np
import pytest

from evl.evaluation.timelines.judged import LOOSE, STRICT, THRESHOLDS, Event, JudgedTimelines, JudgedVideo, events_of
from evl.evaluation.timelines.matching import average_precision, counts_of_track, detections, edit_score
from evl.evaluation.timelines.metrics import TIMELINE_METRICS, TimelineScores
from evl.evaluation.timelines.tracks import joined, track_of
from evl.inference.segments import Segment, SegmentRules
from evl.inference.timeline import Gap, Timeline

NAMES = ("a", "b", "c")
END = 40.0


def segment(label, start, end, score=1.0):
    return Segment(label, float(start), float(end), float(score))


# --- by hand --------------------------------------------------------------------------------------------------------


def test_average_precision_worked_out_by_hand():
    """ActivityNet's rules. Two videos, four true segments; found, the best first:

    0.9: IoU 0.8 with the first: right. 0.8: IoU 0.8 with the same one, which is taken: wrong. 0.7: IoU 2/3 with the
    second: right at 0.5, wrong at 0.7. 0.6: in the other video, IoU 1: right. 0.5: touches nothing: wrong.
    At 0.5: precisions 1, 1/2, 2/3, 3/4, 3/5; the best at or after each hit: 1, 3/4, 3/4. AP = (1 + 3/4 + 3/4) / 4.
    At 0.7: precisions 1, 1/2, 1/3, 2/4, 2/5; hits 1 and 4: AP = (1 + 1/2) / 4.
    """
    truth = [[segment("a", 0, 10), segment("a", 20, 30)], [segment("a", 0, 4), segment("a", 8, 9)]]
    found = [
        [segment("a", 0, 8, 0.9), segment("a", 2, 10, 0.8), segment("a", 22, 32, 0.7), segment("a", 35, 36, 0.5)],
        [segment("a", 0, 4, 0.6)],
    ]
    videos = [JudgedVideo(str(place), tuple(right), tuple(said), (0.0, END))
              for place, (right, said) in enumerate(zip(truth, found, strict=True))]  # fmt: skip
    judged = JudgedTimelines(tuple(videos), ("a",))
    precisions = judged.whole.average_precisions[0, 0]
    assert precisions[THRESHOLDS.index(0.5)] == pytest.approx((1 + 0.75 + 0.75) / 4)
    assert precisions[THRESHOLDS.index(0.7)] == pytest.approx((1 + 0.5) / 4)
    assert precisions[THRESHOLDS.index(0.8)] == pytest.approx((1 + 0.5) / 4)  # an IoU of 0.8 is enough at 0.8
    assert precisions[THRESHOLDS.index(0.85)] == pytest.approx(0.25 * 0.25)  # only the fourth: precision 1/4


def test_a_found_segment_takes_the_best_true_one_that_is_free():
    """The second one overlaps most with what is taken (0.9), but also enough with the other (0.5): right."""
    truth = [segment("a", 0, 10), segment("a", 5, 15)]
    _, hits = detections([segment("a", 0, 10, 0.9), segment("a", 1, 10, 0.8)], truth, (0.3, 0.5))
    assert hits.tolist() == [[True, True], [True, False]]  # 5 of 14 s
    _, hits = detections([segment("a", 0, 10, 0.9), segment("a", 2, 12, 0.8)], truth, (0.5,))
    assert hits.tolist() == [[True], [True]]  # 7 of 13 s


def test_f1_worked_out_by_hand():
    """Lea's rules: the second piece of the same event is wrong, and so is one that looks at a taken event first."""
    truth = [segment("a", 0, 10), segment("b", 10, 20), segment("a", 22, 24)]
    track = [segment("a", 0, 5), segment("a", 6, 10), segment("b", 12, 21), segment("c", 30, 31)]
    assert counts_of_track(track, truth, 0.25) == (2, 2, 1)
    assert counts_of_track(track, truth, 0.5) == (2, 2, 1)  # 5 of 10 s is enough
    assert counts_of_track(track, truth, 0.75) == (0, 4, 3)
    # in detection the second one would take the event that is still free
    truth, track = [segment("a", 0, 10), segment("a", 5, 15)], [segment("a", 0, 10), segment("a", 1, 10)]
    assert counts_of_track(track, truth, 0.3) == (1, 1, 1)


@pytest.mark.parametrize(
    ("found", "truth", "score"),
    [("", "", 100), ("abc", "abc", 100), ("", "ab", 0), ("ab", "", 0), ("abc", "ac", 100 * 2 / 3), ("ba", "ab", 0),
     ("aab", "ab", 100 * 2 / 3), ("kitten", "sitting", 100 * (1 - 3 / 7))],
)  # fmt: skip
def test_edit_scores_by_hand(found, truth, score):
    assert edit_score([*found], [*truth]) == pytest.approx(score)


# --- plain twins ----------------------------------------------------------------------------------------------------


def iou(one, other):
    shared = min(one.end_seconds, other.end_seconds) - max(one.start_seconds, other.start_seconds)
    total = (one.end_seconds - one.start_seconds) + (other.end_seconds - other.start_seconds) - max(0, shared)
    return max(0, shared) / total


def plain_ap(videos, label, threshold):
    said = sorted(
        ((one, place) for place, video in enumerate(videos) for one in video.found if one.label == label),
        key=lambda pair: -pair[0].score,
    )
    free = [[one for one in video.truth if one.label == label] for video in videos]
    total, hits = sum(map(len, free)), []
    for one, place in said:
        able = [other for other in free[place] if iou(one, other) >= threshold - 1e-9]
        if able:
            free[place].remove(max(able, key=lambda other: iou(one, other)))
        hits.append(bool(able))
    precisions = [sum(hits[: i + 1]) / (i + 1) for i in range(len(hits))]
    area = sum(max(precisions[i:]) for i in range(len(hits)) if hits[i])
    return area / total if total else None


def plain_frames(videos):
    """Frames of 1/8 s, whose labels are those in the frame's middle."""
    table, several = np.zeros((len(NAMES) + 1,) * 2), 0
    for video, step in itertools.product(videos, range(int(END * 8))):
        time = (step + 0.5) / 8
        right = {one.label for one in video.truth if one.start_seconds <= time < one.end_seconds}
        said = [one for one in video.found if one.start_seconds <= time < one.end_seconds]
        if any(start <= time < end for start, end in video.gaps):
            continue
        if len(right) > 1:
            several += 1
            continue
        best = min(said, key=lambda one: (-one.score, one.start_seconds)).label if said else None
        table[(*NAMES, None).index(next(iter(right), None)), (*NAMES, None).index(best)] += 1
    return table / 8, several / 8


def labels_in(segments, end=END):
    """Labels of frames of 1/8 s, and runs of them: how action segmentation gets its segments."""
    frames = []
    for step in range(int(end * 8)):
        time = (step + 0.5) / 8
        here = [one for one in segments if one.start_seconds <= time < one.end_seconds]
        frames.append(min(here, key=lambda one: (-one.score, one.start_seconds)).label if here else None)
    runs, place = [], 0
    for label, group in itertools.groupby(frames):
        length = len(list(group))
        if label is not None:
            runs.append(segment(label, place / 8, (place + length) / 8))
        place += length
    return runs


def plain_f1(videos, share):
    right = wrong = missed = 0
    for video in videos:
        free = labels_in(video.truth)
        every = list(free)
        for one in labels_in(video.found):
            same = [other for other in every if other.label == one.label]
            best = max(same, key=lambda other: iou(one, other), default=None)
            if best is not None and iou(one, best) >= share - 1e-9 and best in free:
                free.remove(best)
                right += 1
            else:
                wrong += 1
        missed += len(free)
    return 100 * 2 * right / max(1, 2 * right + wrong + missed)


def plain_edit(found, truth):
    if not found or not truth:
        return len(found) + len(truth)
    return min(
        plain_edit(found[1:], truth) + 1,
        plain_edit(found, truth[1:]) + 1,
        plain_edit(found[1:], truth[1:]) + (found[0] != truth[0]),
    )


def plain_scores(videos):
    table, _ = plain_frames(videos)
    rows, columns = table.sum(1), table.sum(0)
    labeled = [y for y in range(len(NAMES)) if rows[y]]
    edits = []
    for video in videos:
        found, truth = ([one.label for one in labels_in(part)] for part in (video.found, video.truth))
        longest = max(len(found), len(truth))
        edits.append(100 * (1 - plain_edit(found, truth) / longest) if longest else 100)
    precisions = {
        threshold: [ap for name in NAMES if (ap := plain_ap(videos, name, threshold)) is not None]
        for threshold in THRESHOLDS
    }
    events = [one for video in videos for one in video.events]
    delays = sorted(one.delay for one in events if np.isfinite(one.delay))
    return {
        "map_30_70": 100 * np.mean([np.mean(precisions[one]) for one in LOOSE]),
        "map_50_95": 100 * np.mean([np.mean(precisions[one]) for one in STRICT]),
        "map_50": 100 * np.mean(precisions[0.5]),
        **{f"f1_{round(100 * share)}": plain_f1(videos, share) for share in (0.1, 0.25, 0.5)},
        "edit": np.mean(edits),
        "frame_accuracy": 100 * table.trace() / table.sum(),
        "frame_precision": 100 * np.mean([table[y, y] / columns[y] if columns[y] else 0 for y in labeled]),
        "frame_recall": 100 * np.mean([table[y, y] / rows[y] for y in labeled]),
        "events_found": 100 * len(delays) / len(events),
        "delay": delays[(len(delays) - 1) // 2] if delays else None,
        "chance": 100 * rows.max() / table.sum(),
    }


def made_videos(seed, count=4, *, several=False):
    """Random segments at eighths of a second; true ones overlap only with ``several``."""
    generator = np.random.default_rng(seed)
    videos = []
    for place in range(count):
        truth, time = [], 0.0
        while (time := time + generator.integers(1, 40) / 8) < END - 8:
            end = time + generator.integers(4, 60) / 8
            truth.append(segment(generator.choice(NAMES), time, end))
            time = time + 0.5 if several else end
        found = []
        for one in truth:
            if generator.random() < 0.8:
                shift = generator.integers(-8, 9, 2) / 8
                label = one.label if generator.random() < 0.8 else generator.choice(NAMES)
                start = max(0.0, one.start_seconds + shift[0])
                end = max(start + 0.25, one.end_seconds + shift[1])
                found.append(segment(label, start, end, generator.random()))
        found += [segment(generator.choice(NAMES), start := generator.integers(0, 280) / 8, start + 2.5,
                          generator.random()) for _ in range(3)]  # fmt: skip
        gaps = ((10.0, 11.5),) if place == 1 else ()
        events = tuple(Event(one.label, *(generator.random(2) if generator.random() < 0.8 else (np.nan, np.nan)))
                       for one in truth)  # fmt: skip
        videos.append(JudgedVideo(str(place), tuple(truth), tuple(found), (0.0, END), gaps, events))
    return videos


@pytest.mark.parametrize("seed", range(6))
def test_all_scores_as_the_plain_twins(seed):
    videos = made_videos(seed)
    scores = TimelineScores.of(JudgedTimelines(tuple(videos), NAMES))
    plain = plain_scores(videos)
    assert set(plain) == set(TIMELINE_METRICS) - {"live_delay"}
    for name, value in plain.items():
        assert scores.scores[name].value == pytest.approx(value), name
    assert scores.map_by_threshold[0.3] > scores.map_by_threshold[0.95]


def test_time_with_several_labels_is_left_out_and_counted():
    videos = made_videos(0, several=True)
    judged = JudgedTimelines(tuple(videos), NAMES)
    table, left_out = plain_frames(videos)
    assert left_out > 10
    assert judged.left_out.sum() == pytest.approx(left_out)
    np.testing.assert_allclose(judged.seconds.sum(0), table)


def test_intervals_are_those_of_videos_that_are_really_drawn():
    """A draw has the scores of a list in which each video stands as often as it was drawn."""
    judged = JudgedTimelines(tuple(made_videos(3, 5)), NAMES)
    drawn = judged.drawn
    assert drawn.weights.shape == (1000, 5)
    assert (drawn.weights.sum(1) == 5).all()
    spread = {name: metric.interval(metric.compute(judged), judged) for name, metric in TIMELINE_METRICS.items()}
    for name, (low, high) in spread.items():
        assert low < TIMELINE_METRICS[name].compute(judged) <= high or name == "chance", name
    for row in (0, 7, 400):
        repeated = [video for video, times in zip(judged.videos, drawn.weights[row], strict=True)
                    for _ in range(int(times))]  # fmt: skip
        wanted = TimelineScores.of(JudgedTimelines(tuple(repeated), NAMES))
        one = type(drawn)(judged, drawn.weights[row : row + 1])
        aps = 100 * np.nanmean(one.average_precisions[0], 0)
        for place, threshold in enumerate(THRESHOLDS):
            assert aps[place] == pytest.approx(wanted.map_by_threshold[threshold])
        assert one.seconds.trace(axis1=1, axis2=2)[0] / one.seconds.sum() * 100 == pytest.approx(wanted.frame_accuracy)


def test_one_video_has_no_interval():
    scores = TimelineScores.of(JudgedTimelines(tuple(made_videos(0, 1)), NAMES))
    assert all(one.interval is None for one in scores.scores.values())


def test_nothing_found_and_nothing_to_find():
    empty = JudgedVideo("x", (), (), (0.0, END))
    truth = (segment("a", 1, 2),)
    missed = JudgedVideo("y", truth, (), (0.0, END), (), (Event("a", np.nan, np.nan),))
    scores = TimelineScores.of(JudgedTimelines((empty, missed), NAMES))
    assert (scores.map_50, scores.f1_50, scores.events_found, scores.edit) == (0, 0, 0, 50)
    assert np.isnan(scores.delay)
    assert scores.to_dict()["delay"] is None
    scores = TimelineScores.of(JudgedTimelines((empty,), NAMES))
    assert (scores.f1_50, scores.edit, scores.frame_accuracy) == (100, 100, 100)
    assert np.isnan(scores.map_50)
    assert average_precision(np.zeros(0, bool), np.zeros((2, 0)), np.array([0.0, 3.0])).tolist()[1] == 0


def test_tracks():
    found = [segment("a", 0, 10, 0.5), segment("b", 4, 6, 0.9), segment("b", 9, 12, 0.4), segment("b", 12, 14, 0.7)]
    shown = [(one.label, one.start_seconds, one.end_seconds) for one in track_of(found, 0, END)]
    assert shown == [("a", 0, 4), ("b", 4, 6), ("a", 6, 10), ("b", 10, 14)]
    shown = [(one.label, one.start_seconds, one.end_seconds) for one in joined([*found, segment("a", 20, 21)])]
    assert shown == [("a", 0, 10), ("b", 4, 6), ("b", 9, 14), ("a", 20, 21)]


# --- delays ---------------------------------------------------------------------------------------------------------


def line_of(scores, **rules):
    """Windows of one second, one each half second: the first is from 0 to 1."""
    scores = np.array(scores, np.float64)
    times = 0.5 + 0.5 * np.arange(len(scores))
    frames = np.zeros((len(scores), 2), np.int64)
    line = Timeline("x", times, np.stack([scores, 1 - scores], 1), frames, ("a", "background"),
                    start_seconds=0.0, end_seconds=float(times[-1] + 0.5), ends=times + 0.5)  # fmt: skip
    return line.with_rules(SegmentRules(**rules))


def test_delays_by_hand():
    line = line_of([0, 0, 0, 0.4, 0.9, 0.9, 0.9, 0, 0, 0], on=0.8, off=0.3)
    assert [(one.start_seconds, one.end_seconds) for one in line.segments] == [(1.75, 3.75)]
    # windows at 2.0 (0.4) to 3.5; the first window that says it is at 2.0. 0.9 comes at 2.5, whose last frame is at 3
    (event,) = events_of(line, [segment("a", 1.5, 4)])
    assert event == ("a", 0.5, 1.5)
    (event,) = events_of(line, [segment("a", 3.2, 4)])
    assert event == ("a", 0, 0)  # it was said before
    (event,) = events_of(line, [segment("a", 3.75, 4)])
    assert np.isnan(event.delay)
    assert events_of(line, [segment("a", 1.8, 2)])[0].delay == pytest.approx(0.2)
    # a mean of three windows needs the one after; a shortest length must have passed
    smooth = line_of([0, 0, 0, 0.9, 0.9, 0.9, 0.9, 0, 0, 0], on=0.8, off=0.3, smooth=3)
    (event,) = events_of(smooth, [segment("a", 1.5, 4)])
    assert event.live_delay == pytest.approx(
        3.0 + 0.5 - 1.5
    )  # window 2.5 has the mean 0.9, with the one that ends at 3.5
    long = line_of([0, 0, 0, 0.9, 0.9, 0.9, 0.9, 0, 0, 0], on=0.8, off=0.3, min_seconds=1.5)
    (event,) = events_of(long, [segment("a", 1.5, 4)])
    assert event.live_delay == pytest.approx(4.0 - 1.5)  # the window at 3.5 is the first 1.5 s after 1.75


def test_damaged_stretches_are_part_of_the_span_but_of_no_frame_score():
    line = line_of([0.9] * 8, on=0.5)
    damaged = Timeline(line.path, line.times, line.scores, line.frames, line.class_names, start_seconds=0.0,
                       end_seconds=4.5, damaged=(Gap(4.0, 4.5, "x"),)).with_rules(line.rules)  # fmt: skip
    video = JudgedVideo.of(damaged, [segment("a", 0, 4.5)])
    judged = JudgedTimelines((video,), ("a",))
    assert judged.seconds.sum() == pytest.approx(4.0)
    assert judged.whole.seconds[0, 0, 0] == pytest.approx(4.0)
