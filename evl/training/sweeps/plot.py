"""A sweep as a picture: which setting matters, and how the heads learned."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path

from evl.evaluation.lettering import lettered
from evl.evaluation.picture import draw_chance, save_picture
from evl.training.sweeps.results import SweepResult

CHOSEN, OTHERS, MEAN = "#d1495b", "#30638e", "#9aa5b1"
MAX_PANELS = 5  # of settings; more would be too small to read


def draw(path: Path, result: SweepResult) -> None:
    """A panel for each setting that varies, with the score of every head at its value, and one of the losses."""
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    keys = list(result.best.settings)[:MAX_PANELS]
    columns = 2 if len(keys) == 3 else min(3, len(keys) + 1)
    rows = math.ceil((len(keys) + 1) / columns)
    figure = Figure(figsize=(1 + 4.4 * columns, 0.9 + 3.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    shared = None
    for key, panel in zip(keys, panels, strict=False):
        _setting(panel, result, key)
        if shared is not None:
            panel.sharey(shared)
        shared = panel
    _losses(panels[len(keys)], result)
    for panel in panels[len(keys) + 1 :]:
        panel.set_axis_off()
    title, protocol = _titles(result)
    has_band = result.score(result.best.evaluation).interval is not None
    band = f"band: 95 % interval of its {result.title}; " if has_band else ""
    legend = f"star: the chosen head; {band}bar: mean of the heads at a value"
    save_picture(path, figure, title=title, caption=f"{legend}\n{protocol}")


def _titles(result: SweepResult) -> tuple[str, str]:
    best = result.best
    score = result.score(best.evaluation).text(interval=True)
    name = ", ".join(f"{key.partition('.')[2]} {text}" for key, text in best.settings.items()) or "one head"
    test = "" if result.test is None else f"  ·  its test {result.title} {result.score(result.test).text()}"
    return (
        f"chosen: {name}  ·  val {result.title} {score}{test}",
        f"{len(result.ranked)} heads  ·  {best.evaluation.protocol}",
    )


def _setting(panel, result: SweepResult, key: str) -> None:
    """Heads by their value of a setting, in the order in which values were given; a bar at the mean of each."""
    in_order = sorted(result.ranked, key=lambda head: head.number)
    values = list(dict.fromkeys(head.settings[key] for head in in_order))
    best = result.score(result.best.evaluation)
    if best.interval is not None:
        panel.axhspan(*best.interval, color=CHOSEN, alpha=0.07, lw=0)
    if result.config.training.select_by == "top1":
        draw_chance(panel, result.best.evaluation.metrics.chance)
    for place, value in enumerate(values):
        heads = [head for head in in_order if head.settings[key] == value]
        judged = [head for head in heads if head.evaluation is not None]
        scores = [result.score(head.evaluation).value for head in judged]
        if judged:
            mean = sum(scores) / len(judged)
            panel.plot([place - 0.28, place + 0.28], [mean, mean], color=MEAN, lw=2.5, zorder=1)
        for rank, head in enumerate(judged):
            is_best = head is result.best
            x = place + (0.36 * ((rank + 0.5) / len(judged) - 0.5) if len(judged) > 1 else 0)
            style = dict(marker="*", s=190, color=CHOSEN, zorder=3) if is_best else dict(s=34, color=OTHERS, zorder=2)
            panel.scatter([x], [scores[rank]], edgecolors="white", linewidths=0.7, **style)
        if dropped := len(heads) - len(judged):
            where = panel.get_xaxis_transform()
            panel.text(place, 0.02, f"{dropped} dropped", transform=where, ha="center", fontsize=8, color="#777777")
    shown, options = zip(*map(lettered, values), strict=True)
    panel.set_xticks(range(len(values)), [textwrap.shorten(value, 18, placeholder="…") for value in shown])
    for label, own in zip(panel.get_xticklabels(), options, strict=True):
        label.set(**own)
    if len(values) > 4:
        panel.tick_params(axis="x", rotation=30)
    panel.set_xlim(-0.6, len(values) - 0.4)
    panel.set(xlabel=key, ylabel=", ".join(part for part in (f"val {best.metric.title}", best.metric.unit) if part))
    _plain(panel)


def _losses(panel, result: SweepResult) -> None:
    from matplotlib.ticker import MaxNLocator

    for head in sorted(result.ranked, key=lambda head: head is result.best):
        points = [(step, loss) for step, _, loss, _ in head.curve if math.isfinite(loss)]
        if points:
            is_best = head is result.best
            style = dict(color=CHOSEN, lw=2.2, label="chosen") if is_best else dict(color=OTHERS, lw=1, alpha=0.35)
            panel.plot(*zip(*points, strict=True), marker="o" if len(points) == 1 else None, **style)
    # heads that explode would press all others flat
    last = [head.curve[0][2] for head in result.judged if head.curve and math.isfinite(head.curve[0][2])]
    if last:
        panel.set_ylim(0, 1.3 * sorted(last)[len(last) // 2])
    panel.set_xlim(0, 1.04 * max((head.curve[-1][0] for head in result.ranked if head.curve), default=1))
    panel.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    panel.set(xlabel="step", ylabel="training loss")
    panel.legend(frameon=False, fontsize=9)
    _plain(panel)


def _plain(panel) -> None:
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    panel.grid(axis="y", alpha=0.25, lw=0.6)
    panel.set_axisbelow(True)
