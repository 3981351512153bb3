"""Options that several commands have: a model used otherwise than it was trained, or not trained at all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

NumFrames = Annotated[
    int | None,
    typer.Option(
        "--num-frames", min=1, help="Frames a clip, if not as trained (positions are fitted); with --zero-shot 8."
    ),
]
Stride = Annotated[int | None, typer.Option("--stride", min=1, help="Frames between neighbors, if not as trained.")]
FramesPerSecond = Annotated[
    float | None,
    typer.Option("--frames-per-second", help="Of a clip, if not as trained: by time, in place of a stride."),
]
ImageSize = Annotated[
    str | None,
    typer.Option("--image-size", metavar="SIDE|HxW", help="Pixels, if not as trained; positions are fitted."),
]

Backbone = Annotated[
    str | None, typer.Option(help="For --zero-shot: a name ('evl backbones clip') or an OpenAI CLIP archive.")
]
Weights = Annotated[
    Path | None, typer.Option(help="For --zero-shot: a file with the whole CLIP of --backbone, instead of the hub's.")
]
Prompts = Annotated[
    list[str], typer.Option("--prompt", help="For --zero-shot: 'a video of {}.'; several are averaged.")
]


def sizes(
    num_frames: int | None, stride: int | None, image_size: str | None, frames_per_second: float | None = None
) -> dict:
    """What ``evl.load`` takes. ConfigError where the size is none."""
    from evl.errors import ConfigError

    size: int | tuple[int, ...] | None = None
    if image_size is not None:
        if not re.fullmatch(r"[1-9]\d{0,4}([x×][1-9]\d{0,4})?", image_size):
            raise ConfigError(f"--image-size {image_size}: expected a side, such as 336, or HxW, such as 256x448")
        sides = tuple(int(side) for side in re.split("[x×]", image_size))
        size = sides[0] if len(sides) == 1 else sides
    clip = {"num_frames": num_frames, "stride": stride, "frames_per_second": frames_per_second}
    return {**clip, "image_size": size}


def refuse_sizes_of_a_run(zero_shot: bool, *given: int | float | str | None) -> None:
    """Usage error: zero-shot spreads its frames over the video, at the backbone's own size."""
    if zero_shot and any(option is not None for option in given):
        raise typer.BadParameter(
            "--stride, --frames-per-second and --image-size go with a run; --zero-shot has --num-frames"
        )
