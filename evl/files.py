"""Writing so that nothing is lost: under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evl.errors import SaveError


@contextmanager
def write_atomically(path: str | Path, *, text: bool = False, sync: bool = True) -> Iterator:
    """A file object; ``path`` appears, whole, when the block ends, and is untouched if it fails.

    ``sync=False`` does not wait for the disk: whole still when the program is killed, but not when the power fails.

    Raises SaveError where the system refuses (disk full, no permission).
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "w" if text else "wb", **({"encoding": "utf-8", "newline": ""} if text else {})) as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except SaveError:
        raise
    except OSError as error:
        raise SaveError(
            f"{path} could not be written ({error.strerror or error}); what was there is unchanged"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
