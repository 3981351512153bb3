"""A round on a new card: is evl right there, and how fast? Every part in a process of its own, with a limit.

    bash scripts/gpu/round.sh OUT                      # at most eight minutes
    bash scripts/gpu/round.sh OUT --dry --device cpu   # everything tiny: does it run?

OUT/results.jsonl gets each result as it comes, OUT/round.md is made anew after each part, OUT/log.txt has what the
parts print. Exit code 0 only if every part ran and found nothing wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from page import page_of, rows_of, status_line

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WRONG = 3  # part.py's exit code: it ran to its end, and some of its rows are not ok
TO_END = 4.0  # seconds that are kept for writing


@dataclass(frozen=True)
class Part:
    """``module`` lies beside this file; ``limit`` in seconds."""

    name: str
    module: str
    limit: float
    arguments: tuple[str, ...] = ()


PARTS = (  # most important first
    Part("machine", "machine", 60),
    Part("parity", "parity", 90),
    Part("stores", "stores", 45),
    Part("peak", "peak", 40),
    Part("bench b16-8f", "bench", 60, ("b16-8f",)),
    Part("bench l14-8f", "bench", 60, ("l14-8f",)),
    Part("bench l14-336-32f", "bench", 75, ("l14-336-32f",)),
    Part("parity compiled", "parity", 80, ("compiled",)),
    Part("bench b16-8f compiled", "bench", 80, ("b16-8f", "compiled")),
    Part("bench l14-8f compiled", "bench", 80, ("l14-8f", "compiled")),
    Part("images", "images", 80),
    Part("videos", "videos", 90),
    Part("steps", "steps", 75),
    Part("training", "training", 75),
    Part("overlap", "overlap", 60),
    Part("bench l14-336-32f compiled", "bench", 90, ("l14-336-32f", "compiled")),
)


class Stopped(BaseException):
    """SIGTERM or Ctrl-C came."""


def main(arguments: Sequence[str] | None = None, parts: Sequence[Part] = PARTS) -> int:
    parser = argparse.ArgumentParser(
        prog="round.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="a folder for the results")
    parser.add_argument("--dry", action="store_true", help="everything tiny: does it run? The numbers mean nothing")
    parser.add_argument("--only", nargs="+", metavar="PART", help="parts whose name begins so: " + _names(parts))
    parser.add_argument("--limit", type=float, default=480, metavar="SECONDS", help="for all of it (default 480)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1; by default CUDA if there is one")
    options = parser.parse_args(arguments)
    for word in options.only or ():
        if not any(part.name.startswith(word) for part in parts):
            parser.error(f"no part begins with {word!r}; there are {_names(parts)}")
    if options.limit <= TO_END:
        parser.error(f"--limit {options.limit:g}: give more than {TO_END:g} seconds")
    chosen = [part for part in parts if not options.only or any(part.name.startswith(word) for word in options.only)]
    try:
        return Round(options.out, chosen, options.limit, options.dry, options.device).run()
    except OSError as error:
        parser.error(f"{options.out}: cannot be written to ({error.strerror or error})")


def _names(parts: Sequence[Part]) -> str:
    return ", ".join(part.name for part in parts)


class Round:
    def __init__(self, out: Path, parts: Sequence[Part], limit: float, dry: bool, device: str | None):
        self.out, self.parts, self.limit, self.dry, self.device = out, parts, limit, dry, device
        out.mkdir(parents=True, exist_ok=True)
        self.rows, self.page, self.log = out / "results.jsonl", out / "round.md", out / "log.txt"
        self.started = time.monotonic()
        for path in (self.rows, self.log):
            path.write_text("")

    def run(self) -> int:
        self.note(
            {"round": {"began": time.strftime("%Y-%m-%d %H:%M:%S %z"), "dry": self.dry, "device": self.device,
                       "limit_seconds": self.limit, "parts": [part.name for part in self.parts]}}
        )  # fmt: skip
        statuses: list[str] = []
        before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
        work = Path(tempfile.mkdtemp(prefix="evl-round-"))
        try:
            for part in self.parts:
                statuses.append(self.run_part(part, work))
        except Stopped:
            statuses.append("stopped")
            self.note({"stopped": f"by a signal, after {time.monotonic() - self.started:.0f} s"})
        finally:
            self.write_page()
            for number, handler in before.items():
                signal.signal(number, handler)
            shutil.rmtree(work, ignore_errors=True)
        print(f"{sum(status == 'ok' for status in statuses)} of {len(self.parts)} parts ok; the page is {self.page}")
        return 0 if statuses == ["ok"] * len(self.parts) else 1

    def run_part(self, part: Part, work: Path) -> str:
        """Runs it to its end or limit and notes how it went: ok, wrong, failed, timeout or not run."""
        left = self.limit - TO_END - (time.monotonic() - self.started)
        if left < 1:
            self.finish(part, "not run", 0.0, f"no time was left of {self.limit:g} s")
            return "not run"
        # dry runs are for machines that may be slow, or busy with other things
        limit, started = min(part.limit * (3 if self.dry else 1), left), time.monotonic()
        command = [sys.executable, str(HERE / "part.py"), part.module, *part.arguments, "--name", part.name,
                   "--rows", str(self.rows), "--work", str(work)]  # fmt: skip
        command += (["--dry"] if self.dry else []) + (["--device", self.device] if self.device else [])
        with open(self.log, "ab") as log:
            log.write(f"\n=== {part.name}\n".encode())
            log.flush()
            begins_at = log.tell()
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=_environment(work),
                cwd=ROOT, start_new_session=True,
            )  # fmt: skip
            try:
                code = self.wait(process, limit)
            finally:
                _end(process)
        reason = ""
        if code is None:
            status, reason = "timeout", f"ended after {limit:.0f} s"
        elif code == WRONG:
            wrong = [row["what"] for row in rows_of(self.lines(), part.name) if row.get("ok") is False]
            status, reason = "wrong", f"{len(wrong)} not as wanted: {', '.join(wrong[:4])}"
        elif code:
            status, reason = "failed", self.last_words(begins_at) or f"exit code {code}"
        else:
            status = "ok"
        self.finish(part, status, time.monotonic() - started, reason)
        return status

    def wait(self, process: subprocess.Popen, limit: float) -> int | None:
        """Its exit code, or None after ``limit`` seconds. The page follows the rows as they come."""
        until, size = time.monotonic() + limit, self.rows.stat().st_size
        while (left := until - time.monotonic()) > 0:
            try:
                return process.wait(timeout=min(2.0, left))
            except subprocess.TimeoutExpired:
                if (now := self.rows.stat().st_size) != size:
                    size = now
                    self.write_page()
        return None

    def last_words(self, begins_at: int) -> str:
        """The last error that a part wrote, or its last line."""
        with open(self.log, "rb") as log:
            log.seek(begins_at)
            lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
        return (errors or lines or [""])[-1][:300]

    def finish(self, part: Part, status: str, seconds: float, reason: str) -> None:
        line = {"part": part.name, "status": status, "seconds": round(seconds, 1), "reason": reason}
        self.note(line)
        self.write_page()
        print(status_line(line), flush=True)

    def lines(self) -> list[dict]:
        """What is known so far; a line that a killed part left half written is no result."""
        found = []
        for text in self.rows.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(text))
        return found

    def note(self, line: dict) -> None:
        torn = self.rows.stat().st_size and not self.rows.read_bytes().endswith(b"\n")
        with open(self.rows, "a", encoding="utf-8") as file:
            file.write(("\n" if torn else "") + json.dumps(line) + "\n")

    def write_page(self) -> None:
        try:
            text = page_of(self.lines())
        except Exception as error:  # a row that the page cannot show must not cost the other parts
            text = f"The page could not be made ({type(error).__name__}: {error}); see {self.rows.name}\n"
        new = self.page.with_suffix(".tmp")
        new.write_text(text, encoding="utf-8")
        new.replace(self.page)


def _environment(work: Path) -> dict[str, str]:
    """Of a part: this evl, no network, caches of compiled kernels that all parts share, nothing left behind."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {
        "PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "TMPDIR": str(work),
        "TORCHINDUCTOR_CACHE_DIR": str(work / "inductor"), "TRITON_CACHE_DIR": str(work / "triton"),
    }  # fmt: skip
    return {**os.environ, **own}


def _end(process: subprocess.Popen) -> None:
    """Ends it and what it started: they are a process group of their own."""
    for number, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=patience)


def _stop(number, frame) -> None:
    raise Stopped


if __name__ == "__main__":
    sys.exit(main())
