"""evl export"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from evl.cli.options import FramesPerSecond, ImageSize, NumFrames, Stride

NAME = "export"


class Format(StrEnum):
    evl = "evl"
    release = "release"


def command(
    run: Annotated[Path, typer.Argument(help="Folder of a run or saved model, or owner/name on the hub.")],
    out: Annotated[
        Path | None, typer.Option(help="A new folder, or a file for --format release.", show_default=False)
    ] = None,
    format: Annotated[
        Format, typer.Option(help="evl: a folder that evl.load reads; release: a checkpoint as the original EVL has.")
    ] = Format.evl,
    with_backbone: Annotated[
        bool, typer.Option("--with-backbone", help="Put the frozen encoder's weights inside; mind their license.")
    ] = False,
    push: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Push to the Hugging Face Hub; log in by: hf auth login")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the pushed model private, if it is new.")] = False,
    num_frames: NumFrames = None,
    stride: Stride = None,
    frames_per_second: FramesPerSecond = None,
    image_size: ImageSize = None,
) -> None:
    """Write a model that can be given away: its weights, all that belongs to them, and a page about it.

    evl export runs/mine --out doors                   a folder with model.safetensors, model.json, README.md
    evl export runs/mine --out doors --with-backbone   the same, and nothing else is needed to load it
    evl export runs/mine --push you/doors              to the hub; anyone then has evl.load("you/doors")
    evl export runs/mine --format release --out x.pth  for the original code
    """
    from evl.api.models import export
    from evl.cli.common import say

    sizes = dict(num_frames=num_frames, stride=stride, frames_per_second=frames_per_second, image_size=image_size)
    where = dict(push=push, private=private or None)
    url = export(run, out, format=format.value, with_backbone=with_backbone or None, **where, **sizes)
    if url is not None:
        say(f"pushed to {url}")
    if out is not None:
        say(f"exported to {out}")
