"""The folder of one demo: held while it runs, whole afterwards, and gone if it was not finished."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evl.errors import RunError, SaveError
from evl.runtime.files import expand_home, refuse_used
from evl.runtime.out_folder import LOCK, hold_lock, made_folder

log = logging.getLogger("evl")
_TIME = "%Y%m%d-%H%M%S"
_NAMED = re.compile(r"\d{8}-\d{6}")


@contextmanager
def demo_folder(out: str | Path) -> Iterator[Path]:
    """Makes the folder ``out/<date-time>`` and holds it. If the block fails, the folder is removed; so are those that
    killed demos left in ``out``.

    Raises SaveError if it cannot be made, RunError if another demo began in the same second.
    """
    out = expand_home(Path(out)).absolute()
    _remove_unfinished(out)
    folder = out / time.strftime(_TIME)
    refuse_used(folder, can_resume=False)
    with made_folder(folder), hold_lock(folder / LOCK, folder):
        try:
            yield folder
        except BaseException:
            _remove_content(folder)
            raise


def _remove_unfinished(out: Path) -> None:
    """Removes folders of demos that have the lock of a dead process, or nothing at all."""
    for folder in out.iterdir() if out.is_dir() else ():
        if _NAMED.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
            if (folder / LOCK).exists():
                with contextlib.suppress(RunError, SaveError, OSError), hold_lock(folder / LOCK, folder):
                    log.info("%s is removed: this demo was killed before it ended", folder)
                    _remove_content(folder)
            with contextlib.suppress(OSError):
                folder.rmdir()


def _remove_content(folder: Path) -> None:
    """Removes everything but the lock, which goes last, so that a death here is seen later."""
    for path in folder.iterdir():
        if path.name != LOCK:
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
