"""Which videos are called long, by arithmetic."""

import pytest

from evl.config import ClipConfig
from evl.types import Sample
from evl.video.notices import Length, is_long, long_videos_notice


@pytest.mark.parametrize(
    ("clip", "num_clips", "length", "expected"),
    [
        # 3 × (7·16 + 1) = 339 frames: a tenth of 3390
        (ClipConfig(), 3, Length(3390), False),
        (ClipConfig(), 3, Length(3391), True),
        (ClipConfig(), 1, Length(1131), True),
        (ClipConfig(), 30, Length(30_000), False),
        # short ones never are, however little is looked at
        (ClipConfig(num_frames=2, stride=1), 1, Length(750), False),
        (ClipConfig(num_frames=2, stride=1), 1, Length(751), True),
        # 24 frames, 125 apart
        (ClipConfig("segment"), 3, Length(3000), False),
        (ClipConfig("segment"), 3, Length(3001), True),
        # by time: 3 × 7 / 4 s, a tenth of 52.5 s
        (ClipConfig(frames_per_second=4.0), 3, Length(2000, 52.5), False),
        (ClipConfig(frames_per_second=4.0), 3, Length(2000, 52.6), True),
        (ClipConfig(frames_per_second=4.0), 3, Length(700, 3600.0), False),  # time lapse: 700 frames
    ],
)
def test_rule(clip, num_clips, length, expected):
    assert is_long(length, clip, num_clips) is expected


def test_the_line_names_the_longest_and_what_to_do():
    lengths = {
        Sample("short.mp4"): Length(100, 4.0),
        Sample("long.mp4"): Length(4525, 181.0),
        Sample("longest.mp4", None, 10.0, 310.0): Length(7500, 300.0),
    }
    line = long_videos_notice(lengths, ClipConfig(), 3)
    assert line.startswith("2 of 3 videos are long, such as longest.mp4#t=10,310 (300 s): each gets one label, and")
    assert "the views span 14 s of it" in line
    assert "start_seconds" in line
    assert "timeline" not in line
    assert "12 s apart" in long_videos_notice(lengths, ClipConfig("segment"), 3)
    assert "span 5 s" in long_videos_notice(lengths, ClipConfig(frames_per_second=4.0), 3)
    assert long_videos_notice({Sample("short.mp4"): Length(100)}, ClipConfig(), 3) is None
    assert long_videos_notice({}, ClipConfig(), 3) is None
