"""What copies of a collection print."""

from __future__ import annotations

from pathlib import Path

import typer

from evl.cli.common import output, print_json, say
from evl.collections.prepare import report_document
from evl.errors import plural


def show_prepared(report, out: Path, settings: dict, as_json: bool) -> None:
    """Exit code 1 where files are damaged."""
    if as_json:
        print_json({"out": str(out), "settings": settings, **report_document(report)})
    else:
        _print(out, report)
    if report.damaged:
        raise typer.Exit(1)


def _print(out: Path, report) -> None:
    good = report.num_made + report.num_kept
    kept = f" ({report.num_kept} were there)" if report.num_kept else ""
    output.print(
        f"{plural(report.num_files, 'video')}: [green]{good} copied[/green]{kept}, "
        f"[{'red' if report.damaged else 'green'}]{len(report.damaged)} damaged[/]",
        highlight=False,
    )
    if good:
        share = report.bytes_after / report.bytes_before
        say(f"{report.bytes_before / 1e6:,.1f} MB before, {report.bytes_after / 1e6:,.1f} MB after ({share:.0%})")
    if speed := report.loading:
        say(
            f"8x16 clips a second, one core: {speed.source_clips_per_second:.1f} before, "
            f"{speed.copy_clips_per_second:.1f} after: {speed.ratio:.1f} times "
            f"({speed.num_clips} clips of {speed.num_files} files)"
        )
    if report.num_others:
        say(f"{plural(report.num_others, 'list')} carried along")
    if report.left_out:
        say(f"left out: {plural(len(report.left_out), 'other file')}, such as {report.left_out[0]}")
    for path, reason in report.damaged:
        say(f"{path}: {reason}", label="damaged")
    if report.damaged:
        say(f"listed in {out / 'damaged.csv'}")
    if good:
        say(f"next: evl train --data {report.manifest or out} --out RUN")
