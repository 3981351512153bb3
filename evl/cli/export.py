"""evl export"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from evl.cli.options import FramesPerSecond, ImageSize, NumFrames, Stride, sizes

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
        bool, typer.Option("--with-backbone", help="Put the frozen encoder's weights inside; mind their licence.")
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
    """Make a model that travels: weights, all that belongs to them, and a page for whoever gets it.

    evl export runs/mine --out doors                   a folder with model.safetensors, model.json, README.md
    evl export runs/mine --out doors --with-backbone   the same, and nothing else is needed to load it
    evl export runs/mine --push you/doors              to the hub; anyone then has evl.load("you/doors")
    evl export runs/mine --format release --out x.pth  for the original code
    """
    from evl.cli.common import output, start_logging
    from evl.errors import ConfigError, SaveError
    from evl.runtime.files import is_used
    from evl.saving import load, save_release

    start_logging()
    if out is None and push is None:
        raise ConfigError("nowhere to export to: give --out, or --push OWNER/NAME")
    if format is Format.release and (with_backbone or push):
        raise ConfigError("--format release is one file without a backbone; leave out --with-backbone and --push")
    if out is not None and out.exists() and (format is not Format.evl or is_used(out)):
        raise SaveError(f"{out} is there already; choose another --out")
    model = load(run, **sizes(num_frames, stride, image_size, frames_per_second))
    if format is Format.release:
        save_release(model, out)
    elif out is not None:
        model.save_pretrained(out, with_backbone=with_backbone or None)
    if push is not None:
        url = model.push_to_hub(push, with_backbone=with_backbone or None, private=private or None)
        output.print(f"pushed to {url}", highlight=False, markup=False, soft_wrap=True)
    if out is not None:
        output.print(f"exported to {out}", highlight=False, markup=False, soft_wrap=True)
