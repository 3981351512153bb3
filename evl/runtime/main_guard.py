"""A script without ``if __name__ == "__main__":`` is recognized, and told what to write.

Videos are read by other processes. Python starts each of them by running the main script again, under another name.
Without those lines the script trains there too, before that process can begin.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from evl.errors import RunError

_LINES = 'if __name__ == "__main__":\n        main()'


def end_if_only_starting() -> None:
    """Ends this process, quietly, if Python is running the main script again in it to start it. Called where a run
    begins and where processes are started: the process that started this one then says what to do."""
    # what Python itself asks before it refuses to start processes there; there is no public name for it
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(_sentence())


@contextmanager
def program_from_stdin() -> Iterator[None]:
    """Around the start of processes: a program that came by standard input (python - <<EOF) is not looked for as a
    file, under the name <stdin>."""
    main, script = sys.modules["__main__"], _script()
    hidden = vars(main).pop("__file__", None) if script is None else None
    try:
        yield
    finally:
        if hidden is not None:
            main.__file__ = hidden


def not_begun() -> RunError:
    """The error for processes that ended while they were started."""
    return RunError(_sentence())


def _script() -> str | None:
    """The file that Python runs; None in a notebook, with ``python -c``, or where the program came by stdin."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    return None if script is None or script.startswith("<") else script


def _sentence() -> str:
    script = _script()
    if script is None:  # nothing is run again
        return (
            "the processes that read videos end while they start; the reason is printed above this error. To do "
            "without them, set data.num_workers=0"
        )
    return (
        f'{script} needs if __name__ == "__main__": around what it does. Videos are read by other processes, and each '
        "of them runs the script from its first line. Put what the script does into a function main(), and write at "
        f"its end:\n\n    {_LINES}\n\n(If it has these lines: what it says above them ends those processes; the "
        "reason is printed above this error.)"
    )
