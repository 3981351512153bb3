"""What a watch tells: segments that begin and end, scores, and what happens to sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal


@dataclass(frozen=True)
class Event:
    """Something that happened at a source.

    Args:
        kind: ``begin`` and ``end`` of a segment, ``scores`` of a window, or ``state``: of the source.
        source: its name, without passwords; in a folder, the path of the file.
        seconds: when, from the source's first frame; of ``scores`` the middle of the window.
        time: the same by this computer's clock, in seconds since 1970: when the newest frame was read, less the seconds
            of the source that lie between.
        label: the class of a segment.
        score: of ``begin``, that of the window that decided it; of ``end``, the mean over the segment.
        start_seconds: of ``end``: when the segment began.
        scores: of ``scores``: class name → score.
        state: ``connected``, ``lost``, ``ended``, ``failed``, ``changed``, ``silent``, ``left out`` or ``damaged``.
        text: of ``state``, in words.
        delay_seconds: of a window's scores and of events that follow from them: from the arrival of its last frame.
    """

    kind: Literal["begin", "end", "scores", "state"]
    source: str
    seconds: float
    time: float
    label: str | None = None
    score: float | None = None
    start_seconds: float | None = None
    scores: Mapping[str, float] | None = None
    state: str | None = None
    text: str | None = None
    delay_seconds: float | None = None

    def document(self) -> dict[str, Any]:
        """For JSON: only what the event has. ``time`` is in ISO 8601."""
        found: dict[str, Any] = {"event": self.kind, "source": self.source}
        if self.start_seconds is not None:
            found["start_seconds"] = round(self.start_seconds, 6)
        found["seconds"] = round(self.seconds, 6)
        found["time"] = iso_time(self.time)
        for name in ("label", "score", "scores", "state", "text", "delay_seconds"):
            value = getattr(self, name)
            if isinstance(value, float):
                value = round(value, 6)
            if isinstance(value, Mapping):
                value = {label: round(score, 6) for label, score in value.items()}
            if value is not None:
                found[name] = value
        return found


def iso_time(seconds: float) -> str:
    """Seconds since 1970 → ``2026-11-29T08:15:30.250+01:00``, in this computer's time zone."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(timespec="milliseconds")
