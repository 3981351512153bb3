"""What few-shot runs came to: a file with every number, and a picture."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from evl.config import RunConfig
from evl.evaluation import Metric
from evl.evaluation.picture import draw_chance, save_picture
from evl.runtime.files import write_json

LEAST_DRAWS = 3  # of two, Student's interval is so wide that it says nothing


@dataclass(frozen=True)
class Shots:
    """Heads trained on ``shots`` videos a class: top-1 percent of each draw, its mean, and Student's 95 % interval of
    the mean over draws (``mean_interval``). ``num_videos``: trained on, in each draw. ``scores``: all metrics of each
    draw, None where there is no number."""

    shots: int
    top1: tuple[float, ...]
    mean: float
    low: float
    high: float
    num_videos: int
    steps: int
    batch_size: int
    seconds: tuple[float, ...]  # of training, a draw
    protocol: str = ""  # how all were judged
    damaged: dict[str, str] = field(default_factory=dict)  # validation videos that could not be judged, path → reason
    chance: float | None = None  # ``Metrics.chance`` of the others
    scores: dict[str, tuple[float | None, ...]] = field(default_factory=dict)

    def mean_of(self, name: str) -> float | None:
        """Of a metric over the draws; None where one of them has no number."""
        values = self.scores[name]
        return None if None in values else sum(values) / len(values)

    @property
    def are_equal(self) -> bool:
        """Whether all draws came to the same: then the interval has no width, and says nothing."""
        return len(set(self.top1)) == 1

    @property
    def has_interval(self) -> bool:
        """Whether there are enough draws, and different ones, for an interval that says something."""
        return len(self.top1) >= LEAST_DRAWS and not self.are_equal

    @property
    def interval(self) -> str:
        """The interval in words; of too few draws the least and the greatest of them, said to be that."""
        if len(self.top1) < LEAST_DRAWS:
            return f"only {len(self.top1)} draws: {min(self.top1):.1f} and {max(self.top1):.1f}"
        return "none: all equal" if self.are_equal else f"{self.low:.1f}–{self.high:.1f}"


@dataclass(frozen=True)
class FewShotResult:
    """``protocol``: how all were judged. ``damaged``: validation videos that could not be, path → reason. ``chance``:
    ``Metrics.chance`` of the others."""

    rows: tuple[Shots, ...]
    num_draws: int
    protocol: str
    damaged: dict[str, str]
    folder: Path
    chance: float | None = None
    metrics: dict[str, Metric] = field(default_factory=dict)  # that are in the rows' ``scores``

    @property
    def what_the_interval_is(self) -> str:
        drawn = f"over {self.num_draws} draws of training videos, initial values and order"
        same = "the validation videos are the same in all"
        if self.num_draws < LEAST_DRAWS:
            return (
                f"no interval of the mean {drawn}: of only {self.num_draws} draws it means little: take --draws 5 or "
                f"more; {same}"
            )
        text = f"95 % interval (Student) of the mean {drawn}; {same}"
        if equal := [str(row.shots) for row in self.rows if row.are_equal]:
            text += f"; no interval for {', '.join(equal)} videos a class, where all draws came to the same score"
        return text


def write_few_shot(result: FewShotResult, config: RunConfig) -> None:
    """``shots.json`` and ``shots.png`` in the result's folder."""
    content = {
        "protocol": result.protocol,
        "chance": result.chance,
        "interval": result.what_the_interval_is,
        "shots": [asdict(row) | ({} if row.has_interval else {"low": None, "high": None}) for row in result.rows],
        "damaged": result.damaged,
        "config": config.to_dict(),
    }
    write_json(result.folder / "shots.json", content)
    _draw(result)


def _draw(result: FewShotResult) -> None:
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    rows = result.rows
    places = [row.shots for row in rows]
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        axes.plot([row.shots] * len(row.top1), row.top1, "o", color="0.7", markersize=4, zorder=1)
    means = [row.mean for row in rows]
    with_bar = [row for row in rows if row.has_interval]
    if with_bar:
        ends = [row.mean - row.low for row in with_bar], [row.high - row.mean for row in with_bar]
        bars = [row.shots for row in with_bar], [row.mean for row in with_bar], ends
        axes.errorbar(*bars, fmt="none", ecolor="C0", capsize=4, zorder=2)
    axes.plot(places, means, "o-", color="C0", zorder=2)
    if result.chance is not None:
        draw_chance(axes, result.chance)
    axes.set_xscale("log", base=2)
    axes.set_xticks(places, [str(place) for place in places])
    axes.minorticks_off()
    axes.set_ylim(-2, 102)
    axes.set(xlabel="training videos a class", ylabel="top-1 (percent of validation videos)")
    axes.grid(alpha=0.3)
    title = f"top-1 by training videos a class  ·  {result.num_draws} draws"
    mean = f"mean, with the {result.what_the_interval_is}" if with_bar else f"mean; {result.what_the_interval_is}"
    caption = f"blue: {mean}; grey: each draw\n{result.protocol}"
    save_picture(result.folder / "shots.png", figure, title=title, caption=caption)
