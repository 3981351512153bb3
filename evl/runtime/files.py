"""Paths with ``~``; files that are written under a temporary name and then renamed, so that no failure leaves half a
file; checks of folders; JSON and YAML from untrusted files."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import yaml

from evl.errors import ExistsError, RunError, SaveError, one_line

_AnyPath = TypeVar("_AnyPath", str, bytes, Path)
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.(tmp|old)")
_LOCK = re.compile(r"\.(.+\.)?evl\.lock")


def expand_home(path: _AnyPath) -> _AnyPath:
    """``path``, in its own type, with a leading ``~`` or ``~user`` replaced by that user's home folder.

    Call this for every path that a user gives. A shell does not expand ``--out=~/x``, and paths in lists, settings and
    Python never pass through a shell. A file that is named ``~`` is given by its full path, or as ``./~`` in a list.
    """
    expanded = os.path.expanduser(path)
    return Path(expanded) if isinstance(path, Path) else expanded


@contextmanager
def write_atomically(
    path: str | Path, *, text: bool = False, sync: bool = True, only_new: bool = False, one_of_many: bool = False
) -> Iterator:
    """Opens a file for writing; ``path`` appears complete when the block ends, and stays as it was if the block fails.

    ``only_new``: raises ExistsError if ``path`` exists when the block ends, whichever process made it.
    ``sync=False`` does not wait for the disk: the file is complete if the program is killed, but perhaps not after a
    power failure. A killed program leaves a hidden file in the folder, which the next call for ``path`` removes.
    ``one_of_many``: it does not, because the folder may have very many files; ``remove_abandoned`` does.

    Raises SaveError if the system cannot write (disk full, no permission).
    """
    path = expand_home(Path(path))
    temporary, lock = None, None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not one_of_many:
            remove_strays(path)
        temporary, file, lock = _begin(path, text)
        with file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        (_link if only_new else os.replace)(temporary, path)
    except SaveError:
        raise
    except OSError as error:
        raise SaveError(
            f"{path} could not be written ({error.strerror or error}); its old content is unchanged"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            if temporary is not None:
                temporary.unlink()
        if lock is not None:
            os.close(lock)


def require_plain_file(path: str | Path) -> None:
    """Raises OSError if the path exists and is no plain file. Opening a pipe or a device could wait for ever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a plain file")


def remove_abandoned(folder: str | Path) -> None:
    """Removes what killed processes left in a folder, and in all folders below: temporary files and folders.

    Those that any process still writes are kept, if the file system has locks. A folder that does not exist is no
    error.
    """
    for parent, folders, names in os.walk(folder):
        for name in filter(is_temporary, (*folders, *names)):
            _remove_if_abandoned(Path(parent, name))
        folders[:] = [name for name in folders if not is_temporary(name)]


def remove_strays(path: Path) -> None:
    """Removes what killed processes left beside ``path`` while they wrote it."""
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        found = [entry.name for entry in entries if entry.name.startswith(f".{path.name}.")]
        for name in found:
            if (match := _TEMPORARY.fullmatch(name)) is not None and match[1] == path.name:
                _remove_if_abandoned(path.parent / name)


def _remove_if_abandoned(path: Path) -> None:
    """Removes a temporary file or folder that no process holds; an ``.old`` folder gets back a name that is free."""
    named = path.with_name(_TEMPORARY.fullmatch(path.name)[1])
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            if not lock_file(descriptor):
                return
            if path.suffix == ".old" and not named.exists():
                os.rename(path, named)
            elif path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        finally:
            os.close(descriptor)


def lock_file(descriptor: int, *, wait: bool = False) -> bool | None:
    """Takes the system's lock on an open file, which lasts until the file is closed or the process ends.

    Returns True if this process now has the lock, False if another has it, None if the file system has no locks.
    """
    from filelock import lock_descriptor

    try:
        return lock_descriptor(descriptor, blocking=wait)
    except OSError:
        return None


def write_file(path: str | Path, content: str | bytes | memoryview, **options: bool) -> None:
    """Writes text or bytes by ``write_atomically``, with its options."""
    with write_atomically(path, text=isinstance(content, str), **options) as file:
        file.write(content)


def write_together(contents: Mapping[Path, str | bytes]) -> None:
    """Writes files that belong together: all are complete on the disk, under temporary names, before any is renamed.
    They are renamed in the given order.

    A process that dies between two renames leaves an old file beside a new one. So each pair has an id in both files,
    or a checksum, which its reader compares. Raises SaveError; then no file has changed, unless a rename failed.
    """
    with contextlib.ExitStack() as renamed_at_the_end:
        for path, content in reversed(contents.items()):
            file = renamed_at_the_end.enter_context(write_atomically(path, text=isinstance(content, str), sync=False))
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                raise SaveError(
                    f"{path} could not be written ({error.strerror or error}); its old content is unchanged"
                ) from error


def pair_id(*parts: bytes) -> str:
    """The id that all files of a pair carry: a hash of their content without it."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]


def are_torn(*ids: object) -> bool:
    """Whether the ids of files that belong together differ. A file without an id (None) says nothing."""
    known = [own for own in ids if own is not None]
    return any(own != known[0] for own in known)


def table_text(rows: Iterable[Sequence]) -> str:
    """The text of a CSV file."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def write_json(path: str | Path, content: object) -> None:
    """Writes a JSON file that is indented for people. Raises SaveError where the system refuses."""
    write_file(path, json_bytes(content, indent=2))


