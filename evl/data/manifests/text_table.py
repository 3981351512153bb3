"""Reads text files, and lists of videos in them: tables with a header (commas, semicolons, tabs), or lines of
``path label``."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Collection
from pathlib import Path

from evl.data.manifests.columns import (
    OTHER_NAMES,
    REQUIRED,
    Rows,
    header_cells,
    is_header,
    plain_name,
    rename_hint,
    select_columns,
)
from evl.data.manifests.labels import class_number
from evl.data.manifests.listing import VIDEO_SUFFIXES, is_video_name
from evl.errors import DataError
from evl.runtime.files import expand_home

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_text(path: str | Path) -> str:
    """Returns the text of a file. Raises DataError if it cannot be read, or is not text."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text[:4096].partition("\n")[0]:  # UTF-16 without a mark, or not a text file at all
        raise DataError(f"{path}: not text in UTF-8; save it as text in UTF-8 (in Excel: 'CSV UTF-8')")
    return text


_ENDS = "|".join(re.escape(suffix[1:]) for suffix in sorted(VIDEO_SUFFIXES, key=len, reverse=True))
_VIDEO_THEN_MORE = re.compile(rf"(?P<path>.*?\.(?:{_ENDS}))\"?(?P<gap>\s*[,;]\s*|\s+)(?P<label>.+)", re.IGNORECASE)


def read_delimited(path: Path, text: str, required: Collection[str] = REQUIRED) -> tuple[Rows, int]:
    """Returns (rows, number of comment lines) of a table whose first line names the ``required`` columns. Raises
    DataError as ``table_rows`` and ``select_columns`` do."""
    columns, rows, num_comments = table_rows(path, text, required)
    return select_columns(path, columns, rows, required), num_comments


def table_rows(path: Path, text: str, required: Collection[str]) -> tuple[list[str], Rows, int]:
    """Returns (columns, rows, number of comment lines) of a table with a header; a row's missing cells are empty.

    The delimiter is the one between the ``required`` names in the header. Blank lines, lines that begin with "# ", and
    Excel's first line ``sep=;`` are not rows. Raises DataError, with the row, if a row has more cells than there are
    columns, or if a quote is not closed.
    """
    num_comments, rows = 0, []
    lines = re.sub(r"\r\n?", "\n", text).split("\n")
    first, header = 0, ""
    for number, line in enumerate(lines):
        if line.startswith("#") and not is_header(line[1:], required):
            num_comments += 1
        elif line.strip(" \t,;") and not re.fullmatch(r"\s*sep=.\s*", line):
            first, header = number, line
            break
    delimiter, columns = header_cells(header.removeprefix("#"), required)
    # in a table with "path, label", a blank after a comma is part of the delimiter
    spaced = any(column.startswith(" ") for column in columns)
    content = io.StringIO("\n".join(lines[first:]), newline="")
    reader = csv.reader(content, delimiter=delimiter, strict=True, skipinitialspace=spaced)
    number = first + 1
    try:
        for cells in reader:
            start, number = number, first + 1 + reader.line_num
            if start == first + 1 or not any(cell.strip() for cell in cells):
                continue
            if _is_comment(cells):
                num_comments += 1
                continue
            if any(cell.strip() for cell in cells[len(columns) :]):
                raise DataError(
                    f"{path}, row {start}: {len(cells)} cells ({', '.join(map(repr, cells[:4]))} …), but the first "
                    f"line names {len(columns)} columns; put double quotes around a path or label with {delimiter!r}"
                )
            rows.append((start, dict(zip(columns, cells + [""] * len(columns), strict=False))))
    except csv.Error as error:
        raise DataError(f"{path}, row {number}: cannot be read as CSV ({error}); is a quote not closed?") from None
    return columns, rows, num_comments


def _is_comment(cells: list[str]) -> bool:
    """Returns whether a row is a comment: "# …", or a single cell that begins with #; ``#1.mp4,run`` is a video."""
    first = cells[0]
    return first.startswith("#") and (first[1:2] in (" ", "#", "") or not any(cell.strip() for cell in cells[1:]))


