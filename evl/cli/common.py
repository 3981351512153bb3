"""What commands share: where messages go, progress, and the fields of a run."""

from __future__ import annotations

import json
import logging
import os
import sys
import time

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

from evl.runtime.time_left import TimeLeft, duration

# in a file or pipe, lines are not broken at 80 columns
console = Console(stderr=True, emoji=False, width=None if sys.stderr.isatty() else 200)  # messages and progress
output = Console(emoji=False, width=None if sys.stdout.isatty() else 200)  # results


def error(problem: BaseException) -> None:
    console.print(f"[bold red]error:[/bold red] {escape(str(problem))}", highlight=False, soft_wrap=True)


def print_json(document) -> None:
    """One JSON document on stdout and nothing else."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")


def start_logging() -> None:
    """Libraries log, commands print: messages of evl on stderr, of the first process only."""
    logger = logging.getLogger("evl")
    logger.setLevel(logging.INFO if int(os.environ.get("RANK", 0)) == 0 else logging.ERROR)
    if not logger.handlers:
        logger.addHandler(RichHandler(console=console, show_path=False, show_level=False, highlighter=None))


def is_main_process() -> bool:
    return int(os.environ.get("RANK", 0)) == 0


def zero_shot_model(class_names, backbone: str | None, weights, prompts, num_frames: int, device):
    """The classifier that ``--zero-shot`` asks for, on its device."""
    import typer

    from evl.backbones.embedded import EMBEDDED
    from evl.config import PROMPTS
    from evl.saving import zero_shot

    if backbone is None:
        if weights is not None:
            raise typer.BadParameter("--weights goes with --backbone: the name of what the file holds")
        backbone = EMBEDDED
        console.print(
            f"[yellow]backbone: {EMBEDDED}, which knows drawings, not the world; for real videos name a CLIP-like one, "
            "such as --backbone vit_base_patch16_clip_quickgelu_224.openai[/yellow]"
        )
    options = dict(weights=weights, prompts=tuple(prompts) or PROMPTS, num_frames=num_frames)
    return zero_shot(backbone, class_names, **options).to(device)


class Bars:
    """Progress with count, share and time left: bars on a terminal, elsewhere a line every ten seconds.

    ``with Bars("videos") as bars: task = bars.add("evaluating", 100); task.advance(3)``
    """

    def __init__(self, unit: str):
        self.unit = unit
        self.bars = None
        self.lines: dict[str, int] = {}  # on a terminal, by description

    def __enter__(self) -> Bars:
        if console.is_terminal and is_main_process():
            from rich import progress

            self.bars = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TextColumn(self.unit),
                progress.TimeElapsedColumn(),
                progress.TextColumn("{task.fields[left]}"),
                progress.TextColumn("{task.fields[note]}"),
                console=console,
            )
            self.bars.start()
        return self

    def __exit__(self, *_) -> None:
        if self.bars is not None:
            self.bars.stop()

    def add(self, description: str, total: int) -> Task:
        """A new line, or the one that had this description before, anew."""
        return Task(self, description, total)

    def line(self, description: str, total: int) -> int | None:
        if self.bars is None:
            return None
        if description in self.lines:
            self.bars.reset(self.lines[description], total=total, note="", left="")
        else:
            self.lines[description] = self.bars.add_task(description, total=total, note="", left="")
        return self.lines[description]


class Task:
    """One line of ``Bars``."""

    def __init__(self, bars: Bars, description: str, total: int):
        self.bars, self.description, self.total, self.done = bars, description, total, 0
        self.left = TimeLeft(total)
        self.printed = time.monotonic()
        self.id = bars.line(description, total)

    def starting_at(self, done: int) -> Task:
        """For work that is resumed: what was done before does not count for the time left."""
        self.left = TimeLeft(self.total, first=done)
        self.to(done)
        return self

    def advance(self, count: int = 1) -> None:
        self.to(self.done + count)

    def to(self, done: int, note: str = "") -> None:
        self.done = done
        self.left.report(done)
        if self.id is not None:
            self.bars.bars.update(self.id, completed=done, note=escape(note), left=self._left())
            return
        now = time.monotonic()
        if is_main_process() and done > self.left.first and now - self.printed > 10:
            self.printed = now
            parts = (f"{self.description} {done}/{self.total} {self.bars.unit}".rstrip(), note, self._left())
            console.print("  ".join(part for part in parts if part), highlight=False, markup=False)

    def _left(self) -> str:
        """'' where it cannot be known yet."""
        seconds = self.left.seconds
        return "" if seconds is None or self.done >= self.total else f"{duration(seconds)} left"


class ProgressBars:
    """What ``evl.training.train`` reports, drawn: one bar for training, one for each evaluation."""

    def __init__(self, unit: str = ""):
        self.unit = unit

    def __enter__(self):
        self.bars, self.tasks = Bars(self.unit).__enter__(), {}
        return self

    def __call__(self, report) -> None:
        task = self.tasks.get(report.phase)
        if task is None or report.step <= task.done:  # the first of this kind, or a new evaluation
            task = self.tasks[report.phase] = self.bars.add(report.phase, report.steps).starting_at(report.started_at)
        task.to(report.step, report.note)

    def __exit__(self, *arguments):
        self.bars.__exit__(*arguments)


def print_evaluation(result) -> None:
    """Scores with their protocol, the hardest classes, and what was damaged."""
    from rich.table import Table

    metrics = result.metrics
    top5 = "" if metrics.top5 is None else f"   top-5 {metrics.top5:.2f} %"
    output.print(f"top-1 {metrics.top1:.2f} %{top5}   mean class {metrics.mean_class_accuracy:.2f} %", highlight=False)
    output.print(escape(result.protocol), highlight=False, soft_wrap=True)
    rows = [
        (a, n, y)
        for y, (a, n) in enumerate(zip(metrics.class_accuracy(), result.class_names, strict=True))
        if a is not None
    ]
    table = Table(
        "class", "videos", "right", "most often taken for", title="hardest classes" if len(rows) > 20 else None
    )
    for accuracy, name, y in sorted(rows)[:20]:
        others = metrics.confusion[y].copy()
        others[y] = 0
        wrong = f"{escape(result.class_names[others.argmax()])} ({others.max()})" if others.any() else ""
        table.add_row(escape(name), str(metrics.confusion[y].sum()), f"{accuracy:.0f} %", wrong)
    output.print(table)
    for path, reason in result.damaged.items():
        console.print(
            f"[red]damaged, not counted:[/red] {escape(path)}: {escape(reason)}", highlight=False, soft_wrap=True
        )
