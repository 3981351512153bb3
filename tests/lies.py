"""Headers that lie, in files that are sound otherwise: counts, sizes, lengths, times, pictures of 65,000 pixels."""

from __future__ import annotations

import struct

from tests.boxes import box, full_box_body, in_box, patched, rewrite_boxes, words

BILLION = 10**9
MOST = 2**32 - 1


def mp4_lies(front: bytes) -> dict[str, bytes]:
    """``front``: MP4 of H.264 with B-frames, index in front of the data. Sizes are kept, so offsets stay right."""
    lies = {}
    for count in (BILLION, MOST):
        for kind in (b"stts", b"ctts", b"stsc", b"stco", b"stss", b"elst", b"stsd", b"dref"):
            lies[f"{kind.decode()}-{count}-entries"] = in_box(front, kind, 4, words(count))
        lies[f"stsz-{count}-samples"] = in_box(front, b"stsz", 8, words(count))
        lies[f"stsz-{count}-samples-of-one-size"] = in_box(front, b"stsz", 4, words(100, count))
        lies[f"stsz-sizes-of-{count}"] = in_box(front, b"stsz", 4, words(count))
        lies[f"stts-{count}-samples-in-one-entry"] = in_box(front, b"stts", 8, words(count))
        lies[f"ctts-{count}-samples-in-one-entry"] = in_box(front, b"ctts", 8, words(count))
        lies[f"stts-steps-of-{count}"] = in_box(front, b"stts", 12, words(count))
        lies[f"stsc-{count}-samples-in-a-chunk"] = in_box(front, b"stsc", 12, words(count))
        lies[f"stsc-first-chunk-{count}"] = in_box(front, b"stsc", 8, words(count))
        lies[f"stco-far-{count}"] = in_box(front, b"stco", 8, words(count))
        lies[f"elst-starts-at-{count}"] = in_box(front, b"elst", 12, words(count // 2))
        lies[f"elst-lasts-{count}"] = in_box(front, b"elst", 8, words(count))
    for scale in (0, 1, MOST):
        lies[f"mvhd-scale-{scale}"] = in_box(front, b"mvhd", 12, words(scale))
        lies[f"mdhd-scale-{scale}"] = in_box(front, b"mdhd", 12, words(scale))
    lies["mdhd-duration-0"] = in_box(front, b"mdhd", 16, words(0))
    lies["stsz-no-samples"] = in_box(front, b"stsz", 4, words(0, 0))
    lies["stco-no-chunks"] = in_box(front, b"stco", 4, words(0))
    lies["stsc-no-entries"] = in_box(front, b"stsc", 4, words(0))
    lies["stsd-no-entries"] = in_box(front, b"stsd", 4, words(0))
    lies["stts-no-entries"] = in_box(front, b"stts", 4, words(0))
    lies["ctts-very-negative"] = in_box(front, b"ctts", 12, words(-(2**31)))
    lies["ctts-negative"] = in_box(front, b"ctts", 12, words(-51200))
    lies["elst-never-shown"] = in_box(front, b"elst", 12, words(-1))
    entry = front.index(b"avc1") + 4  # sample description: width and height are at 24
    for name, size in {"65000-wide": (65000, 80), "65000-square": (65000, 65000), "no-width": (0, 0)}.items():
        lies[f"stsd-{name}"] = patched(front, entry + 24, struct.pack(">HH", *size))
    lies["stsd-unknown-codec"] = front.replace(b"avc1", b"zzzz")
    lies["avcc-length-of-nal-units"] = in_box(front, b"avcC", 4, b"\xfe")
    lies["avcc-no-parameter-sets"] = in_box(front, b"avcC", 5, b"\xe0\0\0\0")
    lies["avcc-long-parameter-set"] = in_box(front, b"avcC", 6, b"\xff\xff")
    lies["hdlr-is-sound"] = front.replace(b"vide", b"soun", 1)
    for kind in (b"moov", b"trak", b"mdia", b"stbl", b"stsz", b"mdat", b"ftyp", b"avcC"):
        place = front.index(kind) - 4
        lies[f"{kind.decode()}-box-of-4-GB"] = patched(front, place, words(MOST))
        lies[f"{kind.decode()}-box-of-4-bytes"] = patched(front, place, words(4))
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"stts", b"stsc", b"stsz", b"stco", b"mdat"):
        lies[f"{kind.decode()}-not-there"] = front.replace(kind, b"free")
    lies["mdat-box-of-2^63-bytes"] = front.replace(b"mdat", b"free") + words(1) + b"mdat" + words(2**31 - 1, MOST)
    lies["elst-100000-edits"] = _behind(front, b"elst", full_box_body(100_000, *[0, -1, 1 << 16] * 100_000))
    lies["stsd-in-stsd"] = _behind(front, b"stsd", full_box_body(1) + box(b"stsd", full_box_body(1)))
    nested = b"".join(words(8 * (20_000 - i)) + (b"moov", b"trak", b"udta", b"meta")[i % 4] for i in range(20_000))
    lies["boxes-20000-deep"] = front[: front.index(b"moov") - 4] + nested
    lies["boxes-without-end"] = front[: front.index(b"moov") - 4] + words(8, 0x66726565) * 20_000
    return lies


def _behind(front: bytes, kind: bytes, body: bytes) -> bytes:
    """With one box's body replaced; the index is as long as it is, so offsets point elsewhere."""
    return rewrite_boxes(front, lambda found, old: body if found == kind else old)


def fragment_lies(fragments: bytes) -> dict[str, bytes]:
    lies = {}
    for count in (BILLION, MOST):
        lies[f"trun-{count}-samples"] = in_box(fragments, b"trun", 4, words(count))
        lies[f"trun-data-at-{count}"] = in_box(fragments, b"trun", 8, words(count // 2))
    lies["tfhd-other-track"] = in_box(fragments, b"tfhd", 4, words(77))
    lies["moof-not-there"] = fragments.replace(b"moof", b"free")
    lies["trex-not-there"] = fragments.replace(b"trex", b"free").replace(b"tfhd", b"free")
    lies["moof-box-of-4-GB"] = patched(fragments, fragments.rindex(b"moof") - 4, words(MOST))
    return lies


def matroska_lies(content: bytes) -> dict[str, bytes]:
    """``content``: Matroska as FFmpeg writes it; the length of the segment takes 8 bytes behind its mark."""
    segment = content.index(b"\x18\x53\x80\x67") + 4
    cluster = content.index(b"\x1f\x43\xb6\x75") + 4
    block = content.index(b"\xa3", cluster + 12) + 1  # SimpleBlock
    tracks = content.index(b"\x16\x54\xae\x6b") + 4
    private = content.index(b"\x63\xa2", tracks) + 2  # CodecPrivate
    most = b"\x01\xff\xff\xff\xff\xff\xff\xfe"
    width = content.index(b"\xb0", content.index(b"\xe0", tracks) + 1)  # PixelWidth inside Video
    scale = content.index(b"\x2a\xd7\xb1") + 3
    duration = content.index(b"\x44\x89") + 2
    return {
        "segment-2^56-bytes": patched(content, segment, most),
        "segment-twice-as-long": patched(content, segment, (2 * len(content) | 1 << 56).to_bytes(8, "big")),
        "segment-of-no-bytes": patched(content, segment, (1 << 56).to_bytes(8, "big")),
        "cluster-of-2-GB": patched(content, cluster, b"\x08\x7f\xff\xff\xff"),
        "cluster-of-2^56-bytes": patched(content, cluster, most),
        "block-of-256-MB": patched(content, block, b"\x1f\xff\xff\xfe"),
        "block-of-2^56-bytes": patched(content, block, most),
        "tracks-of-256-MB": patched(content, tracks, b"\x1f\xff\xff\xfe"),
        "codec-private-of-256-MB": patched(content, private, b"\x1f\xff\xff\xfe"),
        "codec-private-of-2^56-bytes": patched(content, private, most),
        "tracks-not-there": patched(content, tracks - 4, b"\x1c\x53\xbb\x6c"),
        "width-65000": patched(content, width, b"\xb0\x82\xfd\xe8"),
        "time-scale-0": patched(content, scale, b"\x83\0\0\0"),
        "duration-not-a-number": patched(content, duration, b"\x88\x7f\xf8\0\0\0\0\0\0"),
        "duration-negative": patched(content, duration, b"\x88" + struct.pack(">d", -1e300)),
        "document-version-255": content.replace(b"\x42\x85\x81\x02", b"\x42\x85\x81\xff", 1),
        "document-of-another-kind": content.replace(b"matroska", b"nonsense", 1),
        "cues-far": content[: content.rindex(b"\x1c\x53\xbb\x6b") + 6] + b"\xff" * 40,
    }


def avi_lies(content: bytes) -> dict[str, bytes]:
    """``content``: AVI of MPEG-4 with its old index."""

    def at(mark: bytes, offset: int, *values: int) -> bytes:
        return patched(content, content.index(mark) + 8 + offset, struct.pack(f"<{len(values)}I", *values))

    return {
        "riff-of-4-GB": patched(content, 4, b"\xff" * 4),
        "riff-twice-as-long": patched(content, 4, struct.pack("<I", 2 * len(content))),
        "header-list-of-4-GB": patched(content, content.index(b"LIST") + 4, b"\xff" * 4),
        "movi-of-4-GB": patched(content, content.index(b"movi") - 4, b"\xff" * 4),
        "chunk-of-4-GB": at(b"00dc", -4, MOST),
        "chunk-of-2-GB": at(b"00dc", -4, 2**31 - 1),
        "billion-frames": at(b"avih", 16, BILLION),
        "billion-frames-in-stream": at(b"strh", 32, BILLION),
        "streams-4-billion": at(b"avih", 24, MOST),
        "format-of-4-GB": at(b"strf", -4, MOST),
        "format-65000-wide": at(b"strf", 4, 65000, 65000),
        "format-negative-size": at(b"strf", 4, MOST - 79, MOST - 47),
        "rate-0": at(b"strh", 20, 0, 0),
        "rate-most": at(b"strh", 20, 1, MOST),
        "scale-most": at(b"strh", 20, MOST, 1),
        "start-most": at(b"strh", 28, MOST),
        "index-of-4-GB": at(b"idx1", -4, MOST),
        "index-far": at(b"idx1", 8, *[BILLION] * 2),
        "movi-not-there": content.replace(b"movi", b"mova", 1),
    }


def sequence_parameters(width: int, height: int) -> bytes:
    """An H.264 sequence parameter set (baseline) that claims these many pixels (multiples of 16)."""

    def golomb(number: int) -> str:
        digits = f"{number + 1:b}"
        return "0" * (len(digits) - 1) + digits

    numbers = [0, 0, 2, 1]  # its id, bits of frame numbers, order as decoded, one reference
    bits = "".join(map(golomb, numbers)) + "0" + golomb(width // 16 - 1) + golomb(height // 16 - 1) + "11001"
    bits += "0" * (-len(bits) % 8)
    return b"\x67\x42\0\x33" + int(bits, 2).to_bytes(len(bits) // 8, "big")


def picture_lies(files: dict[str, bytes]) -> dict[str, bytes]:
    """The stream itself claims pictures of an absurd size."""
    raw, gif, y4m = files["h264"], files["gif"], files["y4m"]
    slices = raw[raw.index(b"\0\0\1\x65") :]
    lies = {"vp8-16383-square.webm": files["vp8"].replace(b"\x9d\x01\x2a\x50\0\x30\0", b"\x9d\x01\x2a\xff\x3f\xff\x3f")}
    small = b"\0\0\0\1" + sequence_parameters(80, 48)
    parameters = raw[raw.index(b"\0\0\1\x68") : raw.index(b"\0\0\1\x68") + 12]
    for width, height in ((65008, 65008), (65008, 1024), (16384, 8192), (16, 65008)):
        lying = b"\0\0\0\1" + sequence_parameters(width, height)
        lies[f"h264-{width}x{height}.h264"] = lying + parameters + slices
        lies[f"h264-{width}x{height}-later.h264"] = raw + lying + parameters + slices
    lies["h264-too-small.h264"] = small + parameters + slices[: len(slices) // 2] + b"\0\0\1\x67\x42"
    sync = files["webm"].index(b"\x49\x83\x42") + 3
    first = files["webm"][sync] & 0xF0
    for width, height in ((65536, 65536), (65536, 1024), (16384, 8192)):
        size = (width - 1) << 16 | height - 1
        value = (first << 32 | size << 4 | files["webm"][sync + 4] & 0x0F).to_bytes(5, "big")
        lies[f"vp9-{width}x{height}.webm"] = patched(files["webm"], sync, value)
        lies[f"gif-{width - 1}x{height - 1}.gif"] = patched(gif, 6, struct.pack("<HH", width - 1, height - 1))
        lies[f"y4m-{width}x{height}.y4m"] = y4m.replace(b"W80 H48", f"W{width} H{height}".encode())
    start = files["mjpeg"].index(b"\xff\xc0") + 5
    lies["mjpeg-65500-square.avi"] = patched(files["mjpeg"], start, struct.pack(">HH", 65500, 65500))
    lies["mjpeg-16384x8192.avi"] = patched(files["mjpeg"], start, struct.pack(">HH", 8192, 16384))
    return lies
