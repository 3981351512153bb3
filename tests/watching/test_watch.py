"""With a real model: what is watched is the timeline of the file, and sources share the encoder's batches."""

import json

import numpy as np
import pytest

import evl
from evl.errors import ConfigError
from evl.inference.live import Costs, Live, score_windows
from evl.streams.windows import FrameEncoder
from tests.inference.test_live import frames_of, pushed
from tests.inference.test_timeline import DECODERS, untrained
from tests.inference.test_timeline import film as film  # a fixture


def test_a_file_as_its_timeline(film, tmp_path):
    model = untrained()
    rules = dict(on=0.45, off=0.35, smooth=3, merge_seconds=0.1, min_seconds=0.2)
    line = evl.timeline(model, film, **rules)
    with evl.watch(model, film, **rules, scores=True) as watch:
        events = list(watch)
    scores = [event for event in events if event.kind == "scores"]
    np.testing.assert_allclose([list(one.scores.values()) for one in scores], line.scores, atol=1e-5)
    np.testing.assert_allclose([one.seconds for one in scores], line.times, atol=1e-6)
    ends = sorted((one.start_seconds, one.label, one.seconds, one.score) for one in events if one.kind == "end")
    wanted = sorted((one.start_seconds, one.label, one.end_seconds, one.score) for one in line.segments)
    assert len(wanted) > 2
    assert [one[1] for one in ends] == [one[1] for one in wanted]
    np.testing.assert_allclose([one[::2] for one in ends], [one[::2] for one in wanted], atol=1e-5)
    np.testing.assert_allclose([one[3] for one in ends], [one[3] for one in wanted], atol=1e-5)
    totals = watch.totals()
    assert (totals.frames, totals.encoded, totals.windows) == (61, len(np.unique(line.frames)), len(line.times))
    assert totals.encoder_seconds > 0 < totals.delay_p95_seconds
    documents = [json.loads(json.dumps(event.document())) for event in events]
    assert {one["event"] for one in documents} == {"begin", "end", "scores", "state"}


@pytest.mark.parametrize(
    "form", ["evl", *(pytest.param(one, marks=pytest.mark.slow) for one in ("side, causal", "own"))]
)
def test_sources_share_the_encoders_batches(film, form, monkeypatch):
    model, frames = untrained(DECODERS[form]), frames_of(film)[:31]
    # the second source shows the same, later and backwards
    others = [(picture, 100 + time) for (picture, _), (_, time) in zip(frames[::-1], frames, strict=True)]
    wanted = [pushed(Live(model), one) for one in (frames, others)]
    sizes = []
    encode = FrameEncoder.encode
    monkeypatch.setattr(FrameEncoder, "encode", lambda self, views: sizes.append(len(views)) or encode(self, views))
    lives, found, costs = [Live(model), Live(model)], [[], []], Costs()
    for start in range(0, len(frames), 7):
        windows = [[], []]
        for live, source, own in zip(lives, (frames, others), windows, strict=True):
            for picture, time in source[start : start + 7]:
                own += live.choose(lambda picture=picture: picture, time)
        for own, rows in zip(found, score_windows(list(zip(lives, windows, strict=True)), costs), strict=True):
            own += rows
    for live, own, (times, scores) in zip(lives, found, wanted, strict=True):
        own += score_windows([(live, live.last_windows())])[0]
        np.testing.assert_allclose(own, scores, atol=1e-5)
        assert live.time_seconds == pytest.approx(times[-1])
        assert live.num_encoded == 11
    assert sum(sizes) == 22
    assert max(sizes) >= 4  # and so less often than frame by frame
    assert costs.encoder > 0 < costs.decoder


def test_states_of_several_sources(film):
    model, frames = untrained(DECODERS["side, causal"]), frames_of(film)[:31]
    others = [(255 - picture, time) for picture, time in frames]
    wanted = [pushed(Live(model, memory=16), one)[1] for one in (frames, others)]
    lives, found = [Live(model, memory=16), Live(model, memory=16)], [[], []]
    for one, other in zip(frames, others, strict=True):
        chosen = [
            (live, live.choose(lambda picture=picture: picture, time))
            for live, (picture, time) in zip(lives, (one, other), strict=True)
        ]
        for own, rows in zip(found, score_windows(chosen), strict=True):
            own += rows
    for own, scores in zip(found, wanted, strict=True):
        np.testing.assert_allclose(own, scores, atol=1e-5)


def test_frames_that_were_left_out_count(film):
    """A stride is in frames of the source, also of those that nobody saw."""
    model, frames = untrained(), frames_of(film)
    live, found = Live(model), []
    for number in range(0, len(frames), 3):  # every third one is all that a window with this stride needs
        found += live.choose(lambda number=number: frames[number][0], frames[number][1], left_out=2 if number else 0)
    (scores,) = score_windows([(live, found)])
    np.testing.assert_allclose(scores, evl.timeline(model, film).scores[: len(scores)], atol=1e-5)
    assert len(scores) > 10


@pytest.mark.parametrize(
    ("how", "word"),
    [
        (dict(sources=[]), "expected a source"),
        (dict(sources="no/such"), "cannot be watched"),
        (dict(timeout=0.0), "`timeout=0`"),
        (dict(retries=-1), "`retries=-1`"),
        (dict(webhook="ftp://host/"), "expected an address"),
        (dict(every_seconds=1.0), "needs `stride_rate`"),
        (dict(on=0.2, off=0.4), "above"),
        (dict(memory=4), "causal"),
        (dict(stide=4), "no argument"),
    ],
)
def test_wrong_arguments(film, how, word):
    with pytest.raises(ConfigError, match=word):
        evl.watch(untrained(), **{"sources": film, **how})


def test_a_source_that_is_given_twice(film):
    with pytest.raises(ConfigError, match="twice"):
        evl.watch(untrained(), [film, film])
