"""The report in Chromium, by the script that checks it; and that the script sees what it looks for."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from evl.demo.report.page import write_report
from tests.demo.fake import CATEGORIES, fake_result

SCRIPT = Path(__file__).parents[2] / "scripts/check_report.py"
LONG = tuple(f"{name} and a very long name for a class of videos, {'with' * 20} no end" for name in CATEGORIES)


def check(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=300)


@pytest.mark.browser
@pytest.mark.parametrize(
    "arguments",
    [{}, {"folder": "/a/folder" * 30, "num_seeds": 3, "names": {"motion": LONG, "object": LONG}}],
    ids=["usual", "long names"],
)
def test_nothing_to_complain_about(tmp_path, arguments):
    write_report(tmp_path / "a report.html", fake_result(**arguments))
    done = check(tmp_path / "a report.html", "--screenshots", tmp_path / "shots")
    assert done.returncode == 0, done.stdout + done.stderr
    sizes = {path.name: Image.open(path).size for path in (tmp_path / "shots").iterdir()}
    assert sorted(width for width, _ in sizes.values()) == [400, 400, 1280, 1280]
    assert all(height > 3000 for _, height in sizes.values())


@pytest.mark.browser
@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("<script>console.log('hello')</script>", "console"),
        ("<script>nothing()</script>", "exception"),
        ("<img src='http://127.0.0.1:9/picture.png' alt='far'>", "asks for http://127.0.0.1:9/picture.png"),
        ("<img src='data:image/webp;base64,AAAA' alt='broken one'>", "a picture does not load: broken one"),
        ("<div style='width: 700px'>wide</div>", "400 px, dark: is 7"),
    ],
)
def test_what_is_wrong_is_seen(tmp_path, body, complaint):
    (tmp_path / "bad.html").write_text(f"<!DOCTYPE html><title>bad</title><body style='margin: 0'>{body}")
    done = check(tmp_path / "bad.html")
    assert done.returncode == 1
    assert complaint in done.stdout
    assert "1280 px, light" in done.stdout or "wide" in body
