"""Frames and times of files of every structure, against decoding everything with plain PyAV and against the number
that is drawn into each picture."""

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import VideoReformatter

from evl.video.decode.index import counted_index, frame_index, probe
from evl.video.decode.reader import read_clip, read_frames
from tests.broken_packets import frames_watched
from tests.helpers import Wanted, number_of
from tests.structures import STRUCTURES, make_structure, shown


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("structures")


def decode_all(path):
    """The plain way: every frame in the order the decoder gives them, (3,H,W) upright; times; key frames; rotation."""
    frames, times, keys, rotation, reformatter = [], [], [], 0, VideoReformatter()
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.video[0]):
            assert not frame.is_corrupt
            if frame.key_frame:
                keys.append(len(frames))
            rotation = frame.rotation
            picture = np.rot90(reformatter.reformat(frame, format="rgb24").to_ndarray(), k=round(rotation / 90))
            frames.append(torch.from_numpy(picture.copy()).permute(2, 0, 1))
            times.append(frame.time)
    return frames, times, keys, rotation


def singles(count, keys):
    """First, last, around key frames, and a few in between: about a dozen."""
    near = {key + step for key in keys[1:3] for step in (-1, 0, 1)}
    spread = {0, 1, count // 3, count // 2, count - 2, count - 1}
    return [index for index in sorted(near | spread) if 0 <= index < count]


@pytest.mark.parametrize("name", STRUCTURES)
def test_frames_and_times_as_by_decoding_everything(folder, name):
    path = make_structure(folder, name)
    frames, times, keys, rotation = decode_all(path)
    upright = [frame.rot90(round(rotation / 90), (2, 1)) for frame in frames]  # as it was drawn
    assert [number_of(frame) for frame in upright] == list(shown(name))  # the made file is what its name says

    by_packets, counted = frame_index(path), counted_index(path)
    assert by_packets.num_frames == counted.num_frames
    assert np.allclose(by_packets.times_seconds, counted.times_seconds, rtol=0, atol=1e-6)

    info = probe(path)
    count = len(frames)
    taken, num_damaged = frames_watched(path)
    assert len(taken) + num_damaged == count
    assert num_damaged == (2 if name in ("joined.ts", "size-changes.ts") else 0)  # their counters jump
    assert info.num_frames == count
    assert (info.height, info.width) == frames[0].shape[1:]
    assert list(info.times_seconds) == sorted(info.times_seconds)
    if None not in times and not info.clock_jumps:  # raw streams have none; joined ones: test_clock
        assert np.allclose(info.times_seconds, sorted(times), rtol=0, atol=1e-6)

    part = read_clip(path, Wanted(lambda number: range(number)), verify=True).frames  # as training meets it first
    assert len(part) == count
    assert all(torch.equal(a, b) for a, b in zip(part, frames, strict=True) if a.shape == b.shape)
    heard = []
    unverified = read_clip(path, Wanted(lambda number: heard.append(number) or range(0, number, 7))).frames
    assert heard[-1] == count
    assert all(torch.equal(a, b) for a, b in zip(unverified, frames[::7], strict=True) if a.shape == b.shape)

    for index in singles(count, keys):
        (frame,) = read_frames(path, [index])
        assert torch.equal(frame, frames[index]), f"frame {index} alone"
    stride = max((count - 1) // 7, 1)
    last = min(7 * stride, count - 1)
    sets = {
        "all": list(range(count)),
        "sparse clip": list(range(0, last + 1, stride)),
        "clip at the end": list(range(count - 1 - last % count, count, stride)),
        "unsorted with repeats": [count - 1, count // 2, 0, count // 2, count // 3, count - 1, 0],
        "neighbors backwards": list(range(count // 2, max(count // 2 - 9, -1), -1)),
    }
    for kind, indices in sets.items():
        read = read_frames(path, indices)
        assert read.dtype == torch.uint8
        assert read.shape == (len(indices), *frames[min(indices)].shape)
        for index, frame in zip(indices, read, strict=True):
            if frames[index].shape == frame.shape:
                assert torch.equal(frame, frames[index]), f"{kind}: frame {index}"
            else:  # the stream changes size: brought to the size of the first wanted frame
                assert number_of(frame) == shown(name)[index], f"{kind}: frame {index}"


def test_the_collection_is_large_and_most_of_it_is_read_by_seeking(folder):
    assert len(STRUCTURES) >= 45
    some = list(STRUCTURES)[::4]
    by_packets = [name for name in some if not frame_index(make_structure(folder, name)).is_counted]
    assert len(by_packets) >= 20
