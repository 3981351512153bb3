"""Streams with broken packets: what is given is what the sound stream has, and what is left out is counted and said."""

import os

import av
import pytest

from evl.cli.show_watch import _summary
from evl.video.decode.live_frames import LiveFrames
from tests.broken_packets import (
    COUNT,
    GROUP,
    break_packet,
    frames_watched,
    remade,
    sound_video,
    watched,
    wrong_pictures,
)
from tests.watching.servers import http_server
from tests.watching.test_sources import events_of


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A transport stream of each kind, and its pictures by time."""
    folder, made = tmp_path_factory.mktemp("sound"), {}

    def of(kind):
        if kind not in made:
            path = remade(sound_video(folder, f"{kind}.mp4"), folder / f"{kind}.ts", lambda rows: None)
            made[kind] = path, watched(path, follow=True)
            assert len(made[kind][1]) == COUNT
        return made[kind]

    return of


@pytest.mark.parametrize(
    ("kind", "damage", "place"),
    [
        ("h264", "cut", GROUP + 3),
        ("h264", "lost", GROUP + 4),
        ("h264-without-b", "lost", GROUP + 3),
        ("h264-without-b", "cut", GROUP + 6),  # which several threads do not report
        ("hevc", "noise", GROUP + 4),
        ("hevc", "lost", GROUP + 4),
    ],
)
def test_no_wrong_picture_is_given(sound, tmp_path, kind, damage, place):
    path, every = sound(kind)
    found, num_damaged = frames_watched(break_packet(path, tmp_path / "broken.ts", damage, place), follow=True)
    shown = {round(one.time_seconds * 1e6): one.rgb().transpose(2, 0, 1) for one in found}
    assert wrong_pictures(shown, every) == []
    times = sorted(every)
    assert {times[number] for number in (*range(GROUP), *range(2 * GROUP, COUNT))} <= shown.keys()
    assert COUNT - GROUP <= len(shown) < COUNT - 1
    assert 0 < num_damaged == sum(one.left_out for one in found)
    assert COUNT - len(shown) - num_damaged <= (damage != "cut")  # what does not arrive is no frame to leave out


def test_it_is_said(sound, tmp_path, watched, capsys):
    broken = break_packet(sound("h264")[0], tmp_path / "broken.ts", "cut", GROUP + 3)
    with http_server([("length", broken.read_bytes())]) as (url, _):
        watch = watched([url])
        events = events_of(watch)
    totals = watch.totals()
    assert totals.frames + totals.damaged == COUNT
    assert totals.damaged > 5
    said = [event.text for event in events if event.state == "damaged"]
    assert said[-1].endswith(f"({totals.damaged} so far); damaged, or after damaged ones: left out")
    _summary(totals)
    assert f"{totals.damaged} frames damaged or after damaged ones" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("kind", ["h264", "hevc"])
def test_a_stream_that_is_joined_in_the_middle(sound, tmp_path, kind):
    path, every = sound(kind)
    (tmp_path / "rest.ts").write_bytes(path.read_bytes()[188 * 20 :])
    found = watched(tmp_path / "rest.ts", follow=True)
    assert wrong_pictures(found, every) == []
    assert COUNT - 2 * GROUP <= len(found) < COUNT


def test_a_source_of_damaged_frames_is_opened_again(sound, tmp_path, watched, monkeypatch):
    monkeypatch.setattr("evl.watching.opening.MOST_DAMAGED", 4)
    broken = break_packet(sound("h264")[0], tmp_path / "broken.ts", "cut", GROUP + 3).read_bytes()
    with http_server(broken) as (url, _):
        events = events_of(watched([url], retries=0))
    assert "frames in a row are damaged; it is opened again" in " ".join(str(event.text) for event in events)


@pytest.mark.parametrize("since", [0, GROUP])
def test_packets_without_a_frame(sound, since):
    """Where it was certain that packets are pictures, it is damage. Where it never was, two groups are left out."""
    with av.open(os.fspath(sound("h264")[0])) as container:
        stream = container.streams.video[0]
        live, given = LiveFrames(container, stream), []
        for number, packet in enumerate(packet for packet in container.demux(stream) if packet.size):
            stream.codec_context.skip_frame = "NONREF" if number >= since else "DEFAULT"  # no B-frames, and no error
            given += live.decode(packet)
        given += live.end()
        unit = 1e6 * stream.time_base
    times = sorted(sound("h264")[1])
    numbers = {times.index(round(frame.pts * unit)) for frame in given}
    if since:
        assert numbers >= {*range(GROUP)}
        assert len(numbers) < 2 * GROUP
        assert len(numbers) + live.left_out == COUNT
    else:  # every frame that comes is given
        assert numbers >= {24, 25, 27, 28, 30, 31, 33, 35, 36, 37, 39}
