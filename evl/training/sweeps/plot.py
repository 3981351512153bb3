"""The results of a sweep as files: numbers, a table, and a picture of scores by setting and of losses."""

from __future__ import annotations

import contextlib
import csv
import math
import textwrap
from pathlib import Path

from evl.errors import RunError, one_line
from evl.evaluation.picture import draw_chance, drawing, lettered, save_picture
from evl.runtime.files import are_torn, json_bytes, strict_json, table_text, write_together
from evl.training.run_folder import RunFolder
from evl.training.sweeps.results import SweepResult

SWEEP, TABLE, ID = "sweep.json", "sweep.csv", "sweep_id"
CHOSEN, OTHERS, MEAN = "#d1495b", "#30638e", "#9aa5b1"
MAX_PANELS = 5  # panels of settings; more would be too small to read


def write_sweep(out: Path, result: SweepResult) -> None:
    """Writes ``sweep.json``, ``sweep.csv``, ``sweep.png``, and ``damaged.csv`` if videos are damaged."""
    if result.damaged:
        RunFolder(out).write_damaged(result.damaged)
    names, rows = list(result.rows[0]), [list(row.values()) for row in result.rows]
    with drawing(out / "sweep.png"):
        draw(out / "sweep.png", result)
    table = table_text([[*names, ID], *([*row, result.sweep_id] for row in rows)])
    # ``sweep.json`` is last: a sweep with this file is finished
    write_together({out / TABLE: table, out / SWEEP: json_bytes(result.to_dict(), indent=2)})


def read_sweep(out: Path) -> dict:
    """The content of ``sweep.json``. Raises RunError if it is damaged, or if ``sweep.csv`` is of another sweep."""
    try:
        told = strict_json((out / SWEEP).read_text(encoding="utf-8"))
        own_id, ids = told.get(ID), []
        with contextlib.suppress(FileNotFoundError), open(out / TABLE, encoding="utf-8", newline="") as file:
            ids = [row.get(ID) for row in csv.DictReader(file)]
    except (OSError, ValueError, AttributeError, RecursionError, csv.Error) as error:
        raise RunError(f"{out}: {SWEEP} or {TABLE} cannot be read ({one_line(error)})") from None
    if are_torn(own_id, *ids):
        raise RunError(
            f"{out}: {TABLE} and {SWEEP} are not of the same sweep; perhaps one was copied from elsewhere; run the "
            "sweep again with another `out`"
        )
    return told


def draw(path: Path, result: SweepResult) -> None:
    """Draws a panel per setting that varies, with the score of each learner at its value, and a panel of the losses."""
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
    legend = f"star: the chosen learner; {band}bar: mean of the learners with a value"
    save_picture(path, figure, title=title, caption=f"{legend}\n{protocol}")


def _titles(result: SweepResult) -> tuple[str, str]:
    best = result.best
    score = result.score(best.evaluation).text(interval=True)
    name = ", ".join(f"{key.partition('.')[2]} {text}" for key, text in best.settings.items()) or "one learner"
    test = "" if result.test is None else f"  ·  its test {result.title} {result.score(result.test).text()}"
    return (
        f"chosen: {name}  ·  val {result.title} {score}{test}",
        f"{len(result.ranked)} learners  ·  {best.evaluation.protocol}",
    )


def _setting(panel, result: SweepResult, key: str) -> None:
    """Draws the learners by their value of a setting, in the given order, with a bar at the mean of each value."""
    in_order = sorted(result.ranked, key=lambda learner: learner.number)
    values = list(dict.fromkeys(learner.settings[key] for learner in in_order))
    best = result.score(result.best.evaluation)
    if best.interval is not None:
        panel.axhspan(*best.interval, color=CHOSEN, alpha=0.07, lw=0)
    if result.config.training.select_by == "top1":
        draw_chance(panel, result.best.evaluation.metrics.chance)
    for place, value in enumerate(values):
        learners = [learner for learner in in_order if learner.settings[key] == value]
        judged = [learner for learner in learners if learner.evaluation is not None]
        scores = [result.score(learner.evaluation).value for learner in judged]
        if judged:
            mean = sum(scores) / len(judged)
            panel.plot([place - 0.28, place + 0.28], [mean, mean], color=MEAN, lw=2.5, zorder=1)
        for rank, learner in enumerate(judged):
            is_best = learner is result.best
            x = place + (0.36 * ((rank + 0.5) / len(judged) - 0.5) if len(judged) > 1 else 0)
            style = dict(marker="*", s=190, color=CHOSEN, zorder=3) if is_best else dict(s=34, color=OTHERS, zorder=2)
            panel.scatter([x], [scores[rank]], edgecolors="white", linewidths=0.7, **style)
        if dropped := len(learners) - len(judged):
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

    for learner in sorted(result.ranked, key=lambda learner: learner is result.best):
        points = [(step, loss) for step, _, loss, _ in learner.curve if math.isfinite(loss)]
        if points:
            is_best = learner is result.best
            style = dict(color=CHOSEN, lw=2.2, label="chosen") if is_best else dict(color=OTHERS, lw=1, alpha=0.35)
            panel.plot(*zip(*points, strict=True), marker="o" if len(points) == 1 else None, **style)
    # a learner whose loss explodes would leave no room for the others
    last = [learner.curve[0][2] for learner in result.judged if learner.curve and math.isfinite(learner.curve[0][2])]
    if last:
        panel.set_ylim(0, 1.3 * sorted(last)[len(last) // 2])
    panel.set_xlim(0, 1.04 * max((learner.curve[-1][0] for learner in result.ranked if learner.curve), default=1))
    panel.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    panel.set(xlabel="step", ylabel="training loss")
    panel.legend(frameon=False, fontsize=9)
    _plain(panel)


def _plain(panel) -> None:
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    panel.grid(axis="y", alpha=0.25, lw=0.6)
    panel.set_axisbelow(True)
