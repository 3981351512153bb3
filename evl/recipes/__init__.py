"""A run is a function that returns a complete config; ``evl train --recipe k400_vitb16_8x16``."""

from __future__ import annotations

from collections.abc import Callable

from evl.config import RunConfig
from evl.errors import ConfigError, nearest
from evl.recipes.kinetics import KINETICS
from evl.recipes.ssv2 import SSV2

RECIPES: dict[str, Callable[[], RunConfig]] = {function.__name__: function for function in (*KINETICS, *SSV2)}


def get_recipe(name: str) -> RunConfig:
    """The config of a recipe by name; ConfigError, with the nearest names, if there is none."""
    if name not in RECIPES:
        raise ConfigError(f"no recipe named {name!r}{nearest(name, RECIPES)}")
    return RECIPES[name]()
