"""evl evaluate"""

from __future__ import annotations

from evl.cli import evaluation_usage as own
from evl.cli import options as opt
from evl.cli import timeline_options as line

NAME = "evaluate"


def command(
    run: own.Run = None,
    data: own.Data = None,
    features: opt.Features = None,
    root: opt.Root = None,
    layout: opt.Layout = "auto",
    split_number: opt.SplitNumber = 1,
    zero_shot: own.ZeroShot = False,
    backbone: opt.Backbone = None,
    weights: opt.Weights = None,
    prompts: opt.Prompts = [],  # noqa: B006  (typer copies it)
    split: own.Split = None,
    clips: opt.Clips = None,
    crops: opt.Crops = None,
    workers: opt.Workers = None,
    metrics: own.Metrics = [],  # noqa: B006
    out: own.Out = None,
    json: opt.Json = False,
    batch_size: opt.BatchSize = None,
    device: opt.Device = None,
    num_frames: opt.NumFrames = None,
    stride: opt.Stride = None,
    frames_per_second: opt.FramesPerSecond = None,
    image_size: opt.ImageSize = None,
    timeline: own.Timeline = False,
    choose_thresholds: own.ChooseThresholds = False,
    earlier: line.Earlier = [],  # noqa: B006
    every_seconds: line.EverySeconds = None,
    every_frames: line.EveryFrames = None,
    window_seconds: line.WindowSeconds = None,
    on: line.On = [],  # noqa: B006
    off: line.Off = [],  # noqa: B006
    smooth: line.Smooth = None,
    merge_seconds: line.MergeSeconds = None,
    min_seconds: line.MinSeconds = None,
) -> None:
    """Judge a model on labelled videos: top-1 and other metrics, and the confusion matrix.

    evl evaluate runs/mine --data videos/    ·    evl evaluate --zero-shot --backbone
    vit_base_patch16_clip_quickgelu_224.openai --data videos/    ·    evl evaluate runs/mine --timeline --data
    segments.csv

    Writes predictions.parquet (evl.read_predictions reads it), metrics.json, confusion.csv and confusion.png. Damaged
    videos are listed and make the exit code 1. With --timeline, it judges what the model finds when in long videos, by
    a manifest with a row for each segment: average precision, F1, edit score, frames, delays.
    """
    from evl.api.judging import evaluate
    from evl.api.stores import open_store
    from evl.api.timeline_judging import evaluate_timelines
    from evl.cli.show_evaluation import show_evaluation
    from evl.cli.show_timeline_evaluation import show_timeline_evaluation
    from evl.cli.show_timelines import thresholds
    from evl.cli.zero_shot import refuse_mixed, zero_shot_model
    from evl.data.manifests.manifest import read_manifest
    from evl.evaluation import held_for_scores

    sizes = dict(num_frames=num_frames, stride=stride, frames_per_second=frames_per_second, image_size=image_size)
    segments = dict(
        choose_thresholds=choose_thresholds, every_seconds=every_seconds, every_frames=every_frames,
        window_seconds=window_seconds, on=thresholds("--on", on), off=thresholds("--off", off), smooth=smooth,
        merge_seconds=merge_seconds, min_seconds=min_seconds,
    )  # fmt: skip
    of_videos = dict(features=features, zero_shot=zero_shot, clips=clips, workers=workers, metric=metrics)
    own.refuse_mixed_kinds(timeline, segments | {"from": earlier}, of_videos)
    if not (timeline and earlier):
        own.refuse_mixed_runs(run, zero_shot, data, features, out)
    refuse_mixed(zero_shot, (backbone, weights, prompts), (stride, frames_per_second, image_size))
    out = out if zero_shot else own.folder_for(run, out, is_timeline=timeline)
    how = dict(split=split, num_crops=crops, batch_size=batch_size)
    if timeline:
        how |= dict(root=root, device=device, scores=earlier, out=out, **segments, **sizes)
        return show_timeline_evaluation(evaluate_timelines(run, data, **how), out, json)
    videos = dict(root=root, layout=layout, split_number=split_number)
    how |= dict(num_clips=clips, num_workers=workers, metrics=metrics or None)
    if zero_shot:
        manifest = read_manifest(data, **videos)
        model = zero_shot_model(manifest.class_names, backbone, weights, prompts, num_frames, device)
        with held_for_scores(out):
            return show_evaluation(evaluate(model, manifest, **how), out, json, model)
    source = data if features is None else open_store(features)
    with held_for_scores(out):
        show_evaluation(evaluate(run, source, device=device, **videos, **how, **sizes), out, json)
