"""timeline.html in Chromium: what a person sees at two widths, and that a click shows the picture of that time."""

import io

import numpy as np
import pytest
from PIL import Image

from evl.inference.timeline import Gap
from evl.inference.timeline_page.page import write_page
from scripts.check_report import Browser, find_chromium, open_page, picture_of, too_wide
from tests.helpers import write_video
from tests.inference.test_timeline_page import made

WIDTHS = (1280, 400)
NAMES = ("run", "jump", "a long name of a class, " + "as it is " * 9)
LANES = """[...document.querySelectorAll('.lane canvas')].map(canvas => {
  const box = canvas.getBoundingClientRect(), {width, height} = canvas;
  const pixels = canvas.getContext('2d').getImageData(0, 0, width, height).data;
  const colored = Array.from({length: width * height}, (_, n) => {
    const [r, g, b, a] = pixels.slice(4 * n, 4 * n + 4);
    return a > 120 && Math.max(r, g, b) - Math.min(r, g, b) > 40;  // the curve; segments and the threshold are paler
  });
  return {y: Number(canvas.dataset.y), left: box.left, top: box.top, width, height, colored};
})"""
SHOWN = """new Promise(done => {
  const video = document.getElementById('video'), still = document.getElementById('still');
  const look = left => {
    const one = [video, still].find(each => !each.hidden), box = one && one.getBoundingClientRect();
    const ready = one === video ? video.readyState > 1 && !video.seeking : one && one.complete;
    if (!ready && left) return setTimeout(look, 50, left - 1);
    requestAnimationFrame(() => requestAnimationFrame(() => done({
      kind: one && one.id, time: video.currentTime, clock: document.getElementById('clock').value,
      x: box.left + box.width / 2, y: box.top + box.height / 2,
    })));
  };
  look(200);
})"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(find_chromium(), str(tmp_path_factory.mktemp("profile")))
    yield opened
    opened.close()


def seen(browser, width):
    """What stands on the stage, with the brightness of its middle in a screenshot."""
    found = browser.value(SHOWN)
    page = Image.open(io.BytesIO(picture_of(browser, width, 900))).convert("L")
    x, y = int(found["x"]), int(found["y"])
    return found | {"brightness": np.asarray(page)[y - 8 : y + 8, x - 8 : x + 8].mean()}


def click(browser, x, y):
    for kind in ("mousePressed", "mouseReleased"):
        browser.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


@pytest.mark.browser
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["video", "still"])
def test_lanes_curves_and_jumps(browser, tmp_path, width, kind):
    """The film is darker at its start than at its end. Without the file there are thumbnails in its place."""
    levels = np.linspace(20, 235, 100).astype(np.uint8)[:, None, None, None]
    film = write_video(tmp_path / "a film.mp4", np.broadcast_to(levels, (100, 96, 128, 3)), rate=10)
    line = made(film, names=NAMES, damaged=(Gap(6.0, 6.5, "torn"),))
    line.scores[:, 0] = 0.5 + 0.45 * np.sin(line.times)
    write_page(tmp_path / "timeline.html", line)
    if kind == "still":
        film.unlink()
    page = open_page(browser, tmp_path / "timeline.html", width, "light")
    assert too_wide(page) == []
    lanes = {lane["y"]: lane for lane in browser.value(LANES)}
    assert sorted(lanes) == [0, 2]  # those with segments
    for y, lane in lanes.items():
        assert lane["width"] >= 0.55 * width
        colored = np.array(lane["colored"]).reshape(lane["height"], lane["width"])
        for time, score in zip(line.times, line.scores[:, y], strict=True):
            if abs(time - 6.25) > 0.5:
                column, row = time / 10 * lane["width"], lane["height"] - 3 - score * (lane["height"] - 6)
                near = colored[max(0, int(row) - 3) : int(row) + 4, max(0, int(column) - 1) : int(column) + 2]
                assert near.any(), (y, time, score)
        assert colored.mean() < 0.5  # a line, no area

    before = seen(browser, width)
    lane = lanes[0]
    click(browser, lane["left"] + 0.8 * lane["width"], lane["top"] + 20)
    later = seen(browser, width)
    assert before["kind"] == later["kind"] == kind
    assert float(later["clock"][2:7]) == pytest.approx(8, abs=0.03)  # a pixel
    assert later["clock"].endswith(" of 0:10.00")
    assert before["brightness"] < 60
    assert later["brightness"] == pytest.approx(190, abs=25)
    if kind == "video":
        assert (before["time"], later["time"]) == (0, pytest.approx(8, abs=0.03))
    browser.value("document.querySelector('#segments li:nth-child(2) button').click()")
    segment = seen(browser, width)
    assert segment["clock"] == "0:02.00 of 0:10.00"
    assert segment["brightness"] == pytest.approx(63, abs=25)
    (tmp_path / f"{kind}_{width}.png").write_bytes(picture_of(browser, width, page["height"]))
    complaints = [
        one for one in browser.events if one["method"] in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown")
    ]
    assert not complaints
