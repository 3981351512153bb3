"""evl prepare"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evl.cli.options import Json

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
    from evl.cli.show_prepare import show_prepared

    how = dict(short_side=short_side, gop=gop, every=every, quality=quality)
    show_prepared(prepare(data, out, **how, num_workers=workers), out, how, json)
