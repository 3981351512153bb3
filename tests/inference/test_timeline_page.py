"""timeline.html: whole, without network, bounded; hostile names are text."""

import base64
import html.parser
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from evl.inference.segments import Segment, SegmentRules
from evl.inference.timeline import Gap, Timeline
from evl.inference.timeline_page import page, thumbnails
from evl.inference.timeline_page.page import write_page
from tests.helpers import write_video

HOSTILE = ("</script><script>alert(1)</script>", "a & <b>'\"", "\u202egnirts", "{{ 7 * 7 }}", "run")


class Parts(html.parser.HTMLParser):
    """The texts of scripts, and all attributes that could be fetched or run."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.data, self.links, self.handlers, self.tags = [], None, [], [], []
        self._inside = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "action", "srcset")]
        self.handlers += [name for name, _ in attributes if name.startswith("on")]
        self._inside = found.get("type", "") or "code" if tag == "script" else None
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"]

    def handle_data(self, text):
        if self._inside == "code":
            self.scripts.append(text)
        elif self._inside is not None:
            self.data = json.loads(text)

    def handle_endtag(self, tag):
        self._inside = None


def made(path, num_windows=40, names=HOSTILE, **fields):
    times = np.linspace(0.25, 9.75, num_windows)
    scores = np.random.default_rng(0).dirichlet(np.ones(len(names)), num_windows)
    segments = (Segment(names[0], 1.0, 3.5, 0.75), Segment(names[-1], 2.0, 2.5, 0.5))
    line = Timeline(str(path), times, scores, np.zeros((num_windows, 2), int), names, segments, end_seconds=10.0)
    return replace(line, protocol="1 clip & <1> crop", **fields)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    noise = np.random.default_rng(0).integers(0, 255, (100, 6, 8, 3), dtype=np.uint8)
    folder = tmp_path_factory.mktemp("films")
    return write_video(folder / "a 'b' <i>&#39; 100%.mp4", noise.repeat(8, 1).repeat(8, 2), rate=10)


def written(tmp_path, line):
    write_page(tmp_path / "timeline.html", line)
    text = (tmp_path / "timeline.html").read_text()
    return text, Parts(text)


def test_names_are_text(film, tmp_path):
    text, parts = written(tmp_path, made(film, damaged=(Gap(4.0, 5.0, "<img src=x onerror=alert(1)>"),)))
    assert len(parts.scripts) == 1
    assert parts.tags.count("script") == 2
    assert not parts.handlers
    assert "i" not in parts.tags
    assert parts.links == ["data:,"]
    assert parts.data["classes"] == [HOSTILE[0], HOSTILE[1], "\\u202egnirts", HOSTILE[3], HOSTILE[4]]
    assert parts.data["damaged"] == [[4.0, 5.0, "<img src=x onerror=alert(1)>"]]
    assert "\u202e" not in text
    assert "<h1>a &#39;b&#39; &lt;i&gt;&amp;#39; 100%.mp4</h1>" in text
    assert parts.data["video"].endswith("/a%20%27b%27%20%3Ci%3E%26%2339%3B%20100%25.mp4")
    assert not re.search(r"https?:", text)


def test_the_policy_lets_only_this_script_run(film, tmp_path):
    import hashlib

    _, parts = written(tmp_path, made(film))
    wanted = base64.b64encode(hashlib.sha256(parts.scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{wanted}'" in parts.policy
    assert "default-src 'none'" in parts.policy


def test_curves_and_segments(film, tmp_path):
    line = made(film, rules=SegmentRules(on={"run": 0.7}))
    _, parts = written(tmp_path, line)
    data = parts.data
    assert data["segments"] == [[0, 1.0, 3.5, 0.75], [4, 2.0, 2.5, 0.5]]
    assert data["on"] == [0.5, 0.5, 0.5, 0.5, 0.7]
    np.testing.assert_allclose(data["times"], line.times, atol=1e-3)
    for y, curve in enumerate(data["curves"]):
        both = np.frombuffer(base64.b64decode(curve), np.uint8).reshape(-1, 2) / 255
        np.testing.assert_allclose(both, np.stack([line.scores[:, y]] * 2, 1), atol=0.0021)


def test_curves_of_hours_are_thinned_by_their_lowest_and_highest(film, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "CURVE_BYTES", 100 * 2 * len(HOSTILE))
    monkeypatch.setattr(page, "FEWEST_BUCKETS", 50)
    line = made(film, num_windows=5000)
    line.scores[1234, 4] = 1.0  # a single window must not vanish
    data = written(tmp_path, line)[1].data
    assert len(data["times"]) == 100
    both = np.frombuffer(base64.b64decode(data["curves"][4]), np.uint8).reshape(-1, 2)
    assert both[24].tolist()[1] == 255
    assert (both[:, 0] <= both[:, 1]).all()


def test_thumbnails_are_few_and_small(film, monkeypatch):
    monkeypatch.setattr(thumbnails, "MOST", 8)
    found = thumbnails.thumbnails(str(film), 0.0, 10.0)
    assert len(found) == 8
    assert all(a <= time < a + 1.25 for (time, _), a in zip(found, np.arange(8) * 1.25, strict=True))
    assert all(base64.b64decode(picture)[:2] == b"\xff\xd8" for _, picture in found)
    monkeypatch.setattr(thumbnails, "BYTES", 2000)
    assert len(thumbnails.thumbnails(str(film), 0.0, 10.0)) < 8
    part = thumbnails.thumbnails(str(film), 4.0, 6.0)
    assert all(4 <= time < 6 for time, _ in part)


def test_a_video_that_is_gone(tmp_path):
    _, parts = written(tmp_path, made(tmp_path / "gone.mp4"))
    assert parts.data["thumbnails"] == []
    assert parts.data["video"] == "gone.mp4"
