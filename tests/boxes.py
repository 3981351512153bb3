"""Files taken apart and put together otherwise: MP4 boxes, Matroska elements. Enough to make odd and damaged files."""

from __future__ import annotations

from collections.abc import Callable

PARENTS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts"}


def rewrite_boxes(content: bytes, change: Callable[[bytes, bytes], bytes | None]) -> bytes:
    """``change(kind, body)`` sees every box of an MP4, children first, and returns its new body; None removes it.

    Chunk offsets are left alone: they stay right where the index lies behind the data, as FFmpeg writes it.
    """
    made, at = [], 0
    while at + 8 <= len(content):
        size, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        size = size if size >= 8 else len(content) - at
        body = content[at + 8 : at + size]
        body = change(kind, rewrite_boxes(body, change) if kind in PARENTS else body)
        made += [] if body is None else [box(kind, body)]
        at += size
    return b"".join(made)


def box(kind: bytes, body: bytes) -> bytes:
    return (len(body) + 8).to_bytes(4, "big") + kind + body


def full_box_body(*numbers: int, version: int = 0) -> bytes:
    """Version and flags, then 32-bit numbers."""
    return bytes([version, 0, 0, 0]) + words(*numbers)


def words(*numbers: int) -> bytes:
    return b"".join((number % 2**32).to_bytes(4, "big") for number in numbers)


def word(body: bytes, place: int) -> int:
    """The 32-bit number at byte ``place``."""
    return int.from_bytes(body[place : place + 4], "big")


def patched(content: bytes, place: int, value: bytes) -> bytes:
    """``value`` written over what stands at ``place``."""
    assert 0 <= place <= len(content) - len(value)
    return content[:place] + value + content[place + len(value) :]


def in_box(content: bytes, kind: bytes, offset: int, value: bytes) -> bytes:
    """``value`` written ``offset`` bytes into the body of the first box of that kind."""
    return patched(content, content.index(kind) + 4 + offset, value)


def ebml_size(number: int, length: int = 8) -> bytes:
    """A Matroska size in ``length`` bytes."""
    return (number | 1 << 7 * length).to_bytes(length, "big")
