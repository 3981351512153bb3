"""Sound video files of many codecs and structures, each showing ``numbered_frames``: what a reader must get right.

``STRUCTURES`` maps a file's name to the function that writes it; ``shown`` tells which numbers its frames show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tests.makers import (
    COUNT,
    boxes,
    codec_tag,
    durations,
    edits,
    from_packets,
    from_second_key,
    joined,
    key_samples,
    no_cues,
    not_coded,
    packed,
    piped,
    steps,
    tracks,
    turned,
    video,
)


def make_structures(folder: Path) -> dict[str, Path]:
    """Writes all of them."""
    return {name: make_structure(folder, name) for name in STRUCTURES}


def make_structure(folder: Path, name: str) -> Path:
    path = Path(folder) / name
    STRUCTURES[name](path)
    return path


def shown(name: str) -> Sequence[int]:
    """The numbers on a file's frames in the order they are shown."""
    return SHOWN.get(name, range(COUNT))


vp9 = {"deadline": "good", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "16", "g": "30"}
vp8 = {"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16", "g": "30", "b": "200k"}
av1 = dict(
    codec="libsvtav1",
    picture=(64, 96),
    options={"preset": "12", "svtav1-params": "lp=1:hierarchical-levels=4:keyint=24"},
)
mpeg4 = dict(codec="mpeg4", options={"g": "12", "bf": "0", "qscale": "3"})
mpeg4_even = dict(codec="mpeg4", options=mpeg4["options"] | {"sc_threshold": "1000000000"})  # keys where they are asked
mpeg4_b = dict(codec="mpeg4", options={"g": "12", "bf": "2", "qscale": "3"})
mpeg2 = dict(codec="mpeg2video", options={"g": "12", "bf": "2", "qscale": "3"})
IRREGULAR = sorted(40 * i + (i % 3) * 37 for i in range(COUNT))  # ms
TINY_STEPS = [100 * (i // 3) + i % 3 for i in range(COUNT)]  # three frames within 2 ms, then a pause
PAUSES = [40 * i + 5000 * (i // 20) for i in range(COUNT)]
OPEN = "keyint=12:bframes=3:open-gop=1"
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
H264 = "keyint=12:bframes=3"

STRUCTURES: dict[str, Callable[[Path], object]] = {
    "h264-all-key.mp4": partial(video, options={"g": "1"}),
    "h264-long-gop.mp4": partial(video, x264="keyint=250:bframes=2", count=90),
    "h264-b-pyramid.mp4": partial(video, x264="keyint=24:bframes=7:b-pyramid=normal:ref=4"),
    "h264-open-gop.mp4": partial(video, x264=OPEN),
    "h264-open-gop.mkv": partial(video, x264=OPEN),
    "h264-open-gop.ts": partial(video, x264=OPEN),
    "h264-closed-gop.mp4": partial(video, x264=H264),
    # after the first, its "key frames" are recovery points: pictures are whole only some frames after them
    "h264-intra-refresh.mp4": partial(video, x264="keyint=20:intra-refresh=1:bframes=0"),
    "h264-intra-refresh.ts": partial(video, x264="keyint=20:intra-refresh=1:bframes=0"),
    "h264-many-references.mp4": partial(video, x264="keyint=30:bframes=3:ref=16"),
    "h264-444.mp4": partial(video, x264=H264, pixel_format="yuv444p"),
    "h264-10-bit.mp4": partial(video, x264=H264, pixel_format="yuv420p10le"),
    "h264-mbaff.mp4": partial(video, x264="keyint=12:bframes=2:interlaced=1:tff=1", picture=(64, 80)),
    "h264-mbaff.ts": partial(video, x264="keyint=12:bframes=2:interlaced=1:bff=1", picture=(64, 80)),
    "h264-fake-interlaced.mp4": partial(video, x264="keyint=12:fake-interlaced=1", picture=(64, 80)),
    "h264-slices.mp4": partial(video, x264="keyint=12:bframes=2:slices=3"),
    "h264-no-b-frames.mp4": partial(video, x264="keyint=12:bframes=0"),
    # SPS and PPS stand in front of every key frame, as avc3 says
    "h264-parameters-in-band.mp4": partial(codec_tag, old=b"avc1", new=b"avc3", x264=H264 + ":repeat-headers=1"),
    "h264-one-frame.mp4": partial(video, count=1),
    "h264.mov": partial(video, x264=H264),
    "h264.flv": partial(video, x264=H264),
    "h264.avi": partial(video, x264="keyint=12:bframes=0"),
    "h264-b-frames.avi": partial(video, x264=H264),  # labelled in the order of decoding
    "h264.ts": partial(video, x264=H264),
    "h264.nut": partial(video, x264=H264),
    "h264.asf": partial(video, x264=H264),
    "h264-raw.h264": partial(video, x264=H264),  # no times at all
    # edit lists and times
    "no-edit-list.mp4": partial(video, x264=H264, container_options={"use_editlist": "0"}),
    "times-negative.mp4": partial(  # in decoding order below zero, no edit list to say so
        video, x264=H264, container_options={"movflags": "negative_cts_offsets", "use_editlist": "0"}
    ),
    "starts-late.mp4": partial(video, x264=H264, times=[3000 + 40 * i for i in range(COUNT)]),
    "starts-late.mkv": partial(video, x264=H264, times=[3000 + 40 * i for i in range(COUNT)]),
    "starts-late.ts": partial(video, x264=H264, times=[5_000_000 + 40 * i for i in range(COUNT)]),
    "clock-wraps.ts": partial(  # the clock of 33 bits starts again at 95,443.7 s, here after a second
        video, x264=H264, times=[95_442_700 + 40 * i for i in range(COUNT)], container_options={"mpegts_copyts": "1"}
    ),
    "edit-cuts-start.mp4": partial(boxes, change=edits((17, COUNT - 17))),  # 12…16 are decoded and not shown
    "edit-cuts-start-open-gop.mp4": partial(boxes, change=edits((13, COUNT - 13)), x264=OPEN),
    "edit-cuts-end.mp4": partial(boxes, change=edits((0, 31))),
    "edit-starts-late.mp4": partial(boxes, change=edits((-1, 50), (0, COUNT))),
    "edit-two-parts.mp4": partial(boxes, change=edits((5, 10), (30, 16))),
    "edit-parts-swapped.mp4": partial(boxes, change=edits((36, 12), (0, 12))),
    "edit-repeats.mp4": partial(boxes, change=edits((0, 20), (0, 20))),
    "irregular.mp4": partial(video, x264=H264, times=IRREGULAR),
    "irregular.mkv": partial(video, x264=H264, times=IRREGULAR),
    "irregular.webm": partial(video, codec="libvpx-vp9", options=vp9, times=IRREGULAR),
    "tiny-steps.mp4": partial(video, x264=H264, times=TINY_STEPS),
    "steps-of-zero.mp4": partial(boxes, change=steps((30, 512), (10, 0), (20, 512)), x264="keyint=12:bframes=0"),
    "pauses.mkv": partial(video, x264=H264, times=PAUSES),
    # indexes and headers that are wrong, around data that is right
    "stss-removed.mp4": partial(boxes, change=key_samples()),
    "stss-all.mp4": partial(boxes, change=key_samples(*range(1, COUNT + 1))),
    "stss-first-only.mp4": partial(boxes, change=key_samples(1)),
    "stss-beside.mp4": partial(boxes, change=key_samples(1, 15, 28, 39)),
    "stss-removed-hevc.mp4": partial(boxes, change=key_samples(), x264="", x265="keyint=12:bframes=3"),
    "durations-wrong.mp4": partial(boxes, change=durations(777)),
    "durations-huge.mp4": partial(boxes, change=durations(2**31)),
    "durations-zero.mp4": partial(boxes, change=durations(0)),
    "rotated-90.mp4": partial(boxes, change=turned(90)),
    "rotated-180.mp4": partial(boxes, change=turned(180)),
    "rotated-270.mov": partial(boxes, change=turned(270)),
    "index-in-front.mp4": partial(video, x264=H264, container_options={"movflags": "faststart"}),
    "fragments.mp4": partial(video, x264=H264, container_options=FRAGMENTS),
    "fragments-of-one.mp4": partial(video, x264=H264, container_options={"movflags": "frag_every_frame+empty_moov"}),
    "fragments-with-edit-list.mp4": partial(
        video, x264=H264, container_options={"movflags": "frag_keyframe+delay_moov+default_base_moof"}
    ),
    "no-cues.mkv": no_cues,
    "live.mkv": partial(video, x264=H264, container_options={"live": "1"}),
    "piped.mkv": partial(piped, x264=H264),
    "piped.webm": partial(piped, codec="libvpx-vp9", options=vp9),
    "piped.flv": partial(piped, x264=H264),
    # more than one track
    "sound-first.mp4": partial(tracks, sound=True),
    "sound-first.mkv": partial(tracks, sound=True, late=40),
    "sound-first.ts": partial(tracks, sound=True),
    "second-video.mp4": partial(tracks, second=True),
    "second-video.mkv": partial(tracks, second=True, sound=True),
    # other codecs
    "hevc-closed-gop.mp4": partial(video, x265="keyint=12:bframes=3:open-gop=0"),
    "hevc-open-gop.mp4": partial(video, x265=OPEN),
    "hevc-open-gop.mkv": partial(video, x265=OPEN),
    "hevc-open-gop.ts": partial(video, x265=OPEN),
    "hevc-raw.hevc": partial(video, x265="keyint=12:bframes=3"),
    "vp9-hidden-frames.webm": partial(video, codec="libvpx-vp9", options=vp9),
    "vp9-hidden-frames.mkv": partial(video, codec="libvpx-vp9", options=vp9),
    "vp9-hidden-frames.mp4": partial(video, codec="libvpx-vp9", options=vp9),
    "vp9.ivf": partial(video, codec="libvpx-vp9", options=vp9),
    "vp8-hidden-frames.webm": partial(video, codec="libvpx", options=vp8),  # packets that show nothing
    "vp8-hidden-frames.ivf": partial(video, codec="libvpx", options=vp8),
    "av1-hierarchical.mp4": partial(video, **av1),
    "av1-hierarchical.mkv": partial(video, **av1),
    "av1-hierarchical.webm": partial(video, **av1),
    "av1.ivf": partial(video, **av1),
    "av1-raw.obu": partial(video, **av1),
    "mpeg4.avi": partial(video, **mpeg4),
    "mpeg4-b-frames.avi": partial(video, **mpeg4_b),
    "mpeg4-b-frames.mp4": partial(video, **mpeg4_b),
    "mpeg4-b-frames.mkv": partial(video, **mpeg4_b),
    **{
        f"mpeg4-not-coded.{ending}": partial(from_packets, change=not_coded, **mpeg4_even)
        for ending in ("avi", "mp4", "mkv")
    },
    "mpeg4-packed.avi": partial(
        from_packets, change=packed, codec="mpeg4", options={"g": "13", "bf": "1", "b_strategy": "0", "qscale": "3"}
    ),
    "mpeg2.mpg": partial(video, **mpeg2),
    "mpeg2.ts": partial(video, **mpeg2),
    "mpeg2-closed-gop.mpg": partial(
        video, **(mpeg2 | {"options": mpeg2["options"] | {"flags": "+cgop", "sc_threshold": "1000000000"}})
    ),
    "mpeg2-interlaced.ts": partial(video, **(mpeg2 | {"options": mpeg2["options"] | {"flags": "+ildct+ilme"}})),
    "mpeg2-raw.m2v": partial(video, **mpeg2),
    "mpeg1.mpg": partial(video, codec="mpeg1video", options={"g": "12", "bf": "2", "qscale": "3"}),
    "mjpeg.avi": partial(video, codec="mjpeg", pixel_format="yuvj420p", options={"qscale": "3"}),
    "sorenson.flv": partial(video, codec="flv", options={"g": "12", "qscale": "3"}),
    "wmv2.asf": partial(video, codec="wmv2", options={"g": "12", "qscale": "3"}),
    "prores.mov": partial(video, codec="prores_ks", pixel_format="yuv422p10le", count=20),
    "ffv1.mkv": partial(video, codec="ffv1", pixel_format="bgr0", count=20, options={"g": "5"}),
    "vp8.ogv": partial(video, codec="libvpx", options=vp8),
    "mpeg4-raw.m4v": partial(video, **mpeg4_b),
    "mpeg2.mxf": partial(video, **mpeg2),
    "plain.y4m": partial(video, codec="wrapped_avframe", count=20),
    "animated.gif": partial(video, codec="gif", pixel_format="rgb8", count=20),
    # streams that do not begin or go on as they should; what comes out of decoding everything is the truth
    "size-changes.ts": partial(joined, parts=[dict(x264=H264), dict(x264=H264, picture=(64, 112), count=20)]),
    "size-changes.h264": partial(joined, parts=[dict(x264=H264), dict(x264=H264, picture=(64, 112), count=20)]),
    "joined.ts": partial(joined, parts=[dict(x264=H264), dict(x264=H264, count=20)]),  # the clock jumps back
    "cut-in-front.ts": partial(joined, parts=[dict(x264=H264)], cut=20),
    "cut-in-front-open-gop.ts": partial(joined, parts=[dict(x264=OPEN)], cut=20),
    "cut-in-front-mpeg2.ts": partial(joined, parts=[mpeg2], cut=20),
    "begins-between-key-frames.mkv": partial(from_packets, change=lambda packets: packets[5:], x264=H264),
    "begins-at-open-gop.mkv": partial(from_packets, change=from_second_key, x264=OPEN),
    "begins-at-open-gop.mp4": partial(from_packets, change=from_second_key, x264=OPEN),
    "begins-at-cra.ts": partial(from_packets, change=from_second_key, x265=OPEN),
    "begins-at-cra.mkv": partial(from_packets, change=from_second_key, x265=OPEN),
}

LEADING_LOST = range(12, COUNT)  # what comes before the first key frame cannot be decoded
CODED = [number for number in range(COUNT) if number % 12 < 11 or number == COUNT - 1]
JOINED = [*range(COUNT), *range(20)]
SHOWN: dict[str, Sequence[int]] = {
    "h264-long-gop.mp4": range(90),
    "h264-one-frame.mp4": range(1),
    "edit-cuts-start.mp4": range(17, COUNT),
    "edit-cuts-start-open-gop.mp4": range(13, COUNT),
    "edit-cuts-end.mp4": range(31),
    "edit-two-parts.mp4": [*range(5, 15), *range(30, 46)],
    "edit-parts-swapped.mp4": [*range(36, 48), *range(12)],
    "edit-repeats.mp4": [*range(20), *range(20)],
    "prores.mov": range(20),
    "ffv1.mkv": range(20),
    "animated.gif": range(20),
    "plain.y4m": range(20),
    "size-changes.ts": JOINED,
    "size-changes.h264": JOINED,
    **dict.fromkeys([f"mpeg4-not-coded.{ending}" for ending in ("avi", "mp4", "mkv")], CODED),
    "joined.ts": JOINED,
    "cut-in-front.ts": LEADING_LOST,
    "cut-in-front-open-gop.ts": LEADING_LOST,
    "cut-in-front-mpeg2.ts": LEADING_LOST,
    "begins-between-key-frames.mkv": LEADING_LOST,
    "begins-at-open-gop.mkv": LEADING_LOST,
    "begins-at-open-gop.mp4": LEADING_LOST,
    "begins-at-cra.ts": LEADING_LOST,
    "begins-at-cra.mkv": LEADING_LOST,
}
