"""The grid of a sweep: ``training.lr=1e-4,3e-4`` and ``model.temporal_conv=true,false`` are four learners."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from evl.config import RunConfig, did_you_mean
from evl.errors import ConfigError, nearest

# the settings of ``training`` that may vary
VARYING = ("lr", "weight_decay", "warmup_steps", "label_smoothing", "clip_grad_norm", "seed")


@dataclass(frozen=True)
class Point:
    """The config of one learner of a grid. ``settings`` has the varying settings, with their values as written."""

    settings: dict[str, str]
    config: RunConfig

    @property
    def name(self) -> str:
        return " ".join(f"{key.partition('.')[2]}={text}" for key, text in self.settings.items()) or "as configured"


@dataclass(frozen=True)
class Grid:
    """All points of a sweep. ``seed`` decides what they share: the order of clips and their augmentation."""

    points: tuple[Point, ...]
    seed: int


def expand(config: RunConfig, settings: Sequence[str]) -> Grid:
    """The grid of all combinations of ``section.field=value,value,…``. The last setting changes fastest.

    A comma inside brackets, braces or quotes belongs to a value: ``model.taps=[3,6],[9,12]`` has two values. A setting
    with one value is the same for all learners. Raises ConfigError if a setting cannot vary or is given twice, and if a
    combination is impossible.
    """
    values: dict[str, list[str]] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip()
        if not equals or "." not in key:
            hint = did_you_mean(key) if equals else ""
            raise ConfigError(f"{setting!r}: expected section.field=value,value,… such as training.lr=1e-4,3e-4{hint}")
        if key in values:
            raise ConfigError(f"{key} is given twice; put all of its values into one list, with commas between")
        values[key] = split_values(text)
    fixed = [f"{key}={texts[0]}" for key, texts in values.items() if len(texts) == 1]
    varying = {key: texts for key, texts in values.items() if len(texts) > 1}
    for key in varying:
        _refuse_shared(key)
    config = config.with_settings(fixed)
    points, seen = [], {}
    for texts in itertools.product(*varying.values()):
        chosen = dict(zip(varying, texts, strict=True))
        try:
            own = config.with_settings(f"{key}={text}" for key, text in chosen.items())
        except ConfigError as error:
            raise ConfigError(f"the learner {Point(chosen, config).name}: {error}") from None
        if own.model.decoder == "zero_shot":
            raise ConfigError("model.decoder=zero_shot has nothing to train; leave it out of the sweep")
        point = Point(chosen, own)
        if (twin := seen.setdefault(own.to_yaml(), point)) is not point:  # compares values as they are parsed
            raise ConfigError(
                f"a value is given twice: {twin.name} and {point.name} are the same learner; give each value once"
            )
        points.append(point)
    return Grid(tuple(points), config.training.seed)


def split_values(text: str) -> list[str]:
    """Splits at the commas outside of brackets, braces and quotes. Raises ConfigError for an empty value."""
    parts, depth, quote = [""], 0, None
    for letter in text:
        if quote is not None:
            quote = None if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            depth += (letter in "[{(") - (letter in ")}]")
        if letter == "," and depth == 0 and quote is None:
            parts.append("")
        else:
            parts[-1] += letter
    parts = [part.strip() for part in parts]
    if len(parts) > 1 and not all(parts):
        raise ConfigError(f"{text!r}: there is nothing before or after one of its commas")
    return parts


def _refuse_shared(key: str) -> None:
    """Raises ConfigError if a setting must be the same for all learners of a sweep."""
    section, _, field = key.partition(".")
    known = RunConfig().to_dict()
    if section not in known:
        raise ConfigError(f"no section {section!r}{nearest(section, known)}")
    if field not in known[section]:
        raise ConfigError(f"no setting {key!r}{did_you_mean(field, exact=True) or nearest(field, known[section])}")
    if section == "model" or (section == "training" and field in VARYING):
        return
    why = {
        "training": "all learners take the same steps on the same batches",
        "evaluation": "all learners are judged by the same views",
        "backbone": "all learners read the same features",
    }.get(section, "all learners learn from the same clips")
    raise ConfigError(
        f"{key} cannot vary in a sweep, because {why}: give it one value, and sweep once for each. These can: model.*, "
        f"{', '.join(f'training.{name}' for name in VARYING)}"
    )
