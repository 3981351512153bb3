"""What the layouts of segments share: rows, what is wrong with them, and JSON from outside."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evl.data.manifests.labels import is_empty_cell
from evl.errors import DataError, one_line, plural
from evl.runtime.files import require_plain_file, strict_json
from evl.runtime.text import clean_label

MAX_BYTES = 256 * 2**20  # of one file of annotations; a larger one would need gigabytes of memory
_NUM_SHOWN = 5  # wrong segments in an error
_START_BYTES = 2**16
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class SegmentRow:
    """A segment. ``video``: its path, address or name as the file has it. The first of ``names`` is that of the video
    without ending, if it is known by other names, too."""

    split: str
    label: str
    video: str
    start_seconds: float
    end_seconds: float
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Segments:
    """The segments of an annotation, and ``notices`` about what was left out."""

    rows: tuple[SegmentRow, ...]
    notices: tuple[str, ...] = ()


class SegmentReader:
    """Collects the segments of annotation files. Wrong ones are counted and listed in one error.

    ``where`` of each method: the file and the place in it, for errors. ``source``: the file or folder that is read.
    """

    def __init__(self, source: str | Path):
        self.source = source
        self._rows: list[SegmentRow] = []
        self._wrong: list[str] = []
        self._num_read = 0
        self._left_out: Counter[str] = Counter()
        self._notices: dict[str, None] = {}

    def add(
        self,
        where: str,
        video: str,
        label: Any,
        start: Any,
        end: Any,
        *,
        split: str = "all",
        names: tuple[str, ...] = (),
    ) -> None:
        """Adds a segment. Times are numbers in seconds, or texts of such numbers."""
        self._num_read += 1
        try:
            times = _seconds("start", start), _seconds("end", end)
            if times[1] <= times[0]:
                raise ValueError(f"the end, {times[1]:g} s, is not after the start, {times[0]:g} s")
            self._rows.append(SegmentRow(split, _label(label), video, *times, names))
        except ValueError as error:
            self._list(where, error)

    def reject(self, where: str, reason: str) -> None:
        """Counts a segment that cannot be read at all."""
        self._num_read += 1
        self._list(where, reason)

    def _list(self, where: str, reason: object) -> None:
        for prefix in (f"{self.source}, ", f"{self.source}/"):
            where = where.removeprefix(prefix)
        self._wrong.append(f"{where}: {reason}")

    def leave_out(self, what: str, count: int = 1) -> None:
        """Counts what is no segment. ``what``: in the plural, such as ``point events, which have no length``."""
        self._left_out[what] += count

    def notice(self, text: str) -> None:
        """Adds a notice, once."""
        self._notices[f"{self.source}: {text}"] = None

    def finish(self) -> Segments:
        """Returns all segments. Raises DataError if any is wrong, or if only some are in a split."""
        if self._wrong:
            shown = "; ".join(self._wrong[:_NUM_SHOWN])
            more = f"; and {len(self._wrong) - _NUM_SHOWN} more" if len(self._wrong) > _NUM_SHOWN else ""
            raise DataError(
                f"{self.source}: {len(self._wrong)} of {plural(self._num_read, 'segment')} "
                f"{'is' if len(self._wrong) == 1 else 'are'} wrong: {shown}{more}. Correct or remove them"
            )
        unsplit = [row for row in self._rows if row.split == "all"]
        if unsplit and len(unsplit) < len(self._rows):
            raise DataError(f"{self.source}: some videos are in a split, but {unsplit[0].video!r:.60} is in none")
        rows = tuple(dict.fromkeys(self._rows))
        if len(rows) < len(self._rows):
            self.leave_out("segments that are listed twice", len(self._rows) - len(rows))
        left_out = (f"{self.source}: left out {count:,}: {what}" for what, count in self._left_out.items())
        return Segments(rows, (*self._notices, *left_out))


def _seconds(name: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number and not (isinstance(value, str) and _NUMBER.fullmatch(value.strip())):
        raise ValueError(f"the {name} is {value!r:.60}, expected a number")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not 0 <= seconds < math.inf:
        raise ValueError(f"the {name} is {value!r:.60}, expected seconds, 0 or more")
    return seconds


def _label(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"the label is {value!r:.60}, expected a text")
    if is_empty_cell(value):
        raise ValueError("the label is empty")
    label = clean_label(value)
    if len(label.splitlines()) != 1 or any("\ud800" <= sign <= "\udfff" for sign in label):
        raise ValueError(f"the label {label!r:.60} has a line break, or is not UTF-8")
    return label


def start_of(file: Path) -> str:
    """Returns the first 64 KiB of a file as text, to recognize it; "" if it cannot be read."""
    try:
        require_plain_file(file)
        with open(file, "rb") as content:
            return content.read(_START_BYTES).decode("utf-8-sig", errors="replace")
    except OSError:
        return ""


def refuse_huge(file: Path) -> None:
    """Raises DataError for a file that cannot be read, or is larger than MAX_BYTES."""
    try:
        require_plain_file(file)
        size = file.stat().st_size
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from None
    if size > MAX_BYTES:
        raise DataError(
            f"{file}: {size / 2**20:,.0f} MiB; evl reads at most {MAX_BYTES // 2**20} MiB of annotations, so divide it"
        )


def load_json(file: Path) -> Any:
    """Returns the content of a JSON file. Raises DataError, with the line, if it is not valid, NaN included."""
    refuse_huge(file)
    try:
        return strict_json(file.read_text("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from None
    except RecursionError:
        raise DataError(f"{file}: cannot be read as JSON (it is nested too deeply)") from None
    except ValueError as error:
        raise DataError(f"{file}: cannot be read as JSON ({one_line(error)})") from None


def expect(value: Any, kind: type, where: str, name: str) -> Any:
    """Returns ``value``. Raises DataError unless it is of this ``kind``: dict, list or str."""
    if not isinstance(value, kind):
        wanted = {dict: "an object", list: "a list", str: "a text"}[kind]
        raise DataError(f"{where}: {name} is {value!r:.60}, expected {wanted}")
    return value


def text_of(value: Any, where: str, name: str) -> str:
    """Returns a text that can name a file. Raises DataError for anything else."""
    text = expect(value, str, where, name)
    if not text.strip() or "\0" in text or any("\ud800" <= sign <= "\udfff" for sign in text):
        raise DataError(f"{where}: {name} is {text!r:.60}, expected the path or name of a video")
    return text
