"""What a watch prints while it goes on, and at its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import typer
from rich.live import Live
from rich.table import Table

from evl.cli.common import output, print_json, say, tell
from evl.cli.show_timelines import clock_time
from evl.errors import plural
from evl.runtime.parallel import stopped_by_signals
from evl.runtime.text import cell


def show_watch(watched, *, as_json: bool, stats: bool) -> None:
    """Exit code 1 if a source could not be read, or an event did not reach the webhook."""
    with stopped_by_signals(watched.stop), watched, _table(watched, as_json):
        for event in watched:
            if as_json:
                print_json(event.document(), indent=None)
            else:
                _print(event)
    totals = watched.totals()
    if stats and as_json:
        print_json({"event": "stats", **totals.document()}, indent=None)
    elif stats:
        output.print(_stats(totals))
    _summary(totals)
    if not totals.is_whole:
        raise typer.Exit(1)


@contextmanager
def _table(watched, as_json: bool) -> Iterator[None]:
    """On a terminal, below the events: a line for each source."""
    if as_json or not output.is_terminal:
        yield
        return

    def table() -> Table:
        made = Table("source", "state", "time", "class", "score", "frames", "left out")
        for source, left_out in watched.states():
            label, score = source.newest or ("", None)
            score = "" if score is None else f"{100 * score:.1f} %"
            row = (cell(source.name), source.state, clock_time(source.seconds), cell(label), score)
            made.add_row(*row, f"{source.frames:,}", f"{left_out:,}")
        return made

    with Live(get_renderable=table, console=output, refresh_per_second=4, redirect_stdout=False, redirect_stderr=True):
        yield


def _print(event) -> None:
    when = f"{datetime.fromtimestamp(event.time):%H:%M:%S}  {event.source}  {clock_time(event.seconds)}"
    if event.kind == "begin":
        say(f"{when}  {event.label} begins ({100 * event.score:.1f} %)")
    elif event.kind == "end":
        length = event.seconds - event.start_seconds
        say(f"{when}  {event.label} ends after {length:.2f} s ({100 * event.score:.1f} %)")
    elif event.kind == "scores":
        best = sorted(event.scores.items(), key=lambda pair: -pair[1])[:3]
        say(f"{when}  {', '.join(f'{label} {100 * score:.1f} %' for label, score in best)}")
    else:
        color = "red" if event.state in ("lost", "failed") else "yellow"
        tell(f"{when}  {event.text}", label=event.state, color=color)


def _summary(totals) -> None:
    lost = [
        plural(totals.frames_left_out, "frame") + " left out" if totals.frames_left_out else "",
        f"{plural(totals.damaged, 'frame')} damaged or after damaged ones" if totals.damaged else "",
        plural(totals.breaks, "break") if totals.breaks else "",
        f"{totals.failed:,} of sources and files failed" if totals.failed else "",
        f"{plural(totals.webhook_lost, 'event')} did not reach the webhook" if totals.webhook_lost else "",
    ]
    text = (
        f"{plural(totals.sources, 'source')} in {totals.seconds:.1f} s: {plural(totals.frames, 'frame')} read, "
        f"{totals.encoded:,} encoded, {plural(totals.windows, 'window')}, {plural(totals.events, 'event')}"
    )
    tell("; ".join([text, *filter(None, lost)]), label="watched", color="green")


def _stats(totals) -> Table:
    table = Table("", "", show_header=False)
    for label, value in (
        ("delay, from a frame's arrival to its scores, p50", _milliseconds(totals.delay_p50_seconds)),
        ("the same, p95 (of the newest 4,096 windows)", _milliseconds(totals.delay_p95_seconds)),
        ("frames read in a second", f"{totals.frames_per_second:.1f}"),
        ("frames left out", f"{totals.frames_left_out:,}"),
        ("damaged, or after damaged ones", f"{totals.damaged:,}"),
        ("windows left out", f"{totals.windows_left_out:,}"),
        ("reading, in threads, of processor time", f"{totals.reading_seconds:.2f} s"),
        ("pictures to pixels", f"{totals.pictures_seconds:.2f} s"),
        ("encoder", f"{totals.encoder_seconds:.2f} s"),
        ("decoder", f"{totals.decoder_seconds:.2f} s"),
    ):
        table.add_row(label, value)
    return table


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.0f} ms"
