"""What a caller says of a run, in Python or on a command line → one config."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evl.backbones import parse_backbone
from evl.backbones.embedded import EMBEDDED
from evl.config import BackboneConfig, ModelConfig, RunConfig, replace
from evl.errors import ConfigError, nearest
from evl.recipes import get_recipe
from evl.runtime.files import expand_home
from evl.saving import find_model, read_card, weights_file
from evl.store.description import DESCRIPTION, StoreDescription
from evl.store.store import FeatureStore

log = logging.getLogger("evl")


def config_for(
    data: Any = None,
    *,
    backbone: Any = None,
    recipe: str | None = None,
    config: RunConfig | str | Path | None = None,
    settings: Iterable[str] = (),
    is_made: bool = False,
    **fields: Any,
) -> RunConfig:
    """The config that all of this describes: recipe, config, model or store first, then backbone and data, then single
    settings: ``fields`` (``sections_of``) and ``settings``, such as "training.steps=10".

    ``data``: videos, or a store, which then takes the place of the videos; also the section as a dict, as ``backbone``
    may be. ``is_made``: the encoder is there already, so there is no warning about the choice of it.
    """
    if isinstance(data, Mapping):
        data, fields["data"] = None, data
    if isinstance(backbone, Mapping):
        backbone, fields["backbone"] = None, backbone
    sections = sections_of(fields)
    init, features = sections.get("training", {}).pop("init", None), sections.get("data", {}).pop("features", None)
    if data is not None and features is None and is_store(data):
        data, features = None, data
    elif data is not None and not isinstance(data, str | os.PathLike):
        raise ConfigError(
            f"data {data!r:.60}: expected the path of a folder of videos, of a list of them, or of a store of features"
        )
    if recipe and config:
        raise ConfigError("give `recipe` or `config`, not both")
    if features is not None and data is not None:
        raise ConfigError("a store lists its own videos: leave out `data`, or `features`")
    settings = (settings,) if isinstance(settings, str) else tuple(settings)
    start = _start(recipe, config, init, None if features is None else os.fspath(features))
    if isinstance(backbone, BackboneConfig):
        start = replace(start, backbone=dataclasses.asdict(backbone))
    elif backbone is not None:
        chosen = parse_backbone(os.fspath(backbone))
        start = replace(start, backbone={"name": chosen.name, "weights": chosen.weights})
    if data is not None:
        start = replace(start, data={"path": str(data)})
    start = replace(start, **sections).with_settings(settings)
    said = [setting.partition("=")[0] for setting in settings]
    refuse_other_videos(start, data, (*said, *(f"data.{field}" for field in sections.get("data", {}))))
    if start.backbone.name == EMBEDDED and not is_made:
        trained = start.backbone.pretrained
        log.warning(
            "backbone: %s, very small, made for first steps: %s. For real scores take a large one, such as "
            "vit_base_patch16_clip_quickgelu_224.openai",
            start.backbone.name, "it knows drawings, not the world" if trained else "it is not trained at all",
        )  # fmt: skip
    return start


def _start(recipe: str | None, config: Any, init: str | Path | None, features: str | None) -> RunConfig:
    """A recipe, a config, or the defaults; where neither is given, the settings of a store and of a model instead."""
    start, is_said = _recipe_or_config(recipe, config), bool(recipe or config)
    if features is not None and not is_said:
        start = _start_of_store(FeatureStore(features).description)
    if init is not None:
        folder = find_model(init)
        card = read_card(folder)
        if features is not None and not is_said:
            start = dataclasses.replace(start, model=card.config.model)
        elif not is_said:
            start = replace(card.config.without_training(), backbone={"weights": weights_file(folder, card)})
        start = replace(start, training={"init": str(folder.absolute())})
    return start if features is None else replace(start, data={"features": features})


def _start_of_store(description: StoreDescription) -> RunConfig:
    """The defaults, with what a store decides. A store of neighbor maps may lack what the usual decoder reads."""
    config = description.config
    if description.options.form == "maps":
        return config
    return replace(config, model={"decoder": ModelConfig().decoder, "taps": config.model.taps})


def _recipe_or_config(recipe: str | None, config: RunConfig | str | Path | None) -> RunConfig:
    if isinstance(config, RunConfig):
        return config
    if config is not None and not isinstance(config, str | os.PathLike):
        raise ConfigError(f"config {config!r:.60}: expected an evl.RunConfig, or the path of a config.yaml")
    if config is not None and os.path.isdir(expand_home(config)):
        raise ConfigError(f"config {config} is a folder: expected a config.yaml; give videos as data={str(config)!r}")
    return get_recipe(recipe) if recipe else RunConfig.from_yaml(config, strict=True) if config else RunConfig()


def refuse_other_videos(config: RunConfig, data: Any, said: Iterable[str]) -> None:
    """ConfigError where a run from a store is also given videos, which it would not read: ``data``, or settings in
    ``said``, such as "data.path"."""
    if config.data.features is None:
        return
    if data is not None:
        raise ConfigError(f"a store lists its own videos: leave out `data`, or data.features={config.data.features}")
    own = {"data.features", "data.max_damaged_share"}
    if names := [name for name in dict.fromkeys(map(str.strip, said)) if name.startswith("data.") and name not in own]:
        raise ConfigError(
            f"a store has its own videos, decoded and split: leave out {', '.join(names)}, or read the videos instead"
        )


def is_store(data: Any) -> bool:
    """Whether it is, or is the folder of, a store of features, finished or not."""
    return isinstance(data, str | os.PathLike) and os.path.isfile(os.path.join(expand_home(data), DESCRIPTION))


def sections_of(fields: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """``steps=5``, ``training={"steps": 5}`` and ``**{"training.steps": 5}`` -> {"training": {"steps": 5}}.

    Raises ConfigError for a name that no section has, or several have, and for a field that is given twice.
    """
    known = RunConfig().to_dict()
    given: dict[str, dict[str, Any]] = {}
    for key, value in fields.items():
        if key in known:
            if not isinstance(value, Mapping):
                raise ConfigError(f"{key}={value!r:.60}: expected the section as a dict, such as {_example(key)}")
            pairs = [(key, str(field), inner) for field, inner in value.items()]
        else:
            pairs = [(*place_of(key).split("."), value)]
        for section, field, inner in pairs:
            if field in given.setdefault(section, {}):
                raise ConfigError(f"{section}.{field} is given twice")
            given[section][field] = os.fspath(inner) if isinstance(inner, os.PathLike) else inner
    return given


def place_of(name: str) -> str:
    """``training.steps`` of ``steps`` or ``training.steps``. Raises ConfigError as ``sections_of``.

    ``decoder`` alone is ``model.decoder``; the program that decodes videos is always ``data.decoder``.
    """
    known = RunConfig().to_dict()
    section, dot, field = name.partition(".")
    if dot:
        if section not in known:
            raise ConfigError(f"{name!r}: no section {section!r}{nearest(section, known)}")
        if field not in known[section]:
            raise ConfigError(f"no setting {name!r}{nearest(field, known[section])}")
        return name
    places = ["model"] if name == "decoder" else [section for section, inner in known.items() if name in inner]
    if len(places) == 1:
        return f"{places[0]}.{name}"
    if places:
        choices = " or ".join(f"{section}={{{name!r}: …}}" for section in places)
        raise ConfigError(f"{name} is a setting of {' and of '.join(places)}: write {choices}")
    every = dict.fromkeys((*known, *(field for inner in known.values() for field in inner)))
    raise ConfigError(f"no setting {name!r}{nearest(name, every)}")


def _example(section: str) -> str:
    field, value = next((pair for pair in RunConfig().to_dict()[section].items() if pair[1] is not None), ("path", "…"))
    return f"{section}={{{field!r}: {value!r}}}"
