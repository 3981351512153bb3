"""evl import-release"""

from __future__ import annotations

import shutil
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
        typer.Option(help="kinetics400, or a file with one class name a line; default: the classes' numbers."),
    ] = None,
    num_frames: Annotated[
        int | None, typer.Option(min=1, help="Only for a checkpoint without temporal positions, which would tell.")
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
    from evl.cli.common import output, start_logging
    from evl.config import replace
    from evl.data.manifests.manifest import read_class_names
    from evl.errors import CheckpointError
    from evl.saving import kinetics400_class_names, load_release, save_model
    from evl.training.run_folder import RunFolder

    start_logging()
    names = None
    if classes is not None:
        names = kinetics400_class_names() if classes == "kinetics400" else read_class_names(classes)
    model = load_release(checkpoint, backbone, class_names=names, num_frames=num_frames, stride=stride)
    if model.card is None:
        raise CheckpointError(f"{checkpoint} has no temporal positions that tell its frames; give --num-frames")
    config = model.card.config
    if config.backbone.weights is not None:
        config = replace(config, backbone={"weights": str(Path(config.backbone.weights).absolute())})
    RunFolder(out).create(config, model.class_names, (), (), {})
    try:
        save_model(model, out, with_backbone=with_backbone)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)  # it was made just now, and half a run would be taken for one
        raise
    output.print(
        f"{out}: {len(model.class_names)} classes, {config.clip.num_frames} frames, {config.model.taps} blocks of "
        f"{model.backbone.spec.name}; next: evl predict {out} VIDEO",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip
