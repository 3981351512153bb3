"""Imports point downward only (DESIGN.md section 2)."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent / "evl"
# a room may import from its own level's named friends and from everything below; siblings do not know each other
LEVELS = [
    {"errors", "lazy"},
    {"types", "files", "main_guard"},
    {"config", "heap", "onednn", "time_left"},
    {"distributed"},
    {"video", "backbones", "models"},
    {"data"},  # lists of videos stand on video
    {"features"},  # the backbone's words on disk
    {"assembly"},
    {"inference"},
    {"evaluation"},
    {"training"},
    {"recipes"},
    {"demo", "bench"},
    {"cli"},
]
FREE_OF = {"recipes": {"training", "evaluation", "inference", "assembly", "data", "video", "backbones", "models"}}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "evl":
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("evl."))


def test_imports_point_downward():
    level_of = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
    seen = set()
    for path in ROOT.rglob("*.py"):
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if room in ("__init__", "__main__"):
            continue
        assert room in level_of, f"{path}: give the room {room} a level"
        for other in imports(path):
            if other == "__version__":
                continue
            seen.add((room, other))
            assert other == room or level_of[other] < level_of[room], (
                f"{path} imports evl.{other}, which is not below it"
            )
            assert other not in FREE_OF.get(room, ()), f"{path} imports evl.{other}"
    assert ("training", "evaluation") in seen


def test_files_stay_short():
    long = {str(path): n for path in ROOT.rglob("*.py") if (n := len(path.read_text().splitlines())) > 400}
    assert not long
