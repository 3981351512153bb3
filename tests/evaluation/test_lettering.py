"""Names that the usual font cannot show: in another font, or as numbers with a legend; no boxes, no warnings."""

import warnings

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image

from evl.config import RunConfig
from evl.evaluation import Evaluation, write_evaluation
from evl.evaluation import picture as lettering
from evl.evaluation.picture import save_picture
from evl.training.sweeps import plot as sweep_plot
from evl.training.sweeps.results import LearnerResult, SweepResult
from tests.helpers import metrics_of

pytestmark = pytest.mark.usefixtures("real_pictures")
DOOR = "开门"


@pytest.fixture(autouse=True)
def warnings_are_errors():
    lettering._fonts_for.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    lettering._fonts_for.cache_clear()


@pytest.fixture
def no_fonts(monkeypatch):
    """Whatever is installed where the tests run."""
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])


@pytest.fixture
def a_font(monkeypatch, tmp_path):
    """One that shows 开 and 门 only, installed."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    pen.lineTo((0, 800))
    pen.lineTo((800, 800))
    pen.closePath()
    glyphs = [".notdef", "open", "door"]
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(glyphs)
    font.setupCharacterMap({ord(character): name for character, name in zip(DOOR, glyphs[1:], strict=True)})
    font.setupGlyf(dict.fromkeys(glyphs, pen.glyph()))
    font.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Two Characters", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "two.ttf")
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(font_manager.fontManager.ttflist))
    monkeypatch.setattr(
        font_manager, "findSystemFonts", lambda: [str(tmp_path / name) for name in ("broken.ttf", "two.ttf")]
    )


def evaluation(*names):
    return Evaluation(metrics_of(np.eye(len(names), dtype=int)), (), {}, "8x16 frames, 模型", names)


@pytest.mark.usefixtures("no_fonts")
def test_without_a_font_they_are_numbers_with_a_legend(tmp_path, caplog):
    caplog.set_level("INFO", "evl")
    write_evaluation(tmp_path, evaluation("öffnen", DOOR, "दरवाज़ा", "Приве́т ☺", "x\U000f0000"))
    wanted = {"#1": DOOR, "#2": "दरवाज़ा", "#4": "x\U000f0000"}
    lines = (tmp_path / "confusion_names.txt").read_text(encoding="utf-8").splitlines()
    assert dict(line.split("\t") for line in lines) == {key: lettering._composed(name) for key, name in wanted.items()}
    (said,) = caplog.messages
    assert f"no installed font can show 3 class names, such as {DOOR}" in said
    with Image.open(tmp_path / "confusion.png") as picture:
        assert "listed in confusion_names.txt" in picture.text["Description"]
    write_evaluation(tmp_path, evaluation("öffnen", "schließen"))  # again, where none are numbers
    assert not (tmp_path / "confusion_names.txt").exists()


@pytest.mark.usefixtures("a_font")
def test_a_font_that_has_them_is_taken(tmp_path):
    found = lettering.lettering([DOOR, "öffnen", "关门"])
    assert found.shown == (DOOR, "öffnen", "#2")
    assert found.options["fontfamily"] == ["DejaVu Sans", "Two Characters"]
    write_evaluation(tmp_path, evaluation(DOOR, "öffnen"))
    assert not (tmp_path / "confusion_names.txt").exists()


@pytest.mark.usefixtures("no_fonts")
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("costs $5 and $6", "costs $5 and $6"),
        ("$\\frac{", "$\\frac{"),
        ("o\u0308ffnen", "öffnen"),
        ("☺\ufe0f", "☺"),
        ("two\nlines", "two lines"),
        ("a" * 200, "a" * 39 + "…"),
        ("\udcff", "\\udcff"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("$_$", "$_$"),
        ("$^$ \\frac{1}", "$^$ \\frac{1}"),
    ],
)
def test_names_that_a_picture_could_stumble_over(tmp_path, name, shown):
    assert lettering.lettering([name]).shown == (shown,)
    found = lettering.lettering([name, "b"])
    figure = Figure(layout="constrained")
    figure.subplots().set_xticks([0, 1], found.shown, rotation=90, **found.options)
    save_picture(tmp_path / "x.png", figure, title=name[:20], caption=f"{name}\n{name}")
    with Image.open(tmp_path / "x.png") as picture:
        assert "\x1b" not in picture.text["Title"] + picture.text["Description"]


@pytest.mark.usefixtures("no_fonts")
def test_scripts_whose_letters_join_need_a_matplotlib_that_joins_them(monkeypatch):
    monkeypatch.setattr("matplotlib.__version_info__", (3, 10, 9))
    assert lettering.lettering(["فتح الباب", "שלום", "door"]).shown == ("#0", "#1", "door")


@pytest.mark.usefixtures("no_fonts")
@pytest.mark.parametrize("count", [2, 10])
def test_long_names_leave_room_for_the_counts(tmp_path, monkeypatch, count):
    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: figures.append(self) or save(self, *a, **k))
    write_evaluation(tmp_path, evaluation(*(f"{y} a class with quite a long name, as many are" for y in range(count))))
    box = figures[0].axes[0].get_window_extent()
    assert box.width / count > 30  # pixels


@pytest.mark.usefixtures("no_fonts")
def test_a_sweep_shows_values_of_any_script(tmp_path):
    learners = [
        LearnerResult(n, {"training.init": value}, 10, ((1, 1e-3, 2.0, 50.0),), evaluation("a", "b"), None)
        for n, value in enumerate((f"/{DOOR}/$x$", "/run"))
    ]
    sweep_plot.draw(tmp_path / "sweep.png", SweepResult(tmp_path, RunConfig(), tuple(learners)))
    assert lettering.lettered(f"/{DOOR}")[0] == "/U+5F00U+95E8"
