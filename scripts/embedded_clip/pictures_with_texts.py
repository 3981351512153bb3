"""Batches of still pictures with texts: drawings put on made backgrounds, and what stands where, in words.

No picture moves: positions, sizes and turns are drawn afresh for each. Each has three texts: one that tells whatever it
likes, one of what is there, and one of where, how big and how turned it is.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SMALL = 16  # the shortest side of a drawing, in 64ths of the picture's
MEAN, STD = 0.5, 0.25  # of pixels in 0…1
GROUP_WORDS = {
    "animals-nature": "animal", "food-drink": "food", "travel-places": "place", "objects": "object",
    "people-body": "person", "smileys-emotion": "face", "activities": "game", "symbols": "sign", "flags": "flag",
}  # fmt: skip
KINDS = {  # subgroups that say more than their group
    "animal-mammal": "mammal", "animal-bird": "bird", "animal-marine": "sea animal", "animal-bug": "insect",
    "animal-reptile": "reptile", "plant-flower": "flower", "plant-other": "plant", "food-fruit": "fruit",
    "food-vegetable": "vegetable", "food-prepared": "dish", "food-asian": "dish", "food-sweet": "sweet",
    "drink": "drink", "place-building": "building", "place-religious": "building", "transport-ground": "vehicle",
    "transport-water": "vehicle", "transport-air": "vehicle", "sky-weather": "weather", "clothing": "clothing",
    "tool": "tool", "household": "household thing", "musical-instrument": "musical instrument", "sport": "sport",
}  # fmt: skip


def load_names(build: Path) -> list[dict]:
    return json.loads((build / "names.json").read_text(encoding="utf-8"))


def kind_of(name: dict) -> str:
    return KINDS.get(name["subgroup"], GROUP_WORDS[name["group"]])


@dataclass
class Drawings:
    """``pictures`` (n,4,64,64) float in 0…1, premultiplied; ``half`` the same at 32; ``of``: the name's index."""

    pictures: Tensor
    half: Tensor
    of: list[int]

    @classmethod
    def load(cls, build: Path, artists: list[str]) -> "Drawings":
        with np.load(build / "pictures.npz") as file:
            raw = np.concatenate([file[artist] for artist in artists])
            of = np.concatenate([file[f"{artist}_of"] for artist in artists]).tolist()
        pictures = torch.from_numpy(raw).permute(0, 3, 1, 2).float() / 255
        pictures[:, :3] *= pictures[:, 3:]
        return cls(pictures.half(), F.avg_pool2d(pictures, 2).half(), of)


@dataclass
class Places:
    """Where drawings stand: centres (n,2) and sides (n) as shares of the picture, turns (n) in degrees, clockwise."""

    centre: Tensor
    side: Tensor
    turn: Tensor
    mirrored: Tensor


def put(drawings: Drawings, which: Tensor, places: Places, image_size: int) -> Tensor:
    """(n,4,S,S): each drawing alone at its place, premultiplied."""
    angle = torch.deg2rad(places.turn)
    cos, sin = angle.cos() / places.side, angle.sin() / places.side
    flip = 1.0 - 2.0 * places.mirrored.float()
    # output (x, y) in −1…1 -> the drawing's: move, turn back, scale up
    cx, cy = (2 * places.centre - 1).unbind(1)
    rows = torch.stack([flip * cos, flip * sin, -flip * (cos * cx + sin * cy), -sin, cos, sin * cx - cos * cy], 1).view(
        -1, 2, 3
    )
    out = torch.empty(len(which), 4, image_size, image_size)
    small = places.side * image_size < 40
    for source, chosen in ((drawings.pictures, ~small), (drawings.half, small)):
        index = chosen.nonzero()[:, 0]
        if len(index):
            grid = F.affine_grid(rows[index], (len(index), 4, image_size, image_size), align_corners=False)
            out[index] = F.grid_sample(source[which[index]].float(), grid, align_corners=False)
    return out


