"""What the options of training commands mean: one config."""

from __future__ import annotations

from pathlib import Path


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
