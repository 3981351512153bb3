"""evl extract"""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from evl.errors import plural

NAME = "extract"
_OF_VERIFY = {"verify", "sample", "seed"}  # options of --verify alone


def command(
    context: typer.Context,
    data: Annotated[
        Path | None, typer.Option(help="Folder with a folder per class, a published data set, or a manifest.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="Frozen encoder: a name ('evl backbones clip' lists them) or an OpenAI CLIP archive."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the store; made new, or gone on with by the same command.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Take clips, pixels and blocks from a recipe.")] = None,
    config: Annotated[Path | None, typer.Option(help="Take them from a config.yaml.")] = None,
    settings: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as clip.stride=8.")
    ] = [],  # noqa: B006  (typer copies it)
    clips_per_video: Annotated[
        int, typer.Option(min=1, help="Augmented clips of each training video: what as many epochs would see.")
    ] = 1,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Longer runs of frames, of which training draws its clips.")
    ] = None,
    form: Annotated[
        str, typer.Option(help="tokens: maps of the blocks read and of those before; maps: attention maps beside them.")
    ] = "tokens",
    dtype: Annotated[str, typer.Option(help="float32, float16, bfloat16, int8 or float8.")] = "float16",
    scale: Annotated[str, typer.Option(help="Of 8 bits: one a channel, or one a token.")] = "channel",
    shard_megabytes: Annotated[int, typer.Option(min=1, help="Size of a file, and of what is in memory.")] = 128,
    part: Annotated[
        str, typer.Option(metavar="I/N", help="The I-th of N parts (from 1), for N processes side by side.")
    ] = "1/1",
    estimate: Annotated[bool, typer.Option("--estimate", help="Say what it would cost; write nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask where the disk is too small.")] = False,
    allow_damaged: Annotated[
        bool, typer.Option("--allow-damaged", help="Exit code 0 though videos were damaged.")
    ] = False,
    verify: Annotated[
        Path | None, typer.Option(metavar="STORE", help="Compute a sample of a store again and compare.")
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="Clips that --verify computes: all, if so many.")] = 16,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of --verify's sample; default: another one each time, which is told.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that read videos; default: one a core.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …; default: CUDA if there is one.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Compute what the frozen backbone says of every video, once, and store it: for training without videos.

    Training videos give augmented clips, those of val and test their evaluation views. Killed at any moment, the same
    command goes on. Exit code 1 if any video is damaged (listed in damaged.csv), or --verify finds a difference.

    Many processes: --part 1/16 … 16/16, or torchrun --nproc-per-node 2 -m evl extract …
    """
    from evl.cli.common import start_logging
    from evl.errors import ConfigError

    start_logging()
    given = {name for name in context.params if context.get_parameter_source(name).name == "COMMANDLINE"}
    if verify is not None:
        if others := given - _OF_VERIFY - {"workers", "device", "json"}:
            names = ", ".join(f"--{'set' if name == 'settings' else name.replace('_', '-')}" for name in sorted(others))
            raise ConfigError(f"--verify computes what {verify} says of itself: leave out {names}")
        _verify(verify, sample, seed, workers, device, json)
        return
    if others := given & _OF_VERIFY:
        raise ConfigError(f"--{min(others)} goes with --verify STORE, which computes a sample of a store again")
    if out is None:
        raise typer.BadParameter("where to? Give --out STORE")
    if not re.fullmatch(r"[1-9]\d{0,5}/[1-9]\d{0,5}", part):
        raise ConfigError(f"--part {part!r}: expected a number and how many there are, such as 3/16")
    from evl.api.settings import make_config
    from evl.store.description import StoreOptions

    options = StoreOptions(
        form=form, dtype=dtype, scale=scale, clips_per_video=clips_per_video, frames=frames,
        shard_megabytes=shard_megabytes,
    )  # fmt: skip
    run = make_config(data, backbone, recipe, config, tuple(settings))
    number, count = map(int, part.split("/"))
    how = dict(device=device, part=(number, count), num_workers=workers)
    if estimate:
        _estimate(run, out, options, how, json)
    else:
        _extract(run, out, options, how, yes=yes, allow_damaged=allow_damaged, json=json)


def _extract(run, out: Path, options, how: dict, *, yes: bool, allow_damaged: bool, json: bool) -> None:
    from evl.cli.common import Bars, is_main_process, print_json
    from evl.extraction.extract import extract

    with Bars() as progress:
        before = signal.signal(signal.SIGTERM, _interrupt)  # what batch systems send first
        try:
            result = extract(run, out, options, before=lambda work: _announce(work, yes), progress=progress, **how)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(f"{str(stop) or 'stopped'}; go on with the same command") from None
        finally:
            signal.signal(signal.SIGTERM, before)
    if is_main_process():
        if json:
            print_json(_document(result))
        else:
            _print_result(result)
    if result.num_damaged and not allow_damaged:
        raise typer.Exit(1)


def _interrupt(number, frame):
    raise KeyboardInterrupt


def _announce(work, yes: bool) -> None:
    """What it will cost; asks where the disk is too small."""
    from evl.cli.common import console
    from evl.errors import RunError
    from evl.extraction.estimate import estimate

    found = estimate(work)
    for line in _lines(work, found):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if found.fits or yes:
        return
    console.print("[red]the disk cannot hold it[/red]", highlight=False)
    if not sys.stdin.isatty():
        raise RunError(f"{work.folder}: nothing was written; give another --out, store less, or go on with --yes")
    if not typer.confirm("go on all the same?", default=False, err=True):
        raise RunError(f"{work.folder}: nothing was written")


def _lines(work, found) -> list[str]:
    """An estimate in words."""
    from evl.runtime.time_left import duration

    description, options = work.description, work.description.options
    videos = ", ".join(f"{count} {split} videos × {description.clips_a_video(split)}"
                       for split, count in description.splits.items() if count)  # fmt: skip
    blocks = ", ".join(map(str, description.blocks))
    size = f"{options.dtype}, {found.num_bytes / max(1, found.num_clips) / 1e6:.2f} MB a clip"
    lines = [
        f"{found.num_clips} clips ({videos}), {options.form} of blocks {blocks}, {size}: {_bytes(found.num_bytes)}; "
        f"{_bytes(found.free_bytes)} are free"
    ]
    share = f" (part {work.part[0]}/{work.part[1]})" if work.part[1] > 1 else ""
    if not found.clips_to_do:
        lines.append(f"nothing is left to do{share}")
    elif found.seconds is None:
        lines.append(f"{found.clips_to_do} clips to do{share}; no video that was tried could be read, so no time")
    else:
        lines.append(f"{found.clips_to_do} clips to do{share}, about {duration(found.seconds)} on {work.device}")
    return lines


def _bytes(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e8 else f"{count / 1e6:,.2f} MB"


def _estimate(run, out: Path, options, how: dict, json: bool) -> None:
    from dataclasses import asdict

    from evl.cli.common import output, print_json
    from evl.config import replace
    from evl.extraction.estimate import estimate
    from evl.extraction.work import check_store_folder, plan_extraction
    from evl.runtime.distributed import pick_device

    if how["num_workers"] is not None:
        run = replace(run, data={"num_workers": how["num_workers"]})
    work = plan_extraction(run, out, options, device=pick_device(how["device"]), part=how["part"])
    check_store_folder(work)
    found = estimate(work)
    if json:
        print_json({**asdict(found), "fits": found.fits})
        return
    for line in _lines(work, found):
        output.print(line, highlight=False, markup=False, soft_wrap=True)
    if not found.fits:
        output.print("[red]the disk cannot hold it[/red]", highlight=False)


def _document(result) -> dict:
    damaged = [{"split": split, "path": path, "problem": why} for split, group in result.damaged.items()
               for path, why in group.items()]  # fmt: skip
    return {
        "store": str(result.folder),
        "complete": result.is_complete,
        "clips_written": result.num_clips,
        "bytes": result.num_bytes,
        "seconds": round(result.seconds, 2),
        "num_damaged": result.num_damaged,
        "damaged": damaged,
        "missing": [sample.path for sample in result.missing],
    }


def _print_result(result) -> None:
    from rich.markup import escape

    from evl.cli.common import output

    def say(text: str) -> None:
        output.print(text, highlight=False, soft_wrap=True)

    folder = escape(str(result.folder))
    if result.missing:
        say(
            f"[yellow]left out: {plural(len(result.missing), 'missing video')}, listed in {folder}/missing.csv[/yellow]"
        )
    for group in result.damaged.values():
        for path, why in group.items():
            say(f"[red]damaged:[/red] {escape(path)}: {escape(why)}")
    speed = f", {result.num_clips / result.seconds:.1f} a second" if result.num_clips and result.seconds > 0 else ""
    say(f"{result.num_clips} clips were stored now{speed}; {_bytes(result.num_bytes)} in {folder}")
    if not result.is_complete:
        say("the store is not complete: other parts are still to be done")
        return
    if result.damaged:
        say(f"{plural(result.num_damaged, 'damaged video')}, listed in {folder}/damaged.csv")
    say(f"next: evl train --features {folder} --out RUN")


def _verify(store: Path, sample: int, seed: int | None, workers: int | None, device: str | None, json: bool) -> None:
    import secrets
    from dataclasses import asdict

    from rich.markup import escape

    from evl.cli.common import Bars, output, print_json
    from evl.extraction.verify import different, verify

    seed = secrets.randbelow(2**32) if seed is None else seed
    with Bars() as progress:
        results = verify(store, sample=sample, seed=seed, workers=workers, device=device, progress=progress)
    wrong = different(results)
    if json:
        clips = [{**asdict(one), "is_equal": one.is_equal} for one in results]
        counts = {"num_clips": len(results), "num_different": len(wrong)}
        print_json({"store": str(store), "seed": seed, **counts, "clips": clips})
    else:
        for one in wrong:
            why = one.problem or f"differs by {one.difference:.3g} times what is allowed"
            output.print(f"[red]{one.split}, clip {one.clip} of {escape(one.path)}:[/red] {escape(why)}",
                         highlight=False, soft_wrap=True)  # fmt: skip
        most = max((one.difference for one in results if one.is_equal), default=0.0)
        equal, color = len(results) - len(wrong), "red" if wrong else "green"
        output.print(
            f"{len(results)} clips computed again: [green]{equal} equal[/green] (at most {most:.2g} of what is "
            f"allowed), [{color}]{len(wrong)} different[/] (sample --seed {seed})", highlight=False, soft_wrap=True,
        )  # fmt: skip
    if wrong:
        raise typer.Exit(1)
