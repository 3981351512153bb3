"""What the bytes of a packet say: how many pictures it shows, whether others refer to it, whether one is missing."""

from __future__ import annotations

from contextlib import suppress

import av

from evl.video.decode.h264 import Bits, PictureNumbers

# codecs whose packets may show no picture, or two, so their bytes must be read
READ_BYTES = frozenset("vp8 libvpx vp9 libvpx-vp9 mpeg4".split())  # noqa: SIM905
MPEG4_PICTURE = b"\0\0\1\xb6"  # start code of a picture
MPEG4_LEAST_BYTES = 16
MPEG4_B = 2  # vop_coding_type of ISO/IEC 14496-2, 6.3.5: no picture refers to it


class PacketOrder:
    """Follows the packets of a stream in the file's order.

    Call ``see`` with each packet that the decoder gets, and ``forget`` after a seek.
    """

    def __init__(self, stream: av.VideoStream):
        context = stream.codec_context
        self.codec = context.name
        self._numbers = PictureNumbers(context.extradata) if self.codec == "h264" else None

    def see(self, packet: av.Packet) -> tuple[bool, bool]:
        """(whether other pictures may refer to this one, whether a picture is missing before it)."""
        if self._numbers is not None:
            if packet.has_sidedata("new_extradata"):  # other parameter sets than those of the header
                self._numbers = PictureNumbers(bytes(packet.get_sidedata("new_extradata")))
            return self._numbers.packet(bytes(packet), is_key=packet.is_keyframe)
        return (self.codec != "mpeg4" or _mpeg4_refers(bytes(packet))), False

    def is_key(self, packet: av.Packet) -> bool:
        """Whether decoding can begin with a packet, as far as its bytes say (VP9) and not only its frame."""
        return self.codec != "vp9" or _vp9_is_key(_vp9_frames(bytes(packet))[0])

    def forget(self) -> None:
        if self._numbers is not None:
            self._numbers.forget()


def _mpeg4_refers(data: bytes) -> bool:
    at = data.rfind(MPEG4_PICTURE) + len(MPEG4_PICTURE)
    return not (len(MPEG4_PICTURE) <= at < len(data) and data[at] >> 6 == MPEG4_B)


def num_shown(codec: str, data: bytes) -> int | None:
    """The number of pictures of a packet that are shown, 0 or 1; None if it is more or unknown."""
    if codec in ("vp8", "libvpx"):
        return data[0] >> 4 & 1  # RFC 6386, section 9.1
    if codec in ("vp9", "libvpx-vp9"):
        shown = sum(map(_vp9_shows, _vp9_frames(data)))
        return shown if shown <= 1 else None
    if codec == "mpeg4":
        # "packed" files have two pictures in a packet, and then none; for a picture of a few bytes, the decoder may
        # return no frame
        is_one = data.count(MPEG4_PICTURE) == 1 and len(data) - data.rfind(MPEG4_PICTURE) >= MPEG4_LEAST_BYTES
        return 1 if is_one else None
    raise ValueError(f"packets of {codec} need not be read")


def _vp9_frames(data: bytes) -> list[bytes]:
    """The frames of a packet: one, or those of a superframe with an index at its end (VP9 specification, annex B)."""
    marker = data[-1]
    count, width = (marker & 7) + 1, (marker >> 3 & 3) + 1
    index = data[-(2 + count * width) :]
    if marker & 0xE0 != 0xC0 or len(index) != 2 + count * width or index[0] != marker:
        return [data]
    sizes = [int.from_bytes(index[1 + i * width : 1 + (i + 1) * width], "little") for i in range(count)]
    starts = [sum(sizes[:i]) for i in range(count)]
    return [data[start : start + size] for start, size in zip(starts, sizes, strict=True) if size]


def _vp9_shows(frame: bytes) -> bool:
    """Whether a frame, or an earlier one in its place, is shown (VP9 specification, 6.2)."""
    shows_earlier, _, is_shown = _vp9_bits(frame)
    return shows_earlier or is_shown


def _vp9_is_key(frame: bytes) -> bool:
    shows_earlier, is_other, _ = _vp9_bits(frame)
    return not shows_earlier and not is_other


def _vp9_bits(frame: bytes) -> tuple[bool, bool, bool]:
    """The flags show_existing_frame, frame_type (set: no key frame) and show_frame (VP9 specification, 6.2)."""
    bits = format(int.from_bytes(frame[:2].ljust(2, b"\0"), "big"), "016b")
    at = 5 if bits[2:4] == "11" else 4  # a reserved bit in profile 3
    return bits[at] == "1", bits[at + 1] == "1", bits[at + 2] == "1"


def vp9_sizes(data: bytes) -> list[tuple[int, int]]:
    """(width, height) of the frames of a packet whose headers have a size (VP9 specification, 6.2)."""
    sizes = []
    for frame in _vp9_frames(data):
        with suppress(ValueError):  # too short: the decoder refuses it
            if size := _vp9_size(Bits(frame[:32])):
                sizes.append(size)
    return sizes


def _vp9_size(bits: Bits) -> tuple[int, int] | None:
    bits.read(2)
    profile = bits.read(1) | bits.read(1) << 1
    bits.read(1 if profile == 3 else 0)
    if bits.read(1):  # shows an earlier frame
        return None
    is_key, is_shown, resists_errors = not bits.read(1), bits.read(1), bits.read(1)
    is_intra = not is_key and not is_shown and bits.read(1)
    if not is_key and not resists_errors:
        bits.read(2)
    if is_key or is_intra:
        bits.read(24)  # the sync code
        if is_key or profile > 0:
            _skip_colors(bits, profile)
        bits.read(0 if is_key else 8)
    else:
        bits.read(8 + 3 * 4)  # which frames it refreshes, and refers to
        if any(bits.read(1) for _ in range(3)):  # the size of one of these
            return None
    return bits.read(16) + 1, bits.read(16) + 1


def _skip_colors(bits: Bits, profile: int) -> None:
    bits.read(1 if profile >= 2 else 0)
    is_rgb = bits.read(3) == 7
    has_subsampling = profile in (1, 3)
    bits.read((1 if is_rgb else 3) * has_subsampling + (not is_rgb))
