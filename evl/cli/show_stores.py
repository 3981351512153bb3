"""What an extraction prints, asks, and finds when it is verified."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import typer
from rich.text import Text

from evl.cli.common import output, print_json, say, tell
from evl.errors import RunError, plural
from evl.extraction.estimate import in_bytes
from evl.runtime.progress import is_main_process

TOO_SMALL = "the disk cannot hold it"


def ask(found, out: Path, yes: bool) -> None:
    """Tells what it will cost, and asks where the disk is too small. RunError where it is not to be done."""
    for line in found.lines:
        tell(line)
    if found.fits or yes:
        return
    tell(TOO_SMALL, style="red")
    if not sys.stdin.isatty():
        raise RunError(f"{out}: nothing was written; give another --out, store less, or go on with --yes")
    if not typer.confirm("go on all the same?", default=False, err=True):
        raise RunError(f"{out}: nothing was written")


def show_estimate(found, as_json: bool) -> None:
    if as_json:
        print_json(found.to_dict())
        return
    for line in found.lines:
        say(line)
    if not found.fits:
        say(TOO_SMALL, style="red")


def show_extraction(result, allow_damaged: bool, as_json: bool) -> None:
    """Exit code 1 where videos are damaged, unless that is allowed, and where videos were away."""
    if is_main_process():
        if as_json:
            print_json(_document(result))
        else:
            _print(result)
    if result.away or (result.num_damaged and not allow_damaged):
        raise typer.Exit(1)


def _document(result) -> dict:
    damaged, away = (
        [{"split": split, "path": path, "problem": why} for split in found for path, why in found[split].items()]
        for found in (result.damaged, result.away)
    )
    return {
        "store": str(result.folder),
        "complete": result.is_complete,
        "clips_written": result.num_clips,
        "bytes": result.num_bytes,
        "seconds": round(result.seconds, 2),
        "num_damaged": result.num_damaged,
        "damaged": damaged,
        "missing": [sample.path for sample in result.missing],
        "away": away,
    }


def _print(result) -> None:
    folder = result.folder
    if result.missing:
        say(f"left out: {plural(len(result.missing), 'missing video')}, listed in {folder}/missing.csv", style="yellow")
    for group in result.damaged.values():
        for path, why in group.items():
            say(f"{path}: {why}", label="damaged")
    for group in result.away.values():
        for path, why in group.items():
            say(f"{path}: {why}", label="missing")
    speed = f", {result.num_clips / result.seconds:.1f} a second" if result.num_clips and result.seconds > 0 else ""
    say(f"{result.num_clips} clips were stored now{speed}; {in_bytes(result.num_bytes)} in {folder}")
    if result.away:
        count = plural(sum(map(len, result.away.values())), "video")
        say(f"{count} could not be reached, not even after some pauses. The same command asks again, and keeps what "
            "is done", style="yellow")  # fmt: skip
    if not result.is_complete:
        say("the store is not complete: other parts are still to be done")
        return
    if result.damaged:
        say(f"{plural(result.num_damaged, 'damaged video')}, listed in {folder}/damaged.csv")
    say(f"next: evl train --features {folder} --out RUN")


def show_verified(result, as_json: bool) -> None:
    """Exit code 1 where a clip is different, or a shard is damaged."""
    wrong, damaged = result.different, result.damaged_shards
    if as_json:
        clips = [{**asdict(one), "is_equal": one.is_equal} for one in result.clips]
        counts = {"num_clips": len(clips), "num_different": len(wrong)}
        counts["damaged_shards"] = damaged
        print_json({"store": str(result.store), "seed": result.seed, **counts, "clips": clips})
    else:
        for why in damaged.values():
            say(why, label="damaged")
        for one in wrong:
            why = one.problem or f"differs by {one.difference:.3g} times what is allowed"
            say(why, label=f"{one.split}, clip {one.clip} of {one.path}")
        most = max((one.difference for one in result.clips if one.is_equal), default=0.0)
        text = Text.assemble(
            f"{len(result.clips)} clips computed again: ", (f"{len(result.clips) - len(wrong)} equal", "green"),
            f" (at most {most:.2g} of what is allowed), ", (f"{len(wrong)} different", "red" if wrong else "green"),
            f" (sample --seed {result.seed})",
        )  # fmt: skip
        output.print(text, soft_wrap=True)
    if wrong or damaged:
        raise typer.Exit(1)
