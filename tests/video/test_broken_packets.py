"""A picture that is given as good is the one that the undamaged file has; or else no decoder could say so."""

import json
from collections import Counter
from dataclasses import replace

import av
import numpy as np
import pytest

from evl.video.decode.index import frame_index
from evl.video.decode.packets import vp9_sizes
from evl.video.decode.trust import MOST_HELD, AwaitedFrames, WrongIndexError
from tests.broken_packets import (
    COUNT,
    GROUP,
    IN_A_PACKET,
    KINDS,
    break_packet,
    readings,
    remade,
    sound_video,
    wrong_pictures,
)

# damage that a decoder, or the packets themselves, must show
SHOWN = [
    *(("h264.mp4", damage) for damage in ("noise", "zeros-half", "cut", "lost")),
    ("h264-without-b.mp4", "lost"),
    ("h264-without-b.mp4", "repeated"),
    ("hevc.mp4", "noise"),
    ("hevc.mp4", "lost"),
    ("vp9.webm", "noise"),
    ("mpeg4.mp4", "noise"),
    ("mjpeg.avi", "cut"),
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The path of a sound video of each kind, made when it is first asked for, and its pictures."""
    folder, made = tmp_path_factory.mktemp("sound"), {}

    def of(kind):
        if kind not in made:
            path = sound_video(folder, kind)
            found = readings(path)
            assert len(found["all"]) == len(found["forward"]) == len(found["watched"]) == COUNT
            assert not any(wrong_pictures(pictures, found["all"]) for pictures in found.values())
            assert not frame_index(path).is_counted
            made[kind] = path, found["all"]
        return made[kind]

    return of


@pytest.mark.parametrize(("kind", "damage"), SHOWN)
def test_no_wrong_picture_is_given_as_good(sound, tmp_path, kind, damage):
    """The second picture of the second group that others refer to; what is before it and behind its group is read."""
    source, pictures = sound(kind)
    place = int(frame_index(source).packets[GROUP + 3])
    found = readings(break_packet(source, tmp_path / kind, damage, place))
    for name in ("all", "verified", *(["one"] if kind != "mjpeg.avi" else [])):  # of which every picture is a group
        assert isinstance(found[name], str), name
        assert "damaged" in found[name] or "cannot be decoded" in found[name]
    for name in found.keys() & {"forward", "forward-4", "watched", "followed"}:
        assert wrong_pictures(found[name], pictures) == []
    times = sorted(pictures)
    for name in found.keys() & {"forward", "watched", "followed"}:
        assert {times[number] for number in (*range(GROUP), *range(2 * GROUP, COUNT))} <= found[name].keys()
        assert len(found[name]) < COUNT


@pytest.mark.parametrize("threads", [2, 8])
def test_threads_hide_no_damage(sound, tmp_path, monkeypatch, threads):
    """With several threads, libav may return a frame before it marks it as corrupt."""
    monkeypatch.setattr("evl.video.decode.container.num_threads", lambda: threads)
    source, pictures = sound("h264.mp4")
    index = frame_index(source)
    last = index.num_frames - 1
    for seed in range(4):
        path = break_packet(source, tmp_path / "broken.mp4", "flip-8", int(index.packets[last - seed]), 0)
        found = readings(path)
        if isinstance(found["verified"], str):  # by one thread
            assert isinstance(found["all"], str)
            assert wrong_pictures(found["forward"], pictures) == []


def test_numbers_of_pictures():
    """What ``PictureNumbers`` says of headers: 4 bits of frame_num, P-slices, no gaps allowed."""
    from evl.video.decode.h264 import PictureNumbers

    def unit(kind, *bits):
        text = "".join(bits)
        text += "1" + "0" * (-(len(text) + 1) % 8)
        return b"\0\0\1" + bytes([kind]) + int(text, 2).to_bytes(len(text) // 8, "big")

    def ue(number):
        digits = f"{number + 1:b}"
        return "0" * (len(digits) - 1) + digits

    def numbers(gaps="0", only_frames="1"):
        sizes = ue(0) + ue(2) + ue(1) + gaps + ue(5) + ue(3) + only_frames  # frame_num, order, references, sides
        sps = unit(0x67, f"{66:08b}", f"{0:016b}", ue(0), sizes)
        return PictureNumbers(sps + unit(0x68, ue(0), ue(0)))

    def picture(number, kind=0x41):
        return unit(kind, ue(0), ue(5), ue(0), f"{number:04b}")

    def gaps(numbers_, *pictures):
        return [numbers_.packet(data, is_key=False)[1] for data in pictures]

    idr, b = picture(0, 0x65), 0x01
    assert gaps(numbers(), idr, picture(1), picture(2, b), picture(2), picture(3)) == [False] * 5
    assert gaps(numbers(), picture(14), picture(15), picture(0), picture(1)) == [False] * 4  # starts anywhere
    assert gaps(numbers(), idr, picture(2), picture(3)) == [False, True, False]  # one is lost
    assert gaps(numbers(), idr, picture(1), picture(1)) == [False, False, True]  # one twice
    assert gaps(numbers(only_frames="0"), idr, picture(1), picture(1)) == [False] * 3  # two fields
    assert gaps(numbers(gaps="1"), idr, picture(5)) == [False] * 2
    assert gaps(numbers(), picture(7), idr, picture(1)) == [False] * 3
    assert gaps(PictureNumbers(None), idr, picture(3)) == [False] * 2  # unknown parameters
    order = numbers()
    assert order.packet(idr, is_key=True) == (True, False)
    assert order.packet(picture(4, b), is_key=False) == (False, True)
    assert order.packet(picture(9), is_key=True) == (True, False)  # decoding can begin here
    order.forget()
    assert order.packet(picture(3), is_key=False) == (True, False)


def test_sizes_in_packets_of_vp9(sound, tmp_path):
    """libvpx would take memory for any size; a packet that claims too many pixels does not reach it."""
    source, _ = sound("vp9.webm")
    with av.open(str(source)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    assert vp9_sizes(packets[0]) == [(96, 64)]
    assert all(vp9_sizes(packet) in ([], [(96, 64)]) for packet in packets)

    def claim(rows):
        bits = f"{int.from_bytes(rows[0][0][:16], 'big'):0128b}"
        at = bits.index(f"{95:016b}{63:016b}")
        rows[0][0] = int(bits[:at] + "1" * 32 + bits[at + 32 :], 2).to_bytes(16, "big") + rows[0][0][16:]

    path = remade(source, tmp_path / "huge.webm", claim)
    found = readings(path)
    assert [found[name] for name in ("all", "verified")] == [
        f"cannot be decoded (a packet claims {2**16}×{2**16} pixels)"
    ] * 2
    assert wrong_pictures(found["forward"], sound("vp9.webm")[1]) == []


def test_no_frame_waits_for_ever(sound):
    """A frame that never comes costs the memory of a few, not of all that follow."""
    source, _ = sound("h264-without-b.mp4")
    index, every = frame_index(source), np.arange(1000)
    many = replace(index, pts=every, seek_to=every, is_key=every == 0, is_shown=every >= 0)
    frames = AwaitedFrames(many, None, marks_keys=True)
    frames.sent(0)
    taken = []

    def take(number):
        frame = av.VideoFrame(2, 2, "rgb24")
        frame.pts = number
        taken.extend(frames.returned(frame))

    for number in range(1, MOST_HELD + 1):
        take(number)
    with pytest.raises(WrongIndexError):
        take(MOST_HELD + 1)
    assert taken == []


def test_a_lost_frame_is_found_by_its_packet(sound):
    index = frame_index(sound("h264.mp4")[0])
    times = index._shown_pts.tolist()
    assert index.lost(times) == []
    assert index.lost(times[:20] + times[21:]) == [20]
    assert index.lost(times[5:]) == []  # a decoder that begins later
    assert index.lost(times[:30]) == list(range(30, COUNT))


FLIPS = ("flip", "flip-8", "zeros-8")
# the largest share of files with a wrong picture that all readers take for good: of small changes, and of large ones
MOST_UNSEEN = {
    "h264.mp4": (0.6, 0.08),
    "h264-without-b.mp4": (0.9, 0.08),
    "h264-cavlc.mkv": (0.25, 0.08),
    "hevc.mp4": (0.7, 0.25),
    "mpeg4.mp4": (0.25, 0.08),
    "vp9.webm": (0.1, 0.4),
    "vp8.webm": (1, 1),
    "mjpeg.avi": (0.85, 0.1),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_broken_packets(sound, tmp_path, kind):
    """What one reader finds, no other gives as good; the share that none can find is bounded, and printed."""
    source, pictures = sound(kind)
    counts, problems = Counter(), []
    also = ("lost",) if kind.startswith(("h264", "hevc")) else ()
    for damage in (*IN_A_PACKET, *also):
        for seed in range(10):
            place = int(np.random.default_rng(seed).integers(1, COUNT))
            found = readings(break_packet(source, tmp_path / kind, damage, place, seed))
            wrong = {
                name: len(wrong_pictures(given, pictures))
                for name, given in found.items()
                if not isinstance(given, str)
            }
            is_found = isinstance(found["all"], str)
            outcome = "refused" if is_found else "wrong" if wrong["all"] else "the same"
            counts["small" if damage in FLIPS else "large", outcome] += 1
            if is_found and sum(wrong.values()):
                problems.append((damage, seed, place, wrong))
    assert problems == []
    print(json.dumps({kind: {" ".join(key): value for key, value in sorted(counts.items())}}))
    for size, most in zip(("small", "large"), MOST_UNSEEN[kind], strict=True):
        total = sum(value for key, value in counts.items() if key[0] == size)
        assert counts[size, "wrong"] <= most * total, (size, counts)
