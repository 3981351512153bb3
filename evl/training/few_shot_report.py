"""What few-shot runs came to: a file with every number, and a picture."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path

from evl.config import RunConfig
from evl.files import write_atomically


@dataclass(frozen=True)
class Shots:
    """Heads trained on ``shots`` videos a class: top-1 percent of each draw, its mean, and Student's 95 % interval of
    the mean over draws (``mean_interval``). ``num_videos``: trained on, in each draw."""

    shots: int
    top1: tuple[float, ...]
    mean: float
    low: float
    high: float
    num_videos: int
    steps: int
    batch_size: int
    seconds: tuple[float, ...]  # of training, a draw

    @property
    def are_equal(self) -> bool:
        """Whether all draws came to the same: then the interval has no width, and says nothing."""
        return len(set(self.top1)) == 1

    @property
    def interval(self) -> str:
        return "none: all equal" if self.are_equal else f"{self.low:.1f}–{self.high:.1f}"


@dataclass(frozen=True)
class FewShotResult:
    """``protocol``: how all were judged. ``damaged``: validation videos that could not be, path → reason."""

    rows: tuple[Shots, ...]
    num_draws: int
    protocol: str
    damaged: dict[str, str]
    folder: Path

    @property
    def what_the_interval_is(self) -> str:
        text = (
            f"95 % interval (Student) of the mean over {self.num_draws} draws of training videos, initial values and "
            "order; the validation videos are the same in all"
        )
        if self.num_draws < 3:
            text += f"; of only {self.num_draws} draws it means little: take --draws 5 or more"
        if equal := [str(row.shots) for row in self.rows if row.are_equal]:
            text += f"; no interval for {', '.join(equal)} videos a class, where all draws came to the same score"
        return text


def write_few_shot(result: FewShotResult, config: RunConfig) -> None:
    """``shots.json`` and ``shots.png`` in the result's folder."""
    content = {
        "protocol": result.protocol,
        "interval": result.what_the_interval_is,
        "shots": [asdict(row) | ({"low": None, "high": None} if row.are_equal else {}) for row in result.rows],
        "damaged": result.damaged,
        "config": config.to_dict(),
    }
    with write_atomically(result.folder / "shots.json", text=True) as file:
        json.dump(content, file, indent=2, ensure_ascii=False)
    _draw(result)


def _draw(result: FewShotResult) -> None:
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    rows = result.rows
    places = [row.shots for row in rows]
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        axes.plot([row.shots] * len(row.top1), row.top1, "o", color="0.7", markersize=4, zorder=1)
    below, above = [row.mean - row.low for row in rows], [row.high - row.mean for row in rows]
    axes.errorbar(places, [row.mean for row in rows], (below, above), fmt="o-", color="C0", capsize=4, zorder=2)
    axes.set_xscale("log", base=2)
    axes.set_xticks(places, [str(place) for place in places])
    axes.minorticks_off()
    axes.set_ylim(-2, 102)
    axes.set(xlabel="training videos a class", ylabel="top-1 (percent of validation videos)")
    axes.grid(alpha=0.3)
    title = f"blue: mean, with the {result.what_the_interval_is}; grey: each draw"
    axes.set_title(textwrap.fill(title, 90), fontsize=8)
    figure.suptitle(textwrap.fill(result.protocol, 90), fontsize=8)
    with write_atomically(result.folder / "shots.png") as file:
        figure.savefig(file, format="png", dpi=120)
