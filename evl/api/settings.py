"""What a caller says of a run, in Python or on a command line → one config."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evl.backbones import named
from evl.backbones.embedded import EMBEDDED
from evl.config import BackboneConfig, RunConfig, replace
from evl.errors import ConfigError, nearest
from evl.recipes import get_recipe
from evl.runtime.files import expand_home
from evl.saving import find_model, read_card, weights_file
from evl.store.description import DESCRIPTION
from evl.store.store import FeatureStore

log = logging.getLogger("evl")
Sections = Mapping[str, Mapping[str, Any]]


def make_config(
    data: str | Path | None,
    backbone: str | BackboneConfig | None,
    recipe: str | None,
    config: RunConfig | str | Path | None,
    settings: Iterable[str] = (),
    init: str | Path | None = None,
    features: str | Path | None = None,
    sections: Sections | None = None,
    *,
    is_made: bool = False,
) -> RunConfig:
    """The config that all of this describes: recipe, config, model or store first, then backbone and data, then single
    settings: ``sections``, such as {"training": {"steps": 10}}, and ``settings``, such as "training.steps=10".

    ``is_made``: the encoder is there already, so there is no warning about the choice of it."""
    if recipe and config:
        raise ConfigError("give --recipe or --config, not both")
    if features and data:
        raise ConfigError("a store lists its own videos: leave out --data, or --features")
    start = _start(recipe, config)
    is_said = bool(recipe or config)
    if features and not is_said:
        start = FeatureStore(features).description.config
    if init is not None:
        folder = find_model(init)
        card = read_card(folder)
        if features and not is_said:
            start = dataclasses.replace(start, model=card.config.model)
        elif not is_said:  # what is not said is as it was there
            start = replace(card.config.without_training(), backbone={"weights": weights_file(folder, card)})
        start = replace(start, training={"init": str(folder.absolute())})
    if isinstance(backbone, BackboneConfig):
        start = replace(start, backbone=dataclasses.asdict(backbone))
    elif backbone is not None:
        chosen = named(os.fspath(backbone))
        start = replace(start, backbone={"name": chosen.name, "weights": chosen.weights})
    if data is not None:
        start = replace(start, data={"path": str(data)})
    if features is not None:
        start = replace(start, data={"features": str(features)})
    start = replace(start, **(sections or {})).with_settings(settings)
    if start.backbone.name == EMBEDDED and not is_made:
        trained = start.backbone.pretrained
        log.warning(
            "backbone: %s, very small, made for first steps: %s. For real scores take a large one, such as "
            "vit_base_patch16_clip_quickgelu_224.openai",
            start.backbone.name, "it knows drawings, not the world" if trained else "it is not trained at all",
        )  # fmt: skip
    return start


def _start(recipe: str | None, config: RunConfig | str | Path | None) -> RunConfig:
    if isinstance(config, RunConfig):
        return config
    if config is not None and not isinstance(config, str | os.PathLike):
        raise ConfigError(f"config {config!r:.60}: expected an evl.RunConfig, or the path of a config.yaml")
    if config is not None and os.path.isdir(expand_home(config)):
        raise ConfigError(f"config {config} is a folder: expected a config.yaml; give videos as data={str(config)!r}")
    return get_recipe(recipe) if recipe else RunConfig.from_yaml(config, strict=True) if config else RunConfig()


def config_for(
    data: Any = None,
    *,
    backbone: Any = None,
    recipe: str | None = None,
    config: RunConfig | str | Path | None = None,
    settings: Iterable[str] = (),
    fields: Mapping[str, Any],
    is_made: bool = False,
) -> RunConfig:
    """``make_config`` for functions with keywords: ``fields`` are theirs (``sections_of``). ``data``: videos, or a
    store, which then takes the place of the videos; also the section as a dict, as ``backbone`` may be."""
    fields = dict(fields)
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
    if features is not None and (videos := _videos_of(sections, settings)):
        raise ConfigError(f"a store has its own videos, decoded and split: leave out {', '.join(videos)}")
    if isinstance(settings, str):
        settings = (settings,)
    features = None if features is None else os.fspath(features)
    return make_config(data, backbone, recipe, config, tuple(settings), init, features, sections, is_made=is_made)


def _videos_of(sections: Sections, settings: Iterable[str]) -> list[str]:
    """Settings of ``data`` that a run from a store does not read."""
    said = [setting.partition("=")[0].strip() for setting in settings]
    said += [f"data.{field}" for field in sections.get("data", {})]
    own = {"data.features", "data.max_damaged_share"}
    return [name for name in dict.fromkeys(said) if name.startswith("data.") and name not in own]


def open_store(path: str | Path) -> FeatureStore:
    """The finished store of features in a folder: ``splits``, ``class_names``, ``description``. Raises StoreError."""
    return FeatureStore(os.fspath(path))


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
    """``training.steps`` of ``steps`` or ``training.steps``. Raises ConfigError as ``sections_of``."""
    known = RunConfig().to_dict()
    section, dot, field = name.partition(".")
    if dot:
        if section not in known:
            raise ConfigError(f"{name!r}: no section {section!r}{nearest(section, known)}")
        if field not in known[section]:
            raise ConfigError(f"no setting {name!r}{nearest(field, known[section])}")
        return name
    places = [section for section, inner in known.items() if name in inner]
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
