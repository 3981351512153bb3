"""Pictures and texts that the embedded CLIP was trained on: what the text says is where the picture shows it."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "scripts" / "embedded_clip"
pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = [
    {"label": "red apple", "tags": ["fruit"], "group": "food-drink", "subgroup": "food-fruit"},
    {"label": "owl", "tags": [], "group": "animals-nature", "subgroup": "animal-bird"},
]


@pytest.fixture(scope="module")
def pictures():
    sys.path.insert(0, str(SCRIPTS))
    try:
        import pictures_with_texts

        yield pictures_with_texts
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.fixture
def drawings(pictures):
    """Two opaque drawings: a square that is white above and black below, and a bar that lies."""
    square = torch.zeros(4, 64, 64)
    square[3], square[:3, :32] = 1, 1
    bar = torch.zeros(4, 64, 64)
    bar[:, 24:40] = 1
    both = torch.stack([square, bar])
    return pictures.Drawings(both.half(), torch.nn.functional.avg_pool2d(both, 2).half(), [0, 1])


def places(pictures, **changes):
    one = dict(centre=[[0.5, 0.5]], side=[0.5], turn=[0.0], mirrored=[False]) | changes
    return pictures.Places(*(torch.tensor(one[key]) for key in ("centre", "side", "turn", "mirrored")))


@pytest.mark.parametrize("size", [48, 64])
@pytest.mark.parametrize(("centre", "side"), [((0.25, 0.7), 0.3), ((0.6, 0.5), 0.75)])
def test_a_drawing_is_where_and_as_large_as_asked(pictures, drawings, size, centre, side):
    layer = pictures.put(drawings, torch.tensor([0]), places(pictures, centre=[centre], side=[side]), size)[0]
    weight = layer[3]
    ramp = (torch.arange(size) + 0.5) / size
    x, y = (weight.sum(0) @ ramp / weight.sum()).item(), (weight.sum(1) @ ramp / weight.sum()).item()
    assert (x, y) == pytest.approx(centre, abs=0.01)
    assert weight.mean().item() == pytest.approx(side**2, rel=0.06)
    assert weight.max() <= 1


def test_turned_right_is_clockwise(pictures, drawings):
    layer = pictures.put(drawings, torch.tensor([1]), places(pictures, turn=[30.0], side=[0.9]), 64)[0, 3]
    left, right = layer[:, 12].nonzero().float().mean(), layer[:, 51].nonzero().float().mean()
    assert right - left == pytest.approx(39 * np.tan(np.radians(30)), rel=0.1)  # rows count downwards


def test_texts_say_what_is_seen(pictures, drawings):
    """The parts of a text against the place it was made of, for many draws."""
    maker = pictures.Maker(drawings, NAMES, 64, seed=5)
    where = maker.places(400, torch.ones(400, dtype=torch.bool))
    for i in range(400):
        text = maker._described("an owl", i, where, (0.0, 0.0, 0.0))
        x, side, turn = float(where.centre[i, 0]), float(where.side[i]), float(where.turn[i])
        assert text.startswith(("a tiny owl", "a small owl", "a medium owl", "a big owl", "a huge owl"))
        assert ("tiny" in text) == (side <= 0.28)
        at = text.partition(" at the ")[2].partition(" turned")[0].partition(" upright")[0]
        assert at.endswith("left") == (x <= 0.41)
        assert at.endswith("far right") == (x > 0.76)
        assert ("turned right" in text or "turned far right" in text) == (turn > 8)
        assert ("upright" in text) == (-8 < turn <= 8)


def test_a_batch(pictures, drawings):
    pixels, texts = pictures.Maker(drawings, NAMES, 48, seed=1).batch(40)
    again, same = pictures.Maker(drawings, NAMES, 48, seed=1).batch(40)
    assert pixels.shape == (40, 3, 48, 48)
    assert torch.equal(pixels, again)
    assert texts == same
    assert [len(kind) for kind in texts] == [40, 40, 40]
    assert set(texts[1]) <= {"a red apple", "an owl", "a fruit", "a bird"}
    assert all("thing" in text for text in texts[2])
    known = set(pictures.vocabulary(NAMES))
    assert {word for kind in texts for text in kind for word in text.split()} <= known
