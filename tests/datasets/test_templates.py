"""The numbers of `motions`: each template moves as it says, and no single frame says which template it is of."""

from dataclasses import replace

import numpy as np
import pytest

from evl.datasets.drawing import load_objects
from evl.datasets.templates import (
    HALF_TURN,
    LOG_ZOOM,
    NUM_FRAMES,
    SIZE,
    TEMPLATES,
    draw_scene,
    num_objects,
)

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
REVERSIBLE = [
    (one, other)
    for one, (kind, sign) in TEMPLATES.items()
    for other, opposite in TEMPLATES.items()
    if sign == 1 and opposite == (kind, -1)
]


def scenes(template, count, seed=0):
    reaches = [thing.reach for thing in load_objects("train")]
    for i in range(count):
        rng = np.random.default_rng([seed, list(TEMPLATES).index(template), i])
        places = rng.integers(len(reaches), size=num_objects(template, rng))
        yield draw_scene(template, [reaches[place] for place in places], rng)


def places(track):
    return np.stack([track.x, track.y], 1)


def changes(track):
    """Which of an object's numbers change by more than rounding."""
    return {key for key in ("x", "y", "size", "angle", "opacity") if np.ptp(getattr(track, key)) > 1e-9}


@pytest.mark.parametrize("template", TEMPLATES)
def test_scene_is_whole(template):
    for scene in scenes(template, 20):
        assert NUM_FRAMES[0] <= scene.num_frames <= NUM_FRAMES[1]
        assert sorted(scene.order) == list(range(len(scene.tracks)))
        for track in scene.tracks:
            assert {len(getattr(track, key)) for key in ("x", "y", "size", "angle", "opacity")} == {scene.num_frames}
            assert np.abs(places(track)).max() < SIZE / 2 + 6  # centres stay in the picture, or next to it
            assert 0 <= track.opacity.min() <= track.opacity.max() <= 1
        for track in scene.tracks[2:]:
            assert not changes(track)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_one_object_moves_along_an_axis(name):
    template = f"moving something {name}"
    axis = 0 if name in ("left", "right") else 1
    for scene in scenes(template, 30):
        first, second = scene.tracks[:2]
        assert changes(first) == {"xy"[axis]}
        assert not changes(second)
        steps = np.diff(places(first)[:, axis]) * DIRECTIONS[name][axis]
        assert steps.min() >= -1e-9
        assert 20 < steps.sum() < 40


def test_size_angle_and_opacity_run_one_way():
    for opposite, template in enumerate(("something coming closer", "something going away")):
        for scene in scenes(template, 20):
            assert changes(scene.tracks[0]) == {"size"}
            ratio = np.log(scene.tracks[0].size[-1] / scene.tracks[0].size[0]) * (-1 if opposite else 1)
            assert 2 * LOG_ZOOM[0] - 1e-9 <= ratio <= 2 * LOG_ZOOM[1] + 1e-9
    for opposite, template in enumerate(("turning something clockwise", "turning something counter-clockwise")):
        for scene in scenes(template, 20):
            assert changes(scene.tracks[0]) == {"angle"}
            turned = np.ptp(scene.tracks[0].angle) * np.sign(scene.tracks[0].angle[-1] - scene.tracks[0].angle[0])
            assert 2 * HALF_TURN[0] - 1e-9 <= turned * (-1 if opposite else 1) <= 2 * HALF_TURN[1] + 1e-9
    for opposite, template in enumerate(("something appearing", "something disappearing")):
        for scene in scenes(template, 20):
            assert changes(scene.tracks[0]) == {"opacity"}
            before, after = scene.tracks[0].opacity[[-1, 0] if opposite else [0, -1]]
            assert before == 0
            assert after > 0.4


def test_past_goes_by_on_one_side():
    for scene in scenes("moving something past something", 50):
        first, second = scene.tracks[:2]
        assert not changes(second)
        way = places(first) - places(second)
        along = way[-1] - way[0]
        along /= np.linalg.norm(along)
        assert (way @ along)[0] < -15
        assert (way @ along)[-1] > 15
        aside = way @ np.array([-along[1], along[0]])
        assert np.ptp(aside) < 1e-6


def test_collision_ends_where_it_stops_both():
    for scene in scenes("something colliding with something and both stopping", 50):
        one, other = (places(track) for track in scene.tracks[:2])
        distance = np.linalg.norm(one - other, axis=1)
        assert np.diff(distance).max() < 1e-6
        assert distance[0] - distance[-1] > 20
        assert distance[-1] == pytest.approx(distance[-4])  # the last quarter, at least, stands
        for way in (one, other):
            assert np.linalg.norm(way[-1] - way[0]) > 8


