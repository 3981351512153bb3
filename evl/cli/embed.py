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
    neighbours: Annotated[
        bool,
        typer.Option(
            "--neighbours",
            help="Judge the vectors by nearest neighbours: test (or val) among train where --data has splits, else "
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

    evl embed runs/mine --data videos/ --neighbours    ·    evl embed runs/mine clip.mp4 --out clip.npy    ·    evl
    embed --backbone vit_base_patch16_dinov3 --data videos/

    Vectors are means over a video's views, not normalised; compare them by cosine. Files that cannot be used are
    listed, left out, and make the exit code 1.
    """
    from rich.markup import escape

    from evl.cli.common import Bars, console, output, print_json, start_logging
    from evl.data.loader import default_num_workers
    from evl.distributed import pick_device
    from evl.errors import ConfigError, DataError, SaveError
    from evl.evaluation import protocol_of, views_of_store
    from evl.inference import embed, views_for
    from evl.inference.embedding import joined, require_ending, write_embeddings

    start_logging()
    paths = list(paths or [])
    if crops not in (None, 1, 3):
        raise ConfigError(f"--crops {crops}: expected 1 or 3")
    if backbone is None and features is None and not paths:
        raise typer.BadParameter("expected the folder of a run, or --backbone NAME, then videos or --data DATA")
    run = paths.pop(0) if backbone is None and paths else None
    if bool(paths) + (data is not None) + (features is not None) != 1:
        raise typer.BadParameter("expected videos, --data DATA or --features STORE: one of them")
    if neighbours and paths:
        raise typer.BadParameter("--neighbours needs labels: give --data DATA or --features STORE")
    pool = pool or ("mean" if run is None else "query")
    if run is None and pool != "mean":
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
    chosen = pick_device(device)
    with Bars("videos") as bars:
        if features is not None:
            model, store, stored = _stored(run, features, split, chosen)
            task = bars.add("embedding", sum(map(len, stored)))
            streams = [views_of_store(model, store, one.name, labelled=False) for one in stored]
            samples = [sample for one in stored for sample in one.samples]
            splits = [one.name for one in stored for _ in one.samples]
        else:
            samples, splits = _videos(paths) if data is None else _listed(data, root, split)
            model = _model(run, backbone, chosen, sizes(num_frames, stride, image_size, frames_per_second))
            task = bars.add("embedding", len(samples))
            how_many = (0 if len(samples) < 16 else default_num_workers()) if workers is None else workers
            streams = [views_for(model, samples, num_clips=clips, num_crops=crops, num_workers=how_many)]
        options = dict(pool=pool, batch_size=batch_size, progress=task.advance)
        result = joined([embed(model, stream, **options) for stream in streams])
    if not result.samples:
        path, reason = next(iter(result.damaged.items()))
        raise DataError(
            f"not one of {len(samples)} videos could be read, such as {path}: {reason}; nothing is written. Are these "
            "videos? 'evl check' looks at every one"
        )
    split_of = dict(zip((sample.name for sample in samples), splits, strict=True))
    kept = [split_of[sample.name] for sample in result.samples]
    write_embeddings(out, result, None if paths else kept)
    scores = _judged(result, kept) if neighbours else None
    protocol = protocol_of(model, streams[0], len(result.samples))
    if features is not None and "train" in splits:
        protocol += "; training videos by their stored training clips"
    if json:
        document = {"vectors": str(out), "num_videos": len(result.samples), "width": result.vectors.shape[1]}
        document |= {"pool": pool, "protocol": protocol, "failed": result.damaged}
        print_json(document | ({"neighbours": scores.to_dict()} if scores else {}))
    else:
        for name, reason in result.damaged.items():
            console.print(f"[red]failed:[/red] {escape(name)}: {escape(reason)}", highlight=False, soft_wrap=True)
        if scores is not None:
            print_neighbours(scores)
        shape = f"{len(result.samples)} vectors of {result.vectors.shape[1]} numbers ({pool}; {protocol})"
        output.print(f"{shape} are in {out}", highlight=False, markup=False, soft_wrap=True)
    if result.damaged:
        raise typer.Exit(1)


def _videos(paths: list[Path]):
    """(samples, no splits) of files and folders."""
    from evl.data.paths import videos_at

    samples = videos_at(paths)
    return samples, [None] * len(samples)


def _listed(data: Path, root: Path | None, split: str | None):
    """(samples, split of each) of a manifest or folder."""
    from evl.data import read_manifest
    from evl.errors import DataError

    manifest = read_manifest(data, root=root)
    manifest.require_videos()
    if split is not None and split not in manifest.splits:
        raise DataError(f"{data} has no split {split!r}, only {', '.join(manifest.splits)}")
    chosen = {name: group for name, group in manifest.splits.items() if split in (None, name)}
    samples = [sample for group in chosen.values() for sample in group]
    return samples, [name for name, group in chosen.items() for _ in group]


def _stored(run: Path | None, features: Path, split: str | None, device):
    """(the run's model, or one with nothing that learned, that takes stored clips, the store, its splits that are
    asked for)."""
    from evl.assembly import build_classifier
    from evl.config import replace
    from evl.errors import DataError
    from evl.evaluation import encoder_for, load_for_store
    from evl.features.fit import config_of
    from evl.features.store import FeatureStore

    store = FeatureStore(features)
    if split is not None and split not in store.splits:
        raise DataError(f"{features} has no split {split!r}, only {', '.join(store.splits)}")
    if run is not None:
        model = load_for_store(run, store, device)
    else:
        config = replace(config_of(store.description), model={"decoder": "linear"})
        model = build_classifier(config, ("unused", "head"), backbone=encoder_for(config.model, store))
    return model.to(device).eval(), store, [one for name, one in store.splits.items() if split in (None, name)]


def _model(run: Path | None, backbone: str | None, device, fitted: dict):
    """A saved model, or a frozen encoder with nothing on it that learns."""
    from evl.assembly import build_classifier, load
    from evl.backbones import named
    from evl.config import RunConfig, replace

    if run is not None:
        return load(run, device=device, **fitted)
    config = replace(RunConfig(backbone=named(backbone)), model={"decoder": "linear"})
    by = {name: fitted[name] for name in ("stride", "frames_per_second") if fitted[name] is not None}
    if not by:  # spread over the whole video
        config = replace(config, clip={"sampling": "segment"}, evaluation={"num_clips": 1})
    else:
        config = replace(config, clip=by)
    if fitted["num_frames"] is not None:
        config = replace(config, clip={"num_frames": fitted["num_frames"]})
    if fitted["image_size"] is not None:
        config = replace(config, backbone={"image_size": fitted["image_size"]})
    return build_classifier(config, ("unused", "head")).to(device).eval()  # whose head is never asked


def _judged(result, splits):
    from evl.errors import DataError
    from evl.evaluation import neighbour_scores

    if len(result.samples) < 2:
        raise DataError("--neighbours: one video alone has no neighbours; the vector is written")
    names = sorted({sample.label for sample in result.samples})
    labels = [names.index(sample.label) for sample in result.samples]
    asked = next((name for name in ("test", "val") if name in splits), None)
    if asked is None or "train" not in splits:
        return neighbour_scores(result.vectors, labels, groups=[sample.path for sample in result.samples])
    rows = {name: [row for row, split in enumerate(splits) if split == name] for name in (asked, "train")}
    gallery, queries = rows["train"], rows[asked]
    return neighbour_scores(
        result.vectors[queries],
        [labels[row] for row in queries],
        gallery=result.vectors[gallery],
        gallery_labels=[labels[row] for row in gallery],
    )


def print_neighbours(scores) -> None:
    """A table of what ``neighbour_scores`` found."""
    from rich.table import Table

    from evl.cli.common import output

    low, high = scores.top1_interval
    table = Table("nearest neighbours by cosine", "percent")
    table.add_row("the nearest is of the same class (top-1)", f"{scores.recall[1]:.1f}  ({low:.1f}–{high:.1f})")
    table.add_row("vote of the 20 nearest", f"{scores.vote:.1f}")
    for k in (5, 10):
        table.add_row(f"one of the {k} nearest is", f"{scores.recall[k]:.1f}")
    table.add_row("mean average precision", f"{scores.mean_average_precision:.1f}")
    table.add_row("chance (top-1)", f"{scores.chance:.1f}")
    output.print(table)
    alone = f"; {scores.num_alone} have no other of their class there and count as misses" if scores.num_alone else ""
    output.print(f"{scores.num_queries} videos among {scores.num_gallery}{alone}", highlight=False)
