"""evl sweep"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAME = "sweep"


def command(
    out: Annotated[Path, typer.Option(help="Folder of the sweep, made new: every head a run, the best one, a table.")],
    features: Annotated[
        Path | None, typer.Option(metavar="STORE", help="A store made by evl extract: dozens of heads in minutes.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Instead of --features: videos, decoded and looked at once for all heads.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Frozen encoder, with --data: as for evl train.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Start from a recipe, such as k400_vitb16_8x16.")] = None,
    config: Annotated[Path | None, typer.Option(help="Start from a config.yaml.")] = None,
    init: Annotated[str | None, typer.Option(metavar="MODEL", help="Start every head from a saved model.")] = None,
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="KEY=VALUE,VALUE,…",
            help="All combinations are tried: --set training.lr=1e-4,3e-4 --set model.temporal_conv=true,false is four "
            "heads. A list, such as model.taps=[3,6,9], is one value.",
        ),
    ] = [],  # noqa: B006  (typer copies it)
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the sweep in --out from its newest checkpoint.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …; default: CUDA if there is one.")] = None,
    keep_predictions: Annotated[
        bool, typer.Option("--predictions", help="Write the predictions of every head, not of the chosen one alone.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what sweep.json holds, and nothing else.")] = False,
) -> None:
    """Try many settings in one pass over the data; choose by the validation videos.

    Heads (decoder and classifier) may differ in model.* and in training.lr, weight_decay, warmup_steps,
    label_smoothing, clip_grad_norm and seed (initial values); they share clips, batches, steps and precision. Every
    head is saved as a run in --out/heads, the chosen one in --out/best; its score is optimistic, because it was chosen
    by it, so where there is a test split it alone is judged on that, once.
    """
    from evl.api.settings import make_config
    from evl.cli.run_config import refuse_other_videos, refuse_with_resume
    from evl.cli.show_sweep import run_sweep
    from evl.errors import ConfigError

    if resume:
        refuse_with_resume(
            out, data=data, features=features, backbone=backbone, recipe=recipe, config=config, init=init
        )
        if settings:
            raise ConfigError(f"--resume goes on with what {out} was told: leave out --set")
        return run_sweep(None, [], out, device, as_json, resume=True)
    start = make_config(data, backbone, recipe, config, (), init, features)
    refuse_other_videos(start, data, tuple(settings))
    run_sweep(start, settings, out, device, as_json, keep_predictions=keep_predictions)
