"""A webhook that is slow, refuses, goes away and comes back: nothing waits for it, and what is lost is counted."""

import base64
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from evl.errors import ConfigError
from evl.watching import webhook
from evl.watching.webhook import Webhook
from tests.watching.servers import free_port


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(webhook, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(webhook, "LONGEST_PAUSE", 0.1)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def receiver(*answers, port=0, last=200):
    """Answers each POST by the next status (or waits on an Event first), then by ``last``; yields (port, requests)."""
    waiting, got = list(answers), []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = waiting.pop(0) if waiting else last
            if isinstance(answer, threading.Event):
                answer.wait(20)
                answer = 200
            got.append((self.path, dict(self.headers), body, answer))
            self.send_response(answer)
            if answer == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server.server_address[1], got
    finally:
        server.shutdown()
        server.server_close()


def arrived(got):
    return [body["n"] for _, _, body, answer in got if answer == 200]


def test_all_arrive_in_order_over_errors():
    with receiver(503, 429, 200, 500) as (port, got):
        hook = Webhook(f"http://127.0.0.1:{port}/in?key=1")
        for number in range(5):
            hook.post({"n": number})
        hook.close(20)
        assert arrived(got) == [0, 1, 2, 3, 4]
        assert {path for path, *_ in got} == {"/in?key=1"}
        assert got[0][1]["Content-Type"] == "application/json"
    assert (hook.sent, hook.lost) == (5, 0)


def test_one_that_is_away_and_comes_back():
    port = free_port()
    hook = Webhook(f"http://127.0.0.1:{port}/")
    hook.post({"n": 0})
    until = time.monotonic() + 20
    while hook.problem is None and time.monotonic() < until:
        time.sleep(0.01)
    assert hook.problem
    with receiver(port=port) as (_, got):
        hook.post({"n": 1})
        hook.close(20)
        assert arrived(got)[-1] == 1
    assert hook.sent + hook.lost == 2
    assert hook.sent == len(got)


def test_what_is_refused_is_lost_at_once():
    with receiver(400, 302, 200) as (port, got):
        hook = Webhook(f"http://127.0.0.1:{port}/")
        for number in range(3):
            hook.post({"n": number})
        hook.close(20)
        assert [(path, answer) for path, _, _, answer in got] == [("/", 400), ("/", 302), ("/", 200)]  # no redirect
    assert (hook.sent, hook.lost, hook.problem) == (1, 2, "answers 302")


def test_a_slow_one_stops_nobody(monkeypatch):
    monkeypatch.setattr(webhook, "MOST_WAITING", 4)
    free = threading.Event()
    with receiver(free) as (port, got):
        hook = Webhook(f"http://127.0.0.1:{port}/")
        for number in range(50):
            hook.post({"n": number})  # returns, although nothing has been answered
        assert not got
        assert hook.lost >= 45
        free.set()
        hook.close(20)
        assert hook.sent == len(arrived(got)) >= 4
    assert hook.sent + hook.lost == 50


def test_what_waits_at_the_end_is_counted():
    free = threading.Event()
    with receiver(free) as (port, _):
        hook = Webhook(f"http://127.0.0.1:{port}/")
        for number in range(3):
            hook.post({"n": number})
        hook.close(0.1)
        assert (hook.sent, hook.lost) == (0, 3)
        free.set()


def test_user_and_password_go_into_a_header():
    with receiver() as (port, got):
        hook = Webhook(f"http://ann:p%40ss@127.0.0.1:{port}")
        assert hook.shown == f"http://127.0.0.1:{port}/"
        hook.post({"n": 0})
        hook.close(20)
        assert got[0][1]["Authorization"] == "Basic " + base64.b64encode(b"ann:p@ss").decode()


@pytest.mark.parametrize("address", ["ftp://ann:secret@host/", "file:///etc/passwd", "host", "http://", "http://h:x/",
                                     "http://host/a b", "https://host/\n"])  # fmt: skip
def test_other_addresses_are_refused(address):
    with pytest.raises(ConfigError, match="expected an address") as caught:
        Webhook(address)
    assert "secret" not in str(caught.value)
