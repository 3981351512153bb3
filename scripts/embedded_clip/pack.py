"""The trained CLIP as it is shipped: python scripts/embedded_clip/pack.py BUILD/clip.safetensors

Half precision, and in the file's metadata the sizes and words that it takes to read it, how it was trained, and the
figures of judge.py, measured on the half-precision weights.
"""

import json
import sys
from pathlib import Path

from judge import judge
from pictures import HELD_OUT, HERE, SETS
from pictures_with_texts import Drawings, load_names
from safetensors import safe_open
from safetensors.torch import save_file
from train import Sizes, SmallCLIP

OUT = HERE.parents[1] / "evl" / "assets" / "evl_clip_tiny.safetensors"


def main(path: Path, build: Path) -> None:
    with safe_open(path, "pt") as file:
        told = json.loads(file.metadata()["clip"])
        state = {key: file.get_tensor(key).half() for key in file.keys()}  # noqa: SIM118
    sizes, names = Sizes(**told["sizes"]), load_names(build)
    held_out = Drawings.load(build, [HELD_OUT])
    seen = Drawings.load(build, [artist for artist in SETS if artist not in told["recipe"]["hold_out"]])
    judged = {}
    for which in ("trained", "untrained"):
        model = SmallCLIP(sizes, told["words"])
        if which == "trained":
            model.load_state_dict({key: value.float() for key, value in state.items()})
        judged[which] = judge(model, held_out, names, seen)
        print(which, json.dumps(judged[which]))
    kept = {key: told[key] for key in ("sizes", "words")}
    recipe = {key: told["recipe"][key] for key in ("steps", "batch", "lr", "hold_out", "seed")} | {
        "curve": told["curve"]
    }
    save_file(state, OUT, {"clip": json.dumps(kept | {"recipe": recipe, "judged": judged})})
    print(OUT, f"{OUT.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else HERE / "build")
