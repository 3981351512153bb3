"""Paths with ``~``, folders that are in use. Writing so that nothing is lost: under a temporary name, then renamed.
Reading JSON that is not trusted."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

from evl.errors import ExistsError, RunError, SaveError

_AnyPath = TypeVar("_AnyPath", str, bytes, Path)
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


def expand_home(path: _AnyPath) -> _AnyPath:
    """``path``, in its own type, with a leading ``~`` or ``~user`` replaced by that home folder, as a shell does.

    For every path that comes from a person: a shell leaves ``--out=~/x`` alone, and what stands in a list, a setting or
    Python never sees one. A file that is itself named ``~`` is given by its whole path, or as ``./~`` in a list.
    """
    expanded = os.path.expanduser(path)
    return Path(expanded) if isinstance(path, Path) else expanded


@contextmanager
def write_atomically(path: str | Path, *, text: bool = False, sync: bool = True, only_new: bool = False) -> Iterator:
    """A file object; ``path`` appears, whole, when the block ends, and is untouched if it fails. ``only_new``: nor does
    it take the place of what is there by then, from whichever process: ExistsError.

    ``sync=False`` does not wait for the disk: whole still when the program is killed, but not when the power fails.
    A killed program leaves a hidden file beside it, which ``remove_abandoned`` finds.

    Raises SaveError where the system refuses (disk full, no permission).
    """
    path = expand_home(Path(path))
    temporary, lock = None, None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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
            f"{path} could not be written ({error.strerror or error}); what was there is unchanged"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            if temporary is not None:
                temporary.unlink()
        if lock is not None:
            os.close(lock)


def remove_abandoned(folder: str | Path) -> None:
    """Removes what ``write_atomically`` left in a folder where it was killed; nothing that is still being written, by
    whichever process (as far as the file system's locks reach), and nothing if there is no such folder."""
    try:
        names = [entry.name for entry in os.scandir(folder) if _TEMPORARY.fullmatch(entry.name)]
    except OSError:
        return
    for name in names:
        path = Path(folder, name)
        with contextlib.suppress(OSError), open(path, "rb") as file:
            if lock_file(file.fileno()):
                path.unlink()


def lock_file(descriptor: int, *, wait: bool = False) -> bool | None:
    """Takes the system's lock on an open file, until it is closed or its owner is dead. True: it is ours; False:
    another has it; None: there are no locks on this file system."""
    from filelock import lock_descriptor

    try:
        return lock_descriptor(descriptor, blocking=wait)
    except OSError:
        return None


def write_table(path: str | Path, rows: Iterable[Sequence]) -> None:
    """Writes a CSV file. Raises SaveError where the system refuses."""
    with write_atomically(path, text=True) as file:
        csv.writer(file).writerows(rows)


def is_used(path: Path) -> bool:
    """Whether there is a file, or a folder with something in it (what ``write_atomically`` left is nothing)."""
    return path.exists() and (not path.is_dir() or any(not is_temporary(one.name) for one in path.iterdir()))


def refuse_used(folder: Path, *, can_resume: bool) -> None:
    """RunError where a run is to begin, and something else is there. ``can_resume``: it is a run that was begun."""
    try:
        if not is_used(folder):
            return
    except OSError as error:
        raise RunError(f"{folder}: no folder can be made here ({error.strerror or error})") from None
    todo = "go on with --resume, or choose another --out" if can_resume else "choose another --out"
    raise RunError(f"{folder} is there already and not empty; {todo}")


def make_folder(folder: Path) -> None:
    """Makes a folder, and those above it, or sees that it can be read. Raises SaveError where the system refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.scandir(folder).close()
    except OSError as error:
        raise SaveError(f"{folder}: no folder can be made here ({error.strerror or error})") from None


def nearest_existing(path: Path) -> Path:
    """``path``, or what is above it and there."""
    path = path.absolute()
    return next(one for one in (path, *path.parents) if one.exists())


def remove_file(path: Path) -> None:
    """Removes a file, if there is one. Raises SaveError where the system refuses."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise SaveError(f"{path} could not be removed ({error.strerror or error})") from error


def is_temporary(name: str) -> bool:
    """Whether ``write_atomically`` writes under such a name."""
    return _TEMPORARY.fullmatch(name) is not None


def _link(temporary: Path, path: Path) -> None:
    """Gives a file its name, which must be free."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise ExistsError(f"{path} is there already") from None
    except OSError:  # a file system without links: another process may come in between
        if path.exists():
            raise ExistsError(f"{path} is there already") from None
        os.replace(temporary, path)


def _begin(path: Path, text: bool) -> tuple[Path, IO, int]:
    """(name, file, lock): a new file under a temporary name. The lock lasts until it is closed, or its owner dead."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        file = open(  # noqa: SIM115, the caller closes it
            temporary, "w" if text else "wb", **({"encoding": "utf-8", "newline": ""} if text else {})
        )
        lock = os.dup(file.fileno())
        lock_file(lock, wait=True)
        # another process may have taken it for abandoned, before the lock was ours
        if os.fstat(lock).st_nlink:
            return temporary, file, lock
        file.close()
        os.close(lock)


def strict_json(text: str):
    """``json.loads`` that takes neither a name twice nor NaN. ValueError or RecursionError for what is no JSON."""
    return json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)


def _once(pairs: list[tuple[str, object]]) -> dict:
    """A JSON object whose names stand there once: with two, readers would differ in which they take."""
    if len(content := dict(pairs)) != len(pairs):
        raise ValueError("a name stands there twice")
    return content


def _no_number(text: str):
    raise ValueError(f"{text} is no number")
