"""evl train"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evl.cli.options import Config, Data, Device, Encoder, Features, Init, Recipe, Resume, Settings, given

NAME = "train"


def command(
    out: Annotated[Path, typer.Option(help="Folder of the run; made new, or gone on with by --resume.")],
    data: Data = None,
    backbone: Encoder = None,
    recipe: Recipe = None,
    config: Config = None,
    features: Features = None,
    init: Init = None,
    settings: Settings = [],  # noqa: B006  (typer copies it)
    resume: Resume = None,
    shots: Annotated[
        str | None,
        typer.Option(
            metavar="K,K,…", help="Few-shot, with --features: train models on K videos per class, such as 1,2,4,8,16."
        ),
    ] = None,
    draws: Annotated[
        int | None, typer.Option(help="With --shots: how many times the videos are drawn, 2 to 20; default: 5.")
    ] = None,
    keep_runs: Annotated[
        bool, typer.Option("--keep-runs", help="With --shots: keep every model and its predictions.")
    ] = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Print how long it would take, from its first steps; write nothing.")
    ] = False,
    device: Device = None,
) -> None:
    """Train a classifier on your videos; evaluate and save it.

    --out gets the settings, the log and the results: config.yaml, metrics.jsonl, predictions.parquet,
    model.safetensors and model.json. Ctrl-C saves a checkpoint; --resume goes on from it.

    Many processes: torchrun --nproc-per-node 2 -m evl train …

    To be started again and again (torchrun --max-restarts, Slurm, Kubernetes): evl train … --resume=auto

    From stored features (evl extract): evl train --features STORE --out RUN; the same results, no decoding.
    """
    from evl.api.training import estimate_training, few_shot, train
    from evl.cli.common import say, to_go_on
    from evl.cli.show_training import show_few_shot, show_run
    from evl.runtime.cpu import keep_freed_memory

    _refuse_mixed(estimate=estimate, resume=resume, shots=shots, draws=draws, keep_runs=keep_runs)
    keep_freed_memory()
    start = given(data=data, backbone=backbone, recipe=recipe, config=config, features=features, init=init,
                  settings=settings)  # fmt: skip
    if estimate:
        say(estimate_training(**start, device=device).sentence)
        return
    if shots is not None or (resume and (out / "few_shot.yaml").is_file()):
        how = dict(shots=_numbers(shots), draws=draws, keep_runs=keep_runs, resume=resume, device=device)
        show_few_shot(few_shot(out=out, **how, **start))
        return
    with to_go_on(f"evl train --out {out} --resume"):
        model = train(out=out, resume=resume, device=device, with_encoder=False, **start)
    show_run(model.run, out)


def _refuse_mixed(*, estimate: bool, resume: bool | str, shots: str | None, draws: int | None, keep_runs: bool) -> None:
    from evl.errors import ConfigError

    if estimate and (resume or shots is not None):
        raise ConfigError("--estimate is of one new run: leave out --resume and --shots")
    if shots is None and (keep_runs or draws is not None):
        option = "--keep-runs" if keep_runs else "--draws"
        raise ConfigError(f"{option} goes with --shots, which trains many small runs: leave it out, or give --shots")


def _numbers(text: str | None) -> tuple[int, ...]:
    from evl.errors import ConfigError

    try:
        return tuple(int(part) for part in text.split(",")) if text is not None else ()
    except ValueError:
        raise ConfigError(f"--shots {text}: expected numbers of videos per class, such as 1,2,4,8,16") from None
