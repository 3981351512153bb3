"""evl prepare"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evl.errors import plural

NAME = "prepare"


def command(
    data: Annotated[Path, typer.Argument(help="Folder of videos, or a manifest.")],
    out: Annotated[Path, typer.Option(help="Folder for the copies, with the same paths below it.")],
    short_side: Annotated[int, typer.Option(help="Pixels of the short side; smaller videos are not enlarged.")] = 256,
    gop: Annotated[int, typer.Option(help="Frames from key frame to key frame: 1 reads fastest, 4 saves a third.")] = 1,
    every: Annotated[
        int, typer.Option(help="Keep every n-th frame, at its time. Divide clip.stride by the same number.")
    ] = 1,
    quality: Annotated[int, typer.Option(help="x264's rate factor: less is better and larger; 18 to 26.")] = 20,
    workers: Annotated[int | None, typer.Option(min=1, help="Files at a time; default: one a core.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Make copies of a collection that are cheap to read in training: small, every frame a key frame, no sound.

    Frame numbers and times stay what they were. A manifest gets its counterpart, a folder keeps its lists. Stopped or
    interrupted, the same command goes on; what changed since is made again. Damaged files are listed in damaged.csv.
    Exit code 1 if any file failed.

    Then:  evl train --data OUT …
    """
    from dataclasses import asdict

    from evl.cli.common import Bars, print_json, start_logging
    from evl.collections.copy_video import CopySettings
    from evl.collections.prepare import prepare, report_document

    start_logging()
    settings = CopySettings(short_side=short_side, gop=gop, every=every, quality=quality)
    with Bars() as progress:
        report = prepare(data, out, settings, num_workers=workers, progress=progress)
    if json:
        print_json({"out": str(out), "settings": asdict(settings), **report_document(report)})
    else:
        _print_report(out, report)
    if report.damaged:
        raise typer.Exit(1)


def _print_report(out: Path, report) -> None:
    from rich.markup import escape

    from evl.cli.common import output

    def say(text: str) -> None:
        output.print(text, highlight=False, soft_wrap=True)

    good = report.num_made + report.num_kept
    kept = f" ({report.num_kept} were there)" if report.num_kept else ""
    say(
        f"{plural(report.num_files, 'video')}: [green]{good} copied[/green]{kept}, "
        f"[{'red' if report.damaged else 'green'}]{len(report.damaged)} damaged[/]"
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
        say(f"left out: {plural(len(report.left_out), 'other file')}, such as {escape(report.left_out[0])}")
    for path, reason in report.damaged:
        say(f"[red]damaged:[/red] {escape(path)}: {escape(reason)}")
    if report.damaged:
        say(f"listed in {escape(str(out / 'damaged.csv'))}")
    if good:
        say(f"next: evl train --data {escape(str(report.manifest or out))} --out RUN")
