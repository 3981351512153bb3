"""Processes that die, raise, or are not wanted any more."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from evl.errors import RunError, SaveError
from evl.runtime.parallel import Crash, each_in_process, time_limit


def double(item):
    if item == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == 5:
        os._exit(7)
    if item == -1:
        raise SaveError("the disk is full")
    if item == -2:
        raise LookupError("a mistake of ours")
    if item == 100:  # hangs
        with time_limit("no-such-file"):
            signal.setitimer(signal.ITIMER_REAL, 0.2)  # instead of five minutes
            time.sleep(600)
    if item == 101:
        with time_limit("no-such-file"):
            pass
        assert signal.alarm(0) == 0
    if isinstance(item, Path):  # works for ever
        item.write_text(str(os.getpid()))
        time.sleep(600)
    return item * 2


@pytest.mark.parametrize("num_workers", [1, 3])
def test_a_process_that_dies_takes_one_item(num_workers):
    results = dict(each_in_process(double, range(12), num_workers))
    assert results.pop(3) == Crash(-signal.SIGSEGV)
    assert results.pop(5) == Crash(7)
    assert results == {item: item * 2 for item in range(12) if item not in (3, 5)}


def test_a_file_that_hangs_its_decoder_is_one_item():
    results = dict(each_in_process(double, [100, 101], 2))
    assert results == {100: Crash(-signal.SIGALRM), 101: 202}
    assert results[100].reason == "hangs the decoder"


def test_nothing_to_do():
    assert list(each_in_process(double, [], 2)) == []


def test_errors_end_the_work():
    with pytest.raises(SaveError, match="the disk is full"):
        list(each_in_process(double, [1, -1, 2], 2))
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        list(each_in_process(double, [-2], 1))


class Deadly:
    """A function that ends its process while it is unpickled, before there is an item. ``number``: of a signal; 0: an
    exit, as of a script without a ``__main__`` guard."""

    def __init__(self, number):
        self.number = number

    def __setstate__(self, state):
        if state["number"] == 0:
            os._exit(1)
        os.kill(os.getpid(), state["number"])

    def __call__(self, item):
        return item


def test_a_process_that_is_killed_before_its_first_item_is_an_error_of_its_own():
    with pytest.raises(RunError, match="ended by SIGKILL while it started, before its first video"):
        list(each_in_process(Deadly(signal.SIGKILL), [1, 2], 1))


def test_a_process_that_ends_before_its_first_item_may_be_a_script_without_guard(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "<stdin>", raising=False)
    with pytest.raises(RunError, match="the processes that read videos ended while they started"):
        list(each_in_process(Deadly(0), [1, 2], 1))
    monkeypatch.setattr("evl.runtime.parallel._script", lambda: "script.py")
    with pytest.raises(RunError, match=r'script.py needs if __name__ == "__main__": around its code'):
        list(each_in_process(Deadly(0), [1, 2], 1))


def test_processes_are_gone_when_nobody_listens(tmp_path):
    sleeper = tmp_path / "pid"
    work = each_in_process(double, [sleeper, 1, 2], 2)
    assert {next(work), next(work)} == {(1, 2), (2, 4)}
    while not (sleeper.exists() and sleeper.read_text()):
        time.sleep(0.01)
    work.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(sleeper.read_text()), 0)
