"""evl sweep"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evl.cli.options import Config, Data, Device, Encoder, Features, Init, Json, Recipe, Resume, given

NAME = "sweep"


def command(
    out: Annotated[Path, typer.Option(help="Folder of the sweep, made new: a run per learner, the best one, a table.")],
    features: Features = None,
    data: Data = None,
    backbone: Encoder = None,
    recipe: Recipe = None,
    config: Config = None,
    init: Init = None,
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="KEY=VALUE,VALUE,…",
            help="All combinations are tried: --set training.lr=1e-4,3e-4 --set model.temporal_conv=true,false is four "
            "learners. A list, such as model.taps=[3,6,9], is one value.",
        ),
    ] = [],  # noqa: B006  (typer copies it)
    resume: Resume = None,
    keep_predictions: Annotated[
        bool, typer.Option("--predictions", help="Write the predictions of every learner, not only of the chosen one.")
    ] = False,
    device: Device = None,
    json: Json = False,
) -> None:
    """Try many settings in one pass over the data; choose by the validation videos.

    Learners (decoder and head) may differ in model.* and in training.lr, weight_decay, warmup_steps, label_smoothing,
    clip_grad_norm and seed (initial values). They share clips, batches, steps and precision. Every learner is saved as
    a run in --out/learners, the chosen one in --out/best. The score of the chosen one is optimistic, because it was
    chosen by this score. If there is a test split, only the chosen one is judged on it, once.
    """
    from evl.api.training import sweep
    from evl.cli.common import tell, to_go_on
    from evl.cli.show_training import show_finished_sweep, show_sweep
    from evl.errors import FinishedError
    from evl.runtime.cpu import keep_freed_memory

    keep_freed_memory()
    start = given(data=data, backbone=backbone, recipe=recipe, config=config, features=features, init=init)
    how = dict(grid=settings, keep_predictions=keep_predictions, resume=resume, device=device)
    try:
        with to_go_on(f"evl sweep --out {out} --resume"):
            result = sweep(out=out, **how, **start)
    except FinishedError as done:
        if resume != "auto":
            raise
        tell(str(done))
        show_finished_sweep(out, json)
        return
    show_sweep(result, out, json)
