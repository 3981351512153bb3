"""Imports point downward only, room by room and file by file (CONTRIBUTING.md)."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent / "evl"
# a room may import from everything below its level; rooms of one level do not know each other
LEVELS = [
    {"errors", "_version"},
    {"types", "runtime"},
    {"decoders"},
    {"sections"},
    {"config"},
    {"video", "backbones", "models"},
    {"data"},  # lists of videos stand on video
    {"collections"},  # work on whole collections
    {"store"},  # features on disk
    {"extraction"},  # videos -> a store
    {"streams"},  # features from videos, disk or memory: the waist
    {"inference"},
    {"saving"},  # the one class of models, which also predicts
    {"watching"},  # cameras and streams -> events
    {"evaluation"},
    {"training"},
    {"recipes"},
    {"api"},  # what users call: one function for each thing that a command does
    {"datasets"},
    {"demo", "bench"},
    {"cli"},
]
FREE_OF = {
    "recipes": {"training", "evaluation", "inference", "saving", "data", "video", "backbones", "models"},
    # who consumes features does not know where they come from
    "training": {"video"},
}
# the places where live or stored is decided, and what they need for it
DECIDES = {"training/sources.py"}


def modules():
    """Name with dots -> file, of the whole package."""
    found = {}
    for path in ROOT.rglob("*.py"):
        name = ".".join(("evl", *path.relative_to(ROOT).with_suffix("").parts))
        found[name.removesuffix(".__init__")] = path
    return found


def imports(path, known):
    """Names of the modules that a file imports, anywhere in it, or names in a string, as for a fork server."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "evl":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in known else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "evl")
        elif isinstance(node, ast.Constant) and node.value in known and node.value != "evl":
            yield node.value


def test_rooms_point_downward():
    level_of = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
    known, seen = modules(), set()
    for path in known.values():
        place = path.relative_to(ROOT)
        room = place.parts[0].removesuffix(".py")
        if room in ("__init__", "__main__"):
            continue
        assert room in level_of, f"{path}: give the room {room} a level"
        for other in imports(path, known):
            assert other != "evl", f"{path}: inside the package, import from the file that has it"
            there = other.split(".")[1]
            seen.add((room, there))
            assert there == room or level_of[there] < level_of[room], (
                f"{path} imports evl.{there}, which is not below it"
            )
            if place.as_posix() not in DECIDES:
                assert there not in FREE_OF.get(room, ()), f"{path} imports evl.{there}"
    assert ("training", "streams") in seen


def test_files_point_one_way():
    """No circle of files, be it through an import inside a function."""
    known = modules()
    others = {name: {other for other in imports(path, known) if other != name} for name, path in known.items()}
    done: set[str] = set()

    def visit(name, way):
        assert name not in way, " → ".join((*way[way.index(name) :], name))
        if name not in done:
            for other in sorted(others[name]):
                visit(other, (*way, name))
            done.add(name)

    for name in known:
        if name not in ("evl", "evl.__main__"):
            visit(name, ())
    assert len(done) > 100


def test_one_loop_trains_and_one_judges():
    """Whatever trains goes through ``fit``, whatever judges through ``read``; bench times a decoder by itself."""
    texts = {path.relative_to(ROOT).as_posix(): path.read_text() for path in ROOT.rglob("*.py")}
    assert {name for name, text in texts.items() if ".backward(" in text} == {"training/learners.py", "bench/run.py"}
    assert {name for name, text in texts.items() if "inference_mode()" in text} == {"inference/reading.py"}
    assert {name for name, text in texts.items() if "apply_gradients(" in text} == {"training/learner.py"}


def test_files_stay_short():
    long = {str(path): n for path in ROOT.rglob("*.py") if (n := len(path.read_text().splitlines())) > 400}
    assert not long
