"""Detecting files that were cut off, or that hold a second file after the first.

Decoders read a cut file, or the first of two joined files, as a shorter video, and report no error in many formats. But
containers are chains of pieces that hold their own lengths, so this module follows the chain to its end.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

from evl.errors import VideoError

# a step: the first bytes of a piece -> (bytes to the next piece, bytes that this piece needs); None if it is unknown
Step = Callable[[bytes], tuple[int, int] | None]
# the pieces at the top of an MP4 file, and in Matroska's Segment and Clusters; bytes with other names are padding
BOXES = frozenset(b"ftyp styp moov moof mdat free skip wide uuid meta mfra sidx ssix prft pdin emsg pnot udta".split())
ELEMENTS = "1a45dfa3 18538067 114d9b74 1549a966 1654ae6b 1f43b675 1c53bb6b 1941a469 1043a770 1254c367 ec bf " + (
    "e7 a3 a0 ab a7 5854 af"
)
ELEMENT_IDS = frozenset(map(bytes.fromhex, ELEMENTS.split()))
ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")  # ASF's header object
HEAD = 27 + 255  # bytes to read from the start of a piece; that of an Ogg page is the longest
MAX_STEPS = 1_000_000  # enough for hours of video; the rest of a longer file is not checked


def refuse_truncated(path: str) -> None:
    """Raises VideoError if a piece goes beyond the file's end, or if decoders would miss a second video in the file.

    Raises OSError if the file cannot be read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = os.pread(file.fileno(), HEAD, 0)
        kinds: Counter[bytes] = Counter()
        end = _claimed_end(file.fileno(), size, head, kinds)
    if end > size:
        raise VideoError(path, f"is truncated: {size:,} bytes of at least {end:,}")
    # an MP4 of fragments may repeat its header between them, and decoders continue there
    if max(kinds[b"FLV\1"], kinds[ASF[:4]]) > 1 or (min(kinds[b"moov"], kinds[b"mdat"]) > 1 and not kinds[b"moof"]):
        raise VideoError(
            path,
            "holds several videos one after the other, and decoders read only the first (joined byte by byte?); "
            "join the parts by ffmpeg -f concat instead",
        )


def _claimed_end(fd: int, size: int, head: bytes, kinds: Counter[bytes]) -> int:
    """The number of bytes that the file needs at least, 0 if unknown; counts its pieces by name in ``kinds``."""
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        length = int.from_bytes(head[4:8], "little")
        return 8 + length if length != 0xFFFFFFFF else 0  # the length was unknown when the header was written
    if head[:1] == b"G" and all(os.pread(fd, 1, 188 * i) == b"G" for i in (1, 2)):  # a transport stream
        last = size // 188 * 188
        return last + 188 if os.pread(fd, 1, last) == b"G" else 0  # 0: all packets are whole, or padding follows them
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return _gif_end(fd, size, head)
    for magic, start, step in (
        (head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"styp"), 0, _box),
        (head[:4] == b"\x1a\x45\xdf\xa3", 0, _ebml),
        (head[:3] == b"FLV", 0, _flv),
        (head[:16] == ASF, 0, _asf),
        (head[:4] == b"OggS", 0, _ogg),
        (head[:4] == b"DKIF", int.from_bytes(head[6:8], "little"), _ivf),
        (head[:4] == b"\0\0\1\xba", 0, _program_stream),
    ):
        if magic:
            return _walk(fd, size, start, step, kinds)
    return 0


def _walk(fd: int, size: int, at: int, step: Step, kinds: Counter[bytes]) -> int:
    """Follows the pieces from ``at`` on and returns the farthest end of a piece."""
    farthest = 0
    for _ in range(MAX_STEPS):
        head = os.pread(fd, HEAD, at) if at < size else b""
        lengths = step(head) if head else None
        if lengths is None:
            break
        if step in KIND_AT:
            kinds[head[KIND_AT[step]]] += 1
        farthest = max(farthest, at + lengths[1])
        at += lengths[0]
    return farthest


