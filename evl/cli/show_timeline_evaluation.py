"""What an evaluation of timelines prints."""

from __future__ import annotations

from pathlib import Path

import typer

from evl.cli.common import output, print_json, say, tell
from evl.cli.show_timelines import clock_time
from evl.runtime.progress import is_main_process


def show_timeline_evaluation(result, out: Path | None, as_json: bool) -> None:
    """Scores with their intervals and protocol, and the hardest classes. Exit code 1 where videos are damaged.

    Of several processes the first prints it."""
    if is_main_process():
        _show(result, out, as_json)
    if not result.is_whole:
        raise typer.Exit(1)


def _show(result, out: Path | None, as_json: bool) -> None:
    damaged = {
        path: [{"start_seconds": gap.start_seconds, "end_seconds": gap.end_seconds, "error": gap.reason}
               for gap in gaps] for path, gaps in result.damaged.items()
    }  # fmt: skip
    if as_json:
        written = {"folder": str(out)} if out else {}
        print_json({**result.to_dict(), "classes": result.classes(), "failed": result.failed, "damaged": damaged,
                    **written})  # fmt: skip
    else:
        _print(result, out)
    for path, reason in result.failed.items():
        tell(f"{path}: {reason}", label="failed, not counted")
    for path, gaps in result.damaged.items():
        for gap in gaps:
            times = f"{clock_time(gap.start_seconds)} to {clock_time(gap.end_seconds)}"
            tell(f"{path}: no scores from {times}: {gap.reason}", label="damaged")


def _print(result, out: Path | None) -> None:
    scores = result.metrics.scores
    for names in (
        ("map_30_70", "map_50_95", "map_50"),
        ("f1_10", "f1_25", "f1_50", "edit"),
        ("frame_accuracy", "frame_precision", "frame_recall", "chance"),
        ("events_found", "delay", "live_delay"),
    ):
        say("   ".join(f"{scores[name].metric.title} {scores[name].text(interval=True)}" for name in names))
    if len(result.judged.videos) > 1:
        say("in brackets: 95 % intervals over videos")
    say(result.protocol)
    output.print(result.table())
    if out is not None:
        say(f"written to {out}")
