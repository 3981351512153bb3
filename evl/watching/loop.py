"""The loop of a watch: frames of all sources wait in one room; one thread encodes and scores them together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from evl.errors import plural
from evl.inference.live import Costs, Live, score_windows
from evl.inference.segments import SegmentRules
from evl.video.live_windows import LiveWindow
from evl.watching.address import Address
from evl.watching.events import Event
from evl.watching.feed import Feed
from evl.watching.opening import Settings
from evl.watching.room import Closed, Item, Opened, Said, Shown, WaitingRoom
from evl.watching.stats import Delays, Totals
from evl.watching.watched import WatchedSource
from evl.watching.webhook import Webhook

WAKE = 0.2  # seconds
LAST_SECONDS = 1.0  # for threads to end
SAY_EVERY = 10.0  # seconds between two messages of one kind about one source


class Watch:
    """Watches sources: an iterator of ``Event``, which ends when all sources have ended, or after ``stop``.

        with evl.watch("runs/mine", ["rtsp://door/1", 0], on=0.6) as events:
            for event in events: print(event.source, event.kind, event.label, event.seconds)

    ``stop()``: the sources are closed, open segments end, and the iterator ends. It may be called from a signal handler
    or another thread. ``totals()``: what was counted until now.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        make_live: Callable[[], Live],
        class_names: Sequence[str],
        rules: SegmentRules,
        settings: Settings,
        *,
        scores: bool = False,
        webhook: Webhook | None = None,
        leave_out: bool | None = None,
        retries: int | None = None,
        new_only: bool = False,
    ):
        self._make = lambda name: WatchedSource(name, make_live, class_names, rules, scores=scores)
        self._room, self._webhook = WaitingRoom(), webhook
        self._costs, self._delays, self._totals = Costs(), Delays(), Totals(sources=len(addresses))
        self._feeds = [
            Feed(
                number, address, self._room, settings, retries=retries, new_only=new_only,
                is_paced=address.is_paced if leave_out is None else leave_out,
            )
            for number, address in enumerate(addresses)
        ]  # fmt: skip
        self.watched = {number: self._make(address.shown) for number, address in enumerate(addresses)}
        self._said: dict[tuple[int, str], tuple[float, int]] = {}
        self._over: set[int] = set()
        self._stops, self._is_closed, self._began = False, False, time.monotonic()
        self._events = self._watch()

    def __iter__(self) -> Iterator[Event]:
        return self._events

    def __next__(self) -> Event:
        return next(self._events)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def stop(self) -> None:
        self._stops = True

    def close(self) -> None:
        """Ends the threads without further events. What hangs in a source is left behind; it ends with Python."""
        self._events.close()
        self._shut()

    def _shut(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._close_feeds()
        if self._webhook is not None:
            self._webhook.close()
        self._totals.seconds = time.monotonic() - self._began

    def totals(self) -> Totals:
        found, counts = replace(self._totals), [feed.counts for feed in self._feeds]
        for source in self.watched.values():
            _add(found, source)
        if not self._is_closed:
            found.seconds = time.monotonic() - self._began
        found.frames, found.damaged = sum(one.frames for one in counts), sum(one.damaged for one in counts)
        found.frames_left_out, found.breaks = sum(one.left_out for one in counts), sum(one.breaks for one in counts)
        found.reading_seconds = sum(one.seconds for one in counts)
        for part in ("pictures", "encoder", "decoder"):
            setattr(found, f"{part}_seconds", getattr(self._costs, part))
        found.delay_p50_seconds, found.delay_p95_seconds = (self._delays.percentile(one) for one in (50, 95))
        if self._webhook is not None:
            found.webhook_sent, found.webhook_lost = self._webhook.sent, self._webhook.lost
        return found

    def states(self) -> list[tuple[WatchedSource, int]]:
        """What is watched now, and how many frames of it were left out, in the order of the sources."""
        return [(self.watched[number], feed.counts.left_out) for number, feed in enumerate(self._feeds)]

    def _watch(self) -> Iterator[Event]:
        self._began = time.monotonic()
        for feed in self._feeds:
            feed.start()
        try:
            while not self._stops and len(self._over) < len(self._feeds):
                yield from map(self._told, self._handle(self._room.take(WAKE)))
                yield from map(self._told, self._messages(SAY_EVERY))
            self._close_feeds()
            wall = time.time()
            for source in self.watched.values():
                yield from map(self._told, source.finish(wall))
            yield from map(self._told, self._messages(0.0))
        finally:
            self._shut()

    def _close_feeds(self) -> None:
        for feed in self._feeds:
            feed.stop.set()
        self._room.close()
        until = time.monotonic() + LAST_SECONDS  # of all together: what hangs in a source does not see ``stop``
        for feed in self._feeds:
            if feed.is_alive():
                feed.join(max(0.0, until - time.monotonic()))

    def _told(self, event: Event) -> Event:
        if event.kind in ("begin", "end"):
            self._totals.events += 1
        if self._webhook is not None and event.kind != "scores":
            self._webhook.post(event.document())
        return event

    def _handle(self, items: Sequence[tuple[int, Item]]) -> Iterator[Event]:
        frames: list[tuple[int, Shown]] = []
        for number, item in items:
            if isinstance(item, Shown):
                frames.append((number, item))
                continue
            yield from self._score(frames)
            frames = []
            yield from self._change(number, item)
        yield from self._score(frames)
        now, wall = time.monotonic(), time.time()
        for source in self.watched.values():
            yield from source.pass_time(now, wall)

    def _score(self, frames: Sequence[tuple[int, Shown]]) -> Iterator[Event]:
        """The events of frames of any sources, which pass the encoder together."""
        windows: dict[int, list[tuple[LiveWindow, float]]] = {}
        for number, shown in frames:
            chosen = self.watched[number].choose(shown)
            windows.setdefault(number, []).extend((window, shown.arrived) for window in chosen)
        found = [(self.watched[number].live, [window for window, _ in own]) for number, own in windows.items()]
        scores = score_windows(found, self._costs)
        now, wall = time.monotonic(), time.time()
        for (number, own), rows in zip(windows.items(), scores, strict=True):
            source = self.watched[number]
            for (window, arrived), row in zip(own, rows, strict=True):
                self._delays.add(now - arrived)
                yield from source.score([window], [row], wall - (now - source.arrived), now - arrived)

    def _change(self, number: int, item: Opened | Closed | Said) -> Iterator[Event]:
        wall, source = time.time(), self.watched[number]
        if isinstance(item, Said):
            self._totals.failed += item.state == "failed"
            event = source.say(item.state, item.text, wall)
            yield event if item.name is None else Event("state", item.name, 0.0, wall, state=item.state, text=item.text)
        elif isinstance(item, Opened):
            if not item.resumes and source.frames:
                source = self._next_file(number, item.name)
            elif item.name != source.name:
                source.name = item.name
            self._totals.files += not item.resumes
            yield from source.open(item, wall)
            yield source.say("connected", "is open again" if item.resumes else "is open", wall)
        else:
            yield from self._closed(number, item, wall)

    def _next_file(self, number: int, name: str) -> WatchedSource:
        _add(self._totals, self.watched[number])
        self.watched[number] = source = self._make(name)
        return source

    def _closed(self, number: int, item: Closed, wall: float) -> Iterator[Event]:
        source = self.watched[number]
        if item.state == "ended" and source.live is not None and not self._stops:
            (scores,) = score_windows([(source.live, windows := source.live.last_windows())], self._costs)
            yield from source.score(windows, scores, wall, None)
        is_open = source.live is not None
        yield from source.break_off(wall) if item.state == "lost" else source.finish(wall)
        if is_open or item.text != "stopped":
            yield source.say(item.state, item.text, wall)
        source.state = item.state
        self._totals.failed += item.state == "failed"
        if item.is_last:
            self._over.add(number)

    def _messages(self, every: float) -> Iterator[Event]:
        """What was left out or damaged since it was last said, at most once in ``every`` seconds."""
        now, wall = time.monotonic(), time.time()
        for number, feed in enumerate(self._feeds):
            for state, count in (("left out", feed.counts.left_out), ("damaged", feed.counts.damaged)):
                at, before = self._said.get((number, state), (float("-inf"), 0))
                if count > before and now - at >= every:
                    self._said[number, state] = now, count
                    more = plural(count - before, "frame")
                    is_slow = state == "left out"
                    why = "the model is too slow for all" if is_slow else "damaged, or after damaged ones: left out"
                    yield self.watched[number].say(state, f"{more} ({count:,} so far); {why}", wall)


def _add(totals: Totals, source: WatchedSource) -> None:
    totals.encoded += source.num_encoded
    totals.windows += source.windows
    totals.windows_left_out += source.windows_left_out
