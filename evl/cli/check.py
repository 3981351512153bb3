"""evl check"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evl.cli.options import Json, Layout, Root, SplitNumber

NAME = "check"


def command(
    data: Annotated[Path, typer.Argument(help="Folder of videos, a published data set, or a manifest.")],
    root: Root = None,
    layout: Layout = "auto",
    split_number: SplitNumber = 1,
    manifest: Annotated[
        Path | None, typer.Option(help="Write a clean manifest (.csv) of the good videos here.")
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(
            help="Write an index of the good files' frames here; training with --set data.index=… starts faster."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes; default: one per core; 0: none, for files without damage.")
    ] = None,
    json: Json = False,
) -> None:
    """List what is in a collection of videos, and what of it is damaged, before training.

    Every file is decoded as training will decode it. Exit code 1 if any is damaged.
    """
    from evl.api.checking import check
    from evl.cli.show_check import show_check

    videos = dict(root=root, layout=layout, split_number=split_number)
    report = check(data, **videos, manifest=manifest, index=index, num_workers=workers)
    show_check(report, manifest, index, json)
