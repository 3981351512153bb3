"""evl train"""

from __future__ import annotations

import dataclasses
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

    from evl.cli.common import console, is_main_process, output, start_logging
    from evl.errors import ConfigError
    from evl.heap import keep_freed_memory
    from evl.training import Interrupted, train

    start_logging()
    keep_freed_memory()
    if shots is not None and heads:
        raise ConfigError("few-shot runs train heads of one config: leave out --heads, or --shots")
    if estimate and (resume or heads or shots is not None):
        raise ConfigError("--estimate is of one new run: leave out --resume, --heads and --shots")
    if resume and heads:
        raise ConfigError("a sweep cannot be resumed: leave out --resume, or --heads")
    if resume and shots is not None:
        raise ConfigError("few-shot runs take seconds and are not resumed: leave out --resume, or --shots")
    if shots is None and (keep_runs or draws is not None):
        option = "--keep-runs" if keep_runs else "--draws"
        raise ConfigError(f"{option} goes with --shots, which trains many small runs: leave it out, or give --shots")
    if resume and any(option is not None for option in (data, features, backbone, recipe, config, init)):
        raise ConfigError(
            f"--resume goes on with what {out} was told: leave out --data, --features, --backbone, --recipe, --config "
            "and --init"
        )
    run_config = None
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
        from evl.cli.sweep import run_sweep

        return run_sweep(run_config, heads, out, device)
    with ProgressBars() as progress:
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
        from evl.cli.evaluate import print_evaluation

        print_evaluation(result.evaluation)
    if result.outcome is not None:
        output.print(result.outcome.sentence, highlight=False, markup=False, soft_wrap=True)
    output.print(f"the run is in {out}; next: evl predict {out} VIDEO", highlight=False, markup=False, soft_wrap=True)


def _few_shot(config, out: Path, shots: tuple[int, ...], draws: int, keep_runs: bool, device: str | None) -> None:
    from rich.markup import escape
    from rich.table import Table

    from evl.cli.common import is_main_process, output
    from evl.training.few_shot import few_shot

    with ProgressBars() as progress:
        result = few_shot(
            config, out, shots=shots, draws=draws, keep_runs=keep_runs, device=device, progress=progress
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


def make_config(
    data: Path | None,
    backbone: str | None,
    recipe: str | None,
    config: Path | None,
    settings: tuple[str, ...],
    init: str | None = None,
    features: Path | None = None,
):
    """The config that options describe: recipe, file, model or store first, then --backbone and --data, then --set."""
    from evl.backbones import named
    from evl.backbones.embedded import EMBEDDED
    from evl.backbones.embedded import NAMES as EMBEDDED_NAMES
    from evl.cli.common import console, is_main_process
    from evl.config import RunConfig, replace
    from evl.errors import ConfigError
    from evl.recipes import get_recipe

    if recipe and config:
        raise ConfigError("give --recipe or --config, not both")
    if features and data:
        raise ConfigError("a store lists its own videos: leave out --data, or --features")
    start = get_recipe(recipe) if recipe else RunConfig.from_yaml(config) if config else RunConfig()
    if features and not recipe and not config:
        from evl.features.description import config_of
        from evl.features.store import FeatureStore

        start = config_of(FeatureStore(features).description)
    if init is not None:
        from evl.assembly import find_model, read_card, weights_file

        folder = find_model(init)
        card = read_card(folder)
        if features and not recipe and not config:
            start = replace(start, model=dataclasses.asdict(card.model))
        elif not recipe and not config:  # what is not said is as it was there
            start = RunConfig(backbone=card.backbone, model=card.model, clip=card.clip, evaluation=card.evaluation)
            start = replace(start, backbone={"weights": weights_file(folder, card)})
        start = replace(start, training={"init": str(folder.absolute())})
    if backbone is not None:
        chosen = named(backbone)
        start = replace(start, backbone={"name": chosen.name, "weights": chosen.weights})
    if data is not None:
        start = replace(start, data={"path": str(data)})
    if features is not None:
        start = replace(start, data={"features": str(features)})
    start = start.with_settings(settings)
    if start.backbone.name in EMBEDDED_NAMES and is_main_process():
        trained = start.backbone.name == EMBEDDED and start.backbone.pretrained
        console.print(
            f"[yellow]backbone: {start.backbone.name}, very small, made for first steps: "
            f"{'it knows drawings, not the world' if trained else 'it is not trained at all'}. For real scores take a "
            "large one, such as --backbone vit_base_patch16_clip_quickgelu_224.openai[/yellow]"
        )
    return start


def refuse_other_videos(config, data: Path | None, settings: tuple[str, ...]) -> None:
    """ConfigError where a run from a store was also told of videos, which it would not look at."""
    from evl.errors import ConfigError

    said = {key.strip(): text.strip() for key, _, text in (setting.partition("=") for setting in settings)}
    features = said.get("data.features", config.data.features)
    if features in (None, "", "null", "~"):
        return
    if data is not None:
        raise ConfigError(f"a store lists its own videos: leave out --data, or data.features={features}")
    own = {"data.features", "data.max_damaged_share"}
    if ignored := [key for key in said if key.startswith("data.") and key not in own]:
        raise ConfigError(
            f"a store has its own videos, decoded and split: leave out {', '.join(ignored)}, or go without --features"
        )


class ProgressBars:
    """What ``evl.training.train`` reports, drawn: one bar for training, one for each evaluation."""

    def __enter__(self):
        from evl.cli.common import Bars

        self.bars, self.tasks = Bars("").__enter__(), {}
        return self

    def __call__(self, report) -> None:
        task = self.tasks.get(report.phase)
        if task is None or report.step <= task.done:  # the first of this kind, or a new evaluation
            task = self.tasks[report.phase] = self.bars.add(report.phase, report.steps).starting_at(report.started_at)
        task.to(report.step, report.note)

    def __exit__(self, *arguments):
        self.bars.__exit__(*arguments)