def append_json(path: str | Path, content: dict) -> None:
    """Appends one line of JSON to a file. Raises SaveError, and leaves the file as it was, if the system cannot write.

    A last line that a crash cut off is removed.
    """
    line = json_bytes(content)
    try:
        with open(path, "ab+", buffering=0) as file:
            end, is_ended = _end_of_lines(file)
            file.truncate(end)
            try:
                text = line if is_ended else b"\n" + line
                if file.write(text) < len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(end)
                raise
    except OSError as error:
        raise SaveError(f"{path} could not be written ({error.strerror or error})") from error


def _end_of_lines(file: IO[bytes]) -> tuple[int, bool]:
    """(where the last line of JSON ends that is whole, whether a line break ends it)."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 1))
    if size == 0 or file.read(1) == b"\n":
        return size, True
    file.seek(0)
    last = file.readall().rpartition(b"\n")[2]
    with contextlib.suppress(ValueError, RecursionError):
        json.loads(last)
        return size, False
    return size - len(last), True


def read_json_lines(path: str | Path) -> list[dict]:
    """What ``append_json`` wrote, without lines that a crash cut off. No file: nothing."""
    found = []
    for line in Path(path).read_bytes().splitlines() if Path(path).is_file() else ():
        with contextlib.suppress(ValueError, RecursionError):
            found.append(json.loads(line))
    return [one for one in found if isinstance(one, dict)]


def json_bytes(content: object, indent: int | None = None) -> bytes:
    """UTF-8, with other bytes of file names as JSON's own ``\\udc..``."""
    text = json.dumps(content, indent=indent, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "backslashreplace")


def write_table(path: str | Path, rows: Iterable[Sequence]) -> None:
    """Writes a CSV file. Raises SaveError if the system cannot write."""
    with write_atomically(path, text=True) as file:
        csv.writer(file).writerows(rows)


def is_used(path: Path, *, but_for: Collection[str] = ()) -> bool:
    """Whether ``path`` is a file, or a folder that holds more than ``but_for``, temporary files and locks of evl."""
    if not path.is_dir():
        return path.exists()
    return any(not _is_hidden(one.name) and one.name not in but_for for one in path.iterdir())


def _is_hidden(name: str) -> bool:
    return is_temporary(name) or _LOCK.fullmatch(name) is not None


def refuse_used(folder: Path, *, can_resume: bool, but_for: Collection[str] = ()) -> None:
    """Raises RunError if a new run cannot use this folder. ``can_resume``: the folder holds a run that was started.
    ``but_for``: files that may be there."""
    try:
        if not is_used(folder, but_for=but_for):
            return
    except OSError as error:
        raise RunError(f"{folder}: no folder can be made here ({error.strerror or error})") from None
    todo = "go on with `resume=True`, or choose another `out`" if can_resume else "choose another `out`"
    raise RunError(f"{folder} exists already and is not empty; {todo}")


def make_folder(folder: Path) -> None:
    """Makes a folder and its parents; an existing one must be readable. Raises SaveError if the system cannot do it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.scandir(folder).close()
    except OSError as error:
        raise SaveError(
            f"{folder}: no folder can be made here ({error.strerror or error}); choose another `out`"
        ) from None


def nearest_existing(path: Path) -> Path:
    """``path`` itself if it exists, or its nearest parent that does."""
    path = path.absolute()
    return next(one for one in (path, *path.parents) if one.exists())


def remove_file(path: Path) -> None:
    """Removes a file if it exists. Raises SaveError if the system cannot do it."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise SaveError(f"{path} could not be removed ({error.strerror or error})") from error


def is_temporary(name: str) -> bool:
    """Whether this is the name of a temporary file or folder of evl."""
    return _TEMPORARY.fullmatch(name) is not None


def _link(temporary: Path, path: Path) -> None:
    """Gives the file ``temporary`` the name ``path``. Raises ExistsError if that name is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise ExistsError(f"{path} exists already") from None
    except OSError:  # a file system without links; another process could still make the file after this check
        if path.exists():
            raise ExistsError(f"{path} exists already") from None
        os.replace(temporary, path)


def _begin(path: Path, text: bool) -> tuple[Path, IO, int]:
    """(path, file, descriptor): a new temporary file, and a descriptor that holds the lock on it until it is closed."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        file = open(  # noqa: SIM115, the caller closes it
            temporary, "w" if text else "wb", **({"encoding": "utf-8", "newline": ""} if text else {})
        )
        lock = os.dup(file.fileno())
        lock_file(lock, wait=True)
        # before this process had the lock, another may have removed the file as abandoned
        if os.fstat(lock).st_nlink:
            return temporary, file, lock
        file.close()
        os.close(lock)


def strict_json(text: str):
    """``json.loads`` that refuses repeated names and NaN. Raises ValueError or RecursionError for invalid JSON."""
    return json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)


def _once(pairs: list[tuple[str, object]]) -> dict:
    """A JSON object as a dict. Refuses repeated names, because programs differ in which value they take."""
    if len(content := dict(pairs)) != len(pairs):
        raise ValueError("a name appears twice in one object")
    return content


def _no_number(text: str):
    raise ValueError(f"{text} is not a number")


class _Loader(yaml.SafeLoader):
    """YAML without aliases, by which a small file can stand for a huge value, and without deep nesting."""

    depth = 0

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise ValueError("aliases (*name) are not read; write the value itself")
        self.depth += 1
        if self.depth > 100:
            raise ValueError("more than 100 levels are nested")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def parse_yaml(text: str) -> Any:
    """The value of a YAML text. Raises ValueError, with a message of one line, for what is not readable."""
    try:
        return yaml.load(text, _Loader)
    except Exception as error:  # constructors of PyYAML raise nearly anything for a wrong date or number
        raise ValueError(one_line(error)) from None
