"""Opens a report.html in headless Chromium and says what is wrong with it: exit code 1, or 0 if nothing is.

    python scripts/check_report.py runs/demo/report.html [--screenshots FOLDER] [--chromium PATH]

At 1280 and 400 pixels wide, in the light and in the dark scheme, it looks for console messages, requests that leave the
page, text or pictures that reach out of it sideways, and pictures that do not load. Screenshots are for looking at. It
speaks the DevTools protocol over a pipe, so it needs nothing but Chromium.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

WIDTHS, SCHEMES = (1280, 400), ("light", "dark")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
MEASURE = """
(async () => {
  const images = [...document.images];
  await Promise.allSettled(images.map(image => image.decode()));
  const width = document.documentElement.clientWidth;
  const out = [...document.querySelectorAll('body *')].filter(one => {
    const box = one.getBoundingClientRect();
    return box.width > 1 && (box.right > width + 1 || box.left < -1);
  });
  return {
    width, scroll: document.documentElement.scrollWidth, height: document.documentElement.scrollHeight,
    out: out.map(one => one.tagName + ': ' + one.textContent.slice(0, 40)),
    broken: images.filter(image => !image.complete || !image.naturalWidth).map(image => image.alt),
  };
})()
"""


class Browser:
    """A Chromium that is told what to do by JSON, each message ended by a zero byte."""

    def __init__(self, path: str, folder: str):
        reading, its_writing = os.pipe()
        its_reading, writing = os.pipe()

        def connect() -> None:  # Chromium reads from 3 and writes to 4
            ends = [os.dup(its_reading), os.dup(its_writing)]
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        self.process = subprocess.Popen(
            [path, *FLAGS, f"--user-data-dir={folder}"], preexec_fn=connect, close_fds=False, stderr=subprocess.DEVNULL
        )  # fmt: skip
        os.close(its_reading)
        os.close(its_writing)
        self._in, self._out = os.fdopen(reading, "rb"), os.fdopen(writing, "wb")
        self._rest, self._count, self.session = b"", 0, None
        self.events: list[dict] = []

    def ask(self, method: str, **parameters) -> dict:
        """The answer; events that come before it are kept."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def value(self, expression: str):
        """What JavaScript finds in the page, once a promise is kept. Raises RuntimeError for an exception there."""
        answer = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["text"])
        return answer["result"].get("value")

    def wait_for(self, method: str) -> None:
        while not any(event["method"] == method for event in self.events):
            self._next()

    def _next(self) -> dict:
        while b"\0" not in self._rest:
            part = self._in.read1(1 << 16)
            if not part:
                raise RuntimeError(f"Chromium ended with {self.process.wait()}")
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(message)
        if "method" in message:
            self.events.append(message)
        return message

    def close(self) -> None:
        self.session = None
        self.ask("Browser.close")
        self.process.wait(30)


def complaints(report: Path, chromium: str, screenshots: Path | None) -> list[str]:
    """What is wrong, in words; nothing if all is well."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        browser = Browser(chromium, folder)
        try:
            for width in WIDTHS:
                for scheme in SCHEMES:
                    found += [
                        f"{width} px, {scheme}: {one}" for one in _look(browser, report, width, scheme, screenshots)
                    ]
        finally:
            browser.close()
    return found


def open_page(browser: Browser, page: Path, width: int, scheme: str) -> dict:
    """Opens a page in a new tab, whose session the browser then speaks to; what MEASURE finds in it."""
    browser.session, browser.events = None, []
    browser.target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
    browser.session = browser.ask("Target.attachToTarget", targetId=browser.target, flatten=True)["sessionId"]
    for domain in ("Page", "Network", "Log", "Runtime"):
        browser.ask(f"{domain}.enable")
    browser.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.ask("Page.navigate", url=page.resolve().as_uri())
    browser.wait_for("Page.loadEventFired")
    return browser.value(MEASURE)


def picture_of(browser: Browser, width: int, height: int) -> bytes:
    """A screenshot as PNG."""
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    return base64.b64decode(browser.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"])


def _look(browser: Browser, report: Path, width: int, scheme: str, screenshots: Path | None) -> list[str]:
    page = open_page(browser, report, width, scheme)
    if screenshots:
        screenshots.mkdir(parents=True, exist_ok=True)
        shot = picture_of(browser, width, page["height"])
        (screenshots / f"{report.stem}_{width}_{scheme}.png").write_bytes(shot)
    found = too_wide(page)
    found += [f"a picture does not load: {alt}" for alt in page["broken"]]
    for event in browser.events:
        what = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent":
            url = what["request"]["url"]
            if not url.startswith("data:") and url != report.resolve().as_uri():
                found.append(f"asks for {url}")
        elif event["method"] == "Runtime.consoleAPICalled":
            found.append(f"console: {what['args']}")
        elif event["method"] == "Runtime.exceptionThrown":
            found.append(f"exception: {what['exceptionDetails']['text']}")
        elif event["method"] == "Log.entryAdded":
            found.append(f"log: {what['entry']['text']}")
    browser.session = None
    browser.ask("Target.closeTarget", targetId=browser.target)
    return found


def too_wide(page: dict) -> list[str]:
    found = [f"reaches out sideways: {one}" for one in page["out"]]
    return found + ([f"is {page['scroll']} px wide"] if page["scroll"] > page["width"] else [])


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--screenshots", type=Path, metavar="FOLDER")
    parser.add_argument("--chromium", default=find_chromium())
    arguments = parser.parse_args()
    if arguments.chromium is None:
        parser.error("no chromium or google-chrome found; name one with --chromium")
    found = complaints(arguments.report, arguments.chromium, arguments.screenshots)
    print("\n".join(found) or f"{arguments.report}: nothing to complain about")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
