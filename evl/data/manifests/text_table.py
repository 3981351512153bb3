"""Lists of videos that are text: tables with a header (commas, semicolons, tabs), and lines of ``path label``."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Collection
from pathlib import Path

from evl.data.manifests.columns import (
    OTHER_NAMES,
    REQUIRED,
    header_cells,
    is_header,
    plain_name,
    refuse_other_names,
    rename_hint,
    wanted_columns,
)
from evl.data.manifests.labels import class_number
from evl.data.manifests.listing import VIDEO_SUFFIXES, is_video_name
from evl.errors import DataError
from evl.runtime.files import expand_home

Rows = list[tuple[int, dict]]  # the line's number in the file, and its cells by column
_ENDS = "|".join(re.escape(suffix[1:]) for suffix in sorted(VIDEO_SUFFIXES, key=len, reverse=True))
_VIDEO_THEN_MORE = re.compile(rf"(?P<path>.*?\.(?:{_ENDS}))\"?(?P<gap>\s*[,;]\s*|\s+)(?P<label>.+)", re.IGNORECASE)


def read_delimited(path: Path, text: str, required: Collection[str] = REQUIRED) -> tuple[Rows, int]:
    """(rows, number of comment lines) of a table whose first line names the ``required`` columns. Raises DataError as
    ``table_rows`` does, and for a header without these, or with others for times or splits."""
    columns, rows, num_comments = table_rows(path, text, required)
    by_name = wanted_columns(path, columns, required)
    refuse_other_names(path, columns, rows)
    return [(number, {name: row[column] for name, column in by_name.items()}) for number, row in rows], num_comments


def table_rows(path: Path, text: str, required: Collection[str]) -> tuple[list[str], Rows, int]:
    """(columns, rows, number of comment lines) of a table with a header; cells that a row lacks are empty.

    What divides cells is what divides the ``required`` columns' names in the header. Blank lines, lines that begin with
    "# ", and Excel's first line ``sep=;`` are no rows. Raises DataError, with the row, for one that has more cells than
    there are columns, or a quote that is not closed.
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
    # "path, label": then a blank after each comma of a row belongs to the comma, too
    spaced = any(column.startswith(" ") for column in columns)
    content = io.StringIO("\n".join(lines[first:]), newline="")
    reader = csv.reader(content, delimiter=delimiter, strict=True, skipinitialspace=spaced)
    number = first + 1
    try:
        for cells in reader:
            this, number = number, first + 1 + reader.line_num
            if this == first + 1 or not any(cell.strip() for cell in cells):
                continue
            if _is_comment(cells):
                num_comments += 1
                continue
            if any(cell.strip() for cell in cells[len(columns) :]):
                raise DataError(
                    f"{path}, row {this}: {len(cells)} cells ({', '.join(map(repr, cells[:4]))} …), but the first line "
                    f"names {len(columns)} columns; put a path or label with {delimiter!r} in it into double quotes"
                )
            rows.append((this, dict(zip(columns, cells + [""] * len(columns), strict=False))))
    except csv.Error as error:
        raise DataError(f"{path}, row {number}: not readable as CSV ({error}); is a quote not closed?") from None
    return columns, rows, num_comments


def _is_comment(cells: list[str]) -> bool:
    """ "# …", or a line of one cell that begins so: ``#1.mp4,run`` is a video."""
    first = cells[0]
    return first.startswith("#") and (first[1:2] in (" ", "#", "") or not any(cell.strip() for cell in cells[1:]))


def read_list(path: Path, text: str, root: Path) -> tuple[Rows, int]:
    """(rows, number of comment lines) of ``path label`` lines. A table with a header is read as one.

    A tab, if there is one, divides path and label; else a comma or semicolon after a video's ending; else the last
    blank, so that paths may have some. Raises DataError, with the line, for what is none of these.
    """
    if re.match(r"""\s*(\{\s*["}]|\[\s*[\[{"\]]|\[\s*\n)""", text):
        raise DataError(f"{path}: looks like JSON; expected .csv, .parquet, or lines of 'path label'")
    lines = [(number, line) for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1) if line.strip()]
    content = [(number, line.strip()) for number, line in lines if not _is_comment_line(line.strip())]
    num_comments = len(lines) - len(content)
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
            f"{path}, line {content[0][0]}: {first!r} names columns between blanks; divide them by commas or tabs"
        )
    else:
        _refuse_header(path, content, cells if len(cells) > 1 else words, root)
    return [(number, _divide(path, number, line)) for number, line in content], num_comments


