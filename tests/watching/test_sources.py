"""Servers, pipes, files and folders that break, stall, change and come back."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from evl.inference.segments import SegmentRules
from evl.watching import loop
from evl.watching.opening import FrameClock
from evl.watching.webhook import Webhook
from tests.helpers import write_video
from tests.watching.servers import BRIGHT, DARK, Stall, free_port, http_server, send_udp, stream
from tests.watching.test_webhook import receiver


def events_of(watch, *, until=None, seconds=30):
    """All events; ``until(event)`` stops it, or so many seconds do."""
    timer = threading.Timer(seconds, watch.stop)
    timer.daemon = True
    timer.start()
    found = []
    for event in watch:
        found.append(event)
        if until is not None and until(event):
            watch.stop()
    timer.cancel()
    return found


def states(events):
    return [event.state for event in events if event.kind == "state"]


def spans(events):
    """(class, length in frames of 1/25 s) of the segments that have ended."""
    ends = [event for event in events if event.kind == "end"]
    return [(event.label, round(25 * (event.seconds - event.start_seconds))) for event in ends]


def test_a_server_that_dies_stalls_and_comes_back(watched):
    dark_then_bright = stream([DARK] * 20 + [BRIGHT] * 20)
    other_size = stream([BRIGHT] * 30, start=50, size=(96, 128))
    with http_server(dark_then_bright, 503, [dark_then_bright, Stall], [dark_then_bright, other_size]) as (url, asked):
        watch = watched([f"{url.replace('//', '//ann:secret@')}/1?token=secret"], timeout=2.0, retries=1)
        events = events_of(watch)
    # where the size changes, the stream's counter jumps, as where a part is lost
    assert [state for state in states(events) if state != "damaged"] == [
        *("connected", "lost", "lost", "connected", "lost", "connected", "changed", "lost", "lost", "failed")
    ]
    assert spans(events)[:5] == [("dark", 20), ("bright", 20), ("dark", 20), ("bright", 20), ("dark", 20)]
    (label, length) = spans(events)[5]
    assert label == "bright"
    assert 45 <= length <= 50
    seconds = [event.seconds for event in events if event.kind == "end"]
    assert seconds == sorted(seconds)  # over breaks, too
    assert "secret" not in "".join(str(event.document()) for event in events)
    assert {event.source for event in events} == {f"{url}/1?…"}
    assert len(asked) == 6
    totals = watch.totals()
    assert totals.frames == totals.encoded
    assert 145 <= totals.frames <= 150
    assert (totals.breaks, totals.failed, totals.frames_left_out) == (5, 1, 0)
    assert not totals.is_whole


def test_a_server_that_states_a_length_has_an_end(watched):
    with http_server([("length", stream([DARK] * 20))]) as (url, asked):
        watch = watched([url])
        events = events_of(watch)
    assert states(events) == ["connected", "ended"]
    assert len(asked) == 1
    assert watch.totals().is_whole


@pytest.fixture
def sending():
    """``sending(port, content)`` sends it again and again, until the test ends."""
    over, threads = threading.Event(), []

    def start(port, content):
        def send():
            while not over.is_set():
                send_udp(port, content)

        threads.append(threading.Thread(target=send, daemon=True))
        threads[-1].start()

    yield start
    over.set()
    for thread in threads:
        thread.join(10)


def test_udp(watched, sending):
    port, begun = free_port(), set()
    sending(port, stream([DARK] * 50 + [BRIGHT] * 50))
    watch = watched([f"udp://127.0.0.1:{port}"])

    def has_both(event):
        begun.update({event.label} if event.kind == "begin" else ())
        return begun == {"dark", "bright"}

    events = events_of(watch, until=has_both)
    assert states(events)[0] == "connected"
    assert begun == {"dark", "bright"}


@pytest.mark.slow
def test_udp_that_stalls_and_changes(watched):
    port = free_port()

    def send():
        time.sleep(0.5)
        send_udp(port, stream([DARK] * 50))
        time.sleep(3)
        for _ in range(4):
            send_udp(port, stream([BRIGHT] * 60, start=50, size=(96, 128)))

    threading.Thread(target=send, daemon=True).start()
    watch = watched([f"udp://127.0.0.1:{port}"], timeout=1.0)
    events = events_of(watch, until=lambda event: event.label == "bright")
    kinds = [state for state in states(events) if state != "damaged"]  # packets from before the stall
    assert kinds[0] == "connected"
    assert kinds[-2:] == ["connected", "changed"]
    assert set(kinds[1:-2]) == {"lost"}
    assert [event.label for event in events if event.kind == "begin"] == ["dark", "bright"]


def test_several_sources_of_which_one_is_away(watched):
    port = free_port()
    with http_server([("length", stream([DARK] * 20))]) as (url, _):
        watch = watched([url, f"http://127.0.0.1:{port}/"], retries=1)
        events = events_of(watch)
    by_source = {source: states([e for e in events if e.source == source]) for source in {e.source for e in events}}
    assert by_source[url] == ["connected", "ended"]
    assert by_source[f"http://127.0.0.1:{port}/"] == ["lost", "failed"]


@pytest.mark.skipif(os.path.exists("/dev/video7"), reason="there is such a camera")
def test_a_camera_that_is_not_there(watched):
    (event,) = events_of(watched([7], retries=0))
    assert (event.source, event.state, event.text) == ("/dev/video7", "failed", "no such file or directory")


def test_events_are_posted(watched, tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "a.ts").write_bytes(stream([DARK] * 20 + [BRIGHT] * 20))
    with receiver() as (port, got):
        watch = watched([tmp_path / "a.ts"], scores=True, webhook=Webhook(f"http://127.0.0.1:{port}/"))
        events = events_of(watch)
        assert [body for _, _, body, _ in got] == [e.document() for e in events if e.kind != "scores"]
    assert sum(event.kind == "scores" for event in events) > 30
    assert (watch.totals().webhook_sent, watch.totals().webhook_lost) == (len(got), 0)


def test_posts_that_are_lost_make_it_incomplete(watched, tmp_path):
    (tmp_path / "a.ts").write_bytes(stream([DARK] * 20))
    with receiver(last=400) as (port, _):
        watch = watched([tmp_path / "a.ts"], webhook=Webhook(f"http://127.0.0.1:{port}/"))
        events = events_of(watch)
    assert watch.totals().webhook_lost == len(events)
    assert not watch.totals().is_whole


def test_a_file_that_grows(watched, tmp_path):
    path, content = tmp_path / "grows.ts", stream([DARK] * 80 + [BRIGHT] * 30)
    path.write_bytes(content[: len(content) // 2])

    def grow(event):
        if event.kind == "begin" and event.label == "dark":
            with open(path, "ab") as file:
                file.write(content[len(content) // 2 :])

    watch = watched([path], follow=True, timeout=2.0)
    events = events_of(watch, until=grow)
    assert states(events) == ["connected", "ended"]
    assert spans(events) == [("dark", 80), ("bright", 30)]


def test_a_file_that_is_replaced(watched, tmp_path):
    path = tmp_path / "log.ts"
    path.write_bytes(stream([DARK] * 30))

    def replace(event):
        if event.state == "connected" and not (tmp_path / "new").exists():
            (tmp_path / "new").touch()
            (tmp_path / "next.ts").write_bytes(stream([BRIGHT] * 30))
            (tmp_path / "next.ts").replace(path)
        return False

    events = events_of(watched([path], follow=True, timeout=2.0), until=replace)
    assert states(events) == ["connected", "lost", "connected", "ended"]
    assert spans(events) == [("dark", 30), ("bright", 30)]


def test_a_pipe_that_is_silent_for_a_while(watched, tmp_path):
    path, content, goes_on = tmp_path / "pipe", stream([DARK] * 30 + [BRIGHT] * 30), threading.Event()
    os.mkfifo(path)

    def write():
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            goes_on.wait(20)
            file.write(content[len(content) // 2 :])

    threading.Thread(target=write, daemon=True).start()
    # the silence may be noticed while libav still looks for what the stream is
    events = events_of(watched([path], timeout=0.4), until=lambda event: event.state == "silent" and goes_on.set())
    assert set(states(events)) == {"silent", "connected", "ended"}
    assert spans(events) == [("dark", 30), ("bright", 30)]


def test_a_folder(watched, tmp_path):
    def film(name, level):
        write_video(tmp_path / "made.mp4", np.full((12, 48, 64, 3), level, np.uint8))
        (tmp_path / "made.mp4").replace(tmp_path / "in" / name)

    (tmp_path / "in").mkdir()
    film("a.mp4", DARK)
    (tmp_path / "in/b.mp4").write_bytes(b"no video")

    def put(event):
        if event.state == "ended" and event.source.endswith("a.mp4"):
            film("c.mp4", BRIGHT)
        return event.state == "ended" and event.source.endswith("c.mp4")

    watch = watched([tmp_path / "in"])
    events = events_of(watch, until=put)
    ends = [(Path(event.source).name, event.label, event.start_seconds) for event in events if event.kind == "end"]
    assert ends == [("a.mp4", "dark", 0.0), ("c.mp4", "bright", 0.0)]
    (failed,) = [event for event in events if event.state == "failed"]
    assert failed.source == str(tmp_path / "in/b.mp4")
    assert (watch.totals().failed, watch.totals().files) == (1, 2)


def test_a_slow_model_leaves_out_frames(watched, monkeypatch):
    quick = loop.score_windows

    def slow(*given):
        until = time.monotonic() + 20
        while watch._feeds[0].counts.frames < 300 and time.monotonic() < until:
            time.sleep(0.01)
        return quick(*given)

    monkeypatch.setattr(loop, "score_windows", slow)
    with http_server([("length", stream([DARK] * 200 + [BRIGHT] * 100))]) as (url, _):
        watch = watched([url], leave_out=True)
        events = events_of(watch)
    totals = watch.totals()
    assert totals.frames == 300
    assert totals.frames_left_out > 150
    assert totals.encoded + totals.frames_left_out == 300
    said = [event.text for event in events if event.state == "left out"]
    assert said[-1].split("(")[1].startswith(f"{totals.frames_left_out} so far")
    assert spans(events)[-1][0] == "bright"  # the newest ones are there


def test_segments_are_held_over_a_short_break(watched):
    parts = stream([BRIGHT] * 20), stream([BRIGHT] * 20, size=(96, 128))
    with http_server(*parts) as (url, _):
        events = events_of(watched([url], retries=0, rules=SegmentRules(on=0.6, off=0.5, merge_seconds=100)))
    assert [event.kind for event in events if event.kind != "state"] == ["begin", "end"]
    assert states(events)[:4] == ["connected", "lost", "connected", "changed"]
    assert "the picture changes from 64×48 to 128×96" in [event.text for event in events]


def test_stopping_ends_what_is_open(watched):
    with http_server([stream([DARK] * 60), Stall]) as (url, _):
        watch = watched([url], timeout=20.0)
        began = time.monotonic()
        events = events_of(watch, until=lambda event: event.kind == "begin")
        assert time.monotonic() - began < 15  # the server does not answer any more
    assert [event.kind for event in events if event.kind != "state"] == ["begin", "end"]
    assert watch.totals().is_whole


def test_leaving_the_loop_ends_the_threads(watched, tmp_path):
    path = tmp_path / "a.ts"
    path.write_bytes(stream([DARK] * 100))
    with watched([path]) as watch:
        next(watch)
    assert all(feed.stop.is_set() for feed in watch._feeds)
    with pytest.raises(StopIteration):
        next(watch)


class Rate:
    average_rate, guessed_rate = 50, None


def test_times_that_stand_still_or_are_missing():
    clock = FrameClock(Rate)
    assert [clock.seconds(one) for one in (3.0, 3.0, 3.02)] == [3.0, 3.0, 3.02]
    found = [clock.seconds(3.02) for _ in range(60)]
    assert found[:20] == [3.02] * 20
    assert found[-1] > 3.6
    assert clock.seconds(9.0) == 9.0
    clock = FrameClock(Rate)
    assert [clock.seconds(None) for _ in range(3)] == [0.0, 0.02, 0.04]


def test_times_that_wrap_and_repeat(watched, tmp_path):
    wrap = 2**33
    pts = [wrap - 90000 + 3600 * number for number in range(50)]  # one second before the wrap
    pts[10] = pts[9] + 1  # nearly the same time
    levels = [DARK] * 25 + [BRIGHT] * 25
    whole = stream(levels, pts=pts)
    starts = (7000 * 90000, 80000 * 90000)  # the clock is set twice more
    joined = whole + b"".join(stream(levels, pts=[start + 3600 * n for n in range(50)]) for start in starts)
    (tmp_path / "wraps.ts").write_bytes(joined)
    events = events_of(watched([tmp_path / "wraps.ts"], follow=True, timeout=0.3))
    assert [label for label, _ in spans(events)] == ["dark", "bright"] * 3
    assert all(20 <= length <= 30 for _, length in spans(events))
