"""Videos of ``numbered_frames`` written in unusual ways: packets by hand, several tracks, boxes changed, no index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.boxes import ebml_size, full_box_body, patched, rewrite_boxes, word, words
from tests.helpers import numbered_frames, write_video

COUNT = 60
PICTURE = (48, 80)  # height, width
EXACT = {"fflags": "+bitexact"}  # no random numbers and no names of versions in the file


def video(path: Path, *, count: int = COUNT, picture: tuple[int, int] = PICTURE, x264: str = "", x265: str = "", **how):
    """Numbered frames; ``x264`` and ``x265`` are the encoder's own parameters."""
    options = dict(how.pop("options", {}))
    if x264:
        options["x264-params"] = f"scenecut=0:b-adapt=0:{x264}"  # key frames and B-frames exactly where they are asked
    if x265:
        how["codec"] = "libx265"
        options["x265-params"] = f"log-level=none:scenecut=0:b-adapt=0:pools=1:frame-threads=1:{x265}"
    how["container_options"] = EXACT | how.pop("container_options", {})
    return write_video(path, numbered_frames(count, *picture), options={"threads": "1"} | options, **how)


# --- several tracks, packets by hand -------------------------------------------------------------------------------


def packets_of(folder: Path, **how) -> tuple[Path, list[tuple[bytes, int, int, bool]]]:
    """A file in Matroska and its packets: (bytes, presentation time, decoding time in ms, key)."""
    path = folder / "packets.mkv"
    video(path, **how)
    with av.open(str(path)) as container:
        packets = [(bytes(p), p.pts, p.dts, p.is_keyframe) for p in container.demux(video=0) if p.size]
    missing = sum(dts is None for _, _, dts, _ in packets)  # Matroska leaves the first ones to be guessed
    return path, [(*p[:2], 40 * (i - missing) if p[2] is None else p[2], p[3]) for i, p in enumerate(packets)]


def from_second_key(packets: list) -> list:
    """Without the first group of pictures: what leads into the second has nothing to refer to."""
    keys = [place for place, packet in enumerate(packets) if packet[3]]
    return packets[keys[1] :]


def from_packets(path: Path, change: Callable[[list], list], **how) -> None:
    """Encodes, then writes only what ``change`` makes of the packets, at 25 frames a second."""
    source, packets = packets_of(path.parent, **how)
    with av.open(str(source)) as container, av.open(str(path), "w") as made:
        stream = made.add_stream_from_template(container.streams.video[0])
        stream.time_base = Fraction(1, 25)
        for data, pts, dts, key in change(packets):
            packet = av.Packet(data)
            packet.pts, packet.dts, packet.time_base = pts, dts, Fraction(1, 1000)
            packet.duration = 40  # without it some versions of libav do not show the last one
            packet.stream, packet.is_keyframe = stream, key
            made.mux(packet)
    source.unlink()


def packed(packets: list[tuple[bytes, int, int, bool]]) -> list[tuple[bytes, int, int, bool]]:
    """DivX's "packed bitstream" out of I P B P B …: a B-frame travels in the packet of the P-frame before it, and an
    empty picture takes its place."""
    mark = b"\0\0\1\xb2DivX503b1393p"
    made = []
    place = 0
    while place < len(packets):
        data, pts, dts, key = packets[place]
        start = data.index(b"\0\0\1\xb6")  # the picture; headers stand before it
        data = data[:start] + mark + data[start:] if key else data
        if place + 1 < len(packets) and packets[place + 1][1] < pts:
            data += packets[place + 1][0]
            made += [(data, dts, dts, key), (b"\0\0\1\xb6\x5f", packets[place + 1][2], packets[place + 1][2], False)]
            place += 2
        else:
            made.append((data, dts, dts, key))
            place += 1
    return made


def not_coded(packets: list[tuple[bytes, int, int, bool]]) -> list[tuple[bytes, int, int, bool]]:
    """The last picture before each key frame of MPEG-4 says "as the one before", as of XviD: no frame comes out."""
    made = []
    for place, (data, pts, dts, key) in enumerate(packets):
        if place + 1 < len(packets) and packets[place + 1][3]:
            at = data.index(b"\0\0\1\xb6") + 4
            bits = "".join(f"{byte:08b}" for byte in data[at : at + 4])
            # two bits of kind, ones for whole seconds and a zero, a marker, five bits of time (25 a second), a marker
            end = bits.index("0", 2) + 1 + 1 + 5 + 1
            bits = (bits[:end] + "0" + "0").ljust(16, "1")
            data = data[:at] + int(bits[:16], 2).to_bytes(2, "big")
        made.append((data, pts, dts, key))
    return made


