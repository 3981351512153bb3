"""What timelines print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer
from rich.table import Table

from evl.cli.common import output, print_json, say, tell
from evl.errors import ConfigError, plural
from evl.runtime.text import cell


def thresholds(option: str, texts: Sequence[str]) -> float | dict[str, float] | None:
    """``["0.6"]`` → 0.6, ``["run=0.6", "jump=0.4"]`` → a dict by class. Raises ConfigError."""
    if not texts:
        return None
    found = {}
    for text in texts:
        name, _, score = text.rpartition("=")
        try:
            found[name] = float(score)
        except ValueError:
            raise ConfigError(f"{option} {text}: expected a score, such as 0.6, or CLASS=SCORE") from None
    if "" not in found:
        return found
    if len(texts) > 1:
        raise ConfigError(f"{option}: give one score for all classes, or CLASS=SCORE for each")
    return found[""]


def show_timelines(result, out: Path | None, as_json: bool) -> None:
    """Exit code 1 where videos cannot be used, or have damaged stretches."""
    if as_json:
        print_json(_document(result))
    else:
        _print(result, out)
    if not result.is_whole:
        raise typer.Exit(1)


def _document(result) -> dict:
    videos = [
        {
            "path": line.path,
            **({"run": line.run} if line.run else {}),
            "start_seconds": round(line.start_seconds, 6),
            "end_seconds": round(line.end_seconds, 6),
            "num_windows": len(line.times),
            "protocol": line.protocol,
            "segments": [
                {
                    "label": one.label,
                    "start_seconds": round(one.start_seconds, 6),
                    "end_seconds": round(one.end_seconds, 6),
                    "score": round(one.score, 6),
                }
                for one in line.segments
            ],
            "damaged": [
                {"start_seconds": round(gap.start_seconds, 6), "end_seconds": round(gap.end_seconds, 6),
                 "error": gap.reason}
                for gap in line.damaged
            ],
        }
        for line in result.timelines
    ]  # fmt: skip
    return {"videos": videos, "failed": [{"path": path, "error": why} for path, why in result.failed.items()]}


def _print(result, out: Path | None) -> None:
    table = Table("video", "from", "to", "class", "score")
    for line in result.timelines:
        for place, one in enumerate(line.segments):
            video = cell(_title(line) if place == 0 else "")
            times = (clock_time(one.start_seconds), clock_time(one.end_seconds))
            table.add_row(video, *times, cell(one.label), f"{100 * one.score:.1f} %")
    if table.row_count:
        output.print(table)
    for line in result.timelines:
        found = plural(len(line.segments), "segment") if line.segments else "no segment"
        say(f"{_title(line)}: {found} in {plural(len(line.times), 'window')} ({line.protocol})")
        for gap in line.damaged:
            times = f"{clock_time(gap.start_seconds)} to {clock_time(gap.end_seconds)}"
            tell(f"{line.path}: no scores from {times}: {gap.reason}", label="damaged")
    for path, reason in result.failed.items():
        tell(f"{path}: {reason}", label="failed")
    if out is not None and result.timelines:
        say(f"written to {out}")


def _title(line) -> str:
    return f"{line.path} ({line.run})" if line.run else line.path


def clock_time(seconds: float) -> str:
    """``3723.5`` → ``1:02:03.50``."""
    hundredths = round(seconds * 100)
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest // 100:02}.{rest % 100:02}"
