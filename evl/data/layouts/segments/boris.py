"""BORIS: projects (.boris), and tables of events (tabular or aggregated; CSV or TSV) that it exported.

State events are segments: the first event of a behavior starts it, the next one stops it. A label is the code of the
behavior. Point events have no length, and modifiers are no part of a label.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from evl.data.layouts.base import Annotation, FoundLayout, csv_header
from evl.data.layouts.segments.base import SegmentReader, Segments, expect, load_json, refuse_huge, start_of, text_of
from evl.data.manifests.text_table import read_text, table_rows
from evl.errors import DataError, one_line

LOOKED_FOR = "a project of BORIS (.boris), or a table with its events (tabular or aggregated, as .csv or .tsv)"
NUM_SPLITS = 1
SUFFIXES = (".boris", ".csv", ".tsv")
_ID, _BEHAVIOR, _SUBJECT = "Observation id", "Behavior", "Subject"
_AGGREGATED = (_BEHAVIOR, "Start (s)", "Stop (s)")
_TABULAR = (_BEHAVIOR, "Time")
_MEDIA = ("Media file name", "Media file path", "Media file")  # by version
_POINTS = "point events, which have no length"
_NO_MEDIA = "events of observations without video files"
_PLAYER = "1"  # the others show the same time from elsewhere
_MISSING = frozenset({"", "na", "nan", "not found"})


def find(files: list[Path]) -> list[Path]:
    """Returns the projects; if there are none, all tables of events."""
    projects = [file for file in files if file.suffix.lower() == ".boris"]
    return projects or [file for file in files if file.suffix.lower() in SUFFIXES and _is_table(file)]


def _is_table(file: Path) -> bool:
    first = csv_header(file, _ID)
    if not first or first[0].strip() != _ID:
        return False
    return {_BEHAVIOR} <= set(first) or _header_line(start_of(file)) is not None


def _header_line(text: str) -> int | None:
    """Returns the number of lines in front of the header: BORIS up to 6 wrote about the observation first."""
    for number, line in enumerate(text.splitlines()):
        if _BEHAVIOR in line and ("Time" in line or "Start (s)" in line):
            return number
    return None


def read(found: FoundLayout, split_number: int) -> Annotation | Segments:
    """Reads all state events of observations of video files."""
    reader = SegmentReader(found.files[0] if len(found.files) == 1 else found.folder)
    for file in found.files:
        (_read_project if file.suffix.lower() == ".boris" else _read_table)(reader, file)
    return reader.finish()


class _Clock:
    """Turns the time of an observation into a file and the time in it: its files play one after another."""

    def __init__(self, where: str, files: Sequence[str], lengths: Sequence[float | None], offset: float):
        self.where, self.files, self.offset = where, files, offset
        known = [length or 0.0 for length in lengths] if len(lengths) == len(files) else []
        if len(files) > 1 and (not known or not all(known[:-1])):
            raise DataError(f"{where}: it has {len(files)} files, and their lengths are not all given; expected each")
        self.starts = [0.0, *accumulate(known[:-1])] if len(files) > 1 else [0.0]

    def places(self, start: Any, end: Any) -> list[tuple[str, Any, Any]]:
        """Returns (file, start in it, end in it) of each part of a stretch of time: it may go on in the next file.

        Times that are no numbers, or in the wrong order, stay as they are, and are refused later.
        """
        start, end = (_number(time) for time in (start, end))
        if not all(isinstance(time, float) and abs(time) < float("inf") for time in (start, end)) or end <= start:
            return [(self.files[0], start, end)]
        start, end = start - self.offset, end - self.offset
        parts = []
        for file, begin, stop in zip(self.files, self.starts, [*self.starts[1:], float("inf")], strict=True):
            low, high = max(start, begin) if begin else start, min(end, stop)
            if high > low:
                parts.append((file, round(low - begin, 6), round(high - begin, 6)))
        return parts


def _number(value: Any) -> float | str:
    try:
        return value if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return repr(value)


class _States:
    """Pairs the events that start and stop a behavior. ``key``: what tells one behavior of one subject from others."""

    def __init__(self, reader: SegmentReader):
        self.reader = reader
        self.open: dict[tuple, tuple[str, Any]] = {}

    def event(self, where: str, key: tuple, time: Any, clock: _Clock, label: Any, status: str | None = None) -> None:
        """``status``: START or STOP, where the file says so."""
        if (status == "STOP" and key not in self.open) or (status == "START" and key in self.open):
            self.reader.reject(
                where, f"the behavior {label!r:.60} {'stops before it starts' if status == 'STOP' else 'starts twice'}"
            )
        elif key in self.open:
            begun, start = self.open.pop(key)
            for video, low, high in clock.places(start, time):
                self.reader.add(begun, video, label, low, high)
        else:
            self.open[key] = (where, time)

    def finish(self) -> None:
        """What has not stopped has no end."""
        for key, (where, _) in self.open.items():
            self.reader.reject(where, f"the behavior {key[-1]!r:.60} starts and never stops")


def _read_project(reader: SegmentReader, file: Path) -> None:
    project = expect(load_json(file), dict, str(file), "the content")
    if "observations" not in project:
        raise DataError(f"{file}: has no 'observations'; expected {LOOKED_FOR}")
    states = _state_behaviors(file, expect(project.get("behaviors_conf", {}), dict, str(file), "'behaviors_conf'"))
    for name, observation in expect(project["observations"], dict, str(file), "'observations'").items():
        where = f"{file}, observation {name!r:.60}"
        expect(observation, dict, where, "it")
        events = expect(observation.get("events", []), list, where, "'events'")
        if observation.get("type", "MEDIA") != "MEDIA":
            reader.leave_out(_NO_MEDIA, len(events))
            continue
        if not events:
            reader.leave_out("observations without events")
        else:
            _read_events(reader, where, events, _project_clock(where, observation), states)


def _state_behaviors(file: Path, behaviors: dict) -> dict[str, bool]:
    """Returns the code of each behavior → whether it is a state event."""
    for one in behaviors.values():
        expect(one, dict, f"{file}", "a behavior")
    return {str(one.get("code")): "state" in str(one.get("type", "")).lower() for one in behaviors.values()}


def _project_clock(where: str, observation: dict) -> _Clock:
    players = expect(observation.get("file", {}), dict, where, "'file'")
    files = [text_of(name, where, "a file") for name in expect(players.get(_PLAYER, []), list, where, "'file'")]
    if not files:
        raise DataError(f"{where}: has events, and no video file of player 1")
    lengths = expect(observation.get("media_info", {}), dict, where, "'media_info'").get("length", {})
    lengths = [_length(expect(lengths, dict, where, "'length'").get(name)) for name in files]
    return _Clock(where, files, lengths, _offset(where, observation.get("time offset", 0)))


def _length(value: Any) -> float | None:
    number = _number(value)
    return number if isinstance(number, float) and 0 < number < float("inf") else None


def _offset(where: str, value: Any) -> float:
    number = _number(value if value not in (None, "") else 0)
    if not isinstance(number, float) or not abs(number) < float("inf"):
        raise DataError(f"{where}: the time offset is {value!r:.60}, expected seconds")
    return number


def _read_events(reader: SegmentReader, where: str, events: list, clock: _Clock, states: dict[str, bool]) -> None:
    pairs = _States(reader)
    good = []
    for number, event in enumerate(events, 1):
        if not isinstance(event, list) or len(event) < 3 or not isinstance(event[2], str):
            reader.reject(
                f"{where}, event {number}", f"it is {event!r:.60}, expected [time, subject, behavior, modifier, …]"
            )
        elif event[2] not in states:
            reader.reject(f"{where}, event {number}", f"the project does not define the behavior {event[2]!r:.60}")
        elif not states[event[2]]:
            reader.leave_out(_POINTS)
        else:
            good.append((number, event))
    for number, event in sorted(good, key=lambda one: _moment(one[1][0])):
        modifier = event[3] if len(event) > 3 else ""
        key = (str(event[1]), str(modifier), event[2])
        pairs.event(f"{where}, event {number}", key, event[0], clock, event[2])
    pairs.finish()


def _moment(time: Any) -> float:
    """A time to sort by; what is no time comes last."""
    number = _number(time)
    return number if isinstance(number, float) and number == number else float("inf")


def _read_table(reader: SegmentReader, file: Path) -> None:
    refuse_huge(file)
    text = read_text(file)
    before = _header_line(text)
    if before is None:
        raise DataError(f"{file}: no line names the columns {', '.join(_TABULAR)}; expected {LOOKED_FOR}")
    lines = text.splitlines(keepends=True)
    columns, rows, _ = table_rows(file, "".join(lines[before:]), (_BEHAVIOR,))
    rows = [(number + before, row) for number, row in rows]
    about = dict(re.split("[,\t]", line.strip(), maxsplit=2)[:2] for line in lines[:before] if re.search("[,\t]", line))
    media = next((name for name in _MEDIA if name in columns), None)
    if media is None or not any(set(wanted) <= set(columns) for wanted in (_AGGREGATED, _TABULAR)):
        raise DataError(
            f"{file}, line {before + 1}: expected the columns {', '.join(_TABULAR)} (or {', '.join(_AGGREGATED)}) and "
            f"{_MEDIA[0]}; it has {one_line(', '.join(columns))}"
        )
    pairs = _States(reader)
    clocks: dict[tuple, _Clock] = {}
    files = _files_by_observation(rows, media)
    for number, row in rows:
        where, name = f"{file}, row {number}", row.get(_ID, "")
        if not files[name]:
            reader.leave_out(_NO_MEDIA)
            continue
        key = (name, row.get("Source", ""))
        if key not in clocks:
            clocks[key] = _table_clock(where, row, files[name], about.get("Time offset (s)", "0"))
        _read_row(reader, pairs, where, row, clocks[key])
    pairs.finish()


def _files_by_observation(rows, media: str) -> dict[str, list[str]]:
    """Returns the observations → their files, in the order of time."""
    files: dict[str, dict[str, None]] = defaultdict(dict)
    for _, row in rows:
        name = row[media].strip()
        files[row.get(_ID, "")].update({} if name.lower() in _MISSING else {name: None})
    return {name: list(found) for name, found in files.items()}


def _table_clock(where: str, row: dict, files: list[str], offset: str) -> _Clock:
    """``Source`` has the files of all players, ``player #1:a.mp4;b.mp4|player #2:…``; their lengths stand likewise."""
    lengths: list[float | None] = []
    source = row.get("Source", "").split("|")[0].strip()
    if source.startswith(f"player #{_PLAYER}:"):
        files = [name.strip() for name in source.partition(":")[2].split(";")]
        lengths = [_length(text) for text in row.get("Media duration (s)", "").split("|")[0].split(";")]
    for name in files:
        text_of(name, where, "the file")
    return _Clock(where, files, lengths, _offset(where, row.get("Time offset (s)", offset)))


def _read_row(reader: SegmentReader, pairs: _States, where: str, row: dict, clock: _Clock) -> None:
    label, status = row[_BEHAVIOR], row.get("Behavior type", row.get("Status", "")).strip().upper()
    if "POINT" in status:
        reader.leave_out(_POINTS)
    elif "Start (s)" in row:
        for video, start, end in clock.places(row["Start (s)"], row.get("Stop (s)", "")):
            reader.add(where, video, label, start, end)
    elif status not in ("START", "STOP"):
        reader.reject(where, f"the type of the event is {status!r:.40}, expected START, STOP or POINT")
    else:
        modifiers = tuple(value for name, value in row.items() if name.startswith("Modifier"))
        key = (row.get(_ID, ""), row.get(_SUBJECT, ""), modifiers, label)
        pairs.event(where, key, row["Time"], clock, label, status)
