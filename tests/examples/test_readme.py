"""README's Python runs, with fewer steps, on small videos of its names."""

import re
import shutil
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_python_of_the_readme(videos, tmp_path, monkeypatch):
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.S)[1]
    assert code.count("steps=200") == 3
    monkeypatch.chdir(tmp_path)
    for name, source in (("opening a door", "bright"), ("closing a door", "dark")):
        shutil.copytree(videos / source, tmp_path / "videos" / name)
    shutil.copy(videos / "dark/0 video.mp4", tmp_path / "clip1.mp4")
    shutil.copy(videos / "bright/0 video.mp4", tmp_path / "clip2.webm")
    names = {}
    exec(compile(code.replace("steps=200", "steps=2"), str(README), "exec"), names)
    assert names["model"].class_names == ("closing a door", "opening a door")
    assert names["prediction"].path == "clip1.mp4"
    assert len(names["clips"]) == 10
