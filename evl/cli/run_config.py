"""What the options of training commands mean: one config."""

from __future__ import annotations

import dataclasses
from pathlib import Path


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
    start = get_recipe(recipe) if recipe else RunConfig.from_yaml(config, strict=True) if config else RunConfig()
    if features and not recipe and not config:
        from evl.features.fit import config_of
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


def refuse_with_resume(out: Path, **options) -> None:
    """ConfigError where a run that goes on is also told how to begin."""
    from evl.errors import ConfigError

    if given := [f"--{name}" for name, value in options.items() if value is not None]:
        raise ConfigError(f"--resume goes on with what {out} was told: leave out {', '.join(given)}")
