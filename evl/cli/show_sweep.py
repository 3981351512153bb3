"""A sweep with its progress and its table."""

from __future__ import annotations

from pathlib import Path

import typer

from evl.errors import plural


def run_sweep(
    config,
    settings: list[str],
    out: Path,
    device: str | None,
    as_json: bool = False,
    *,
    resume: bool = False,
    keep_predictions: bool = False,
) -> None:
    """The sweep with its progress and its table, for this command and ``evl train --heads``."""
    from evl.cli.common import Bars, console, output, print_json, start_logging
    from evl.runtime.heap import keep_freed_memory
    from evl.training import Interrupted
    from evl.training.sweeps.sweep import sweep

    start_logging()
    keep_freed_memory()
    with Bars() as progress:
        try:
            how = dict(resume=resume, device=device, progress=progress, keep_predictions=keep_predictions)
            result = sweep(config, settings, out, **how)
        except Interrupted as stop:
            console.print(f"{stop}; go on with: evl sweep --out {out} --resume", markup=False, soft_wrap=True)
            raise typer.Exit(130) from None
    if result.damaged:
        console.print(
            f"skipped: {plural(len(result.damaged), 'damaged video')}, listed in {out}/damaged.csv",
            style="yellow", highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
    dropped = len(result.ranked) - len(result.judged)
    if dropped:
        problem = result.ranked[-1].problem
        console.print(
            f"[yellow]{dropped} of {len(result.ranked)} heads were dropped, such as one with {problem}[/yellow]"
        )
    if as_json:
        print_json(result.to_dict())
        return
    output.print(table_of(result))
    output.print(f"by {result.best.evaluation.protocol}", highlight=False, markup=False, soft_wrap=True)
    if result.as_good > 1:
        output.print(
            f"{result.as_good - 1} other heads of {len(result.judged)} cannot be told from the chosen one: "
            "their 95 % intervals overlap with its",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    output.print(result.verdict, highlight=False, markup=False, soft_wrap=True)
    if result.outcome is not None:
        output.print(result.outcome.sentence, highlight=False, markup=False, soft_wrap=True)
    output.print(
        f"{len(result.ranked)} heads, {result.steps} steps: {result.training_seconds:.0f} s of training, "
        f"{result.judging_seconds:.0f} s of judging; all of it is in {out} (sweep.png shows it); next: "
        f"evl predict {out / 'best'} VIDEO",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip


def table_of(result):
    """A row a head, best first."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    keys = list(result.best.settings)
    table.add_column("head", justify="right")
    for key in keys:
        table.add_column(escape(key.partition(".")[2]), justify="right")
    has_top5 = result.has_top5
    for name in ("val top-1", "95 %", *["top-5"] * has_top5, "val loss", "train top-1", "parameters"):
        table.add_column(name, justify="right")
    for head in result.ranked:
        values = [f"{head.number:03d}", *(escape(head.settings[key]) for key in keys)]
        if head.evaluation is None:
            table.add_row(*values, "dropped", *[""] * (3 + has_top5), f"{head.trainable:,}", style="yellow")
            continue
        metrics = head.evaluation.metrics
        low, high = metrics.top1_interval
        table.add_row(
            *values, f"{metrics.top1:.1f}", f"{low:.1f}–{high:.1f}", *([f"{metrics.top5:.1f}"] if has_top5 else []),
            f"{head.val_loss:.3f}", f"{head.curve[-1][3]:.1f}" if head.curve else "", f"{head.trainable:,}",
            style="bold" if head is result.best else None,
        )  # fmt: skip
    return table
