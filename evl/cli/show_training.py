"""What training, a sweep and few-shot runs print."""

from __future__ import annotations

from pathlib import Path

import typer
from rich import box
from rich.table import Table

from evl.cli.common import output, print_json, say, tell
from evl.cli.show_evaluation import print_evaluation
from evl.errors import plural
from evl.runtime.progress import is_main_process
from evl.runtime.text import cell


def show_run(result, out: Path) -> None:
    if not is_main_process():
        return
    if result.missing:
        tell(f"left out: {plural(len(result.missing), 'missing video')}, listed in {out}/missing.csv", style="yellow")
    _tell_damaged(result, out)
    if result.evaluation is not None:
        print_evaluation(result.evaluation)
    if result.outcome is not None:
        say(result.outcome.sentence)
    say(f"the run is in {out}; next: evl predict {out} VIDEO")


def _tell_damaged(result, out: Path) -> None:
    if result.damaged:
        tell(f"skipped: {plural(len(result.damaged), 'damaged video')}, listed in {out}/damaged.csv", style="yellow")


def show_few_shot(result) -> None:
    """Exit code 1 where validation videos are damaged."""
    if not is_main_process():
        return
    others = {name: metric for name, metric in result.metrics.items() if name != "top1"}
    titles = [metric.title for metric in others.values()]
    table = Table("videos per class", "in all", "top-1", "95 % interval", *titles, "seconds per run")
    for row in result.rows:
        seconds = sum(row.seconds) / len(row.seconds)
        means = [metric.text(row.mean_of(name), 2) for name, metric in others.items()]
        table.add_row(str(row.shots), str(row.num_videos), f"{row.mean:.2f} %", row.interval, *means, f"{seconds:.1f}")
    output.print(table)
    say(result.what_the_interval_is)
    say(result.protocol)
    say(f"numbers and picture: {result.folder}/shots.json, {result.folder}/shots.png")
    if result.damaged:
        raise typer.Exit(1)


def show_sweep(result, out: Path, as_json: bool) -> None:
    _tell_damaged(result, out)
    if dropped := len(result.ranked) - len(result.judged):
        problem = result.ranked[-1].problem
        tell(f"{dropped} of {len(result.ranked)} learners were dropped, such as one with {problem}", style="yellow")
    if as_json:
        print_json(result.to_dict())
        return
    output.print(table_of(result))
    say(f"by {result.best.evaluation.protocol}")
    if (result.as_good or 0) > 1:
        say(
            f"{result.as_good - 1} other learners of {len(result.judged)} cannot be told from the chosen one: "
            "their 95 % intervals overlap with its"
        )
    say(result.verdict)
    if result.outcome is not None:
        say(result.outcome.sentence)
    say(
        f"{len(result.ranked)} learners, {result.steps} steps: {result.training_seconds:.0f} s of training, "
        f"{result.judging_seconds:.0f} s of judging; all of it is in {out} (sweep.png shows it); next: "
        f"evl predict {out / 'best'} VIDEO"
    )


def show_finished_sweep(out: Path, as_json: bool) -> None:
    if as_json:
        from evl.training.sweeps.plot import read_sweep

        print_json(read_sweep(out))
    else:
        say(f"all of it is in {out}; next: evl predict {out / 'best'} VIDEO")


def table_of(result) -> Table:
    """A row per learner, best first."""
    table = Table(box=box.SIMPLE_HEAD)
    keys = list(result.best.settings)
    table.add_column("learner", justify="right")
    for key in keys:
        table.add_column(cell(key.partition(".")[2]), justify="right")
    by = result.config.training.select_by
    shown = dict(sorted(result.best.evaluation.metrics.comparable.items(), key=lambda pair: pair[0] != by))
    titles = [f"val {one.metric.title}" for one in shown.values()]
    has_interval = shown[by].metric.interval is not None
    for name in (titles[0], *["95 %"] * has_interval, *titles[1:], "train top-1", "parameters"):
        table.add_column(name, justify="right")
    for learner in result.ranked:
        values = [f"{learner.number:03d}", *(cell(learner.settings[key]) for key in keys)]
        if learner.evaluation is None:
            empty = [""] * (len(titles) + has_interval)
            table.add_row(*values, "dropped", *empty, f"{learner.trainable:,}", style="yellow")
            continue
        scores = [learner.evaluation.metrics.scores[name] for name in shown]
        texts = [one.text().removesuffix(" %") for one in scores]
        interval = ["–".join(f"{end:.1f}" for end in scores[0].interval or ())] if has_interval else []
        table.add_row(
            *values, texts[0], *interval, *texts[1:], f"{learner.curve[-1][3]:.1f}" if learner.curve else "",
            f"{learner.trainable:,}", style="bold" if learner is result.best else None,
        )  # fmt: skip
    return table
