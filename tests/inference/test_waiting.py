"""Files that are still being written are waited for, by a clock that the test moves."""

import os

import pytest

from evl.inference.predictor import wait_until_complete


class Clock:
    """Time that passes in ``sleep`` only; ``at`` has what happens by then."""

    def __init__(self, **at):
        self.now, self.at = 100.0, dict(sorted((float(key[1:]), action) for key, action in at.items()))

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        for when in [when for when in self.at if self.now - 100 >= when]:
            self.at.pop(when)()


def wait(paths, limit, clock):
    before = clock.now
    return wait_until_complete(map(str, paths), limit, clock=clock, sleep=clock.sleep), clock.now - before


def grow(path, size):
    def write():
        path.write_bytes(bytes(size))
        os.utime(path, ns=(0, size))  # no file system's clock decides

    return write


def test_complete_files_cost_one_quiet_time_in_all(tmp_path):
    for name in "abc":
        grow(tmp_path / name, 10)()
    assert wait([tmp_path / name for name in "abca"], 60, Clock()) == ({}, 3.0)


def test_a_file_that_grows_is_waited_for(tmp_path):
    grow(tmp_path / "a", 10)()
    clock = Clock(s2=grow(tmp_path / "a", 20), s4=grow(tmp_path / "a", 30))
    late, seconds = wait([tmp_path / "a"], 60, clock)
    assert late == {}
    assert seconds == pytest.approx(7, abs=1)


def test_so_is_one_that_is_not_there_yet_and_one_whose_size_was_reserved(tmp_path):
    grow(tmp_path / "reserved", 50)()
    touch = [lambda time=time: os.utime(tmp_path / "reserved", ns=(0, time)) for time in (1, 2)]
    clock = Clock(s1=grow(tmp_path / "new", 5), s2=touch[0], s4=touch[1])
    late, seconds = wait([tmp_path / "new", tmp_path / "reserved"], 60, clock)
    assert late == {}
    assert seconds == pytest.approx(7, abs=1)


def test_a_folder_of_frames_is_complete_when_no_frame_comes(tmp_path):
    (tmp_path / "v").mkdir()
    grow(tmp_path / "v/1.jpg", 10)()
    late, seconds = wait([tmp_path / "v"], 60, Clock(s2=grow(tmp_path / "v/2.jpg", 10)))
    assert late == {}
    assert seconds == pytest.approx(5, abs=1)


def test_what_is_not_complete_at_the_limit_is_named(tmp_path):
    grow(tmp_path / "done", 1)()
    (tmp_path / "empty").touch()
    clock = Clock(**{f"s{i}": grow(tmp_path / "grows", i) for i in range(1, 30)})
    late, seconds = wait([tmp_path / name for name in ("done", "grows", "empty", "never")], 10, clock)
    assert seconds == pytest.approx(10, abs=1)
    assert {
        os.path.basename(path): why.partition(" after")[0].partition(", even")[0] for path, why in late.items()
    } == {
        "grows": "still growing",
        "empty": "still empty",
        "never": "no such file",
    }
