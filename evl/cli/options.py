"""Options that several commands have, each described once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer


def _size(text: str | None) -> int | tuple[int, int] | None:
    """``336`` → 336, ``256x448`` → (256, 448)."""
    from evl.errors import ConfigError

    if text is None:
        return None
    if not re.fullmatch(r"[1-9]\d{0,4}([x×][1-9]\d{0,4})?", text):
        raise ConfigError(f"--image-size {text}: expected a side, such as 336, or HxW, such as 256x448")
    sides = tuple(int(side) for side in re.split("[x×]", text))
    return sides[0] if len(sides) == 1 else sides


def _resume(text: str | None) -> bool | str:
    """None → False, ``yes`` (which ``evl.cli.main`` makes of a bare --resume) → True, ``auto``."""
    from evl.errors import ConfigError

    if text not in (None, "yes", "auto"):
        raise ConfigError(f"--resume={text}: expected --resume or --resume=auto")
    return text if text == "auto" else text is not None


def _crops(count: int | None) -> int | None:
    from evl.errors import ConfigError

    if count not in (None, 1, 3):
        raise ConfigError(f"--crops {count}: expected 1 or 3")
    return count


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …; default: CUDA if there is one.")]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Processes that read videos; default: one per core, none for a few videos.")
]
BatchSize = Annotated[
    int | None, typer.Option(min=1, help="Videos at a time, each with all its views; fewer need less memory.")
]

# what a run starts from
Data = Annotated[
    Path | None,
    typer.Option(help="Folder with a folder per class, a published data set, or a manifest (.csv, .parquet, list)."),
]
Encoder = Annotated[
    str | None,
    typer.Option("--backbone", help="Frozen encoder: a name ('evl backbones clip' lists them) or OpenAI's CLIP file."),
]
Recipe = Annotated[str | None, typer.Option(help="Start from a recipe, such as k400_vitb16_8x16.")]
Config = Annotated[Path | None, typer.Option(help="Start from a config.yaml.")]
Init = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="Start from a saved model: for other classes, more frames or pixels."),
]
Features = Annotated[
    Path | None, typer.Option(metavar="STORE", help="Instead of --data: a store that evl extract made; no decoding.")
]
Settings = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as training.steps=2000.")
]

Resume = Annotated[
    str | None,
    typer.Option(
        "--resume", metavar="[=auto]", callback=_resume, show_default=False,
        help="Go on with what is in --out, from its newest checkpoint. With =auto: begin, or go on if something is "
        "there that was begun with the same settings.",
    ),
]  # fmt: skip

# which labelled videos
Root = Annotated[
    Path | None, typer.Option(help="Folder that the listed paths start from; default: the folder of the list.")
]
Layout = Annotated[
    str, typer.Option(help="How the data is laid out: ucf101 and the like (default: recognized), or classes.")
]
SplitNumber = Annotated[int, typer.Option(min=1, max=3, help="Which split of HMDB51 or UCF101.")]

# a model, used otherwise than it was trained
Clips = Annotated[int | None, typer.Option(min=1, help="Clips per video; default: the model's own.")]
Crops = Annotated[int | None, typer.Option(callback=_crops, help="Crops per clip, 1 or 3; default: the model's own.")]
NumFrames = Annotated[
    int | None,
    typer.Option(min=1, help="Frames per clip, if not as trained (positions are interpolated); with --zero-shot 8."),
]
Stride = Annotated[int | None, typer.Option(min=1, help="Frames between neighbors, if not as trained.")]
FramesPerSecond = Annotated[
    float | None, typer.Option(help="Frames of a clip per second, if not as trained; takes the place of a stride.")
]
ImageSize = Annotated[
    str | None,
    typer.Option(metavar="SIDE|HxW", callback=_size, help="Pixels, if not as trained; positions are interpolated."),
]

# no run: class names and a CLIP-like encoder
Backbone = Annotated[
    str | None, typer.Option(help="For --zero-shot: a name ('evl backbones clip') or OpenAI's CLIP file.")
]
Weights = Annotated[
    Path | None, typer.Option(help="For --zero-shot: a file with the whole CLIP of --backbone, instead of the hub's.")
]
Prompts = Annotated[
    list[str], typer.Option("--prompt", help="For --zero-shot: 'a video of {}.'; several are averaged.")
]


def given(**options: Any) -> dict[str, Any]:
    """Those options that were given, for a function that has its own defaults."""
    return {name: value for name, value in options.items() if value not in (None, (), [])}