def tracks(path: Path, *, sound: bool = False, second: bool = False, late: int = 0) -> None:
    """A sound track before the video; or a second video stream (smaller, counting down) behind it."""
    with av.open(str(path), "w") as container:
        audio = container.add_stream("aac", rate=44100) if sound else None
        stream = container.add_stream("libx264", rate=25, options={"threads": "1", "bf": "2", "g": "12"})
        stream.height, stream.width = PICTURE
        streams = [(stream, numbered_frames(COUNT, *PICTURE))]
        if second:
            other = container.add_stream("libx264", rate=25, options={"threads": "1", "g": "12"})
            other.height, other.width = 32, 64
            streams.append((other, numbered_frames(COUNT, 32, 64)[::-1]))
        for i in range(COUNT):
            if sound:
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 1764), np.float32), format="fltp", layout="mono")
                silence.sample_rate, silence.pts, silence.time_base = 44100, i * 1764, Fraction(1, 44100)
                container.mux(audio.encode(silence))
            for to, frames in streams:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frames[i]), format="rgb24")
                frame.pts, frame.time_base = i + late, Fraction(1, 25)
                container.mux(to.encode(frame))
        for to in [audio] * sound + [to for to, _ in streams]:
            container.mux(to.encode())


def piped(path: Path, **how) -> None:
    """As if written to a pipe: no sizes, no index, no second look at the header."""

    class Pipe:
        def __init__(self):
            self.content = bytearray()

        def write(self, data):
            self.content += data
            return len(data)

    source = path.with_name("source.mp4")
    video(source, **how)
    pipe = Pipe()
    kind = path.suffix[1:].replace("mkv", "matroska")
    with av.open(str(source)) as container, av.open(pipe, "w", format=kind, options=EXACT) as to:
        stream = to.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = stream
                to.mux(packet)
    path.write_bytes(pipe.content)
    source.unlink()


def joined(path: Path, parts: Sequence[dict], cut: int = 0) -> None:
    """Files of one kind after each other, byte by byte, without the first ``cut`` packets of a transport stream."""
    content = b""
    for part in parts:
        video(path, **part)
        content += path.read_bytes()
    path.write_bytes(content[188 * cut :])


def no_cues(path: Path) -> None:
    """Cut before the index, which stands behind the clusters, and the length of the whole corrected."""
    video(path, options={"bf": "2", "g": "12"})
    content = path.read_bytes()
    content = content[: content.rindex(b"\x1c\x53\xbb\x6b")]
    segment = content.index(b"\x18\x53\x80\x67") + 4
    path.write_bytes(patched(content, segment, ebml_size(len(content) - segment - 8)))


# --- boxes of MP4 ------------------------------------------------------------------------------------------------


def boxes(path: Path, change: Callable[[bytes, bytes], bytes | None], **how) -> None:
    """A file with B-frames and a key frame each 12, its boxes changed."""
    video(path, **({"x264": "keyint=12:bframes=3"} | how))
    path.write_bytes(rewrite_boxes(path.read_bytes(), change))


def edits(*parts: tuple[int, int]):
    """Edit list: shows (first frame, number of frames), at 25 frames a second; first −1 is a pause."""

    def change(kind: bytes, body: bytes) -> bytes:
        if kind != b"elst":
            return body
        zero, frame = word(body, 12), 512  # FFmpeg's edit starts at the first frame; 25 frames at 12,800 ticks
        entries = [(40 * count, -1 if first < 0 else zero + first * frame, 1 << 16) for first, count in parts]
        return full_box_body(len(entries), *(number for entry in entries for number in entry))

    return change


def steps(*parts: tuple[int, int]):
    """Time from frame to frame: (number of frames, ticks of 1/12,800 s)."""
    table = full_box_body(len(parts), *(number for part in parts for number in part))
    return lambda kind, body: table if kind == b"stts" else body


def key_samples(*numbers: int):
    """Which samples the index claims to be key frames, counted from 1; none: the box is removed (all are key)."""
    return lambda kind, body: body if kind != b"stss" else full_box_body(len(numbers), *numbers) if numbers else None


def durations(value: int):
    """All three headers claim this duration."""
    places = {b"mvhd": 16, b"mdhd": 16, b"tkhd": 20}
    return lambda kind, body: patched(body, places[kind], words(value)) if kind in places else body


def turned(degrees: int):
    """A matrix in the track's header, clockwise."""
    return shown_by(*{90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees])


def shown_by(a: float, b: float, c: float, d: float, *, last: Sequence[int] = (0, 0, 0, 0, 1 << 30)):
    """Any matrix in the track's header; ``last``: u, v, x, y, w as they are written."""
    a, b, c, d = (round(number * 2**16) for number in (a, b, c, d))
    u, v, x, y, w = last
    matrix = words(a, b, u, c, d, v, x, y, w)
    return lambda kind, body: patched(body, 40, matrix) if kind == b"tkhd" else body


def codec_tag(path: Path, old: bytes, new: bytes, **how) -> None:
    video(path, **how)
    path.write_bytes(path.read_bytes().replace(old, new))
