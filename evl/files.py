"""Paths with ``~``. Writing so that nothing is lost: under a temporary name, then renamed. Reading JSON that is not
trusted."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

from evl.errors import ExistsError, SaveError

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
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError where another has it, or there are no locks
            path.unlink()


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
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
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
