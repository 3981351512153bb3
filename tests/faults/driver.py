"""Runs commands of evl again and again in forked children that meet faults, and prints in JSON what was found.

    python -m tests.faults.driver FOLDER SEED SAMPLE COMMAND…

``SAMPLE``: how many faults are drawn for each command; 0: every fault at every moment, and each command also once where
no file can become large. One start of Python for all: a forked child has imported everything. Nothing is computed here
before a fork.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.figure
import torch

import evl.collections.prepare
import evl.demo.folder
import evl.demo.run
import evl.extraction.work
from evl.cli.main import main
from tests.faults.commands import COMMANDS, Command, make_material
from tests.faults.trees import differences, leftovers, tree_of
from tests.runtime.moments import MAKES, Fault, Moment, Moments

SHARD = 6  # clips
REASONS = {"full": "No space left on device", "broken": "Input/output error"}


@dataclass
class Ended:
    """How a command ended: its exit code (negative for a signal), its output, the moments that it passed."""

    code: int
    text: str
    passed: list[Moment] = field(default_factory=list)
    reached: bool = False


def run(
    arguments: Sequence[str],
    work: Path,
    at: Moment | None = None,
    fault: Fault = "dies",
    *,
    most_bytes: int = resource.RLIM_INFINITY,
) -> Ended:
    """Runs a command in a forked child. ``most_bytes``: no file can become larger, also where it is written in C."""
    with tempfile.TemporaryFile() as text, tempfile.TemporaryFile() as told:
        child = os.fork()
        if child == 0:
            os.dup2(text.fileno(), 1)
            os.dup2(text.fileno(), 2)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
            _run_here(arguments, Moments(work, at, fault), told)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for file in (text, told):
            file.seek(0)
        shown, found = text.read().decode(errors="replace"), told.read()
    if not found:
        return Ended(code, shown, reached=True)
    found = json.loads(found)
    _import(found["modules"])
    return Ended(code, shown, [tuple(moment) for moment in found["passed"]], found["reached"])


def _import(names: Sequence[str]) -> None:
    """Imports what a child imported, so that the next one has it."""
    for name in names:
        if name not in sys.modules:
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def _run_here(arguments: Sequence[str], moments: Moments, told) -> None:
    code = 99
    try:
        with moments:
            try:
                main(list(arguments))
                code = 0
            except SystemExit as stop:
                code = stop.code or 0
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        found = {"passed": moments.passed, "reached": moments.reached, "modules": list(sys.modules)}
        told.write(json.dumps(found).encode())
        told.flush()
        sys.stdout.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 98
    finally:
        sys.stderr.flush()
        os._exit(code)


class Trials:
    """A command that meets faults. ``problems``: what was wrong, in words."""

    def __init__(self, name: str, command: Command, made: Path, work: Path):
        self.name, self.command, self.made, self.work = name, command, made, work
        self.arguments = [part.replace("OUT", str(work)).replace("MADE", str(made)) for part in command.arguments]
        self.problems: list[str] = []
        self.count = self.missed = 0
        self._start()
        whole = run(self.arguments, work)
        assert whole.code == 0, f"{name}: {whole.text[-3000:]}"
        self.moments, self.expected = whole.passed, tree_of(work)
        assert not leftovers(self.expected), leftovers(self.expected)

    def _start(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        for name, source in self.command.before.items():
            source = self.made / source
            (shutil.copytree if source.is_dir() else shutil.copy)(source, self.work / name)

    def of(self, fault: Fault) -> list[Moment]:
        """The moments at which a fault can be."""
        return [moment for moment in self.moments if fault != "full" or moment[0] in MAKES]

    def one(self, moment: Moment, fault: Fault) -> None:
        """One fault, then the same command again."""
        self._start()
        ended = run(self.arguments, self.work, moment, fault)
        self.missed += not ended.reached
        where = f"{self.name}, {fault} at {' '.join(map(str, moment))}"
        if fault == "dies" and ended.reached and ended.code != -signal.SIGKILL:
            self._note(where, f"it did not die (exit code {ended.code})", ended.text)
        if fault != "dies":
            self._judge(where, ended, REASONS[fault], may_leave=moment[0] in ("unlink", "rmdir"))
        self._again(where)

    def limited(self) -> None:
        """No file can become larger than half of the largest: so also writes that Python does not see fail."""
        self._start()
        most = max(len(content) for content in self.expected.values() if isinstance(content, bytes)) // 2
        where = f"{self.name}, with files of at most {most} bytes"
        ended = run(self.arguments, self.work, most_bytes=most)
        if ended.code == 0:
            self._note(where, "it exits with 0", ended.text)
        self._judge(where, ended, "File too large")
        self._again(where)

    def _note(self, where: str, what: str, text: str = "") -> None:
        self.problems.append(f"{where}: {what}" + (f"\n{text[-1500:]}" if text else ""))

    def _judge(self, where: str, ended: Ended, reason: str, *, may_leave: bool = False) -> None:
        """What a command that met an error says, and leaves. ``may_leave``: what it could not remove."""
        found = tree_of(self.work)
        if "Traceback" in ended.text or ended.code not in (0, 1):
            self._note(where, f"exit code {ended.code}", ended.text)
        elif ended.code and reason.lower() not in " ".join(ended.text.split()).lower():
            self._note(where, "its message does not say why", ended.text)
        elif ended.code == 0 and not may_leave and (wrong := differences(found, self.expected)):
            self._note(where, f"it exits with 0, but {wrong}", ended.text)
        if not may_leave and (left := leftovers(found)):
            self._note(where, f"it leaves {left}", ended.text)

    def _again(self, where: str) -> None:
        before = sorted(tree_of(self.work))[:12]
        again = run(self.arguments, self.work)
        self.count += 1
        wrong = differences(tree_of(self.work), self.expected)
        is_refused = again.code == 1 and self.command.is_there is not None and self.command.is_there in again.text
        if again.code != 0 and not (is_refused and not wrong):
            self._note(where, f"the same command again: exit code {again.code}; before it: {before}", again.text)
        elif wrong:
            self._note(where, f"the same command again gives another result: {wrong}")


def main_of(folder: Path, seed: int, sample: int, names: Sequence[str]) -> dict:
    evl.extraction.work.clips_per_shard = lambda size, options: SHARD
    evl.collections.prepare.each_in_process = lambda function, items, workers: (
        (item, function(item)) for item in items
    )
    evl.demo.run.default_num_workers = lambda: 0
    evl.demo.folder._TIME = "20260101-000000"
    time.perf_counter = lambda: 0.0  # so that every time and speed in a file is the same
    evl.collections.prepare.measure_loading = lambda pairs, every: None  # it takes seconds, and writes nothing
    # drawing takes longer than all the rest
    matplotlib.figure.Figure.savefig = lambda self, file, **options: file.write(b"\x89PNG" * 5_000)
    os.fsync = lambda file: None  # no power fails here, and the disk is slow
    torch.set_num_threads(1)
    made, work = folder / "made", folder / "work"
    for path in (made, work):
        path.mkdir()

    def make(arguments: Sequence[str]) -> None:
        ended = run(arguments, work)
        assert ended.code == 0, ended.text[-3000:]

    make_material(made, make)
    result = {}
    for name in names:
        started, generator = time.monotonic(), random.Random(f"{seed} {name}")
        trials = Trials(name, COMMANDS[name], made, work)
        every = [(moment, fault) for fault in ("dies", "full", "broken") for moment in trials.of(fault)]
        for moment, fault in generator.sample(every, min(sample, len(every))) if sample else every:
            trials.one(moment, fault)
        if not sample or name == "demo":
            trials.limited()
        seconds = round(time.monotonic() - started, 1)
        result[name] = {"moments": len(trials.moments), "faults": trials.count, "missed": trials.missed,
                        "seconds": seconds, "problems": trials.problems}  # fmt: skip
    return result


if __name__ == "__main__":
    print(json.dumps(main_of(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])))
