"""The waiting room: the newest frames stay, what is left out is counted, and no message is lost."""

import threading
import time

from evl.watching.room import Closed, Counts, Opened, Said, Shown, WaitingRoom


def shown(number):
    return Shown(float(number), lambda: None, 0.0)


def test_the_newest_frames_stay_and_the_rest_is_counted():
    room, counts = WaitingRoom(most=3), Counts()
    room.put(0, Opened("a", 0.0), counts, is_paced=True)
    for number in range(8):
        room.put(0, shown(number), counts, is_paced=True)
    room.put(0, Said("silent", "…"), counts, is_paced=True)
    items = [item for _, item in room.take(0)]
    frames = [(one.time_seconds, one.left_out) for one in items if isinstance(one, Shown)]
    assert frames == [(5.0, 5), (6.0, 0), (7.0, 0)]
    assert counts.left_out == 5
    assert [type(one) for one in items[:1] + items[-1:]] == [Opened, Said]
    assert room.take(0) == []


def test_one_place_only():
    room, counts = WaitingRoom(most=1), Counts()
    for number in range(3):
        room.put(0, shown(number), counts, is_paced=True)
    ((_, one),) = room.take(0)
    assert (one.time_seconds, one.left_out, counts.left_out) == (2.0, 2, 2)


def test_a_source_that_can_wait_waits():
    room, counts = WaitingRoom(most=2), Counts()

    def put():
        for number in range(50):
            room.put(1, shown(number), counts, is_paced=False)
        room.put(1, Closed("ended", "", is_last=True), counts, is_paced=False)

    thread = threading.Thread(target=put)
    thread.start()
    items, until = [], time.monotonic() + 20
    while not (items and isinstance(items[-1][1], Closed)) and time.monotonic() < until:
        more = room.take(0.1)
        assert len(more) <= 3
        items += more
    thread.join(5)
    assert [one.time_seconds for _, one in items[:-1]] == list(range(50))
    assert counts.left_out == 0


def test_closing_lets_go():
    room, counts = WaitingRoom(most=1), Counts()
    room.put(0, shown(0), counts, is_paced=False)
    thread = threading.Thread(target=room.put, args=(0, shown(1), counts), kwargs={"is_paced": False})
    thread.start()
    room.close()
    thread.join(5)
    assert not thread.is_alive()
