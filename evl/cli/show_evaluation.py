"""What an evaluation prints."""

from __future__ import annotations

from pathlib import Path

import typer

from evl.cli.common import output, print_json, say, tell
from evl.runtime.progress import is_main_process


def show_evaluation(result, out: Path | None, as_json: bool, model=None) -> None:
    """Prints the result, then writes it to ``out``, with a new ``model``. Exit code 1 where videos are damaged."""
    from evl.evaluation import write_evaluation
    from evl.evaluation.saved_predictions import PREDICTIONS
    from evl.saving import save_model

    if is_main_process():
        if as_json:
            written = {"predictions": f"{out}/{PREDICTIONS}"} if out else {}
            print_json({**result.to_dict(), "damaged": result.damaged, **written})
        else:
            print_evaluation(result)
        if model is not None and out is not None:
            save_model(model, out, scores=result.to_dict())
        if out is not None:  # last, for the scores are shown even if they cannot be written
            write_evaluation(out, result)
    if result.damaged:
        raise typer.Exit(1)


def print_evaluation(result) -> None:
    """Scores with their protocol, the hardest classes, and what was damaged."""
    say("   ".join(f"{one.metric.title} {one.text(2)}" for one in result.metrics.scores.values()))
    say(result.protocol)
    output.print(result.table())
    for path, reason in result.damaged.items():
        tell(f"{path}: {reason}", label="damaged, not counted")
