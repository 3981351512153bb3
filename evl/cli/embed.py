"""evl embed"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evl.cli import options as opt

NAME = "embed"


def command(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN] [VIDEO]",
            help="A run or saved model (a folder, or owner/name on the hub; none with --backbone), then videos or "
            "folders of them, or none with --data.",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="FILE.parquet, or FILE.npy with paths and labels in FILE.videos.csv beside it.")
    ] = Path("vectors.parquet"),
    data: Annotated[
        Path | None, typer.Option(help="Videos as a folder per class, data set or manifest, instead of files.")
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(metavar="STORE", help="A store made by evl extract, instead of videos; without a run: pool mean."),
    ] = None,
    root: opt.Root = None,
    split: Annotated[str | None, typer.Option(help="Only this split of --data or --features; default: all.")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="No run: mean-pooled patch tokens of this frozen encoder's last block.")
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(
            metavar="query|mean",
            help="query: what the trained decoder gathered (default of a run); mean: mean-pooled patch tokens.",
        ),
    ] = None,
    neighbors: Annotated[
        bool,
        typer.Option(
            "--neighbors",
            help="Judge the vectors by nearest neighbors: test (or val) among train where --data has splits, else "
            "every video among all others.",
        ),
    ] = False,
    clips: opt.Clips = None,
    crops: opt.Crops = None,
    batch_size: opt.BatchSize = None,
    workers: opt.Workers = None,
    json: opt.Json = False,
    device: opt.Device = None,
    num_frames: opt.NumFrames = None,
    stride: opt.Stride = None,
    frames_per_second: opt.FramesPerSecond = None,
    image_size: opt.ImageSize = None,
) -> None:
    """One vector per video, for search, clustering and maps.

    evl embed runs/mine --data videos/ --neighbors    ·    evl embed runs/mine clip.mp4 --out clip.npy    ·    evl
    embed --backbone vit_base_patch16_dinov3 --data videos/

    Vectors are means over a video's views, not normalized; compare them by cosine. Files that cannot be used are
    listed, left out, and make the exit code 1.
    """
    from evl.api.stores import open_store
    from evl.api.vectors import embed_videos
    from evl.backbones import parse_backbone
    from evl.cli.show_vectors import show_vectors

    paths = list(paths or [])
    if backbone is None and features is None and not paths:
        raise typer.BadParameter("expected the folder of a run, or --backbone NAME, then videos or --data DATA")
    run = paths.pop(0) if backbone is None and paths else None
    _refuse_mixed(run, [bool(paths), data is not None, features is not None], neighbors and bool(paths), pool)
    sizes = dict(num_frames=num_frames, stride=stride, frames_per_second=frames_per_second, image_size=image_size)
    found = embed_videos(
        run if backbone is None else parse_backbone(backbone),
        open_store(features) if features is not None else data or paths,
        pool=pool, split=split, root=root, labeled=data is not None, num_clips=clips, num_crops=crops,
        batch_size=batch_size, num_workers=workers, device=device, out=out, **sizes,
    )  # fmt: skip
    show_vectors(found, out, json, neighbors)


def _refuse_mixed(run: Path | None, sources: list[bool], are_unlabeled: bool, pool: str | None) -> None:
    if sum(sources) != 1:
        raise typer.BadParameter("expected videos, --data DATA or --features STORE: one of them")
    if are_unlabeled:
        raise typer.BadParameter("--neighbors needs labels: give --data DATA or --features STORE")
    if run is None and pool not in (None, "mean"):
        raise typer.BadParameter("without a run there is no query that learned; take --pool mean, or a run")
