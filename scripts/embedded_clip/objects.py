"""The pictures that the demo's videos are drawn with: python scripts/embedded_clip/objects.py

From BUILD/pictures.npz to evl/assets/objects.png, an atlas, and objects.json: what each is, who drew it, and which
split it is for. Objects and artists of the splits are disjoint; ``val`` is for choosing settings.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
CELL, COLUMNS = 48, 24
_COARSE = np.array([True, True, True, False])  # five bits a colour, eight of transparency
CATEGORIES = {
    "animal": {"animal-mammal", "animal-bird", "animal-reptile", "animal-marine", "animal-bug"},
    "plant": {"plant-flower", "plant-other"},
    "fruit or vegetable": {"food-fruit", "food-vegetable"},
    "prepared food": {"food-prepared", "food-asian", "food-sweet"},
    "vehicle": {"transport-ground", "transport-water", "transport-air"},
    "clothing": {"clothing"},
    "tool": {"tool", "household"},
    "building": {"place-building"},
}
# signs, parts, places and symbols, and what should not fly about; drawings of one thing from two sides are one object
NO_OBJECTS = {
    "barber pole", "bus stop", "construction", "fuel pump", "horizontal traffic light", "motorway", "oil drum",
    "police car light", "railway track", "seat", "stop sign", "vertical traffic light", "wheel", "anchor",
    "ring buoy", "airplane arrival", "airplane departure", "paw prints", "houses", "brick", "wood",
    "building construction", "chains", "link", "balance scale", "hook", "microbe", "coral", "rosette", "white flower",
    "empty nest", "nest with eggs", "ring", "hair pick", "lipstick", "prayer beads", "bikini", "briefs",
    "one piece swimsuit", "satellite", "station", "broken chain", "rock", "wedding", "statue of liberty",
    "japanese post office", "moai", "identification card", "placard", "bubbles", "elevator", "mirror", "window",
    "toilet", "bomb", "crossed swords", "dagger", "water pistol", "leafless tree", "leaf fluttering in wind",
    "spider web", "gem stone", "feather", "wing", "salt", "spiral shell",
}  # fmt: skip
ARTISTS = {"train": ("noto", "fluent-emoji-flat"), "val": ("fxemoji",), "test": ("twemoji",)}
LICENSES = {
    "noto": "Apache-2.0", "fluent-emoji-flat": "MIT", "fxemoji": "Apache-2.0", "twemoji": "CC-BY-4.0",
}  # fmt: skip
SHARES = {"val": 0.16, "test": 0.3, "train": 1.0}  # of the objects of a category that are left
MOST = 14  # objects a category and split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--build", type=Path, default=HERE / "build")
    parser.add_argument("--out", type=Path, default=HERE.parents[1] / "evl" / "assets")
    options = parser.parse_args()
    names = json.loads((options.build / "names.json").read_text(encoding="utf-8"))
    with np.load(options.build / "pictures.npz") as file:
        drawn = {
            artist: dict(zip(file[f"{artist}_of"].tolist(), file[artist], strict=True))
            for artists in ARTISTS.values() for artist in artists
        }  # fmt: skip
    generator = np.random.default_rng(0)
    entries, cells = [], []
    for category, subgroups in CATEGORIES.items():
        kinds = defaultdict(list)  # what is one object, such as "dog" and "dog face"
        for index, name in enumerate(names):
            label = name["label"]
            if name["subgroup"] in subgroups and label not in NO_OBJECTS and not label.startswith("oncoming"):
                kinds[label.removesuffix(" face").split()[-1]].append(index)
        left = [kinds[key] for key in sorted(kinds)]
        for split, share in SHARES.items():
            usable = [
                kind for kind in left if any(all(_is_usable(drawn[a].get(i)) for a in ARTISTS[split]) for i in kind)
            ]
            for place in generator.permutation(len(usable))[: min(MOST, round(share * len(left)))]:
                kind = usable[place]
                left.remove(kind)
                index = next(i for i in kind if all(_is_usable(drawn[a].get(i)) for a in ARTISTS[split]))
                for artist in ARTISTS[split]:
                    label = names[index]["label"]
                    entries.append({"name": label, "category": category, "artist": artist, "split": split})
                    cells.append(Image.fromarray(drawn[artist][index], "RGBA"))
    rows = -(-len(cells) // COLUMNS)
    atlas = Image.new("RGBA", (COLUMNS * CELL, rows * CELL))
    for place, cell in enumerate(cells):
        small = cell.convert("RGBa").resize((CELL, CELL), Image.Resampling.LANCZOS).convert("RGBA")
        small = Image.fromarray(np.where(_COARSE, (np.asarray(small) & 0xF8) | 4, np.asarray(small)))  # a smaller file
        atlas.paste(small, (place % COLUMNS * CELL, place // COLUMNS * CELL))
    options.out.mkdir(parents=True, exist_ok=True)
    atlas.save(options.out / "objects.png", optimize=True)
    content = {"cell": CELL, "columns": COLUMNS, "licences": LICENSES, "pictures": entries}
    (options.out / "objects.json").write_text(json.dumps(content, indent=0) + "\n", encoding="utf-8")
    print(len(entries), "pictures;", {s: sum(e["split"] == s for e in entries) for s in SHARES})


def _is_usable(picture: np.ndarray | None) -> bool:
    """Drawn, neither thin nor faint, and not the same however it is turned."""
    if picture is None or (picture[..., 3] > 128).mean() < 0.2:
        return False
    image = Image.fromarray(picture, "RGBA").convert("RGBa")
    turned = image.rotate(40, Image.Resampling.BILINEAR)
    return np.abs(np.asarray(image, float) - np.asarray(turned, float)).mean() > 22


if __name__ == "__main__":
    main()
