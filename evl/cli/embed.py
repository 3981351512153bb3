"""evl embed"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evl.cli.options import FramesPerSecond, ImageSize, NumFrames, Stride, sizes

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
    root: Annotated[Path | None, typer.Option(help="Where the listed videos lie; default: beside the list.")] = None,
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
    clips: Annotated[int | None, typer.Option(min=1, help="Clips a video; default: the model's own.")] = None,
    crops: Annotated[int | None, typer.Option(help="Crops a clip, 1 or 3; default: the model's own.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Videos at a time, each with all its views.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that read videos; default: one a core.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …; default: CUDA if there is one.")] = None,
    num_frames: NumFrames = None,
    stride: Stride = None,
    frames_per_second: FramesPerSecond = None,
    image_size: ImageSize = None,
) -> None:
    """One vector a video, for search, clustering and maps.

    evl embed runs/mine --data videos/ --neighbors    ·    evl embed runs/mine clip.mp4 --out clip.npy    ·    evl
    embed --backbone vit_base_patch16_dinov3 --data videos/

    Vectors are means over a video's views, not normalised; compare them by cosine. Files that cannot be used are
    listed, left out, and make the exit code 1.
    """
    from rich.markup import escape

    from evl.api.settings import open_store
    from evl.api.vectors import embed_videos
    from evl.backbones import named
    from evl.cli.common import console, output, print_json, start_logging
    from evl.errors import ConfigError, SaveError
    from evl.inference.embedding import require_ending, write_embeddings

    start_logging()
    paths = list(paths or [])
    if crops not in (None, 1, 3):
        raise ConfigError(f"--crops {crops}: expected 1 or 3")
    if backbone is None and features is None and not paths:
        raise typer.BadParameter("expected the folder of a run, or --backbone NAME, then videos or --data DATA")
    run = paths.pop(0) if backbone is None and paths else None
    if bool(paths) + (data is not None) + (features is not None) != 1:
        raise typer.BadParameter("expected videos, --data DATA or --features STORE: one of them")
    if neighbors and paths:
        raise typer.BadParameter("--neighbors needs labels: give --data DATA or --features STORE")
    if run is None and pool not in (None, "mean"):
        raise typer.BadParameter("without a run there is no query that learned; take --pool mean, or a run")
    views = (backbone, root, clips, crops, workers, num_frames, stride, frames_per_second, image_size)
    if features is not None and any(option is not None for option in views):
        raise typer.BadParameter(
            "--features takes the backbone, videos, views and sizes of the store: leave out --backbone, --root, "
            "--clips, --crops, --workers, --num-frames, --stride, --frames-per-second and --image-size"
        )
    require_ending(out)
    if data is not None and data.resolve() in (out.resolve(), out.with_suffix(".videos.csv").resolve()):
        raise SaveError(f"{out}: would be written over --data; choose another --out")
    found = embed_videos(
        run if backbone is None else named(backbone),
        open_store(features) if features is not None else data or paths,
        pool=pool,
        split=split,
        root=root,
        labeled=data is not None,
        num_clips=clips,
        num_crops=crops,
        batch_size=batch_size,
        num_workers=workers,
        device=device,
        **sizes(num_frames, stride, image_size, frames_per_second),
    )
    write_embeddings(out, found, None if paths else found.splits)
    scores = found.neighbors() if neighbors else None
    if json:
        document = {"vectors": str(out), "num_videos": len(found.samples), "width": found.vectors.shape[1]}
        document |= {"pool": found.pool, "protocol": found.protocol, "failed": found.damaged}
        print_json(document | ({"neighbors": scores.to_dict()} if scores else {}))
    else:
        for name, reason in found.damaged.items():
            console.print(f"[red]failed:[/red] {escape(name)}: {escape(reason)}", highlight=False, soft_wrap=True)
        if scores is not None:
            print_neighbors(scores)
        shape = f"{len(found.samples)} vectors of {found.vectors.shape[1]} numbers ({found.pool}; {found.protocol})"
        output.print(f"{shape} are in {out}", highlight=False, markup=False, soft_wrap=True)
    if found.damaged:
        raise typer.Exit(1)


def print_neighbors(scores) -> None:
    """A table of what ``neighbor_scores`` found."""
    from rich.table import Table

    from evl.cli.common import output

    low, high = scores.top1_interval
    table = Table("nearest neighbors by cosine", "percent")
    table.add_row("the nearest is of the same class (top-1)", f"{scores.recall[1]:.1f}  ({low:.1f}–{high:.1f})")
    table.add_row("vote of the 20 nearest", f"{scores.vote:.1f}")
    for k in (5, 10):
        table.add_row(f"one of the {k} nearest is", f"{scores.recall[k]:.1f}")
    table.add_row("mean average precision", f"{scores.mean_average_precision:.1f}")
    table.add_row("chance (top-1)", f"{scores.chance:.1f}")
    output.print(table)
    alone = f"; {scores.num_alone} have no other of their class there and count as misses" if scores.num_alone else ""
    output.print(f"{scores.num_queries} videos among {scores.num_gallery}{alone}", highlight=False)
