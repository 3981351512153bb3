"""Evaluations of timelines as files: scores, tables by class and by video, segments, scores of windows, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from evl.evaluation.picture import drawing, lettering, save_picture
from evl.evaluation.report import draw_confusion
from evl.evaluation.saved_predictions import METRICS_FILE
from evl.evaluation.timelines.evaluate import TimelineEvaluation
from evl.evaluation.timelines.metrics import TIMELINE_METRICS
from evl.inference.timeline_files import SEGMENTS, names_of, write_scores, write_segments
from evl.runtime.files import expand_home, json_bytes, make_folder, remove_file, table_text, write_together

CLASSES, VIDEOS, CONFUSION, TRACKS = "classes.csv", "videos.csv", "confusion.csv", "tracks.png"
SCORES_FOLDER = "scores"
MOST_TRACKS = 12  # videos in the picture
NOTHING = "(nothing)"  # the label of time without segments


def write_timeline_evaluation(folder: str | Path, evaluation: TimelineEvaluation) -> None:
    """``metrics.json``, ``classes.csv``, ``videos.csv``, ``confusion.csv`` (seconds), ``segments.csv``, the scores of
    windows in ``scores/``, ``confusion.png``, and ``tracks.png``: what is labeled above what was found."""
    folder, names = expand_home(Path(folder)), [*evaluation.class_names, NOTHING]
    seconds = evaluation.judged.seconds.sum(0)
    content = evaluation.to_dict() | {
        "classes": evaluation.classes(),
        "failed": dict(evaluation.failed),
        "damaged": {path: [list(gap) for gap in gaps] for path, gaps in evaluation.damaged.items()},
    }
    confusion = [
        ["label \\ found", *names],
        *([name, *row] for name, row in zip(names, _rounded(seconds), strict=True)),
    ]
    make_folder(folder / SCORES_FOLDER)
    write_segments(folder / SEGMENTS, evaluation.timelines)
    written = [folder / SCORES_FOLDER / f"{name}.parquet" for name in names_of(evaluation.timelines)]
    for path, line in zip(written, evaluation.timelines, strict=True):
        write_scores(path, line)
    for path in {*(folder / SCORES_FOLDER).glob("*.parquet")} - {*written}:
        remove_file(path)  # of an earlier evaluation
    write_together(
        {
            folder / METRICS_FILE: json_bytes(content, indent=2),
            folder / CLASSES: table_text(_rows(evaluation.classes())),
            folder / VIDEOS: table_text(_rows(evaluation.videos())),
            folder / CONFUSION: table_text(confusion),
        }
    )
    title = "  ·  ".join(
        f"{TIMELINE_METRICS[name].title} {evaluation.metrics.scores[name].text()}"
        for name in ("frame_accuracy", "chance")
    )
    with drawing(folder / "confusion.png"):  # last, because a picture may fail
        draw_confusion(folder / "confusion.png", seconds, names, title, evaluation.protocol, unit="time")
    with drawing(folder / TRACKS):
        _draw_tracks(folder / TRACKS, evaluation)


def _rows(rows: Sequence[Mapping]) -> list[list]:
    cells = [["" if value is None else round(value, 4) if isinstance(value, float) else value
              for value in row.values()] for row in rows]  # fmt: skip
    return [list(rows[0]), *cells]


def _rounded(values: np.ndarray) -> list[list[float]]:
    return np.round(values, 3).tolist()


def _draw_tracks(path: Path, evaluation: TimelineEvaluation) -> None:
    """The first videos, one below the other: a lane with the labeled segments above one with those that were found."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    judged = evaluation.judged
    videos, names = judged.videos[:MOST_TRACKS], lettering(judged.labels[:20])
    colors = colormaps["tab10" if len(judged.labels) <= 10 else "tab20"]
    color_of = {label: colors(y % colors.N) for y, label in enumerate(judged.labels)}
    legend_height = 0.25 * ((len(names.shown) + 2) // 3)
    figure = Figure(figsize=(10, 1.2 + 0.75 * len(videos) + legend_height), layout="constrained")
    ratios = [0.75] * len(videos) + [legend_height]
    *all_axes, below = figure.subplots(len(videos) + 1, 1, height_ratios=ratios)
    below.axis("off")
    shown = set()
    for axes, video in zip(all_axes, videos, strict=True):
        for row, segments in ((1, video.joined), (0, video.track)):
            for one in segments:
                width = one.end_seconds - one.start_seconds
                axes.barh(row, width, left=one.start_seconds, height=0.85, color=color_of[one.label])
                shown.add(one.label)
        for start, end in video.gaps:
            axes.axvspan(start, end, color="#cccccc")
        axes.set_xlim(*video.span)
        axes.set_yticks([0, 1], ["found", "labeled"], fontsize=7)
        axes.tick_params(axis="x", labelsize=7)
        name = lettering([Path(video.path).name])
        axes.set_title(name.shown[0], fontsize=8, loc="left", pad=2, **name.options)
    all_axes[-1].set_xlabel("seconds", fontsize=8)
    patches = [
        _patch(color_of[label], text) for label, text in zip(judged.labels, names.shown, strict=False) if label in shown
    ]
    if patches:
        below.legend(handles=patches, loc="center", ncols=3, frameon=False,
                     prop={"family": names.options["fontfamily"], "size": 8})  # fmt: skip
    title = "  ·  ".join(evaluation.metrics.scores[name].metric.title + " " + evaluation.metrics.scores[name].text()
                         for name in ("map_30_70", "f1_50", "edit"))  # fmt: skip
    more = len(judged.videos) - len(videos)
    caption = evaluation.protocol + (f"\nthe first {len(videos)} of {len(judged.videos)} videos" if more else "")
    save_picture(path, figure, title=title, caption=caption, dpi=100)


def _patch(color, text: str):
    from matplotlib.patches import Patch

    return Patch(color=color, label=text)
