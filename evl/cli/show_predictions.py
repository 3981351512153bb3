"""What predictions print."""

from __future__ import annotations

import typer
from rich.table import Table

from evl.cli.common import output, print_json, tell
from evl.runtime.text import cell


def show_predictions(result, as_json: bool, top: int) -> None:
    """Exit code 1 where videos cannot be used."""
    for notice in result.notices:
        tell(notice, style="yellow")
    if as_json:
        print_json(_document(result))
    else:
        _print(result, top)
    if result.damaged:
        raise typer.Exit(1)


def _document(result) -> dict:
    predictions = [
        {
            **_place(one),
            "class": one.class_name,
            "scores": {name: round(score, 6) for name, score in one.top(len(one.scores))},
        }
        for one in result.predictions
    ]
    failed = [{**_place(result.samples[index]), "error": reason} for index, reason in result.damaged.items()]
    return {"protocol": result.protocol, "predictions": predictions, "failed": failed, "notices": list(result.notices)}


def _place(video) -> dict:
    """The path of a prediction or sample, and its times if it is a part of the file."""
    times = {key: getattr(video, key) for key in ("start_seconds", "end_seconds")}
    return {"path": video.path, **{key: time for key, time in times.items() if time is not None}}


def _print(result, top: int) -> None:
    if result.predictions:
        table = Table("video", "class", "score")
        for prediction in result.predictions:
            for place, (name, score) in enumerate(prediction.top(top)):
                video, style = (prediction.name, "bold") if place == 0 else ("", "")
                table.add_row(cell(video), cell(name, style), f"{100 * score:.1f} %")
        output.print(table)
    for index, reason in result.damaged.items():
        tell(f"{result.samples[index].name}: {reason}", label="failed")
    if result.damaged:
        tell("expected videos, folders of them, or lists; correct these paths, or replace the files", style="yellow")
