"""What commands share: where messages and results go."""

from __future__ import annotations

import json
import sys

from rich.console import Console
from rich.markup import escape

from evl.runtime.progress import Bars, console, counting, is_main_process, start_logging

__all__ = [
    "Bars", "console", "counting", "error", "is_main_process", "output", "print_evaluation", "print_json",
    "start_logging", "zero_shot_model",
]  # fmt: skip

# in a file or pipe, lines are not broken at 80 columns
output = Console(emoji=False, width=None if sys.stdout.isatty() else 200)  # results; ``console``: messages and progress


def error(problem: BaseException) -> None:
    console.print(f"[bold red]error:[/bold red] {escape(str(problem))}", highlight=False, soft_wrap=True)


def print_json(document) -> None:
    """One JSON document on stdout and nothing else."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")


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


def print_evaluation(result) -> None:
    """Scores with their protocol, the hardest classes, and what was damaged."""
    metrics = result.metrics
    top5 = "" if metrics.top5 is None else f"   top-5 {metrics.top5:.2f} %"
    output.print(f"top-1 {metrics.top1:.2f} %{top5}   mean class {metrics.mean_class_accuracy:.2f} %", highlight=False)
    output.print(escape(result.protocol), highlight=False, soft_wrap=True)
    output.print(result.table())
    for path, reason in result.damaged.items():
        console.print(
            f"[red]damaged, not counted:[/red] {escape(path)}: {escape(reason)}", highlight=False, soft_wrap=True
        )