def _box(head: bytes) -> tuple[int, int] | None:
    """A box of ISO/IEC 14496-12, 4.2."""
    length = int.from_bytes(head[:4], "big")
    if length == 1:
        length = int.from_bytes(head[8:16], "big")
    if length < 8 or head[4:8] not in BOXES:  # a length of 0 means to the end of the file
        return None
    return length, length


def _ebml(head: bytes) -> tuple[int, int] | None:
    """An element of RFC 8794, sections 5 and 6; the next piece of a Segment or Cluster is the first one inside it."""
    if not head or head[0] < 0x10:
        return None
    id_width = 9 - head[0].bit_length()
    if head[:id_width] not in ELEMENT_IDS or len(head) <= id_width or head[id_width] == 0:
        return None
    width = 9 - head[id_width].bit_length()
    start = id_width + width
    value = int.from_bytes(head[id_width:start], "big") & ((1 << 7 * width) - 1)
    is_unknown = value == (1 << 7 * width) - 1  # as in a live stream
    if head[:id_width] in (b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"):
        return start, 0 if is_unknown else start + value
    return None if is_unknown else (start + value, start + value)


def _flv(head: bytes) -> tuple[int, int] | None:
    """The header or a tag. Four bytes with a length follow each; some programs omit them at the end of the file."""
    if head[:3] == b"FLV":
        length = int.from_bytes(head[5:9], "big")
        return length + 4, length
    if head[0] & 0x1F not in (8, 9, 18):
        return None
    if len(head) < 11:  # the file ends inside the tag's header
        return 11, 11
    length = 11 + int.from_bytes(head[1:4], "big")
    return length + 4, length


def _asf(head: bytes) -> tuple[int, int] | None:
    """A top-level object of Advanced Systems Format, 2.2. Its length is not always true, so it needs 0 bytes."""
    length = int.from_bytes(head[16:24], "little")
    return (length, 0) if length >= 24 else None


def _ogg(head: bytes) -> tuple[int, int] | None:
    """A page of RFC 3533, section 6; None if its table of up to 255 lengths is not complete in ``head``."""
    if head[:4] != b"OggS":
        return None
    segments = head[26] if len(head) > 26 else 0
    known = head[27 : 27 + segments]
    if len(known) < segments:
        return None
    length = 27 + segments + sum(known)
    return length, length


def _ivf(head: bytes) -> tuple[int, int] | None:
    if not any(head[:12]):  # padding
        return None
    length = 12 + int.from_bytes(head[:4], "little")
    return length, length


def _program_stream(head: bytes) -> tuple[int, int] | None:
    """A pack header or a packet of ISO/IEC 13818-1, 2.5.3."""
    if head[:3] != b"\0\0\1" or len(head) < 14 or head[3] < 0xBA:
        return None
    if head[3] == 0xBA:
        length = 14 + (head[13] & 7) if head[4] >> 6 == 1 else 12
    else:
        length = 6 + int.from_bytes(head[4:6], "big")
    return length, length


def _gif_end(fd: int, size: int, head: bytes) -> int:
    """The bytes that a GIF needs at least, more than ``size`` if it was cut; 0 if it is complete or unknown.

    GIF89a, sections 15 to 27: extensions and images, each with a chain of blocks, up to the trailer.
    """
    at, in_blocks = 13 + _colors(head[10]), False
    for _ in range(MAX_STEPS):
        if at >= size:
            return at + 1  # at least the trailer is missing
        piece = os.pread(fd, 10, at)
        if in_blocks:  # the last block of data has length 0
            at, in_blocks = at + 1 + piece[0], piece[0] > 0
        elif piece[0] == 0x21:
            at, in_blocks = at + 2, True
        elif piece[0] == 0x2C:
            at, in_blocks = at + 11 + (_colors(piece[9]) if len(piece) == 10 else 0), True
        else:  # the trailer, or something unknown
            return 0
    return 0


def _colors(flags: int) -> int:
    """The number of bytes of a GIF's color table."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


KIND_AT = {_box: slice(4, 8), _flv: slice(0, 4), _asf: slice(0, 4)}  # the bytes with the name of a piece