def test_push_moves_the_first_from_touch_on():
    for scene in scenes("pushing something so that it slides", 50):
        slid, pusher = (places(track) for track in scene.tracks[:2])
        distance = np.linalg.norm(slid - pusher, axis=1)
        way = slid[-1] - slid[0]
        assert 20 - 1e-9 <= np.linalg.norm(way) <= 32 + 1e-9
        assert way @ (slid[0] - pusher[0]) > 0
        touched = np.count_nonzero(np.linalg.norm(slid - slid[0], axis=1) < 1e-9)  # frames in which it still stands
        assert distance[0] > distance[touched - 1] + 1
        assert distance[touched - 1] < distance.min() + 8  # at most a step of the pusher before they touch
        assert distance[-1] > distance.min() + 8  # it goes on alone
        assert np.linalg.norm(pusher[-1] - pusher[-3]) < 1e-9


def test_swap_ends_at_each_others_places():
    for scene in scenes("two somethings swapping places", 50):
        one, other = (places(track) for track in scene.tracks[:2])
        np.testing.assert_allclose(one[0], other[-1], atol=1e-6)
        np.testing.assert_allclose(one[-1], other[0], atol=1e-6)
        assert np.linalg.norm(one - other, axis=1).min() > 3


def frame_statistics(found):
    """(scenes, 22): what single frames show of the first object and of the second beside it, and its squares and
    products, averaged over a scene's frames."""
    rows = []
    for scene in found:
        first, second = scene.tracks[:2]
        apart = places(second) - places(first)
        shown = np.stack(
            [first.x / 30, first.y / 30, np.log(first.size / 30), first.angle / 50, first.opacity, second.angle / 50,
             *apart.T / 30], 1
        )  # fmt: skip
        products = [shown[:, 0] * shown[:, 6], shown[:, 1] * shown[:, 7], shown[:, 3] * shown[:, 6],
                    shown[:, 3] * shown[:, 7], shown[:, 2] * shown[:, 6], shown[:, 6] * shown[:, 7]]  # fmt: skip
        rows.append(np.concatenate([shown, shown**2, np.stack(products, 1)], 1).mean(0))
    return np.array(rows)


def differences(one, other):
    """Of two classes' means, in standard errors."""
    error = np.sqrt(one.var(0) / len(one) + other.var(0) / len(other))
    return np.abs(one.mean(0) - other.mean(0)) / (error + 1e-9)


@pytest.mark.parametrize(("one", "other"), REVERSIBLE)
def test_frames_of_opposite_classes_are_alike(one, other):
    assert differences(*(frame_statistics(scenes(t, 250, seed=3)) for t in (one, other))).max() < 4.5


@pytest.mark.parametrize(("one", "other"), REVERSIBLE[:4])
def test_the_measure_sees_a_drawn_start(one, other):
    """Were the start drawn where the middle is drawn now, frames would tell; the test above must notice."""

    def from_start(scene):
        first = scene.tracks[0]
        moved = {
            key: getattr(first, key) * 1.0 + (getattr(first, key)[-1] - getattr(first, key)[0]) / 2
            for key in ("x", "y", "angle")
        }
        moved["size"] = first.size * np.sqrt(first.size[-1] / first.size[0])
        return replace(scene, tracks=(replace(first, **moved), *scene.tracks[1:]))

    found = ([from_start(scene) for scene in scenes(t, 250, seed=3)] for t in (one, other))
    assert differences(*map(frame_statistics, found)).max() > 9


@pytest.mark.parametrize("template", TEMPLATES)
def test_number_of_visible_objects_tells_nothing(template):
    shares = np.zeros(6)
    for scene in scenes(template, 300, seed=5):
        seen = sum(track.opacity > 0.5 * track.opacity.max() for track in scene.tracks)
        shares += np.bincount(seen, minlength=6) / scene.num_frames / 300
    np.testing.assert_allclose(shares, [0, 0, 0.25, 0.5, 0.25, 0], atol=0.12)


def test_sizes_and_angles_are_drawn_alike_in_all_classes():
    """Of the first object, over all frames: mean and spread of the logarithm of size, spread of the angle."""
    for template in TEMPLATES:
        found = list(scenes(template, 200, seed=7))
        size = np.concatenate([np.log(scene.tracks[0].size) for scene in found])
        angle = np.concatenate([scene.tracks[0].angle for scene in found])
        assert size.mean() == pytest.approx(np.log(29.9), abs=0.08), template
        assert size.std() == pytest.approx(0.235, abs=0.05), template
        assert angle.mean() == pytest.approx(0, abs=14), template
        assert angle.std() == pytest.approx(38, abs=8), template
