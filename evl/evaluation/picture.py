"""How every picture of scores is saved: a short title above, and below, in small type, how it was measured."""

from __future__ import annotations

import contextlib
import logging
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evl.errors import SaveError
from evl.evaluation.lettering import lettered
from evl.runtime.files import write_atomically
from evl.runtime.text import visible

log = logging.getLogger("evl")
CHARACTERS_PER_INCH = 15  # of the caption's type
CHANCE = "chance"  # the label of its line


@contextmanager
def drawing(path: Path) -> Iterator[None]:
    """A block that draws the picture ``path``. An error in it is logged as a warning, because a picture can be drawn
    again from the numbers; an older picture of that name is then removed. Raises SaveError if the system cannot write
    (disk full): then other files cannot be written either, and the caller's command can be called again."""
    try:
        yield
    except SaveError:
        raise
    except Exception as error:
        log.warning("%s could not be drawn (%s: %s); everything else goes on", path, type(error).__name__, error)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def save_picture(path: Path, figure, *, title: str, caption: str, dpi: int = 120) -> None:
    """Writes a matplotlib figure of constrained layout as PNG. ``caption``: lines below it, such as the protocol; the
    file's metadata has them too (``Title`` and ``Description``). No text of the figure is read as mathematics or TeX:
    a class may be called ``$_$``."""
    from matplotlib.text import Text

    width = figure.get_figwidth()
    shown, options = lettered(title)
    figure.suptitle("\n".join(textwrap.wrap(shown, int(11 * width))), fontsize=11, fontweight="bold", **options)
    shown, options = lettered(caption)
    wrapped = [textwrap.fill(line, int(CHARACTERS_PER_INCH * width)) for line in shown.splitlines()]
    figure.supxlabel("\n".join(wrapped), fontsize=8, color="#555555", **options)
    for text in figure.findobj(Text):
        text.set(parse_math=False, usetex=False)
    metadata = {"Title": visible(title), "Description": visible(caption, keep="\n")}
    with write_atomically(path) as file:
        figure.savefig(file, format="png", dpi=dpi, metadata=metadata)


def draw_chance(axes, percent: float) -> None:
    """A dashed line at the score of always naming the most frequent class."""
    axes.axhline(percent, color="#777777", lw=1, ls="--", zorder=0.5)
    axes.annotate(
        f"{CHANCE} {percent:.1f} %", (1, percent), xycoords=("axes fraction", "data"), xytext=(-2, 2),
        textcoords="offset points", ha="right", fontsize=7, color="#777777",
    )  # fmt: skip
