"""Folders that evl writes: who holds one, whether it may be begun or gone on with, and folders that appear whole."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from evl.errors import RunError, SaveError
from evl.runtime.files import lock_file, make_folder, refuse_used, remove_abandoned, remove_strays

LOCK = ".evl.lock"
Resume = bool | Literal["auto"]


@contextmanager
def hold_folder(
    folder: Path, resume: Resume, *, is_begun: Callable[[], bool], made: Collection[str] = ()
) -> Iterator[bool]:
    """Holds an output folder while work is done in it; gives whether to go on with what was begun there.

    The folder is made. At the end it is removed again if it is empty.

    Args:
        resume: False: begin; True: go on; "auto": go on if something was begun, else begin.
        is_begun: whether the folder holds work that can go on.
        made: files that are written before ``is_begun`` is true. They are removed if this process does not get that
            far, and if a killed one did not.

    Raises RunError if another process holds the folder or if it holds something else, SaveError if it cannot be made.
    """
    if resume is True and not is_begun():
        yield True  # the caller says that there is nothing to go on with
        return

    # A lock is made only in a folder that may be used. So where a dead process left its lock, the files are evl's.
    if not (folder / LOCK).exists() and not (resume and is_begun()):
        refuse_used(folder, can_resume=is_begun())
    with made_folder(folder), hold_lock(folder / LOCK, folder) as was_left:
        goes_on = bool(resume) and is_begun()
        if not goes_on:
            refuse_used(folder, can_resume=is_begun(), but_for=made if was_left and not is_begun() else ())
            _remove_begun(folder, is_begun, made)
        remove_abandoned(folder)
        try:
            yield goes_on
        finally:
            _remove_begun(folder, is_begun, made)


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Makes a folder and its parents (``make_folder``); at the end it removes those of them that are empty."""
    new = [folder, *(one for one in folder.parents if not one.exists())]
    make_folder(folder)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for one in new:
                one.rmdir()


def _remove_begun(folder: Path, is_begun: Callable[[], bool], made: Collection[str]) -> None:
    with contextlib.suppress(OSError):
        for name in () if is_begun() else made:
            (folder / name).unlink(missing_ok=True)


@contextmanager
def hold_lock(path: Path, output: Path) -> Iterator[bool]:
    """Holds the lock of ``output``, which is the file ``path``; gives whether a dead process left that file.

    The file is removed at the end. The lock of a process ends with the process. Where the file system has no locks,
    only processes of this machine are seen.

    Raises RunError with the holder (host, process, since when), SaveError if the file cannot be made.
    """
    descriptor, was_left = _take(path, output)
    try:
        yield was_left
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # before it is closed: who takes this lock next sees that the file is no longer there
        os.close(descriptor)


def refuse_held(path: Path, output: Path) -> None:
    """Raises RunError if a process holds the lock ``path`` of ``output``. The lock itself stays as it is."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            if (has_lock := lock_file(descriptor)) is False or (has_lock is None and _lives_here(path)):
                raise RunError(f"{output}: {_sentence(path)}; wait until it ends, or stop it")
        finally:
            os.close(descriptor)


@contextmanager
def build_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Gives a new folder beside ``path``, which takes its place when the block ends, and disappears if the block fails.

    ``replace``: take the place of an older folder. Without it, RunError if ``path`` is used. A folder that cannot have
    one beside it (a mounted one, say) is filled where it is. Raises SaveError if the system cannot write.
    """
    path = Path(os.path.realpath(path))
    if not replace:
        refuse_used(path, can_resume=False)
    if not _can_be_replaced(path):
        yield path
        return
    try:
        remove_strays(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        building, lock = _begin_folder(path)
        try:
            yield building
            old = building.with_suffix(".old")
            if path.exists():
                os.rename(path, old)  # killed before the next line: ``remove_strays`` gives it its name again
            try:
                os.rename(building, path)
            except OSError:
                if old.exists():
                    os.rename(old, path)
                raise
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(building, ignore_errors=True)
            os.close(lock)
    except SaveError:
        raise
    except OSError as error:
        raise SaveError(f"{path} could not be written ({error.strerror or error})") from error


def lock_beside(path: Path) -> Path:
    """The lock's file for an output that appears whole: beside it, or inside where nothing can be written beside it."""
    path = Path(os.path.realpath(path))
    return path.with_name(f".{path.name}{LOCK}") if _can_be_replaced(path) else path / LOCK


def _can_be_replaced(path: Path) -> bool:
    return not path.is_dir() or (not os.path.ismount(path) and os.access(path.parent, os.W_OK | os.X_OK))


def _begin_folder(path: Path) -> tuple[Path, int]:
    """(folder, descriptor): a new temporary folder, and a descriptor that holds the lock on it until it is closed."""
    while True:
        building = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        building.mkdir()
        with contextlib.suppress(FileNotFoundError):  # another process removed it as abandoned, before the lock
            lock = os.open(building, os.O_RDONLY)
            lock_file(lock, wait=True)
            if building.exists():
                return building, lock
            os.close(lock)


def _take(path: Path, output: Path) -> tuple[int, bool]:
    """(descriptor that holds the lock, whether the file was there before)."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, was_left = _open(path)
        except FileNotFoundError:  # its holder removed it just now
            continue
        except OSError as error:
            raise SaveError(f"{output}: cannot be written to ({error.strerror or error})") from None
        has_lock = lock_file(descriptor)
        if has_lock is False or (has_lock is None and was_left and _lives_here(path)):
            os.close(descriptor)
            raise RunError(f"{output}: {_sentence(path)}; wait until it ends, or stop it")
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                since = time.strftime("%Y-%m-%d %H:%M:%S")
                content = {"host": socket.gethostname(), "process": os.getpid(), "since": since}
                with contextlib.suppress(OSError):  # a full disk: the lock has no name, but holds
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, json.dumps(content).encode(), 0)
                return descriptor, was_left
        os.close(descriptor)


def _open(path: Path) -> tuple[int, bool]:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), False
    except FileExistsError:
        return os.open(path, os.O_RDWR), True


def _holder(path: Path) -> tuple[str, int, str] | None:
    """(host, process, since when), or None if the file does not say it."""
    try:
        content = json.loads(path.read_bytes()[:1000])
        host, process, since = content["host"], int(content["process"]), content["since"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    is_text = all(isinstance(text, str) and text.isprintable() for text in (host, since))
    return (host, process, since) if is_text else None


def _sentence(path: Path) -> str:
    if (holder := _holder(path)) is None:
        return "another process of evl is writing here"
    host, process, since = holder
    return f"process {process} on {host} has been writing here since {since}"


def _lives_here(path: Path) -> bool:
    """Whether the holder that the file names is a living process of this machine."""
    if (holder := _holder(path)) is None or holder[0] != socket.gethostname():
        return False
    try:
        os.kill(holder[1], 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return holder[1] != os.getpid()
