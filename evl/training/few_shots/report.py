"""The results of few-shot runs: a file with all numbers, and a picture."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from evl.config import RunConfig
from evl.evaluation import Metric
from evl.evaluation.picture import draw_chance, drawing, save_picture
from evl.runtime.files import write_json

LEAST_DRAWS = 3  # for an interval: Student's interval of two draws is too wide to be useful


@dataclass(frozen=True)
class Shots:
    """The learners that were trained on ``shots`` videos per class."""

    shots: int  # training videos per class
    top1: tuple[float, ...]  # percent, for each draw
    mean: float  # of top1
    low: float  # low and high: Student's 95 % interval of the mean over draws (mean_interval)
    high: float
    num_videos: int  # training videos of each draw
    steps: int
    batch_size: int
    seconds: tuple[float, ...]  # time of training, for each draw
    protocol: str = ""  # how all were judged
    damaged: dict[str, str] = field(default_factory=dict)  # validation videos that could not be judged, path → reason
    chance: float | None = None  # Metrics.chance of the other validation videos
    # all metrics, for each draw; None if a metric has no number
    scores: dict[str, tuple[float | None, ...]] = field(default_factory=dict)

    def mean_of(self, name: str) -> float | None:
        """The mean of a metric over the draws; None if a draw has no number."""
        values = self.scores[name]
        return None if None in values else sum(values) / len(values)

    @property
    def are_equal(self) -> bool:
        """Whether all draws have the same score. Then an interval would have no width."""
        return len(set(self.top1)) == 1

    @property
    def has_interval(self) -> bool:
        """Whether the draws are enough, and different, so that an interval is useful."""
        return len(self.top1) >= LEAST_DRAWS and not self.are_equal

    @property
    def interval(self) -> str:
        """The interval in words. With too few draws for one, these words have the lowest and the highest score."""
        if len(self.top1) < LEAST_DRAWS:
            return f"only {len(self.top1)} draws: {min(self.top1):.1f} and {max(self.top1):.1f}"
        return "none: all equal" if self.are_equal else f"{self.low:.1f}–{self.high:.1f}"


@dataclass(frozen=True)
class FewShotResult:
    """The results of few-shot runs."""

    rows: tuple[Shots, ...]  # one for each K, rising
    num_draws: int  # draws for each K
    protocol: str  # how all were judged
    damaged: dict[str, str]  # validation videos that could not be judged, path → reason
    folder: Path  # of the runs
    chance: float | None = None  # Metrics.chance of the other validation videos
    metrics: dict[str, Metric] = field(default_factory=dict)  # the metrics in scores of the rows

    @property
    def what_the_interval_is(self) -> str:
        drawn = f"over {self.num_draws} draws of training videos, initial values and order"
        same = "the validation videos are the same in all"
        if self.num_draws < LEAST_DRAWS:
            return (
                f"no interval of the mean {drawn}: with only {self.num_draws} draws it means little; take 5 draws or "
                f"more; {same}"
            )
        text = f"95 % interval (Student) of the mean {drawn}; {same}"
        if equal := [str(row.shots) for row in self.rows if row.are_equal]:
            text += f"; no interval for {', '.join(equal)} videos per class, because all draws have the same score"
        return text


def write_few_shot(result: FewShotResult, config: RunConfig) -> None:
    """Writes ``shots.json`` and ``shots.png`` to the result's folder."""
    content = {
        "protocol": result.protocol,
        "chance": result.chance,
        "interval": result.what_the_interval_is,
        "shots": [asdict(row) | ({} if row.has_interval else {"low": None, "high": None}) for row in result.rows],
        "damaged": result.damaged,
        "config": config.to_dict(),
    }
    with drawing(result.folder / "shots.png"):
        _draw(result)
    write_json(result.folder / "shots.json", content)  # last: its presence says that all is there


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
    axes.set(xlabel="training videos per class", ylabel="top-1 (percent of validation videos)")
    axes.grid(alpha=0.3)
    title = f"top-1 by training videos per class  ·  {result.num_draws} draws"
    mean = f"mean, with the {result.what_the_interval_is}" if with_bar else f"mean; {result.what_the_interval_is}"
    caption = f"blue: {mean}; grey: each draw\n{result.protocol}"
    save_picture(result.folder / "shots.png", figure, title=title, caption=caption)
