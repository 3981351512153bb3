"""How every picture of scores is saved: a short title above, and below, in small type, how it was measured.

Names and texts are shown in an installed font that has their characters, or as numbers or codes.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from evl.errors import SaveError
from evl.runtime.files import write_atomically
from evl.runtime.text import visible

log = logging.getLogger("evl")
CHARACTERS_PER_INCH = 15  # of the caption's type
CHANCE = "chance"  # the label of its line
PLAIN = "DejaVu Sans"  # comes with matplotlib
LONGEST = 40  # characters of a name in a picture
SHAPES_SINCE = (3, 11)  # the matplotlib that sets scripts whose letters join or move, or run from right to left
_SHAPED = frozenset(  # the first word of the name of such a character
    ("ARABIC", "HEBREW", "SYRIAC", "THAANA", "NKO", "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL",
     "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "THAI", "LAO", "TIBETAN", "MYANMAR", "KHMER", "MONGOLIAN", "BALINESE",
     "JAVANESE")
)  # fmt: skip


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


@dataclass(frozen=True)
class Lettering:
    """``shown``: what stands in a picture for each name; ``legend``: number → name, where that is a number.
    ``options``: for matplotlib's texts."""

    shown: tuple[str, ...]
    legend: Mapping[str, str]
    options: Mapping

    @property
    def width_inches(self) -> float:
        """About how long the longest one is, at matplotlib's usual size."""
        wide = (sum(1.7 if unicodedata.east_asian_width(c) in "WF" else 1 for c in name) for name in self.shown)
        return 0.085 * max(wide, default=0)


def lettering(names: Sequence[str]) -> Lettering:
    """How ``names`` are shown: those that no installed font has the characters for as ``#3``, by their place from 0;
    long ones are cut."""
    names = [_composed(visible(" ".join(name.split()))) for name in names]
    fonts, covered = _fonts_for(frozenset("".join(names)))
    shown, legend = [], {}
    for number, name in enumerate(names):
        if covered.issuperset(name):
            shown.append(name if len(name) <= LONGEST else name[: LONGEST - 1].rstrip() + "…")
        else:
            legend[f"#{number}"] = name
            shown.append(f"#{number}")
    return Lettering(tuple(shown), legend, {"fontfamily": list(fonts)})


def lettered(text: str) -> tuple[str, Mapping]:
    """(``text`` with a code such as ``U+5F00`` for each character that no font here can show, options for matplotlib's
    texts)."""
    lines = [_composed(line) for line in visible(text, keep="\n").split("\n")]
    fonts, covered = _fonts_for(frozenset("".join(lines)))
    shown = ("".join(c if c in covered else f"U+{ord(c):04X}" for c in line) for line in lines)
    return "\n".join(shown), {"fontfamily": list(fonts)}


def _composed(text: str) -> str:
    """Letters and their accents as one character, and without the marks that ask for a coloured emoji."""
    text = unicodedata.normalize("NFC", text)
    return text.replace("\N{VARIATION SELECTOR-16}", "").replace("\N{VARIATION SELECTOR-15}", "")


@functools.lru_cache(maxsize=64)
def _fonts_for(characters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """(families, first choice first; those of the characters that they show)."""
    from matplotlib import font_manager

    wanted = {character for character in characters if _can_be_set(character)}
    families, covered = [PLAIN], wanted & _covered(font_manager.findfont(PLAIN), wanted)
    if wanted - covered:  # installed fonts are looked through only where they are needed
        files = sorted(font_manager.findSystemFonts(), key=_plainest_first)
        while missing := wanted - covered:
            best = max(files, key=lambda file: len(_covered(file, missing)), default=None)
            if best is None or not (found := _covered(best, missing)):
                break
            font_manager.fontManager.addfont(best)
            family = font_manager.get_font(best).family_name
            # matplotlib finds a file by the family's name: what counts is the one that it finds
            found &= _covered(font_manager.findfont(family), missing)
            files.remove(best)
            if found:
                families.append(family)
                covered |= found
    return tuple(families), frozenset(covered)


def _plainest_first(file: str) -> tuple:
    name = file.rpartition("/")[2].lower()
    return any(word in name for word in ("bold", "italic", "oblique", "light", "thin", "black", "mono")), name


def _covered(file: str, characters: Iterable[str]) -> set[str]:
    """Those that a font file can draw as outlines; none of a file that matplotlib cannot read."""
    from matplotlib import font_manager

    try:
        font = font_manager.get_font(file)
        if not font.scalable:  # pictures of one size, as coloured emoji are
            return set()
        return {character for character in characters if font.get_char_index(ord(character))}
    except (OSError, RuntimeError, ValueError):
        return set()


def _can_be_set(character: str) -> bool:
    import matplotlib

    if unicodedata.category(character) in ("Cc", "Cs", "Cn", "Co"):  # controls, half characters, private ones
        return False
    if matplotlib.__version_info__ >= SHAPES_SINCE:
        return True
    return unicodedata.name(character, "").partition(" ")[0] not in _SHAPED and not unicodedata.combining(character)
