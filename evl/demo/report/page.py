"""The page: what ``report.html.j2`` shows, from the answer to how it was measured."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from evl._version import __version__
from evl.demo.report import pictures, words
from evl.demo.report.words import score_of
from evl.demo.results import EVL, ROWS, SIDE, TASKS, VARIANTS, ZERO_SHOT, DemoResult, Example
from evl.runtime.files import write_file
from evl.runtime.text import render
from evl.types import Prediction

TEMPLATE = Path(__file__).with_name("report.html.j2")
NOUNS = {"motion": "which motion", "object": "which kind of object"}
COLORS = {variant: f"v{number}" for number, variant in enumerate(ROWS)}  # classes of style.css
LEFT, RIGHT, TOP, FLOOR = 38, 386, 12, 200  # sides of the area with curves, in units of the drawing


def write_report(path: str | Path, result: DemoResult) -> None:
    """``report.html``: self-contained, needs no script and no network. Raises SaveError where writing is refused."""
    found = [(part, [words.difference(result, *pair, task) for task in TASKS]) for part, *pair in words.PARTS]
    judged = [(task, result.of(EVL, task)[0].evaluation) for task in TASKS if result.of(EVL, task)]
    saved = [(f"{one.variant}, {one.task}", one.folder) for one in result.outcomes if one.folder is not None]
    prediction = replace(result.prediction, class_names=result.class_names)
    label = None if prediction.label is None else result.class_names[prediction.label]
    page = render(
        TEMPLATE,
        version=__version__,
        result=result,
        nouns=NOUNS,
        colors=COLORS,
        pictures=pictures,
        headline=words.headline(result),
        has_zero_shot=bool(result.of(ZERO_SHOT, "object")),
        num_seeds=len({one.seed for one in result.outcomes}),
        rows=list(_rows(result)),
        differences=[(part, pair) for part, pair in found if any(pair)],
        examples=sorted(map(_example, result.examples), key=lambda one: not one["is_correct"]),
        prefix_share=float(np.mean([one.prefix_share.mean() for one in result.examples] or 0)),
        confusions=list(_confusions(result)),
        curves=list(_curves(result)),
        drawn={one.variant for one in result.outcomes if one.curve},
        prediction={"name": Path(prediction.path).name, "best": prediction.top(3), "label": label},
        commands=_commands(result),
        protocols=[(f"protocol, {task}", evaluation.protocol) for task, evaluation in judged],
        times=[(part, words.duration(seconds)) for part, seconds in result.seconds.items()],
        files=[("everything of this run", result.folder), *saved],
    )
    write_file(path, page)


def _rows(result: DemoResult) -> Iterator[dict]:
    best = words.best_for(result, "motion")
    for variant, color in COLORS.items():
        if outcomes := [one for one in result.outcomes if one.variant == variant]:
            yield {
                "variant": variant,
                "color": color,
                "is_best": variant == best,
                "scores": {task: score_of(result.of(variant, task)) for task in TASKS},
                "trainable": outcomes[0].trainable,
                "time": words.duration(sum(one.seconds for one in outcomes)),
            }


def _example(example: Example) -> dict:
    """An example video as pictures, plain and with attention painted on them, and what it was named."""
    attention = np.asarray(example.attention, np.float64).mean(0)  # (T,h,w)
    best = Prediction(str(example.path), example.scores, class_names=example.class_names).top(3)
    return {
        "label": example.label,
        "file_name": example.path.name,
        "best": best,
        "is_correct": best[0][0] == example.label,
        "shares": (attention.sum((1, 2)) / attention.sum()).tolist(),  # of the frames
        "plain": pictures.clip_pictures(example.frames),
        "painted": pictures.painted_pictures(example.frames, attention),
    }


def _confusions(result: DemoResult) -> Iterator[dict]:
    for task in TASKS:
        matrices, class_names = [], ()
        for variant in (SIDE, EVL):
            if outcomes := result.of(variant, task):
                counts = sum(one.evaluation.metrics.confusion for one in outcomes)
                class_names = outcomes[0].evaluation.class_names
                note = f"{100 * counts.trace() / max(1, counts.sum()):.1f} % of {counts.sum():,}"
                note += f" ({len(outcomes)} seeds together). " if len(outcomes) > 1 else ". "
                note += words.confused(class_names, counts)
                matrices.append({"variant": variant, "note": note, "counts": counts.tolist()})
        if matrices:
            yield {"task": task, "class_names": class_names, "matrices": matrices}


def _curves(result: DemoResult) -> Iterator[dict]:
    """Figures of training loss and training accuracy over the share of the steps, which differ in number."""
    for task in TASKS:
        trained = [one for variant in VARIANTS[::-1] for one in result.of(variant, task) if one.curve]
        for what, column, top in (("loss", 1, None), ("accuracy in %", 2, 100)) if trained else ():
            values = [point[column] for one in trained for point in one.curve]
            top = top or max(filter(math.isfinite, values), default=1) or 1
            yield {
                "title": f"{NOUNS[task].capitalize()}: training {what}",
                "lines": [(COLORS[one.variant], _points(one.curve, column, top)) for one in trained],
                "ticks": [(f"{value:g}", _down(value, top)) for value in ticks(top)],
                "chance": _down(result.chance[task], top) if column == 2 else None,
            }


def _points(curve: tuple[tuple[int, float, float], ...], column: int, top: float) -> str:
    across = (RIGHT - LEFT) / curve[-1][0]
    finite = [point for point in curve if math.isfinite(point[column])]
    return " ".join(f"{LEFT + across * point[0]:.2f},{_down(point[column], top)}" for point in finite)


def _down(value: float, top: float) -> float:
    """Where a value of 0 to ``top`` is in the drawing."""
    return round(FLOOR - min(value, top) / top * (FLOOR - TOP), 2)


def ticks(top: float) -> list[float]:
    """Three to seven round numbers from 0 to ``top``."""
    found = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(0, top)
    return [round(float(value), 10) for value in found if value <= top * (1 + 1e-9)]


def _commands(result: DemoResult) -> list[tuple[str, str]]:
    """(what it does, command) to go on with."""
    run = next((one.folder for one in result.of(EVL, "motion") if one.folder is not None), None)
    predict = f"evl predict {shlex.quote(str(run))} {shlex.quote(result.prediction.path)}"
    train = "evl train --data my-videos/ --out runs/mine --backbone vit_base_patch16_clip_quickgelu_224.openai"
    return [
        *([("the model of this run, on the video above", predict)] if run is not None else ()),
        ("your videos, each class in a folder of its own: is everything readable?", "evl check my-videos/"),
        ("train on them, with a large image encoder; its weights are fetched once", train),
        ("scores of what was held out, with their protocol", "evl evaluate runs/mine"),
        ("any other video", "evl predict runs/mine some-video.mp4"),
    ]
