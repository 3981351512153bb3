"""How every picture of scores is saved: a short title above, and below, in small type, how it was measured."""

from __future__ import annotations

import textwrap
from pathlib import Path

from evl.evaluation.lettering import lettered
from evl.runtime.files import write_atomically

CHARACTERS_PER_INCH = 15  # of the caption's type
CHANCE = "chance"  # the label of its line


def save_picture(path: Path, figure, *, title: str, caption: str, dpi: int = 120) -> None:
    """Writes a matplotlib figure of constrained layout as PNG. ``caption``: lines below it, such as the protocol; the
    file's metadata has them too (``Title`` and ``Description``)."""
    width = figure.get_figwidth()
    shown, options = lettered(title)
    figure.suptitle("\n".join(textwrap.wrap(shown, int(11 * width))), fontsize=11, fontweight="bold", **options)
    shown, options = lettered(caption)
    wrapped = [textwrap.fill(line, int(CHARACTERS_PER_INCH * width)) for line in shown.splitlines()]
    figure.supxlabel("\n".join(wrapped), fontsize=8, color="#555555", **options)
    with write_atomically(path) as file:
        figure.savefig(file, format="png", dpi=dpi, metadata={"Title": title, "Description": caption})


def draw_chance(axes, percent: float) -> None:
    """A dashed line at the score of always naming the most frequent class."""
    axes.axhline(percent, color="#777777", lw=1, ls="--", zorder=0.5)
    axes.annotate(
        f"{CHANCE} {percent:.1f} %", (1, percent), xycoords=("axes fraction", "data"), xytext=(-2, 2),
        textcoords="offset points", ha="right", fontsize=7, color="#777777",
    )  # fmt: skip
