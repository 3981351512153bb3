"""evl prepare"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evl.cli.common import output, print_json, say
from evl.cli.options import Json
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
    workers: Annotated[int | None, typer.Option(min=1, help="Files at a time; default: one per core.")] = None,
    json: Json = False,
) -> None:
    """Make copies of a collection that are cheap to read in training: small, every frame a key frame, no sound.

    Frame numbers and times stay what they were. A manifest gets its counterpart, a folder keeps its lists. Stopped or
    interrupted, the same command goes on; what changed since is made again. Damaged files are listed in damaged.csv.
    Exit code 1 if any file failed.

    Then:  evl train --data OUT …
    """
    from evl.api.checking import prepare

    how = dict(short_side=short_side, gop=gop, every=every, quality=quality)
    show_prepared(prepare(data, out, **how, num_workers=workers), out, how, json)


def show_prepared(report, out: Path, settings: dict, as_json: bool) -> None:
    """Exit code 1 where files are damaged."""
    from evl.collections.prepare import report_document

    if as_json:
        print_json({"out": str(out), "settings": settings, **report_document(report)})
    else:
        _print(out, report)
    if report.damaged:
        raise typer.Exit(1)


def _print(out: Path, report) -> None:
    from evl.video.decode.missing import is_missing

    good = report.num_made + report.num_kept
    kept = f" ({report.num_kept} were there)" if report.num_kept else ""
    output.print(
        f"{plural(report.num_files, 'video')}: [green]{good} copied[/green]{kept}, "
        f"[{'red' if report.damaged else 'green'}]{len(report.damaged) - report.num_away} damaged[/]"
        + (f", [red]{report.num_away} missing[/]" if report.num_away else ""),
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
        say(f"{path}: {reason}", label="missing" if is_missing(reason) else "damaged")
    if report.damaged:
        say(f"listed in {out / 'damaged.csv'}")
    if report.num_away:
        say(f"{plural(report.num_away, 'video')} of these could not be reached, not even after some pauses. The same "
            "command asks again, and keeps what is done", style="yellow")  # fmt: skip
    if good:
        say(f"next: evl train --data {report.manifest or out} --out RUN")
