"""What stands in one place for all folders: is it used, what is above it, whose lock is it, tables."""

import json
import os

import pytest

from evl.errors import RunError, SaveError
from evl.runtime.files import (
    append_json,
    is_used,
    lock_file,
    make_folder,
    nearest_existing,
    read_json_lines,
    refuse_used,
    remove_abandoned,
    write_atomically,
    write_json,
    write_table,
)


def test_a_folder_is_used_where_something_is_in_it(tmp_path):
    out = tmp_path / "out"
    assert not is_used(out)
    make_folder(out)
    refuse_used(out, can_resume=False)
    (out / ".model.json.0123abcd.tmp").write_text("left by a killed program")
    assert not is_used(out)
    (out / ".hidden").write_text("")
    assert is_used(out)
    with pytest.raises(RunError, match=r"out exists already and is not empty; choose another `out`"):
        refuse_used(out, can_resume=False)
    with pytest.raises(RunError, match=r"not empty; go on with `resume=True`, or choose another `out`"):
        refuse_used(out, can_resume=True)
    with pytest.raises(RunError, match="exists already and is not empty"):
        refuse_used(out / ".hidden", can_resume=False)
    with pytest.raises(SaveError, match="no folder can be made here"):
        make_folder(out / ".hidden" / "below")
    with pytest.raises(SaveError, match="no folder can be made here"):
        make_folder(out / ".hidden")


def test_nearest_existing(tmp_path, monkeypatch):
    assert nearest_existing(tmp_path / "a" / "b") == tmp_path
    assert nearest_existing(tmp_path) == tmp_path
    monkeypatch.chdir(tmp_path)
    assert nearest_existing(tmp_path.__class__("a/b")) == tmp_path


def test_a_table_is_written_whole(tmp_path):
    write_table(tmp_path / "t.csv", [("path", "why"), ('a, "b".mp4', 3)])
    assert (tmp_path / "t.csv").read_bytes() == b'path,why\r\n"a, ""b"".mp4",3\r\n'
    with pytest.raises(ZeroDivisionError):
        write_table(tmp_path / "t.csv", ([1 // n] for n in (1, 0)))
    assert b"path" in (tmp_path / "t.csv").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_only_what_nobody_writes_is_removed(tmp_path):
    left = tmp_path / ".a.0123abcd.tmp"
    left.write_bytes(b"half")
    with write_atomically(tmp_path / "b") as file:
        file.write(b"whole")
        file.flush()
        remove_abandoned(tmp_path)
        assert not left.exists()
    assert (tmp_path / "b").read_bytes() == b"whole"


def test_a_lock_is_of_one_until_its_file_is_closed(tmp_path):
    one, other = (os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR) for _ in range(2))
    assert lock_file(one) is True
    assert lock_file(other) is False
    os.close(one)
    assert lock_file(other) is True
    os.close(other)
    assert lock_file(other) is None  # as where there are no locks


def test_lines_of_json_survive_a_crash(tmp_path):
    file = tmp_path / "lines.jsonl"
    assert read_json_lines(file) == []
    append_json(file, {"name": "a\u2028b\udcff", "loss": 0.1})
    with open(file, "ab") as opened:
        opened.write(b'{"name": "cut o')
    append_json(file, {"after": 1})
    assert read_json_lines(file) == [{"name": "a\u2028b\udcff", "loss": 0.1}, {"after": 1}]
    file.write_bytes(b'[1]\nNone\n\xff\n{"last": 2}')
    assert read_json_lines(file) == [{"last": 2}]
    with pytest.raises(SaveError, match="could not be written"):
        append_json(tmp_path, {})


def test_json_holds_names_that_are_not_utf8(tmp_path):
    write_json(tmp_path / "a.json", {"damaged": {"\udcff.mp4": "ü"}})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"damaged": {"\udcff.mp4": "ü"}}
