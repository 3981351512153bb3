"""Recipes: named functions that return a complete config; ``evl train --recipe k400_vitb16_8x16``."""

from __future__ import annotations

from collections.abc import Callable

from evl.config import RunConfig
from evl.errors import ConfigError, nearest
from evl.recipes.kinetics import KINETICS
from evl.recipes.ssv2 import SSV2

RECIPES: dict[str, Callable[[], RunConfig]] = KINETICS | SSV2


def get_recipe(name: str) -> RunConfig:
    """Returns the config of a recipe. Raises ConfigError, with the nearest name, if there is no such recipe."""
    if name not in RECIPES:
        raise ConfigError(f"no recipe named {name!r}{nearest(name, RECIPES)}")
    return RECIPES[name]()