def read_list(path: Path, text: str, root: Path) -> tuple[Rows, int]:
    """Returns (rows, number of comment lines) of lines of ``path label``, or of a table with a header.

    A tab divides path and label. Without a tab it is a comma or semicolon after a video's ending, or else the last
    blank, because paths may contain blanks. Raises DataError, with the line, if nothing divides it.
    """
    if re.match(r"""\s*(\{\s*["}]|\[\s*[\[{"\]]|\[\s*\n)""", text):
        raise DataError(f"{path}: looks like JSON; expected .csv, .parquet, or lines of 'path label'")
    content, num_comments = _content_lines(text)
    if not content:
        return [], num_comments
    first = content[0][1]
    if is_header(first, REQUIRED):
        return read_delimited(path, text)
    _, cells = header_cells(first, REQUIRED)
    words = first.split()
    if [plain_name(word) for word in words] == list(REQUIRED):
        content = content[1:]
    elif set(REQUIRED) <= set(map(plain_name, words)):
        raise DataError(
            f"{path}, line {content[0][0]}: {first!r} has blanks between the names of columns; use commas or tabs"
        )
    else:
        _refuse_header(path, content, cells if len(cells) > 1 else words, root)
    return [(number, _divide(path, number, line)) for number, line in content], num_comments


def read_paths(path: Path, text: str, root: Path) -> tuple[Rows, int]:
    """Returns (rows, number of comment lines) of a list that needs no labels: lines of ``path`` or ``path label``, or a
    table with a column ``path``.

    A line is a path if it ends like a video's name, or if a file or folder has the whole line as its name.
    """
    content, num_comments = _content_lines(text)
    if content and is_header(content[0][1], REQUIRED[:1]):
        return read_delimited(path, text, REQUIRED[:1])
    rows = []
    for number, line in content:
        name = _unquoted(line)
        is_path = is_video_name(name) or os.path.exists(root / expand_home(name))
        rows.append((number, {"path": name} if is_path else _divide(path, number, line)))
    return rows, num_comments


def _content_lines(text: str) -> tuple[list[tuple[int, str]], int]:
    """Returns ((line number, line) of all lines that are neither blank nor comments, number of comment lines)."""
    lines = [(number, line.strip()) for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1) if line.strip()]
    content = [(number, line) for number, line in lines if not _is_comment_line(line)]
    return content, len(lines) - len(content)


def _is_comment_line(line: str) -> bool:
    return line.startswith("#") and (line[1:2] in (" ", "\t", "#", "") or not _VIDEO_THEN_MORE.match(line))


def _divide(path: Path, number: int, line: str) -> dict[str, str]:
    """Returns the path and label of one line. Raises DataError, with the line, if nothing divides it."""
    where = f"{path}, line {number}"
    if "\t" in line:
        cells = [cell for cell in (cell.strip() for cell in line.split("\t")) if cell]
        if len(cells) != 2:
            raise DataError(f"{where}: {line!r} has {len(cells)} cells between tabs, expected two: path and label")
        return dict(zip(REQUIRED, map(_unquoted, cells), strict=True))
    name, label = _at_last_blank(line)
    if name and is_video_name(_unquoted(name)):
        return {"path": _unquoted(name), "label": label}
    if match := _VIDEO_THEN_MORE.fullmatch(line):
        label = _unquoted(match["label"].strip())
        if match["gap"].strip() and not re.search(r"[,;]", label):
            return {"path": _unquoted(match["path"].strip()), "label": label}
        raise DataError(
            f"{where}: {line!r} is not 'path label', because a label must not contain blanks or commas here; put a "
            "tab between path and label, or write a table with the first line path,label"
        )
    if not name:
        raise DataError(f"{where}: {line!r} is not 'path label'")
    if re.search(r"[,;]", label):
        raise DataError(
            f"{where}: {line!r} is not 'path label'; if it is a table with commas, its first line must be path,label"
        )
    return {"path": _unquoted(name), "label": label}


def _at_last_blank(line: str) -> tuple[str, str]:
    """Returns (text before the last blank, text after it); the first is "" if there is no blank."""
    *name, label = line.rsplit(maxsplit=1)
    return "".join(name), label


def _unquoted(text: str) -> str:
    return text[1:-1].replace('""', '"') if len(text) > 2 and text[0] == text[-1] == '"' else text


def _refuse_header(path: Path, content: list[tuple[int, str]], cells: list[str], root: Path) -> None:
    """Raises DataError if the first line seems to be a header: by its words, or because only it names no video."""
    number, line = content[0]
    known = {OTHER_NAMES.get(plain_name(cell), plain_name(cell)) for cell in cells}
    paths = {cells[0].strip(), _at_last_blank(line)[0]} - {""}
    if _VIDEO_THEN_MORE.match(line) or any(os.path.exists(root / path) for path in paths):
        return
    others = [other for _, other in content[1:]]
    label = cells[-1].strip()
    differs = others and all(map(_VIDEO_THEN_MORE.match, others)) and class_number(label) is None
    if set(REQUIRED) <= known or (differs and not any(other.endswith(label) for other in others)):
        raise DataError(
            f"{path}, line {number}: {line!r} looks like a header, but it does not name the columns path and label"
            f"{rename_hint(cells, REQUIRED)}; or remove that line"
        )
