"""A clear error for a script without ``if __name__ == "__main__":``.

evl reads videos in worker processes. Python starts each of them by running the main script again, under another name.
Without that line, the worker process would start the training again instead of reading videos.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from evl.errors import RunError

_LINES = 'if __name__ == "__main__":\n        main()'


def end_if_only_starting() -> None:
    """Ends this process if it is a worker process in which Python still runs the main script to start it.

    Called at the beginning of a run, and before worker processes are started. The main process then sees that its
    worker ended, and raises ``not_begun``.
    """
    # Python checks the same attribute before it refuses to start processes; it has no public name
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(_message())


@contextmanager
def program_from_stdin() -> Iterator[None]:
    """Lets a program from standard input (python - <<EOF) start processes within this block.

    Without it, Python would search for a file named <stdin> and run it.
    """
    main, script = sys.modules["__main__"], _script()
    hidden = vars(main).pop("__file__", None) if script is None else None
    try:
        yield
    finally:
        if hidden is not None:
            main.__file__ = hidden


def not_begun(exit_code: int | None = None) -> RunError:
    """The error for worker processes that ended while they were started. A negative ``exit_code`` is the negated number
    of the signal that ended one."""
    if exit_code is None or exit_code >= 0:
        return RunError(_message())
    return RunError(
        f"a process that reads videos was ended by {signal.Signals(-exit_code).name} while it started, before its "
        "first video; perhaps there is too little memory: use a smaller `num_workers`"
    )


def _script() -> str | None:
    """The file that Python runs; None in a notebook, with ``python -c``, or for a program from standard input."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    return None if script is None or script.startswith("<") else script


def _message() -> str:
    script = _script()
    if script is None:  # Python has no script to run again
        return (
            "the processes that read videos ended while they started; the reason is printed above this error. To read "
            "videos in the main process, set data.num_workers=0"
        )
    return (
        f'{script} needs if __name__ == "__main__": around its code. evl reads videos in other processes, and each of '
        "them runs the script from its first line. Put the script's code into a function main(), and write at its "
        f"end:\n\n    {_LINES}\n\n(If the script has these lines, code above them ended those processes; the reason "
        "is printed above this error.)"
    )
