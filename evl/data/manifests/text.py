"""A text file as people's programs write them: UTF-8, or UTF-16 as Excel does, with or without a mark in front."""

from __future__ import annotations

import codecs
from pathlib import Path

from evl.errors import DataError

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_text(path: str | Path) -> str:
    """The file's text. Raises DataError for what is no text, OSError for what cannot be read."""
    content = Path(path).read_bytes()
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text[:4096].partition("\n")[0]:  # UTF-16 without a mark, or no text at all
        raise DataError(f"{path}: not text in UTF-8; save it as 'CSV UTF-8' (Excel), or as text in UTF-8")
    return text
