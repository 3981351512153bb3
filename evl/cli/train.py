"""evl train"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evl.errors import plural

NAME = "train"


def command(
    out: Annotated[Path, typer.Option(help="Folder of the run; made new, or continued with --resume.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder with a folder per class, a published data set, or a manifest (.csv, .parquet, list)."
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="Frozen encoder: a name ('evl backbones clip' lists them) or an OpenAI CLIP archive."),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Start from a recipe, such as k400_vitb16_8x16.")] = None,
    config: Annotated[Path | None, typer.Option(help="Start from a config.yaml.")] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            metavar="STORE", help="Instead of --data: a store made by evl extract; much faster, same results."
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Start from a saved model: for other classes, more frames or pixels."),
    ] = None,
    settings: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as training.steps=2000.")
    ] = [],  # noqa: B006  (typer copies it)
    heads: Annotated[
        list[str],
        typer.Option(
            "--heads",
            metavar="KEY=VALUE,VALUE,…",
            help="Train a head for every combination on one pass over the videos: see evl sweep.",
        ),
    ] = [],  # noqa: B006
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out from its newest checkpoint.")
    ] = False,
    shots: Annotated[
        str | None,
        typer.Option(
            metavar="K,K,…",
            help="Few-shot, with --features: heads trained on K videos a class each, such as 1,2,4,8,16.",
        ),
    ] = None,
    draws: Annotated[
        int | None, typer.Option(help="With --shots: how often the videos are drawn anew, 2 to 20; default: 5.")
    ] = None,
    keep_runs: Annotated[
        bool, typer.Option("--keep-runs", help="With --shots: keep every head and its predictions.")
    ] = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Say how long it would take, from its first steps; write nothing.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …; default: CUDA if there is one.")] = None,
) -> None:
    """Train a classifier on your videos; evaluate and save it.

    Everything it was told, saw and measured is in --out: config.yaml, metrics.jsonl, predictions.parquet,
    model.safetensors and model.json. Ctrl-C saves a checkpoint; --resume goes on from it.

    Many processes: torchrun --nproc-per-node 2 -m evl train …

    From stored features (evl extract): evl train --features STORE --out RUN; the same results, no decoding.
    """

    from evl.api.settings import make_config
    from evl.cli.common import Bars, console, is_main_process, output, print_evaluation, start_logging
    from evl.cli.run_config import refuse_other_videos, refuse_with_resume
    from evl.errors import ConfigError
    from evl.runtime.heap import keep_freed_memory
    from evl.training import Interrupted, train

    start_logging()
    keep_freed_memory()
    if shots is not None and heads:
        raise ConfigError("few-shot runs train heads of one config: leave out --heads, or --shots")
    if estimate and (resume or heads or shots is not None):
        raise ConfigError("--estimate is of one new run: leave out --resume, --heads and --shots")
    if resume and (heads or shots is not None):
        raise ConfigError(f"--resume goes on with what {out} was told: leave out --heads and --shots")
    if shots is None and (keep_runs or draws is not None):
        option = "--keep-runs" if keep_runs else "--draws"
        raise ConfigError(f"{option} goes with --shots, which trains many small runs: leave it out, or give --shots")
    run_config = None
    if resume:
        refuse_with_resume(
            out, data=data, features=features, backbone=backbone, recipe=recipe, config=config, init=init
        )
        if (out / "sweep.yaml").is_file():
            from evl.cli.show_sweep import run_sweep

            return run_sweep(None, [], out, device, resume=True)
        if (out / "few_shot.yaml").is_file():
            return _few_shot(None, out, (), 5, False, device, resume=True)
    if not resume:
        run_config = make_config(data, backbone, recipe, config, tuple(settings), init, features)
        refuse_other_videos(run_config, data, (*settings, *heads))
    if estimate:
        from evl.training import estimate_training

        output.print(
            estimate_training(run_config, device=device).sentence, highlight=False, markup=False, soft_wrap=True
        )
        return
    if shots is not None:
        _few_shot(run_config, out, _numbers(shots), 5 if draws is None else draws, keep_runs, device)
        return
    if heads:
        from evl.cli.show_sweep import run_sweep

        return run_sweep(run_config, heads, out, device)
    with Bars() as progress:
        try:
            result = train(
                run_config, out, resume=resume, settings=tuple(settings) if resume else (), device=device,
                progress=progress,
            )  # fmt: skip
        except Interrupted as stop:
            console.print(f"{stop}; go on with: evl train --out {out} --resume", markup=False, soft_wrap=True)
            raise typer.Exit(130) from None
    if not is_main_process():
        return
    if result.missing:
        console.print(
            f"left out: {plural(len(result.missing), 'missing video')}, listed in {out}/missing.csv",
            style="yellow", highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
    if result.damaged:
        console.print(
            f"skipped: {plural(len(result.damaged), 'damaged video')}, listed in {out}/damaged.csv",
            style="yellow", highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
    if result.evaluation is not None:
        print_evaluation(result.evaluation)
    if result.outcome is not None:
        output.print(result.outcome.sentence, highlight=False, markup=False, soft_wrap=True)
    output.print(f"the run is in {out}; next: evl predict {out} VIDEO", highlight=False, markup=False, soft_wrap=True)


def _few_shot(
    config, out: Path, shots: tuple[int, ...], draws: int, keep_runs: bool, device: str | None, *, resume: bool = False
) -> None:
    from rich.markup import escape
    from rich.table import Table

    from evl.cli.common import Bars, is_main_process, output
    from evl.training.few_shots.few_shot import few_shot

    with Bars() as progress:
        result = few_shot(
            config, out, shots=shots, draws=draws, keep_runs=keep_runs, resume=resume, device=device, progress=progress
        )  # fmt: skip
    if not is_main_process():
        return
    table = Table("videos a class", "in all", "top-1", "95 % interval", "seconds a run")
    for row in result.rows:
        seconds = sum(row.seconds) / len(row.seconds)
        table.add_row(str(row.shots), str(row.num_videos), f"{row.mean:.2f} %", row.interval, f"{seconds:.1f}")
    output.print(table)
    output.print(escape(result.what_the_interval_is), highlight=False, soft_wrap=True)
    output.print(escape(result.protocol), highlight=False, soft_wrap=True)
    output.print(
        f"numbers and picture: {out}/shots.json, {out}/shots.png", highlight=False, markup=False, soft_wrap=True
    )
    if result.damaged:
        raise typer.Exit(1)


def _numbers(text: str) -> tuple[int, ...]:
    from evl.errors import ConfigError

    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--shots {text}: expected numbers of videos a class, such as 1,2,4,8,16") from None
