"""Values that nobody expects, put anywhere into a file's content; and limits of time and memory while it is read."""

from __future__ import annotations

import math
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HUGE = 10**30
NUMBERS = [True, -1, 0, 1, 2, 10**9, HUGE, -HUGE, 0.0, 1.5, math.nan, math.inf, 1e308, -1e308]
TEXTS = [
    "", " ", "x" * 1000, "\x1b[31mred", "\x1b]8;;http://a\x1b\\b", "a\nb", "\r", "\0", "$_$", "$\\frac{", "\\", "%s{}",
    "../../x", "/etc/passwd", "~", "=1+1", "\u202eabc", "\ufeffa", "e\u0301", "\ud800", "日本", "\U0001f600", "\"",
    "'", ",", ";", "[red]x[/red]",
]  # fmt: skip
ODD = [*NUMBERS, *TEXTS, None, [], {}, [1], [[]], {"a": 1}]
SECONDS, MEGABYTES = 20, 500  # of processor time and of memory above what there was; a case takes far less


def places(value: object) -> Iterator[tuple]:
    """All (container, key) of nested dicts and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from places(inner)


def change(content: object, rng: random.Random, odd=lambda rng, value: rng.choice(ODD)) -> None:
    """One to three values anywhere become others, or go."""
    for _ in range(rng.randint(1, 3)):
        container, key = rng.choice(list(places(content)))
        if isinstance(container, dict) and rng.random() < 0.2:
            container.pop(key)
        else:
            container[key] = odd(rng, container[key])


def torn(content: bytes, rng: random.Random) -> bytes:
    """Bytes turned over, cut off, doubled, or put in."""
    kind, place = rng.randrange(4), rng.randrange(len(content) + 1)
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + rng.randbytes(rng.randint(1, 20)) + content[place:]
    if kind == 2:
        return content[:place] + content[rng.randrange(len(content)) :]
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def memory(kind: str) -> int:
    """Megabytes of this process: VmRSS now, VmHWM at the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(kind))


def forget_peak() -> None:
    """The peak of memory starts again from here."""
    Path("/proc/self/clear_refs").write_text("5")


@contextmanager
def bounded(seconds: int = SECONDS, megabytes: int = MEGABYTES) -> Iterator[None]:
    """Raises AssertionError if the block takes more processor time, or more memory at its peak than before it."""

    def stop(number, frame):
        raise AssertionError(f"more than {seconds} seconds of processor time")

    handler = signal.signal(signal.SIGPROF, stop)
    forget_peak()
    before = memory("VmRSS")
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
    more = memory("VmHWM") - before
    assert more <= megabytes, f"{more} MB more memory"


@contextmanager
def at_most_one_sentence(*kinds: type[BaseException], most: int = 2000) -> Iterator[None]:
    """Errors of these kinds end the block, if their message is one line and not too long; otherwise AssertionError."""
    try:
        yield
    except kinds as error:
        text = str(error)
        if len(text.splitlines()) != 1 or len(text) > most:
            raise AssertionError(f"no sentence: {text[:3000]!r}") from error
