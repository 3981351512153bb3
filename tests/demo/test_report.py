"""The report's page, taken apart: what is in it, that it stands alone, and that its numbers are the result's."""

import base64
import io
import itertools
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from evl.demo.report.page import write_report
from evl.demo.report.words import PARTS
from evl.demo.results import EVL, SIDE, TASKS, VARIANTS
from evl.evaluation import wilson_interval
from tests.demo.fake import ACCURACY, CATEGORIES, MOTIONS, fake_result

VOID = {"br", "img", "link", "meta", "source"}


class Page(HTMLParser):
    """A flat list of elements: (name, attributes, text inside); fails where tags do not match."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self._open = [], []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        assert len({key for key, _ in attrs}) == len(attrs), attrs
        self.elements.append([tag, dict(attrs), ""])
        if tag not in VOID:
            self._open.append((tag, len(self.elements) - 1))

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        data = "" if data.isspace() and "\n" in data else data  # between the lines of the template
        for _, number in self._open:
            self.elements[number][2] += data

    def all(self, tag, class_=None):
        return [
            one for one in self.elements if one[0] == tag and (not class_ or class_ in one[1].get("class", "").split())
        ]

    def text(self, tag, class_=None):
        return [text for _, _, text in self.all(tag, class_)]


def page_of(tmp_path, result):
    write_report(tmp_path / "report.html", result)
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def result():
    return fake_result()


@pytest.fixture(scope="module")
def page(result, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    page = page_of(folder, result)
    page.size = (folder / "report.html").stat().st_size
    return page


def pictures_of(uri):
    assert uri.startswith("data:image/webp;base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2], validate=True)))
    frames = []
    for number in range(picture.n_frames):
        picture.seek(number)
        frames.append(np.asarray(picture.convert("RGB")))
    return frames


def test_it_stands_alone(page):
    for tag, attributes, _ in page.elements:
        assert tag not in ("script", "iframe", "object", "embed", "form", "base")
        assert not any(key.startswith("on") for key in attributes)
        for key, value in attributes.items():
            if tag == "a" and key == "href":
                assert value.startswith("https://")
            elif key in ("src", "srcset", "href", "xlink:href", "poster", "data"):
                assert value.startswith("data:")
            elif "http:" in (value or "") or "https:" in (value or ""):
                raise AssertionError((tag, key, value))
    (style,) = page.text("style")
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = [one[1]["content"] for one in page.all("meta") if "http-equiv" in one[1]]
    assert policy.startswith("default-src 'none'")
    assert page.size < 3_000_000


def test_it_reads_without_looking(page):
    assert page.elements[0][:2] == ["html", {"lang": "en"}]
    ids = [one[1]["id"] for one in page.elements if "id" in one[1]]
    assert len(ids) == len(set(ids))
    levels = [int(tag[1]) for tag, _, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(one[1]["alt"] and one[1]["width"] for one in page.all("img"))
    for tag, attributes, _ in page.all("svg"):
        assert attributes.get("aria-hidden") == "true" or attributes["aria-label"], tag
    assert all(one[1]["scope"] in ("row", "col") for one in page.all("th"))


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_every_number_of_the_table_is_the_results(tmp_path, num_seeds):
    result = fake_result(num_seeds=num_seeds, num_videos=150, num_examples=0)
    page = page_of(tmp_path, result)
    values, intervals, counts = page.text("span", "value"), page.text("span", "interval"), page.text("td", "count")
    bars = page.all("svg", "bar")
    assert len(values) == len(intervals) == len(bars) == len(counts) == 2 * len(VARIANTS)
    cells = iter(zip(values, intervals, bars, strict=True))
    for number, variant in enumerate(VARIANTS):
        for task in TASKS:
            outcomes = result.of(variant, task)
            hits = [sum(p.label == p.best(1)[0] for p in one.evaluation.predictions) for one in outcomes]
            shares = np.array(hits) / 150 * 100
            low, high = wilson_interval(hits[0], 150)
            if num_seeds == 3:
                half = 4.302653 * shares.std(ddof=1) / 3**0.5
                low, high = max(0, shares.mean() - half), min(100, shares.mean() + half)
            value, limits, bar = next(cells)
            assert value == f"{shares.mean():.1f}\u00a0%"
            assert limits == f"{low:.1f}–{high:.1f}"
            assert bar[1]["aria-label"] == f"{value}, 95 % interval {limits}, chance {result.chance[task]:.1f}"
        assert counts[2 * number] == f"{result.of(variant, 'motion')[0].trainable:,}"
        seconds = sum(one.seconds for one in result.outcomes if one.variant == variant)
        minutes = re.fullmatch(r"(?:(\d+) min )?([\d.]+) s", counts[2 * number + 1])
        assert abs(60 * int(minutes[1] or 0) + float(minutes[2]) - seconds) <= 0.5
    assert len(page.all("circle", "seed")) == (2 * 3 * len(VARIANTS) if num_seeds == 3 else 0)
    names = page.text("th")
    assert [name for name in names if name in VARIANTS] == list(VARIANTS)


def test_bars_and_whiskers_are_as_long_as_their_numbers(page):
    fills = [float(one[1]["width"].rstrip("%")) for one in page.all("rect", "fill") if one[1]["height"] == "10"]
    assert [f"{width:.1f}\u00a0%" for width in fills] == page.text("span", "value")
    whiskers = [one[1] for one in page.all("line", "whisker") if one[1]["y1"] == one[1]["y2"]]
    limits = [float(limit) for text in page.text("span", "interval") for limit in text.split("–")]
    assert [float(one[x][:-1]) for one in whiskers for x in ("x1", "x2")] == pytest.approx(limits, abs=0.06)


def test_examples_are_moving_pictures_with_their_scores(page, result):
    images, sheets = page.all("img"), page.all("source")
    assert len(images) == len(sheets) == 2 * len(result.examples)
    for image, sheet in zip(images, sheets, strict=True):
        frames = pictures_of(image[1]["src"])
        assert len(frames) == 8
        assert frames[0].shape == (int(image[1]["height"]), int(image[1]["width"]), 3)
        (still,) = pictures_of(sheet[1]["srcset"])
        assert still.shape[1] / still.shape[0] == pytest.approx(2, rel=0.02)
        assert "reduced-motion" in sheet[1]["media"]
    right = [one for one in result.examples if one.class_names[np.argmax(one.scores)] == one.label]
    assert page.text("span", "mark") == ["correct"] * len(right) + ["not correct"] * (len(images) // 2 - len(right))
    assert 0 < len(right) < len(images) // 2
    example = right[0]
    best = sorted(range(14), key=lambda y: -example.scores[y])[:3]
    said = page.text("ol", "tops")[0]
    assert said == "".join(f"{MOTIONS[y]}{100 * example.scores[y]:.0f} %" for y in best)


def test_confusion_matrices_are_the_counts(page, result):
    tables = [one for one in page.all("figure", "confusion")]
    assert len(tables) == 4
    cells = iter(page.text("td", "right") + page.text("td", "wrong"))  # ordered by kind: compared as such
    wanted = [result.of(variant, task)[0] for task in TASKS for variant in (SIDE, EVL)]
    counts = [one.evaluation.metrics.confusion for one in wanted]
    diagonal = [str(n or "") for one in counts for n in one.diagonal()]
    rest = [str(n or "") for one in counts for n in one[~np.eye(len(one), dtype=bool)]]
    assert list(cells) == diagonal + rest
    for names in (MOTIONS, CATEGORIES):
        assert [name for name in page.text("li") if name in names].count(names[-1]) >= 1


def test_curves_go_through_every_point(page, result):
    lines = page.all("polyline")
    assert len(lines) == 4 * len(VARIANTS)
    first = [tuple(map(float, pair.split(","))) for pair in lines[len(VARIANTS) - 1][1]["points"].split()]
    curve = result.of(EVL, "motion")[0].curve  # the first variant is drawn last, on top of the others
    assert len(first) == len(curve)
    heights = np.array([y for _, y in first])
    slope, offset = np.polyfit([loss for _, loss, _ in curve], heights, 1)
    assert slope < 0, "more loss is higher up"
    assert heights == pytest.approx(slope * np.array([loss for _, loss, _ in curve]) + offset, abs=0.02)


def test_what_came_as_text_stays_text(tmp_path):
    evil = (
        "<script>alert(1)</script>",
        "\"quoted\" & 'so' on",
        "näher kommen 近づく",
        "</style></table><b>",
        "-->",
        "]]>",
    )
    result = fake_result('runs/<i>"it\'s" &amp; ü\udcff', names={"motion": evil, "object": evil}, num_examples=6)
    object.__setattr__(result, "settings", {"<u>": "</dd><script>x</script>", "machine": "a & b"})
    page = page_of(tmp_path, result)
    tags = {tag for tag, _, _ in page.elements}
    assert not tags & {"script", "b", "i", "u"} - {"i"}
    assert len(page.all("i")) == 1  # the colour scale
    for name in evil:
        assert name in page.text("h3")
        assert name in page.text("span", "name")
        assert any(name in one[1].get("title", "") for one in page.all("td"))
    assert "</dd><script>x</script>" in page.text("dd")
    folder = 'runs/<i>"it\'s" &amp; ü\\udcff'
    assert folder in page.text("dd")
    (commands,) = page.text("pre")
    assert commands.count("evl predict") == 2


def claim(accuracy, tmp_path):
    result = fake_result(accuracy={**ACCURACY, "motion": accuracy}, num_examples=0)
    (lead,) = page_of(tmp_path, result).text("p", "lead")
    return lead.replace("\u00a0", " ")


def test_the_headline_tells_the_best_for_motion(tmp_path):
    won = claim((0.6, 0.9, 0.7, 0.5, 0.3, 0.1), tmp_path)
    assert re.search(
        r"best for motion is the side network\. It names the right one of 14 motions in 9\d\.\d % \(95", won
    )
    assert re.search(
        r"clearly more than EVL \(\d.*, the causal side network \(\d.*the linear .* reached\. For the kind", won
    )
    assert re.search(r"kind of object, the highest is .* with 6\d\.\d %, .*too close to", won)
    close = claim((0.9, 0.91, 0.3, 0.31, 0.3, 0.1), tmp_path)
    assert re.search(r"the highest score for motion is that of (EVL|the side network)\. It", close)
    assert re.search(r"clearly more than the causal.* reached and too close to (EVL|the side network) \(9", close)
    guessed = claim((0.0,) * 6, tmp_path)
    assert "not told apart from guessing" in guessed
    assert "clearly" not in guessed.split("For the kind")[0]


def test_the_best_for_motion_is_bold(page, result):
    (row,) = page.all("tr", "best")
    assert row[2].startswith(SIDE)
    assert max(VARIANTS, key=lambda one: result.of(one, "motion")[0].evaluation.metrics.top1) == SIDE


def test_differences_carry_their_sign(tmp_path):
    result = fake_result(accuracy={**ACCURACY, "motion": (0.3, 0.6, 0.3, 0.5, 0.1, 0.1)}, num_examples=0)
    page = page_of(tmp_path, result)
    text = next(one[2] for one in page.all("table", "worth"))
    top1 = {variant: result.of(variant, "motion")[0].evaluation.metrics.top1 for variant in VARIANTS}
    for part, one, other in PARTS:
        points = top1[one] - top1[other]
        assert f"{part}{'−' if points < 0 else '+'}{abs(points):.1f}intervals" in text
    assert "−" in text
    assert "+" in text


def test_parts_that_are_not_there_are_left_out(tmp_path):
    result = fake_result(num_examples=0, num_videos=60)
    object.__setattr__(result, "outcomes", result.of(EVL, "motion"))
    object.__setattr__(result, "settings", {})
    object.__setattr__(result, "seconds", {})
    page = page_of(tmp_path, result)
    assert "Nothing else was trained." in page.text("p", "lead")[0]
    assert len(page.all("figure", "confusion")) == 1
    assert not page.all("img")
    assert not page.all("table", "worth")
    assert "Settings" not in page.text("h3")
