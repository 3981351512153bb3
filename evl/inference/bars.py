"""Bars of labels and scores, painted on the frames of a video."""

from __future__ import annotations

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from evl.inference.segments import smoothed
from evl.inference.timeline import Timeline
from evl.runtime.text import visible

MOST_ROWS = 5
COLORS = ("#4c9be8", "#f08c3c", "#4fc38f", "#d58be0", "#e8d24c", "#f06c7c", "#7fd6e8", "#b0b86c")
DARK = 0.62  # how much of the frame the panel hides


class Bars:
    """Paints the highest scores of the nearest window on frames of ``width`` × ``height`` pixels.

    Classes with a segment at that time come first, with a mark; the others follow by score.
    """

    def __init__(self, line: Timeline, width: int, height: int):
        self.line = line
        self.scores = smoothed(np.asarray(line.scores, np.float64), line.rules.smooth)
        self.rows = min(MOST_ROWS, len(line.class_names), max(1, height // 48))
        self.row = max(10, min(30, height // 20))  # pixels
        self.width = min(width, max(120, round(width * 0.46)))
        self.font = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", round(self.row * 0.68))
        self._drawn: tuple[tuple, np.ndarray] | None = None

    def paint(self, frame: np.ndarray, seconds: float) -> None:
        """Paints on a frame (H,W,3) uint8, in place. ``seconds``: its time, from the file's first frame."""
        window = _nearest(self.line.times, seconds)
        active = {one.label for one in self.line.segments if one.start_seconds <= seconds < one.end_seconds}
        if any(gap.start_seconds <= seconds < gap.end_seconds for gap in self.line.damaged):
            return
        key = (window, frozenset(active))
        if self._drawn is None or self._drawn[0] != key:
            self._drawn = key, self._panel(window, active)
        panel = self._drawn[1]
        height, width = min(len(panel), len(frame)), min(panel.shape[1], frame.shape[1])
        corner = frame[-height:, :width]
        shown = panel[:height, :width].astype(np.float32)
        corner[:] = (corner * (1 - DARK) + shown * DARK).round().astype(np.uint8)
        bright = shown.max(-1) > 60  # letters and bars stay clear
        corner[bright] = shown[bright].astype(np.uint8)

    def _panel(self, window: int, active: set[str]) -> np.ndarray:
        names, scores = self.line.class_names, self.scores[window]
        order = sorted(range(len(names)), key=lambda y: (names[y] not in active, -scores[y]))[: self.rows]
        picture = Image.new("RGB", (self.width, self.rows * self.row + 6))
        draw = ImageDraw.Draw(picture)
        for place, y in enumerate(order):
            top, color = 3 + place * self.row, COLORS[y % len(COLORS)]
            left = self.row // 2
            if names[y] in active:
                draw.rectangle((0, top, 4, top + self.row - 3), fill=color)
            length = round((self.width - left - 4) * float(scores[y]))
            base = top + self.row - 4
            draw.rectangle((left, base - max(1, self.row // 8), left + length, base), fill=color)
            share = f"{100 * scores[y]:.0f} %"
            room = self.width - left - 8 - draw.textlength(share, self.font)
            ink = "#ffffff" if names[y] in active else "#c4c8cc"
            draw.text((left, top - 1), _cut(visible(names[y]), room, self.font, draw), ink, self.font)
            draw.text((self.width - 4 - draw.textlength(share, self.font), top - 1), share, ink, self.font)
        return np.asarray(picture)


def _cut(text: str, room: float, font: ImageFont.FreeTypeFont, draw: ImageDraw.ImageDraw) -> str:
    """The text, or its start and an ellipsis, in so many pixels."""
    if draw.textlength(text, font) <= room:
        return text
    while text and draw.textlength(text + "…", font) > room:
        text = text[:-1]
    return text + "…"


def _nearest(times: np.ndarray, seconds: float) -> int:
    place = int(np.clip(np.searchsorted(times, seconds), 1, max(1, len(times) - 1)))
    is_before = len(times) == 1 or seconds - times[place - 1] < times[place] - seconds
    return place - 1 if is_before else place