def backgrounds(n: int, size: int, rng: torch.Generator) -> Tensor:
    """(n,3,S,S) in 0…1: flat or cloudy at two scales, some with stripes, of any colour."""

    def draw(*shape):
        return torch.rand(*shape, generator=rng)

    flat = draw(n, 3, 1, 1)
    gray = flat.mean(1, keepdim=True).expand_as(flat)
    flat = torch.lerp(gray, flat, draw(n, 1, 1, 1))
    picture = flat.expand(n, 3, size, size).clone()
    for cells in (3, 6, 12, 24):
        strength = (1 - cells / 36) * draw(n, 1, 1, 1) ** 2 * (draw(n, 1, 1, 1) < 0.5)
        coloured = draw(n, 3, cells, cells) - 0.5
        plain = coloured.mean(1, keepdim=True) * 1.5
        noise = torch.lerp(plain.expand_as(coloured), coloured, draw(n, 1, 1, 1))
        picture += strength * F.interpolate(noise, size=(size, size), mode="bicubic", align_corners=False)
    angle, wave, phase = draw(3, n, 1, 1).unbind(0)
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    angle, wave = angle * torch.pi, 6 + 60 * wave**2
    stripes = torch.sin(wave * (x * angle.cos() + y * angle.sin()) + 6.3 * phase)
    stripes = torch.where(draw(n, 1, 1) < 0.5, stripes, stripes.sign())
    picture += (0.25 * draw(n, 1, 1) * (draw(n, 1, 1) < 0.25) * stripes)[:, None]
    return picture


