"""Going on with a training: which settings may differ from those that it was begun with."""

from __future__ import annotations

from collections.abc import Mapping

from evl.config import RunConfig
from evl.errors import ConfigError

# what may change when a run goes on: nothing that decides its numbers
_RESUMABLE = {
    # where the store lies, what it holds is compared; where the videos lie
    "data": {"num_workers", "max_damaged_share", "features", "root"},
    "training": {"save_every", "keep_last", "log_every"},
}


def refuse_changes(before: RunConfig, after: RunConfig, *, others: Mapping[str, tuple] | None = None) -> None:
    """Raises ConfigError if a run that was begun with ``before`` cannot go on with ``after``; it names all differences.

    ``others``: what was asked for besides the config: name → (before, after).
    """
    old, new = before.to_dict(), after.to_dict()
    pairs = {
        f"{section}.{name}": (old[section][name], value)
        for section, fields in new.items()
        for name, value in fields.items()
        if name not in _RESUMABLE.get(section, ())
    }
    changed = {name: pair for name, pair in {**pairs, **(others or {})}.items() if pair[0] != pair[1]}
    if changed:
        shown = [f"{old!r} → {new!r}" for old, new in changed.values()]
        raise ConfigError(
            f"{_listed(list(changed))} cannot change when a run goes on ({_listed(shown, '; ')}); give the settings "
            "that it was begun with, or start a new run in another folder"
        )


def _listed(texts: list[str], comma: str = ", ") -> str:
    return comma.join(texts[:5]) + (f" and {len(texts) - 5} more" if len(texts) > 5 else "")
