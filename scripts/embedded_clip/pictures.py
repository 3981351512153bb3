"""Emoji by nine artists, as small pictures with names: python scripts/embedded_clip/pictures.py

Fetches the sets of package.json by npm, matches them by code point or name, and rasterises them (pip install resvg_py).
Writes BUILD/pictures.npz (a set a key: (n,64,64,4) uint8, the drawing cut out and centred; and KEY_of: index of the
name) and BUILD/names.json. Nothing of it is committed.
"""

import argparse
import io
import json
import re
import shutil
import subprocess
import unicodedata
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
SIDE = 64
# the artist whose drawings training never sees, and those it does
HELD_OUT = "twemoji"
SETS = (
    "noto", "noto-v1", "openmoji", "fluent-emoji-flat", "fxemoji", "emojione", "emojione-v1", "streamline-emojis",
    HELD_OUT,
)  # fmt: skip
DROPPED_SUBGROUPS = {
    "country-flag", "subdivision-flag", "keycap", "alphanum", "punctuation", "currency", "math", "av-symbol",
    "arrow", "gender", "skin-tone", "hair-style", "family", "person-symbol",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--build", type=Path, default=HERE / "build")
    build = parser.parse_args().build
    build.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "package.json", build)
    subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"], cwd=build, check=True
    )
    names = read_names(build / "node_modules" / "emojibase-data")
    arrays = {}
    for key in SETS:
        drawings = match(build / "node_modules" / "@iconify-json" / key, names)
        with ProcessPoolExecutor() as pool:
            pictures = list(pool.map(rasterise, drawings.values(), chunksize=64))
        seen = [(index, picture) for index, picture in zip(drawings, pictures, strict=True) if picture is not None]
        arrays[key] = np.stack([picture for _, picture in seen])
        arrays[f"{key}_of"] = np.array([index for index, _ in seen])
        print(f"{key}: {len(seen)} of {len(names)} names", flush=True)
    np.savez(build / "pictures.npz", **arrays)
    (build / "names.json").write_text(json.dumps(names, ensure_ascii=False, indent=0), encoding="utf-8")


def read_names(folder: Path) -> list[dict]:
    """One entry a kind of drawing: label, tags, group, subgroup, code points. Without flags, letters, and the
    variants by gender, skin and hair of one person."""
    groups = json.loads((folder / "meta" / "groups.json").read_text(encoding="utf-8"))
    names = []
    for emoji in json.loads((folder / "en" / "data.json").read_text(encoding="utf-8")):
        if "group" not in emoji:
            continue
        subgroup = groups["subgroups"][str(emoji["subgroup"])]
        parts = emoji["hexcode"].split("-")
        gendered = "200D" in parts and ({"2640", "2642"} & set(parts) or parts[0] in ("1F468", "1F469", "1F9D1"))
        clock = subgroup == "time" and re.search(r"o’clock|thirty", emoji["label"])
        if subgroup in DROPPED_SUBGROUPS or gendered or clock:
            continue
        names.append(
            {
                "label": plain(emoji["label"]),
                "tags": [plain(tag) for tag in emoji.get("tags", []) if plain(tag)],
                "group": groups["groups"][str(emoji["group"])],
                "subgroup": subgroup,
                "code": "-".join(part for part in parts if part != "FE0F").lower(),
            }
        )
    return names


def plain(text: str) -> str:
    """Lower case, letters and digits and single spaces."""
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return " ".join(re.sub(r"[^a-z0-9]+", " ", ascii_only.lower()).split())


def match(folder: Path, names: list[dict]) -> dict[int, str]:
    """Index of a name -> SVG, for one artist's set: by code point where the set tells them, else by its names."""
    data = json.loads((folder / "icons.json").read_text(encoding="utf-8"))
    chars = json.loads((folder / "chars.json").read_text(encoding="utf-8"))
    by_code = {code.replace("-fe0f", ""): icon for code, icon in chars.items()}
    parent = {alias: entry["parent"] for alias, entry in data.get("aliases", {}).items()}
    by_name = {plain(icon).replace(" ", ""): icon for icon in (*parent, *data["icons"])}
    found = {}
    for index, name in enumerate(names):
        icon = by_code.get(name["code"]) or by_name.get(name["label"].replace(" ", ""))
        while icon in parent:
            icon = parent[icon]
        if icon in data["icons"]:
            one = data["icons"][icon]
            width, height = (one.get(side, data.get(side, 16)) for side in ("width", "height"))
            found[index] = (
                f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'viewBox="{one.get("left", 0)} {one.get("top", 0)} {width} {height}">{one["body"]}</svg>'
            )
    return found


def rasterise(svg: str) -> np.ndarray | None:
    """(64,64,4) uint8, what is drawn cut out and centred in the square; None where nothing is."""
    import resvg_py

    try:
        png = resvg_py.svg_to_bytes(svg_string=svg, width=2 * SIDE, skip_system_fonts=True)
    except ValueError:
        return None
    picture = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    box = picture.getchannel("A").point(lambda alpha: 255 * (alpha > 16)).getbbox()
    if box is None or min(box[2] - box[0], box[3] - box[1]) < 8:
        return None
    side = max(box[2] - box[0], box[3] - box[1])
    square = Image.new("RGBA", (side, side))
    square.paste(picture.crop(box), ((side - box[2] + box[0]) // 2, (side - box[3] + box[1]) // 2))
    # premultiplied while resized, so that no colour bleeds in from where nothing is
    return np.asarray(square.convert("RGBa").resize((SIDE, SIDE), Image.Resampling.LANCZOS).convert("RGBA"))


if __name__ == "__main__":
    main()
