"""Reads text files in UTF-8 and, as Excel writes it, UTF-16; a byte-order mark may stand in front."""

from __future__ import annotations

import codecs
from pathlib import Path

from evl.errors import DataError

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
