"""Posts events to an address, in a thread of its own that nothing waits for."""

from __future__ import annotations

import base64
import json
import queue
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from evl.errors import ConfigError
from evl.watching.address import shown_address

MOST_WAITING = 256  # events
TRIES = 6  # for each event
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds between two tries: each time twice as long
TIMEOUT = 5.0  # seconds for one try
LAST_SECONDS = 5.0  # for what still waits at the end
_AGAIN = (408, 425, 429)  # answers below 500 that ask for another try


class Webhook:
    """``post(document)`` never waits. Each event is one POST of JSON; it arrived if the answer is 2xx.

    Other answers and errors are tried again, up to six times, with growing pauses. An event is lost if no try succeeds,
    if the answer says that it never will (4xx), or if 256 events wait already. ``sent`` and ``lost`` count them;
    ``problem`` is the latest reason. Redirects are not followed.

    Raises ConfigError for an address that is not http or https.
    """

    def __init__(self, address: str):
        self._url, self._headers = _split(address)
        self.shown = shown_address(self._url).rpartition("?")[0] or shown_address(self._url)
        self.sent = self.lost = 0
        self.problem: str | None = None
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(MOST_WAITING)
        self._stop = threading.Event()
        self._opener = urllib.request.OpenerDirector()  # without redirects, files and ftp
        for handler in (
            urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), urllib.request.HTTPSHandler(),
            urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPErrorProcessor(),
        ):  # fmt: skip
            self._opener.add_handler(handler)
        self._thread = threading.Thread(target=self._run, name="evl-webhook", daemon=True)
        self._thread.start()

    def post(self, document: dict[str, Any]) -> None:
        try:
            self._queue.put_nowait(document)
        except queue.Full:
            self.lost += 1
            self.problem = self.problem or "too many events wait"

    def close(self, seconds: float = LAST_SECONDS) -> None:
        """Gives what still waits so many seconds; the rest is lost."""
        until = time.monotonic() + seconds
        while self._queue.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.02)
        self._stop.set()
        self._thread.join(0.2)
        self.lost += self._queue.unfinished_tasks

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                document = self._queue.get(timeout=0.2)
            except queue.Empty:
                continue
            has_arrived = self._deliver(json.dumps(document).encode())
            if self._stop.is_set():
                return  # ``close`` has counted it
            self.sent, self.lost = self.sent + has_arrived, self.lost + (not has_arrived)
            self._queue.task_done()

    def _deliver(self, body: bytes) -> bool:
        pause = FIRST_PAUSE
        for number in range(TRIES):
            if number and self._stop.wait(pause):
                return False
            pause = min(2 * pause, LONGEST_PAUSE) if number else pause
            try:
                request = urllib.request.Request(self._url, body, self._headers, method="POST")
                with self._opener.open(request, timeout=TIMEOUT):
                    return True
            except urllib.error.HTTPError as error:
                self.problem = f"answers {error.code}"
                error.close()
                if error.code < 500 and error.code not in _AGAIN:
                    return False
            except (OSError, HTTPException) as error:  # URLError is an OSError
                reason = getattr(error, "reason", error)
                self.problem = (getattr(reason, "strerror", None) or type(reason).__name__).lower()
        return False


def _split(address: str) -> tuple[str, dict[str, str]]:
    """(the address without user and password, headers)."""
    wrong = ConfigError(f"`webhook={shown_address(address)}`: expected an address http://HOST/… or https://HOST/…")
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not host or any(ord(one) < 33 or ord(one) > 126 for one in address):
        raise wrong
    headers = {"Content-Type": "application/json", "User-Agent": "evl-watch"}
    user, has_user, netloc = parts.netloc.rpartition("@")
    if has_user:
        secret = base64.b64encode(unquote(user).encode()).decode()
        headers["Authorization"] = f"Basic {secret}"
    return urlunsplit((parts.scheme, netloc, parts.path or "/", parts.query, "")), headers
