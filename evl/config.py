"""A run, completely described: frozen dataclasses, checked when made, to and from YAML.

``evl train --set training.steps=2000`` changes the field ``steps`` of ``RunConfig.training``. A recipe is a
function that returns a complete ``RunConfig`` (``evl.recipes``). ``evl.sections`` has the settings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from evl.decoders import OWN_SETTINGS, decoder_with, find_decoder, foreign_setting, is_decoder, starts_with
from evl.errors import ConfigError, nearest, nearest_setting, shortened, validation_sentence
from evl.runtime.files import expand_home, parse_yaml
from evl.sections import (
    AugmentConfig,
    BackboneConfig,
    ClipConfig,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    TrainingConfig,
    checked,
    chosen,
)


@checked
class RunConfig:
    """Everything that decides what a run does; stored as ``config.yaml`` in its folder."""

    backbone: BackboneConfig = dataclasses.field(default_factory=BackboneConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    clip: ClipConfig = dataclasses.field(default_factory=ClipConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)

    def without_training(self) -> RunConfig:
        """What a trained model still is of it: videos, augmentation and training are at their defaults."""
        data = DataConfig(pixel_aspect=self.data.pixel_aspect)
        return RunConfig(self.backbone, self.model, self.clip, data=data, evaluation=self.evaluation)

    def without_folders(self) -> RunConfig:
        """A copy in which every path is the name of its file or folder alone."""
        changed = self.to_dict()
        for section in dataclasses.fields(self):
            for one in dataclasses.fields(getattr(self, section.name)):
                path = changed[section.name][one.name]
                if one.type == "FilePath | None" and path is not None:
                    changed[section.name][one.name] = Path(path).name
        return RunConfig.from_dict(changed)

    def to_dict(self) -> dict[str, Any]:
        return TypeAdapter(RunConfig).dump_python(self, mode="json")

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> RunConfig:
        """Raises ConfigError for an unknown name (with the nearest known one) or a wrong value."""
        try:
            return TypeAdapter(cls).validate_python(dict(settings))
        except ValidationError as error:
            raise ConfigError(validation_sentence(error.errors(), _sections())) from None

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    @classmethod
    def from_yaml(cls, path: str | Path, *, strict: bool = False) -> RunConfig:
        """Raises ConfigError for what is not readable, unknown or wrong.

        ``strict``: also for settings that its decoder does not have. The file of a run, which has every setting, may
        have some that have no effect.
        """
        try:
            settings = parse_yaml(expand_home(Path(path)).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{path}: no such configuration file") from None
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from None
        except ValueError as error:
            raise ConfigError(f"{path}: not readable as YAML: {error}") from None
        if not isinstance(settings, Mapping):
            raise ConfigError(f"{path}: expected sections such as 'training:', found {type(settings).__name__}")
        config, given = cls.from_dict(settings), settings.get("model", {})
        if strict and (problem := foreign_setting(config.model.decoder, chosen(config.model, given))):
            raise ConfigError(f"{path}: model.{problem}")
        return config

    def with_settings(self, settings: Iterable[str]) -> RunConfig:
        """A copy with ``section.field=value`` strings applied; values are read as YAML."""
        sections = [section.name for section in dataclasses.fields(self)]
        given: dict[str, dict[str, Any]] = {}
        for setting in settings:
            name, equals, text = setting.partition("=")
            section, dot, field = name.strip().partition(".")
            if not equals or not dot or not field:
                hint = did_you_mean(section) if equals and not dot else ""
                raise ConfigError(f"{setting!r}: expected section.field=value, for example training.steps=2000{hint}")
            if section not in sections:
                raise ConfigError(f"{setting!r}: no section {section!r}{nearest(section, sections)}")
            try:
                given.setdefault(section, {})[field.strip()] = parse_yaml(text)
            except ValueError:
                raise ConfigError(
                    f"{shortened(setting)}: the value {shortened(text)} is not readable; quote it?"
                ) from None
        return replace(self, **given)


def replace(config: RunConfig, **sections: Mapping[str, Any]) -> RunConfig:
    """A copy with fields changed: ``replace(config, training={"steps": 10})``. Checked like any other.

    Raises ConfigError for settings of the model that its decoder does not have. If no setting of the model was chosen
    before, settings that only EVL's decoder has choose that decoder. Where the decoder itself is given,
    those that only stand there (a recipe's, say) go back to their defaults, and taps and dropout that are the old
    decoder's defaults become the new one's.
    """
    given = chosen(config.model, sections.get("model", {}))
    model = dict(sections.get("model", {}))
    if config.model == ModelConfig(taps=config.model.taps) and decoder_with(given) != config.model.decoder:
        model.setdefault("decoder", decoder_with(given))
    changed = config.to_dict()
    for section, fields in {**sections, "model": model}.items():
        changed[section] = {**changed[section], **fields}
    if {"stride", "frames_per_second"} <= set(chosen(config.clip, sections.get("clip", {}))):
        raise ConfigError("give clip.stride (by frames) or clip.frames_per_second (by time), not both")
    decoder = model.get("decoder")
    if isinstance(decoder, str) and is_decoder(decoder):
        own = find_decoder(decoder)
        kept = {*own.settings, *own.why_not, *given}
        usual = dataclasses.asdict(ModelConfig(config.model.decoder))
        moved = {name for name in {*starts_with(config.model.decoder), *starts_with(decoder)} - {*model}
                 if getattr(config.model, name) == usual[name]}  # fmt: skip
        changed["model"] = {name: value for name, value in changed["model"].items()
                            if (name not in OWN_SETTINGS or name in kept) and name not in moved}  # fmt: skip
    new = RunConfig.from_dict(changed)
    if problem := foreign_setting(new.model.decoder, given):
        raise ConfigError(f"model.{problem}")
    return new


def did_you_mean(name: str, *, exact: bool = False) -> str:
    """As ``evl.errors.nearest_setting``, for the sections of a config."""
    return nearest_setting(name, _sections(), exact=exact)


def _sections() -> dict[str, list[str]]:
    """The names of the fields of each section."""
    return {section.name: [field.name for field in dataclasses.fields(globals()[section.type])]
            for section in dataclasses.fields(RunConfig)}  # fmt: skip
