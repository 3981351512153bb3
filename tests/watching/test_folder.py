"""A folder into which files are put: each once, when it is complete."""

import os

import pytest

from evl.watching.folder import FolderScan


class Hands:
    """A folder, a clock, and what a scan of it finds."""

    def __init__(self, path, **how):
        self.path, self.now = path, 0.0
        self.scan = FolderScan(str(path), rest=2.0, clock=lambda: self.now, **how)

    def after(self, seconds):
        self.now += seconds
        return [os.path.relpath(one, self.path) for one in self.scan.ready()]


def test_a_file_that_is_written_slowly(tmp_path):
    hands = Hands(tmp_path)
    assert hands.after(0) == []
    (tmp_path / "a.mp4").write_bytes(b"1")
    assert hands.after(1) == []
    (tmp_path / "a.mp4").write_bytes(b"12")
    assert hands.after(1.5) == []
    assert hands.after(1.9) == []
    assert hands.after(0.2) == ["a.mp4"]
    (tmp_path / "a.mp4").write_bytes(b"123")  # too late
    assert [hands.after(5), hands.after(5)] == [[], []]


def test_what_was_renamed_is_complete(tmp_path):
    hands = Hands(tmp_path)
    (tmp_path / ".a.mp4.part").write_bytes(b"1")
    assert [hands.after(0), hands.after(3)] == [[], []]
    (tmp_path / ".a.mp4.part").rename(tmp_path / "a.mp4")
    assert hands.after(0.1) == ["a.mp4"]
    (tmp_path / "a.mp4").rename(tmp_path / "b.mp4")  # the same file
    assert hands.after(9) == []


def test_another_file_with_a_name_that_was_read(tmp_path):
    hands = Hands(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"1")
    assert [hands.after(0), hands.after(3)] == [[], ["a.mp4"]]
    (tmp_path / "new").write_bytes(b"2")
    (tmp_path / "new").replace(tmp_path / "a.mp4")
    assert hands.after(0) == []
    assert hands.after(3) == ["a.mp4"]


def test_only_plain_files_with_the_ending_of_a_video(tmp_path):
    outside = tmp_path / "outside.mp4"
    outside.write_bytes(b"1")
    folder = tmp_path / "in"
    (folder / "sub.mp4").mkdir(parents=True)
    (folder / "link.mp4").symlink_to(outside)
    os.mkfifo(folder / "pipe.mp4")
    for name in (".hidden.mp4", "notes.txt", "empty.mp4", "good\x1b[2J\n.MP4"):
        (folder / name).write_bytes(b"" if name == "empty.mp4" else b"1")
    hands = Hands(folder)
    assert [hands.after(0), hands.after(3)] == [[], ["good\x1b[2J\n.MP4"]]


def test_oldest_first_and_new_ones_only(tmp_path):
    for place, name in enumerate(("c.mp4", "a.mp4", "b.mp4")):
        (tmp_path / name).write_bytes(b"1")
        os.utime(tmp_path / name, (1000 + place, 1000 + place))
    hands, later = Hands(tmp_path), Hands(tmp_path, new_only=True)
    hands.after(0)
    later.after(0)
    (tmp_path / "d.mp4").write_bytes(b"1")
    assert hands.after(3) == ["c.mp4", "a.mp4", "b.mp4"]
    assert [later.after(1), later.after(3)] == [[], ["d.mp4"]]


def test_memory_is_that_of_the_folder(tmp_path):
    hands = Hands(tmp_path)
    for number in range(20):
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(b"1")
        hands.after(0)
        assert hands.after(3) == [path.name]
        path.unlink()
    hands.after(0)
    assert not hands.scan._seen


def test_a_folder_that_is_away(tmp_path):
    hands = Hands(tmp_path / "no")
    with pytest.raises(FileNotFoundError):
        hands.after(0)
