"""Runs commands of evl again and again in forked children that meet faults, and prints in JSON what was found.

    python -m tests.faults.driver FOLDER SEED SAMPLE COMMAND…

``SAMPLE``: how many faults are drawn for each command; 0: every fault at every moment. One start of Python for all: a
forked child has imported everything. Nothing is computed here before a fork.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
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


def run(arguments: Sequence[str], work: Path, at: Moment | None = None, fault: Fault = "dies") -> Ended:
    """Runs a command in a forked child."""
    with tempfile.TemporaryFile() as text, tempfile.TemporaryFile() as told:
        child = os.fork()
        if child == 0:
            os.dup2(text.fileno(), 1)
            os.dup2(text.fileno(), 2)
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
        self.count += 1
        self.missed += not ended.reached
        where = f"{self.name}, {fault} at {' '.join(map(str, moment))}"

        def note(what: str, text: str = "") -> None:
            self.problems.append(f"{where}: {what}" + (f"\n{text[-1500:]}" if text else ""))

        if fault == "dies" and ended.reached and ended.code != -signal.SIGKILL:
            note(f"it did not die (exit code {ended.code})", ended.text)
        if fault != "dies":
            found, is_removal = tree_of(self.work), moment[0] in ("unlink", "rmdir")  # then something stays
            if "Traceback" in ended.text or ended.code not in (0, 1):
                note(f"exit code {ended.code}", ended.text)
            elif ended.code and REASONS[fault] not in ended.text:
                note("its message does not say why", ended.text)
            elif ended.code == 0 and (wrong := differences(found, self.expected)) and not is_removal:
                note(f"it exits with 0, but {wrong}", ended.text)
            if fault == "full" and (left := leftovers(found)):
                note(f"it leaves {left}")
        before = tree_of(self.work)
        again = run(self.arguments, self.work)
        wrong = differences(tree_of(self.work), self.expected)
        is_refused = again.code == 1 and self.command.is_there is not None and self.command.is_there in again.text
        if again.code != 0 and not (is_refused and not wrong):
            note(f"the same command again: exit code {again.code}; before it: {sorted(before)[:12]}", again.text)
        elif wrong:
            note(f"the same command again gives another result: {wrong}")


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
        seconds = round(time.monotonic() - started, 1)
        result[name] = {"moments": len(trials.moments), "faults": trials.count, "missed": trials.missed,
                        "seconds": seconds, "problems": trials.problems}  # fmt: skip
    return result


if __name__ == "__main__":
    print(json.dumps(main_of(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])))
