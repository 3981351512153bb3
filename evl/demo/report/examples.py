"""Example videos: as the encoder gets them, and with what the decoder read painted on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL.Image import Image

from evl.demo.report import figures, pictures
from evl.demo.report.html import Html, element, join
from evl.demo.results import DemoResult, Example


def examples(result: DemoResult) -> Html:
    """All of the result's, which has some: those that were named correctly first."""
    hits = [one for one in result.examples if _is_correct(one)]
    misses = [one for one in result.examples if not _is_correct(one)]
    num_layers = len(result.examples[0].attention)
    return join(
        element(
            "p",
            "Test videos as the encoder gets them, each beside what EVL’s query token read of it: its attention over "
            f"all patches of all frames, averaged over heads and {num_layers} decoder layers. The columns give each "
            "frame’s share.",
        ),
        element(
            "div",
            element("span", "nothing"),
            element("i", style=f"background:linear-gradient(90deg, {', '.join(pictures.legend_colors())})"),
            element("span", "the most that a patch of this video got"),
            class_="scale",
            role="img",
            aria_label="Colour scale of the attention, from nothing to the most that a patch of this video got",
        ),
        element("p", _caution(result, len(hits), len(misses)), class_="note"),
        element("ul", [_example(one) for one in (*hits, *misses)], class_="examples"),
    )  # fmt: skip


def _caution(result: DemoResult, num_hits: int, num_misses: int) -> str:
    """What the colours do not say, and how much of the attention they leave out."""
    share = float(np.mean([one.prefix_share.mean() for one in result.examples]))
    said = (
        "Attention shows where the decoder read. It does not prove why it decided: a patch’s features know of the "
        "whole frame, and what is read much may weigh little."
    )
    if share > 0:
        said += f" {100 * share:.0f} % of it went to class tokens, which have no place in the picture."
    return f"{said} Of these examples {num_hits} were named correctly and {num_misses} not: to look at, not a score."


def _is_correct(example: Example) -> bool:
    return example.class_names[int(np.argmax(example.scores))] == example.label


def _example(example: Example) -> Html:
    attention = np.asarray(example.attention, np.float64).mean(0)  # (T,h,w)
    frames = attention.sum((1, 2)) / attention.sum()
    plain, painted = pictures.clip_pictures(example.frames), pictures.painted_pictures(example.frames, attention)
    mark = ("correct", "right") if _is_correct(example) else ("not correct", "wrong")
    return element(
        "li",
        element(
            "div",
            _moving(plain, f"{len(plain)} frames of a video: {example.label}"),
            _moving(painted, "The same frames in grey, with the decoder’s attention in colour"),
            class_="pair",
        ),
        figures.columns(frames, "Share of each frame: " + ", ".join(f"{100 * share:.0f} %" for share in frames)),
        element("h3", example.label),
        element("p", element("span", mark[0], class_=f"mark {mark[1]}"), f" · {example.path.name}", class_="note"),
        top_scores(example.scores, example.class_names, example.label),
        class_="example",
    )


def _moving(images: list[Image], alternative: str) -> Html:
    """An animated picture; where nothing should move, and on paper, all its frames at once."""
    width, height = images[0].size
    return element(
        "picture",
        element("source", media="(prefers-reduced-motion: reduce), print", srcset=pictures.sheet(images)),
        element("img", src=pictures.animated(images), alt=alternative, width=width, height=height),
    )


def top_scores(scores: Sequence[float], class_names: Sequence[str], label: str | None, most: int = 3) -> Html:
    """The best classes with their scores: the true one in one colour, a wrong first one in another."""
    order = sorted(range(len(scores)), key=lambda y: (-scores[y], y))[:most]

    def kind(place: int, name: str) -> str:
        if name == label or (label is None and place == 0):
            return "right"
        return "other" if place or label is None else "wrong"

    return element(
        "ol",
        [
            element(
                "li",
                element("span", class_names[y], class_="is-label" if class_names[y] == label else None),
                element("span", f"{100 * scores[y]:.0f} %"),
                figures.share_bar(scores[y], kind(place, class_names[y])),
            )
            for place, y in enumerate(order)
        ],
        class_="tops",
    )
