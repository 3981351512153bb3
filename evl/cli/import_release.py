"""evl import-release"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAME = "import-release"


def command(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of the original EVL release (.pth).")],
    backbone: Annotated[
        str, typer.Option(help="The CLIP it was trained on: OpenAI's archive (ViT-B-16.pt …), or a timm name.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run that is made.")],
    classes: Annotated[
        str | None,
        typer.Option(help="kinetics400, or a file with one class name per line; default: the classes' numbers."),
    ] = None,
    num_frames: Annotated[
        int | None, typer.Option(min=1, help="Only for a checkpoint without temporal positions.")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="Frames between neighbors; default: 16, or 8 for 32 frames.")
    ] = None,
    with_backbone: Annotated[
        bool, typer.Option("--with-backbone", help="Also keep the backbone's weights, so that its file is not needed.")
    ] = False,
) -> None:
    """Make a run of a released EVL checkpoint: evaluate it, predict with it, start a training from it.

    evl import-release k400_vitb16_8f.pth --backbone ViT-B-16.pt --classes kinetics400 --out runs/k400
    """
    from evl.api.models import import_release
    from evl.cli.common import say

    how = dict(classes=classes, num_frames=num_frames, stride=stride, with_backbone=with_backbone)
    model = import_release(checkpoint, backbone, out, **how)
    config = model.card.config
    say(
        f"{out}: {len(model.class_names)} classes, {config.clip.num_frames} frames, {config.model.taps} blocks of "
        f"{model.backbone.spec.name}; next: evl predict {out} VIDEO"
    )
