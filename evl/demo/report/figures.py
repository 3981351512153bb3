"""Drawings of the report, as inline SVG and tables: bars with whiskers, curves, confusion matrices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from evl.demo.report.html import Html, element, join, number
from evl.demo.report.scores import Score

Curve = Sequence[tuple[float, float]]
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 400, 240, 38, 14, 12, 40  # of a figure of curves, in its own units


def bar(score: Score, chance: float | None, kind: str) -> Html:
    """0–100 %: a bar, its interval as a whisker, a dot a seed where there are several, chance as a dashed line."""

    def line(x: float, other: float, y: float, until: float, class_: str) -> Html:
        return element("line", x1=f"{number(x)}%", x2=f"{number(other)}%", y1=y, y2=until, class_=class_)

    label = f"{score.percent}, 95 % interval {score.interval}"
    if chance is not None:
        label += f", chance {chance:.1f}"
    return element(
        "svg",
        element("rect", x=0, y=0, width="100%", height=18, class_="track"),
        element("rect", x=0, y=4, width=f"{number(score.value)}%", height=10, class_=f"fill {kind}"),
        [element("circle", cx=f"{number(one)}%", cy=9, r=2, class_="seed") for one in score.each[1:] and score.each],
        line(score.low, score.high, 9, 9, "whisker"),
        line(score.low, score.low, 5, 13, "whisker"),
        line(score.high, score.high, 5, 13, "whisker"),
        None if chance is None else line(chance, chance, 0, 18, "chance"),
        class_="bar",
        height=18,
        role="img",
        aria_label=label,
    )


def share_bar(share: float, kind: str) -> Html:
    """A thin bar of 0–1; the number stands beside it in the page."""
    return element(
        "svg",
        element("rect", x=0, y=0, width="100%", height=6, class_="track"),
        element("rect", x=0, y=0, width=f"{number(100 * share)}%", height=6, class_=f"fill {kind}"),
        class_="share",
        height=6,
        aria_hidden="true",
    )


def columns(values: Sequence[float], label: str) -> Html:
    """One column a value, the largest as high as the drawing."""
    step, largest = 100 / max(1, len(values)), max([*values, 1e-12])
    return element(
        "svg",
        [
            element(
                "rect",
                x=f"{number(i * step + step * 0.1)}%",
                width=f"{number(step * 0.8)}%",
                y=number(22 * (1 - value / largest)),
                height=number(22 * value / largest),
                class_="fill read",
            )
            for i, value in enumerate(values)
        ],
        class_="columns",
        height=22,
        role="img",
        aria_label=label,
    )


def curves(
    title: str, lines: Iterable[tuple[str, Curve]], *, top: float | None = None, chance: float | None = None
) -> Html:
    """Lines over a training, 0 to 100 %; ``lines``: (class of the colour, points). It ends at ``top``, or with them."""
    lines = [(kind, [(x, y) for x, y in points if math.isfinite(y)]) for kind, points in lines]
    last = max((x for _, points in lines for x, _ in points), default=1) or 1
    top = top or max((y for _, points in lines for _, y in points), default=1) or 1
    x_ticks, y_ticks = ticks(last), ticks(top)

    def across(x: float) -> str:
        return number(LEFT + x / last * (WIDTH - LEFT - RIGHT))

    def down(y: float) -> str:
        return number(TOP + (1 - min(y, top) / top) * (HEIGHT - TOP - BOTTOM))

    floor = HEIGHT - BOTTOM
    drawing = element(
        "svg",
        [
            (
                element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=down(y), y2=down(y), class_="grid"),
                element("text", f"{y:g}", x=LEFT - 6, y=down(y), dy="0.32em", text_anchor="end"),
            )
            for y in y_ticks
        ],
        [element("text", f"{x:g}", x=across(x), y=floor + 16, text_anchor="middle") for x in x_ticks],
        element("text", "% of the training", x=WIDTH - RIGHT, y=floor + 32, text_anchor="end"),
        None
        if chance is None
        else element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=down(chance), y2=down(chance), class_="chance"),
        [
            element("polyline", points=" ".join(f"{across(x)},{down(y)}" for x, y in points), class_=f"curve {kind}")
            for kind, points in lines
        ],
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        class_="curves",
        role="img",
        aria_label=f"{title}, over the training",
    )
    return element("figure", element("figcaption", title), drawing)


def ticks(top: float) -> list[float]:
    """Three to six round numbers from 0 to ``top``."""
    step = 10 ** math.floor(math.log10(top))
    step = next(step * part for part in (0.2, 0.5, 1, 2) if top / (step * part) < 6)
    return [round(i * step, 10) for i in range(int(top / step + 1e-9) + 1)]


def confusion(title: str, note: str, class_names: Sequence[str], counts: np.ndarray, *, named: bool) -> Html:
    """Counts (Y,Y), labels down and predictions across, as a table; a colour is the share of its row.

    ``named``: rows carry names, where there is room for them; otherwise and on small screens numbers.
    """
    numbers = range(1, len(class_names) + 1)
    totals = counts.sum(1)

    def cell(y: int, z: int) -> Html:
        share = counts[y, z] / max(1, totals[y])
        kind = "right" if y == z else "wrong"
        kind += " full" if share > 0.87 else " strong" if share > 0.75 else ""  # where other ink reads better
        title = f"{class_names[y]} → {class_names[z]}: {counts[y, z]} of {totals[y]}"
        return element("td", int(counts[y, z]) or "", class_=kind, style=f"--share:{share:.3f}", title=title)

    return element(
        "figure",
        element("figcaption", element("strong", title), " ", note),
        element(
            "table",
            element(
                "thead",
                element(
                    "tr",
                    element("td", element("span", "true ↓  named →", class_="corner")),
                    [element("th", n, scope="col", title=name) for n, name in zip(numbers, class_names, strict=True)],
                ),
            ),
            element(
                "tbody",
                [
                    element(
                        "tr",
                        element(
                            "th",
                            element("span", name, class_="name"),
                            element("span", n, class_="number"),
                            scope="row",
                            title=name,
                        ),
                        [cell(y, z) for z in range(len(class_names))],
                    )
                    for y, (n, name) in enumerate(zip(numbers, class_names, strict=True))
                ],
            ),
            class_="named" if named else None,
            style=f"--classes:{len(class_names)}",
        ),
        class_="confusion",
    )


def key(class_names: Sequence[str]) -> Html:
    """The numbers of a confusion matrix with their names, for screens that have no room for both."""
    return element("ol", [element("li", name) for name in class_names], class_="key")


def legend(entries: Iterable[tuple[str, str]]) -> Html:
    """(class of the colour, name) of lines."""
    swatch = (
        '<svg width="26" height="10" aria-hidden="true"><line x1="1" x2="25" y1="5" y2="5" class="curve {}"/></svg>'
    )
    return element(
        "ul",
        [element("li", join(Html(swatch.format(kind)), " ", name)) for kind, name in entries],
        class_="legend",
    )
