"""README's Python and its commands run, with fewer steps, on small videos of its names; every page's options exist."""

import pkgutil
import re
import shlex
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
import typer

from evl.cli.main import app, main
from evl.config import RunConfig

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
LARGE = "vit_base_patch16_clip_quickgelu_224.openai"
# what makes a command of README small, and keeps it in this process
SMALLER = {
    "training.steps=2000": "training.steps=2", "--clips-per-video 10": "--clips-per-video 2",
    "--shots 1,2,4,8,16 --draws 5": "--shots 1,2 --draws 2", "NAME": "evl_clip_tiny", LARGE: "evl_clip_tiny",
}  # fmt: skip
SETTINGS = ("training.steps=2", "training.batch_size=4", "backbone.image_size=32", "model.taps=last 1",
            "clip.num_frames=2", "clip.stride=1", "data.num_workers=0", "evaluation.num_clips=1")  # fmt: skip
OWN = {
    "check": ("--workers", "0"), "evaluate runs/mine": ("--workers", "0"), "predict": ("--workers", "0"),
    "train --data": ("--set", *SETTINGS), "extract --data": ("--workers", "0", "--set", *SETTINGS[1:]),
    "extract --verify": ("--workers", "0", "--sample", "2"),
    "train --features": ("--set", *SETTINGS[:2]), "sweep": ("--set", *SETTINGS[:2]),
}  # fmt: skip


@pytest.fixture
def home(videos, tmp_path, monkeypatch, one_thread):
    """The folder in which a reader of README would be."""
    monkeypatch.chdir(tmp_path)
    for name, source in (("opening a door", "bright"), ("closing a door", "dark")):
        shutil.copytree(videos / source, tmp_path / "videos" / name)
    shutil.copy(videos / "dark/0 video.mp4", tmp_path / "clip1.mp4")
    shutil.copy(videos / "bright/0 video.mp4", tmp_path / "clip2.webm")
    return tmp_path


def commands(text):
    """The command lines of evl in the blocks of a page, without comments."""
    blocks = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, re.M | re.S)
    lines = "\n".join(block for language, block in blocks if language in ("", "sh")).splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip().startswith("evl ")]


def test_python_of_the_readme(home, monkeypatch):
    monkeypatch.setattr("evl.data.splits.default_num_workers", lambda: 0)  # processes would take most of the time
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.S)[1]
    for text, count, small in (
        ("steps=200", 3, 'steps=2, **{"training.batch_size": 4}'),
        ('backbone="evl_clip_tiny"', 2, 'backbone="evl_clip_tiny", image_size=32, num_frames=2, stride=1, num_clips=1'),
    ):
        assert code.count(text) == count
        code = code.replace(text, small)
    names = {}
    exec(compile(code, str(README), "exec"), names)
    assert names["model"].class_names == ("closing a door", "opening a door")
    assert names["prediction"].path == "clip1.mp4"
    assert len(names["clips"]) == 10


@pytest.mark.parametrize(
    ("heading", "count", "made"),
    [
        ("First steps with your own videos", 5, ("runs/first/model.safetensors", "runs/mine/metrics.json")),
        (
            "Features once",
            8,
            ("store/index.parquet", "runs/stored/model.safetensors", "sweeps/lr/best", "runs/few/shots.json"),
        ),
    ],
)
def test_commands_of_the_readme(heading, count, made, home):
    section = re.search(rf"^## {heading}\n(.*?)^## ", README.read_text(), re.M | re.S)[1]
    lines = commands(section)
    assert len(lines) == count
    for words in lines:
        line = shlex.join(words[1:])
        for large, small in SMALLER.items():
            line = line.replace(large, small)
        own = next((more for begin, more in OWN.items() if line.startswith(begin)), ())
        with pytest.raises(SystemExit) as end:
            main([*shlex.split(line), *own])
        assert not end.value.code, line
    assert [path for path in made if not (home / path).exists()] == []


def pages():
    return [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_options_of_all_pages_exist():
    known = typer.main.get_command(app).commands
    wrong, seen = [], 0
    for page in pages():
        text = page.read_text()
        inline = [shlex.split(line) for line in re.findall(r"`(evl [a-z-]+[^`\n]*)`", text) if line.count('"') % 2 == 0]
        for words in [*commands(text), *inline]:
            seen += 1
            if words[1] not in known and words[1].islower():
                wrong.append(f"{page.name}: no command {' '.join(words)}")
                continue
            options = {name for one in getattr(known.get(words[1]), "params", ()) for name in one.opts}
            given = {word.partition("=")[0] for word in words[2:] if word.startswith("--")}
            if words[1] in known and (unknown := given - options - {"--help"}):
                wrong.append(f"{page.name}: {' '.join(words)}: no {sorted(unknown)}")
    assert wrong == []
    assert seen > 100


def test_links_of_all_pages_lead_somewhere():
    """Files beside the page, and headings in them."""
    wrong, seen = [], 0
    for page in pages():
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if "://" in link:
                continue
            seen += 1
            path, _, heading = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.exists() or (heading and heading not in anchors(target)):
                wrong.append(f"{page.name}: {link}")
    assert wrong == []
    assert seen > 100


def test_files_and_names_of_all_pages_exist():
    """Paths in the repository, and names of evl with dots."""
    wrong, seen = [], 0
    for page in pages():
        text = page.read_text()
        for path in re.findall(r"`((?:evl|tests|docs|examples|benchmarks|scripts)/[\w/.]*)`", text):
            seen += 1
            if not (ROOT / path).exists():
                wrong.append(f"{page.name}: {path}")
        for name in re.findall(r"`(evl(?:\.[A-Za-z]\w*)+)", text):
            seen += 1
            try:
                pkgutil.resolve_name(name)
            except (AttributeError, ImportError):
                wrong.append(f"{page.name}: {name}")
    assert wrong == []
    assert seen > 50


def test_every_setting_has_its_place_in_the_table():
    rows = {line.split("`")[1]: line for line in (ROOT / "docs/runs.md").read_text().splitlines() if line[:3] == "| `"}
    for section in fields(RunConfig):
        names = [f"`{one.name}`" for one in fields(getattr(RunConfig(), section.name))]
        assert [name for name in names if name not in rows[section.name]] == []


def anchors(page):
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