class Maker:
    """Draws batches: ``maker.batch(n)`` -> pixels (n,3,S,S), normalised, and three lists of n texts."""

    def __init__(self, drawings: Drawings, names: list[dict], image_size: int, seed: int):
        self.drawings, self.names, self.image_size = drawings, names, image_size
        self.torch_rng = torch.Generator().manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.drawings_of: dict[int, list[int]] = {}
        for drawing, name in enumerate(drawings.of):
            self.drawings_of.setdefault(name, []).append(drawing)
        self.known = sorted(self.drawings_of)

    def places(self, n: int, few: Tensor) -> Places:
        """``few`` (n): whether it stands alone, and may be large."""

        def draw(*shape):
            return torch.rand(*shape, generator=self.torch_rng)

        largest = torch.where(few, 0.85, 0.5)
        side = 0.22 * (largest / 0.22) ** draw(n)
        margin = (0.42 * side).clamp(max=0.45)[:, None]
        turn = torch.where(draw(n) < 0.4, 12 * (draw(n) - 0.5), 100 * (draw(n) - 0.5))
        return Places(margin + (1 - 2 * margin) * draw(n, 2), side, turn, draw(n) < 0.5)

    def batch(self, n: int) -> tuple[Tensor, list[list[str]]]:
        rng, size = self.rng, self.image_size
        first = rng.choice(self.known, n)
        second = rng.choice(self.known, n)
        which = torch.tensor([rng.choice(self.drawings_of[int(name)]) for name in (*first, *second)])
        two = torch.rand(n, generator=self.torch_rng) < 0.4
        places = self.places(2 * n, ~two.repeat(2))
        _apart(places, n, two)
        layers = put(self.drawings, which, places, size)
        layers[n:] *= two[:, None, None, None]
        gain = 1 + 0.5 * (torch.rand(2 * n, 3, 1, 1, generator=self.torch_rng) - 0.5)
        layers[:, :3] = torch.minimum(layers[:, :3] * gain, layers[:, 3:])
        picture = backgrounds(n, size, self.torch_rng).clamp(0, 1)
        for layer in (layers[n:], layers[:n]):  # the first stands before the second
            picture = picture * (1 - layer[:, 3:]) + layer[:, :3]
        nouns = [self._noun(self.names[name]) for name in first]
        told = [self._described("a thing", i, places, (0.0, 0.0, 0.0)) for i in range(n)]
        return self._taken(picture), [self._texts(first, second, two, places, n), nouns, told]

    def _taken(self, picture: Tensor) -> Tensor:
        """As by a poor camera: light, contrast, noise, some blur."""
        n = len(picture)

        def draw():
            return torch.rand(n, 1, 1, 1, generator=self.torch_rng)

        blurred = F.avg_pool2d(F.pad(picture, (1, 1, 1, 1), mode="replicate"), 3, 1)
        picture = torch.where(draw() < 0.25, torch.lerp(picture, blurred, draw()), picture)
        picture = (picture - 0.5) * (0.7 + 0.6 * draw()) + 0.5 + 0.3 * (draw() - 0.5)
        picture = picture + 0.06 * draw() ** 2 * torch.randn(picture.shape, generator=self.torch_rng)
        return (picture.clamp(0, 1) - MEAN) / STD

    def _texts(self, first, second, two: Tensor, places: Places, n: int) -> list[str]:
        x, y = places.centre.unbind(1)
        texts = []
        for i in range(n):
            one = self._noun(self.names[first[i]])
            if not two[i] or self.rng.random() < 0.3:
                texts.append(self._described(one, i, places))
                continue
            other = self._noun(self.names[second[i]])
            dx, dy = float(x[i] - x[n + i]), float(y[i] - y[n + i])
            if self.rng.random() < 0.25:
                texts.append(f"{self._described(one, i, places)} and {self._described(other, n + i, places)}")
            elif abs(dx) > abs(dy):
                texts.append(f"{one} {'left' if dx < 0 else 'right'} of {other}")
            else:
                texts.append(f"{one} {'above' if dy < 0 else 'below'} {other}")
        return texts

    def _noun(self, name: dict) -> str:
        draw = self.rng.random()
        if draw < 0.15:
            return with_article(kind_of(name))
        if draw < 0.35 and name["tags"]:
            return with_article(self.rng.choice(name["tags"]))
        return with_article(name["label"])

    def _described(self, noun: str, i: int, places: Places, told: tuple[float, ...] | None = None) -> str:
        """With how big, where and how turned, each told or not: below 0.5, 0.6 and 0.4 it is."""
        thing = noun.partition(" ")[2]
        x, y = places.centre[i].tolist()
        side, turn = float(places.side[i]), float(places.turn[i])
        told = self.rng.random(3) if told is None else told
        words = []
        if told[0] < 0.5:
            words.append(_level(side, (0.28, 0.38, 0.5, 0.65), ("tiny", "small", "medium", "big", "huge")))
        words.append(thing)
        if told[1] < 0.6:
            across = _level(x, (0.24, 0.41, 0.59, 0.76), ("far left", "left", "middle", "right", "far right"))
            down = _level(y, (0.24, 0.41, 0.59, 0.76), ("top", "upper", "middle", "lower", "bottom"))
            words.append(f"at the {down} {across}")
        if told[2] < 0.4:
            words.append(_level(turn, (-25, -8, 8, 25), (
                "turned far left", "turned left", "upright", "turned right", "turned far right",
            )))  # fmt: skip
        return with_article(" ".join(words))


def with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _apart(places: Places, n: int, two: Tensor) -> None:
    """Where there are two, moves the second to the other side of the picture if it hides the first."""
    gap = (places.centre[:n] - places.centre[n:]).abs().amax(1)
    near = two & (gap < 0.5 * (places.side[:n] + places.side[n:]))
    places.centre[n:][near] = (places.centre[:n][near] + 0.5) % 1.0
    margin = (0.42 * places.side[n:])[:, None]
    places.centre[n:] = torch.minimum(torch.maximum(places.centre[n:], margin), 1 - margin)


def _level(value: float, bounds: tuple[float, ...], words: tuple[str, ...]) -> str:
    return words[sum(value > bound for bound in bounds)]


def vocabulary(names: list[dict]) -> list[str]:
    """All words that a text may have, sorted."""
    texts = [name["label"] for name in names] + [tag for name in names for tag in name["tags"]]
    texts += [*KINDS.values(), *GROUP_WORDS.values()]
    texts += ["a an the of and at in on with tiny small medium big huge far left right middle top upper lower bottom"]
    texts += ["turned upright above below photo picture drawing video person thing something"]
    return sorted({word for text in texts for word in text.split()})