def read_paths(path: Path, text: str, root: Path) -> tuple[Rows, int]:
    """(rows, number of comment lines) of a list whose labels do not matter: a path a line, or ``path label``, or a
    table with a column ``path``.

    A line that is something's name as a whole, or ends as a video's name does, is a path; any other ``path label``.
    """
    lines = [(number, line.strip()) for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1)]
    content = [(number, line) for number, line in lines if line and not _is_comment_line(line)]
    if content and is_header(content[0][1], REQUIRED[:1]):
        return read_delimited(path, text, REQUIRED[:1])
    rows = []
    for number, line in content:
        name = _unquoted(line)
        alone = is_video_name(name) or os.path.exists(root / expand_home(name))
        rows.append((number, {"path": name} if alone else _divide(path, number, line)))
    return rows, 0


def _is_comment_line(line: str) -> bool:
    return line.startswith("#") and (line[1:2] in (" ", "\t", "#", "") or not _VIDEO_THEN_MORE.match(line))


def _divide(path: Path, number: int, line: str) -> dict[str, str]:
    """The path and label of one line."""
    where = f"{path}, line {number}"
    if "\t" in line:
        cells = [cell for cell in (cell.strip() for cell in line.split("\t")) if cell]
        if len(cells) != 2:
            raise DataError(f"{where}: {line!r} has {len(cells)} cells between tabs, expected path and label")
        return dict(zip(REQUIRED, map(_unquoted, cells), strict=True))
    name, label = _at_last_blank(line)
    if name and is_video_name(_unquoted(name)):
        return {"path": _unquoted(name), "label": label}
    if match := _VIDEO_THEN_MORE.fullmatch(line):
        label = _unquoted(match["label"].strip())
        if match["gap"].strip() and not re.search(r"[,;]", label):
            return {"path": _unquoted(match["path"].strip()), "label": label}
        raise DataError(
            f"{where}: {line!r} is not 'path label': the label may have no blank or comma there; write a table with "
            "the first line path,label, or put a tab between path and label"
        )
    if not name:
        raise DataError(f"{where}: {line!r} is not 'path label'")
    if re.search(r"[,;]", label):
        raise DataError(
            f"{where}: {line!r} is not 'path label'; is it a table with commas? Then its first line must be path,label"
        )
    return {"path": _unquoted(name), "label": label}


def _at_last_blank(line: str) -> tuple[str, str]:
    """(what is before it, what is after it); nothing before where there is none."""
    *name, label = line.rsplit(maxsplit=1)
    return "".join(name), label


def _unquoted(text: str) -> str:
    return text[1:-1].replace('""', '"') if len(text) > 2 and text[0] == text[-1] == '"' else text


def _refuse_header(path: Path, content: list[tuple[int, str]], cells: list[str], root: Path) -> None:
    """DataError if the first line seems to name columns, by its words or because it alone names no video."""
    number, line = content[0]
    known = {OTHER_NAMES.get(plain_name(cell), plain_name(cell)) for cell in cells}
    paths = {cells[0].strip(), _at_last_blank(line)[0]} - {""}
    if _VIDEO_THEN_MORE.match(line) or any(os.path.exists(root / path) for path in paths):
        return
    others = [other for _, other in content[1:]]
    label = cells[-1].strip()
    alone = others and all(map(_VIDEO_THEN_MORE.match, others)) and class_number(label) is None
    if set(REQUIRED) <= known or (alone and not any(other.endswith(label) for other in others)):
        raise DataError(
            f"{path}, line {number}: {line!r} looks like a header, but names no columns path and label"
            f"{rename_hint(cells, REQUIRED)}; or remove that line"
        )
