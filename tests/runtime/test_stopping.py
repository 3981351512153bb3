"""Ctrl-C and SIGTERM: nothing is left half-way, and only one line is printed."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from evl.runtime.parallel import stopped_by_sigterm, stopped_later


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_the_block(number):
    def work(*signals):
        with stopped_later():
            for one in signals:
                signal.raise_signal(one)
            done.append(len(signals))

    done = []
    with stopped_by_sigterm():
        with pytest.raises(KeyboardInterrupt):
            work(number, number)
        work()
    assert done == [2, 0]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_other_threads_leave_signals_alone():
    def work():
        with stopped_by_sigterm(), stopped_later():
            seen.append(signal.getsignal(signal.SIGTERM))

    seen = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 0.3, 1, 3])
def test_sigterm_in_predict_prints_one_line(finished_run, videos, seconds):
    """At several moments from the start of the worker processes on."""
    files = [str(path) for path in videos.rglob("*.mp4")] * 100
    command = [sys.executable, "-m", "evl", "predict", finished_run, *files, "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not os.path.isdir(f"/proc/{process.pid}/task/{process.pid}") or not _children(process.pid):
        time.sleep(0.05)
    time.sleep(seconds)
    process.terminate()
    _, messages = process.communicate()
    assert process.returncode in (130, -signal.SIGINT)  # Python's own end, where the signal comes within an exec()
    assert messages.splitlines()[-1] == "stopped"
    assert "Traceback" not in messages
    assert "leaked" not in messages


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return file.read().split()
