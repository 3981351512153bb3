"""evl extract"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from evl.cli.options import Config, Data, Device, Encoder, Json, Recipe, Settings, Workers, given

NAME = "extract"
_OF_VERIFY = {"verify", "sample", "seed"}  # options of --verify alone


def command(
    context: typer.Context,
    data: Data = None,
    backbone: Encoder = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the store; made new, or continued by the same command.")
    ] = None,
    recipe: Recipe = None,
    config: Config = None,
    settings: Settings = [],  # noqa: B006  (typer copies it)
    clips_per_video: Annotated[
        int, typer.Option(min=1, help="Augmented clips of each training video: as many as that number of epochs sees.")
    ] = 1,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Longer runs of frames, of which training draws its clips.")
    ] = None,
    form: Annotated[
        str, typer.Option(help="tokens: maps of the blocks read and of those before; maps: neighbor maps beside them.")
    ] = "tokens",
    dtype: Annotated[str, typer.Option(help="float32, float16, bfloat16, int8 or float8.")] = "float16",
    scale: Annotated[str, typer.Option(help="Of 8 bits: one per channel, or one per token.")] = "channel",
    shard_megabytes: Annotated[int, typer.Option(min=1, help="Size of a file, and of what is in memory.")] = 128,
    part: Annotated[
        str, typer.Option(metavar="I/N", help="The I-th of N parts (from 1), for N processes side by side.")
    ] = "1/1",
    estimate: Annotated[bool, typer.Option("--estimate", help="Print what it would cost; write nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask where the disk is too small.")] = False,
    allow_damaged: Annotated[
        bool, typer.Option("--allow-damaged", help="Exit code 0 even if videos were damaged.")
    ] = False,
    verify: Annotated[
        Path | None, typer.Option(metavar="STORE", help="Compute a sample of a store again and compare.")
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="With --verify: how many clips, at most all.")] = 16,
    seed: Annotated[
        int | None, typer.Option(min=0, help="With --verify: which clips; default: others each time, and printed.")
    ] = None,
    workers: Workers = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Compute the frozen encoder's features of every video, once, and store them: for training without videos.

    Training videos give augmented clips, those of val and test their evaluation views. Killed at any moment, the same
    command goes on. Exit code 1 if any video is damaged (listed in damaged.csv), or --verify finds a difference.

    Many processes: --part 1/16 … 16/16, or torchrun --nproc-per-node 2 -m evl extract …
    """
    from evl.api.stores import estimate_extraction, extract
    from evl.cli.show_stores import ask, show_estimate, show_extraction, show_verified
    from evl.extraction.verify import verify_store

    _refuse_mixed(context, verify)
    if verify is not None:
        show_verified(verify_store(verify, sample=sample, seed=seed, num_workers=workers, device=device), json)
        return
    if out is None:
        raise typer.BadParameter("where to? Give --out STORE")
    start = given(data=data, backbone=backbone, recipe=recipe, config=config, settings=settings, num_workers=workers)
    how = dict(clips_per_video=clips_per_video, frames=frames, form=form, dtype=dtype, scale=scale,
               shard_megabytes=shard_megabytes, part=_part(part), device=device, **start)  # fmt: skip
    if estimate:
        show_estimate(estimate_extraction(out=out, **how), json)
        return
    with _stoppable():
        result = extract(out=out, on_estimate=lambda found: ask(found, out, yes), **how)
    show_extraction(result, allow_damaged, json)


def _refuse_mixed(context: typer.Context, verify: Path | None) -> None:
    from evl.errors import ConfigError, quoted

    said = {name for name in context.params if context.get_parameter_source(name).name == "COMMANDLINE"}
    if verify is not None and (others := said - _OF_VERIFY - {"workers", "device", "json"}):
        raise ConfigError(f"--verify takes everything else from {verify} itself: leave out {quoted(sorted(others))}")
    if verify is None and (others := said & _OF_VERIFY):
        raise ConfigError(f"--{min(others)} goes with --verify STORE, which computes a sample of a store again")


def _part(text: str) -> tuple[int, int]:
    from evl.errors import ConfigError

    if not re.fullmatch(r"[1-9]\d{0,5}/[1-9]\d{0,5}", text):
        raise ConfigError(f"--part {text!r}: expected a number and how many there are, such as 3/16")
    number, count = text.split("/")
    return int(number), int(count)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Where Ctrl-C or SIGTERM stops the work, the message ends with how to go on."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"{str(stop) or 'stopped'}; go on with the same command") from None
