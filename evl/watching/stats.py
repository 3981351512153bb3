"""What a watch has counted and measured."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

NEWEST = 4096  # delays that are kept


@dataclass
class Totals:
    """Of all sources, since the start. Seconds of the parts are those of the one thread that computes; ``reading`` is
    processor time of the threads that read."""

    sources: int = 0
    seconds: float = 0.0
    frames: int = 0
    encoded: int = 0
    windows: int = 0
    events: int = 0
    frames_left_out: int = 0
    windows_left_out: int = 0
    damaged: int = 0
    breaks: int = 0
    files: int = 0
    failed: int = 0
    webhook_sent: int = 0
    webhook_lost: int = 0
    reading_seconds: float = 0.0
    pictures_seconds: float = 0.0
    encoder_seconds: float = 0.0
    decoder_seconds: float = 0.0
    delay_p50_seconds: float | None = None
    delay_p95_seconds: float | None = None

    @property
    def frames_per_second(self) -> float:
        """Frames that were read in a second."""
        return self.frames / self.seconds if self.seconds else 0.0

    @property
    def is_whole(self) -> bool:
        """Whether every source could be read, and every event reached the webhook."""
        return not self.failed and not self.webhook_lost

    def document(self) -> dict[str, Any]:
        return {
            name: round(value, 6) if isinstance(value, float) else value
            for name, value in {**asdict(self), "frames_per_second": self.frames_per_second}.items()
        }


@dataclass
class Delays:
    """Seconds from the arrival of a frame to the scores that it completes: of the newest 4,096."""

    kept: deque[float] = field(default_factory=lambda: deque(maxlen=NEWEST))

    def add(self, seconds: float) -> None:
        self.kept.append(seconds)

    def percentile(self, percent: float) -> float | None:
        return float(np.percentile(self.kept, percent)) if self.kept else None
