"""Whether packets of H.264 are missing, or in a wrong place: their pictures are numbered (ITU-T H.264, 7.4.3).

A decoder conceals a lost picture: it repeats an earlier one and says nothing. But each picture to which others refer
has the next number (frame_num), which starts again at a power of two, so a gap shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

SLICE, PARTITION, IDR, SPS, PPS = 1, 2, 5, 7, 8  # kinds of units (table 7-1)
WITH_CHROMA = frozenset((44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244))  # profiles (7.3.2.1.1)
HEAD = 40  # bytes of a slice that hold what is read here
MOST = 1024  # bytes of any unit that are looked at


class Sequence(NamedTuple):
    """What a sequence parameter set says of the numbers of pictures."""

    bits: int
    has_planes: bool
    may_have_gaps: bool
    only_frames: bool


class Bits:
    """Reads numbers from bytes, bit by bit. Raises ValueError behind their end."""

    def __init__(self, data: bytes):
        self.value, self.left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, count: int) -> int:
        self.left -= count
        if self.left < 0:
            raise ValueError("the unit ends too early")
        return self.value >> self.left & (1 << count) - 1

    def ue(self) -> int:
        """An Exp-Golomb code (9.1)."""
        zeros = self.left - (self.value & (1 << self.left) - 1).bit_length()
        return self.read(2 * zeros + 1) - 1

    def se(self) -> int:
        code = self.ue()
        return (code + 1) // 2 if code % 2 else -(code // 2)


class PictureNumbers:
    """Follows the numbers of the pictures of one stream, packet by packet in the file's order.

    What cannot be read is not judged: the decoder has its own word on a unit that is broken.
    """

    def __init__(self, extradata: bytes | None):
        self._width = 0  # bytes of the length before each unit; 0: start codes
        self._sequences: dict[int, Sequence] = {}
        self._of_picture: dict[int, int] = {}  # the sequence parameter set of each picture parameter set
        self._last: int | None = None
        extradata = extradata or b""
        if extradata[:1] == b"\1" and len(extradata) > 6:
            self._width = (extradata[4] & 3) + 1
            for unit in _units_of_header(extradata):
                self._parameters(unit)
        else:
            for unit in _units(extradata, 0):
                self._parameters(unit)

    def packet(self, data: bytes, *, is_key: bool) -> tuple[bool, bool]:
        """(whether others may refer to the packet's picture, whether pictures are missing before it).

        Before a key frame nothing is missing: decoding may begin there.
        """
        for unit in _units(data, self._width):
            kind = unit[0] & 31
            if kind in (SPS, PPS):
                self._parameters(unit)
            elif kind in (SLICE, PARTITION, IDR):
                return bool(unit[0] & 0x60), self._is_gap(unit, kind == IDR, is_key)
        return True, False

    def forget(self) -> None:
        """The next packet does not follow the one before, as after a seek."""
        self._last = None

    def _is_gap(self, unit: bytes, is_idr: bool, is_key: bool) -> bool:
        last, self._last = self._last, None
        try:
            number, sequence = self._number(unit)
        except (ValueError, IndexError, KeyError):
            return False
        self._last = number if is_idr or unit[0] & 0x60 else last
        if last is None or is_idr or is_key or sequence.may_have_gaps:
            return False
        is_second_field = number == last and not sequence.only_frames
        return not (is_second_field or number == (last + 1) % (1 << sequence.bits))

    def _number(self, slice_: bytes) -> tuple[int, Sequence]:
        """frame_num, and the sequence parameter set in force (7.3.3)."""
        bits = Bits(_plain(slice_[1:HEAD]))
        bits.ue()  # the first macroblock
        bits.ue()  # the kind of slice
        sequence = self._sequences[self._of_picture[bits.ue()]]
        bits.read(2 if sequence.has_planes else 0)
        return bits.read(sequence.bits), sequence

    def _parameters(self, unit: bytes) -> None:
        try:
            bits = Bits(_plain(unit[1:]))
            if unit[0] & 31 == SPS:
                number, sequence = _sequence(bits)
                self._sequences[number] = sequence
            elif unit[0] & 31 == PPS:
                number = bits.ue()
                self._of_picture[number] = bits.ue()
        except (ValueError, IndexError):
            return


def _sequence(bits: Bits) -> tuple[int, Sequence]:
    """(id, what it says) of a sequence parameter set (7.3.2.1.1)."""
    profile = bits.read(8)
    bits.read(16)
    number, has_planes = bits.ue(), False
    if profile in WITH_CHROMA:
        chroma = bits.ue()
        has_planes = chroma == 3 and bits.read(1) == 1
        bits.ue(), bits.ue(), bits.read(1)
        if bits.read(1):
            for place in range(8 if chroma != 3 else 12):
                _skip_scaling(bits, 16 if place < 6 else 64)
    width = bits.ue() + 4
    if width > 16:
        raise ValueError(f"frame_num of {width} bits")
    order = bits.ue()
    if order == 0:
        bits.ue()
    elif order == 1:
        bits.read(1), bits.se(), bits.se()
        for _ in range(min(bits.ue(), 255)):
            bits.se()
    bits.ue()
    gaps = bits.read(1) == 1
    bits.ue(), bits.ue()
    return number, Sequence(width, has_planes, gaps, bits.read(1) == 1)


def _skip_scaling(bits: Bits, size: int) -> None:
    """A scaling list (7.3.2.1.1.1), if there is one."""
    last = following = 8
    for _ in range(size if bits.read(1) else 0):
        if following:
            following = (last + bits.se()) % 256
        last = following or last


def _units_of_header(extradata: bytes) -> Iterator[bytes]:
    """The parameter sets in the header of MP4 and Matroska (ISO/IEC 14496-15, 5.3.3.1)."""
    at, count = 6, extradata[5] & 31
    for _ in range(2):
        for _ in range(count):
            length = int.from_bytes(extradata[at : at + 2], "big")
            if unit := extradata[at + 2 : at + 2 + length]:
                yield unit
            at += 2 + length
        count, at = int.from_bytes(extradata[at : at + 1], "big"), at + 1


def _units(data: bytes, width: int) -> Iterator[bytes]:
    """The first bytes of each unit of a packet: after its length of ``width`` bytes, or (0) after a start code."""
    if width:
        at = 0
        while at + width < len(data):
            length = int.from_bytes(data[at : at + width], "big")
            at += width
            if length:
                yield data[at : at + min(length, MOST)]
            at += length
        return
    start = data.find(b"\0\0\1")
    while 0 <= start < len(data) - 3:
        yield data[start + 3 : start + 3 + MOST]
        start = data.find(b"\0\0\1", start + 3)


def _plain(data: bytes) -> bytes:
    """Without the bytes that keep start codes out of a unit (7.4.1)."""
    return data.replace(b"\0\0\3", b"\0\0")
